"""Pictures of an answer: a forest plot of its effects, and sample grids of its settings side by side."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from fact_leaderboard.answers.answer import Answer
from fact_leaderboard.answers.effects import BETTER, WORSE, Effect
from fact_leaderboard.picture import INK, LINE, MUTED
from fact_metrics.base.atomic import write_atomically

COLORS = {BETTER: "#0a5c36", WORSE: "#a3231f"}
ROW, PANEL, NAMES, TITLE, AXIS = 0.26, 2.1, 2.6, 0.4, 0.75  # inches
PANELS = 4  # side by side
LAYOUT = 2  # of the plot; part of its digest
CHARACTER = 0.068  # width of one character of a name
SAMPLE = 2.2


def forest_plot(answer: Answer, out: Path) -> None:
    """Write a PNG with a panel a metric, the primary one first, and in it one row a setting.

    A point is setting less reference, a bar its 95 % interval, the grey band what does not matter. The
    digest of what is drawn stands in the file, so that `plotted` can tell whether it is up to date.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metrics = [
        metric for metric, effects in answer.effects.items() if any(e.value is not None for e in effects)
    ]
    names = [setting.name for setting in answer.study.settings]
    columns, lines = min(len(metrics), PANELS), -(-len(metrics) // PANELS)
    left = max(NAMES, CHARACTER * max(map(len, names)) + 0.2)
    line = ROW * len(names) + AXIS
    width, height = left + PANEL * columns + 0.2, TITLE + line * lines
    figure = plt.figure(figsize=(width, height), dpi=120, facecolor="white")
    for i, metric in enumerate(metrics):
        column, below = i % PANELS, i // PANELS
        bottom = height - TITLE - line * (below + 1) + 0.35
        box = (left + PANEL * column, bottom, PANEL - 0.25, ROW * len(names))
        axis = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_yticks(range(len(names)) if column == 0 else [], names if column == 0 else [])
        _draw_panel(axis, answer, metric)
    figure.text(0.1 / width, 1 - 0.2 / height, answer.study.question, fontsize=9, color=INK, va="center")
    _save(figure, out, {"Description": digest(answer)})
    plt.close(figure)


def _draw_panel(axis, answer: Answer, metric: str) -> None:
    if metric == answer.study.primary:
        margin = answer.study.relevant_difference
        axis.axvspan(-margin, margin, color=LINE, alpha=0.6, linewidth=0)
    axis.axvline(0, color=MUTED, linewidth=0.8)
    for row, effect in enumerate(answer.effects[metric]):
        if effect.value is None:
            continue
        color = COLORS.get(effect.verdict, MUTED)
        if effect.low is not None:
            axis.plot([effect.low, effect.high], [row, row], color=color, linewidth=1.4)
        axis.plot([effect.value], [row], "o", color=color, markersize=4)
    arrow = "higher is better" if answer.effects[metric][0].higher_is_better else "lower is better"
    weight = "bold" if metric == answer.study.primary else "normal"
    axis.set_title(f"{metric}\n{arrow}", fontsize=5.5, color=INK, weight=weight)
    axis.tick_params(labelsize=7, colors=INK, length=2)
    axis.locator_params(axis="x", nbins=4)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def draw_samples(grids: Mapping[str, Path], out: Path) -> None:
    """Write a PNG of sample grids side by side, each under its name."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(len(grids), 4)
    rows = -(-len(grids) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(SAMPLE * columns, (SAMPLE + 0.25) * rows), dpi=120, squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, path) in zip(axes.flat, grids.items(), strict=False):
        axis.imshow(plt.imread(path), cmap="gray", vmin=0, vmax=1)
        axis.set_title(name, fontsize=7, color=INK)
    figure.tight_layout()
    _save(figure, out, {})
    plt.close(figure)


def digest(answer: Answer) -> str:
    """Hash of everything that the forest plot shows; equal numbers have equal digests."""
    rows = [_row(effect) for effects in answer.effects.values() for effect in effects]
    text = "\n".join(
        [
            f"{LAYOUT}",
            answer.study.question,
            answer.study.primary,
            f"{answer.study.relevant_difference}",
            *rows,
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()


def plotted(path: Path) -> str | None:
    """The digest of what a forest plot shows; None if the file is missing or is no such plot."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.info.get("Description")
    except (FileNotFoundError, UnidentifiedImageError):
        return None


def _row(effect: Effect) -> str:
    found = [effect.value, effect.low, effect.high]
    numbers = ["-" if value is None else f"{value:.9g}" for value in found]
    return " ".join([effect.setting, effect.metric, effect.verdict, *numbers])


def _save(figure, out: Path, metadata: Mapping[str, str]) -> None:
    """Write a figure without the version of matplotlib, so that equal figures are equal files."""
    metadata = {"Software": None, **metadata}
    write_atomically(out, lambda path: figure.savefig(path, format="png", metadata=metadata))


def find_grids(answer: Answer, folders: Mapping[tuple, Path]) -> dict[str, Path]:
    """The newest sample grid of the first run at hand of every reference and setting.

    `folders` holds run folders by configuration hash, thousand images and seed.
    """
    grids: dict[str, Path] = {}
    for name, sample in answer.samples.items():
        pictures: Sequence[Path] = [
            picture
            for run in sample.runs
            if run.key in folders
            for picture in sorted(folders[run.key].glob("fakes[0-9]*.png"))[-1:]
        ]
        if pictures:
            grids[name] = pictures[0]
    return grids
