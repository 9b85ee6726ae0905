"""The board as a picture for the README: a column per model under its samples, a line per metric."""

from collections.abc import Sequence
from pathlib import Path

from fact_leaderboard.build import Row, Section
from fact_leaderboard.columns import Column
from fact_leaderboard.render import header, row_marks, section_title
from fact_metrics.base.errors import UsageError
from fact_metrics.base.plain_text import DEGENERATE, for_terminal

INK, MUTED, LINE, BEST = "#1b1f24", "#6a737d", "#d0d7de", "#0a5c36"
NAMES, WIDTH, LINE_HEIGHT, SAMPLES = (
    2.1,
    1.9,
    0.27,
    1.75,
)  # inches: metric names, a model, a line, a sample grid
MODELS = 6  # the best ones; every control row comes beside them


def draw_board(sections: Sequence[Section], out: Path, *, grids: Sequence[str] = ()) -> Path:
    """Write a PNG of every section. `grids` are LABEL=FILE sample grids, shown above the model of that label.

    Raises UsageError for a grid without a label or file.
    """
    samples = dict(_split_grid(grid) for grid in grids)
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = [[*section.ranked[:MODELS], *section.controls] for section in sections]
    heights = [_height(section, rows, samples) for section, rows in zip(sections, columns, strict=True)]
    width = NAMES + WIDTH * max([len(rows) for rows in columns], default=1)
    figure = plt.figure(figsize=(width, sum(heights) or 1), dpi=150, facecolor="white")
    top = sum(heights)
    for section, rows, height in zip(sections, columns, heights, strict=True):
        top -= height
        axis = figure.add_axes(
            (0, top / sum(heights), 1, height / sum(heights)), xlim=(0, width), ylim=(height, 0)
        )
        axis.axis("off")
        _draw_section(axis, section, rows, {label: plt.imread(file) for label, file in samples.items()})
    figure.savefig(out, metadata={"Software": None})
    plt.close(figure)
    return out


def _height(section: Section, rows: Sequence[Row], samples: dict) -> float:
    shown = any(row.label in samples for row in rows)
    return 1.2 + LINE_HEIGHT * len(section.columns) + (SAMPLES if shown else 0)


def _draw_section(axis, section: Section, rows: Sequence[Row], samples: dict) -> None:
    y = 0.25
    axis.text(
        0.15, y, section_title(section), fontsize=10, color=INK, weight="bold", va="center", parse_math=False
    )
    if any(row.label in samples for row in rows):
        for i, row in enumerate(rows):
            if row.label in samples:
                left = NAMES + WIDTH * i + (WIDTH - SAMPLES) / 2
                extent = (left, left + SAMPLES - 0.1, y + 0.2 + SAMPLES - 0.1, y + 0.2)
                axis.imshow(samples[row.label], extent=extent, cmap="gray", aspect="auto")
        y += SAMPLES + 0.1
        axis.set_xlim(0, NAMES + WIDTH * len(rows))
        axis.set_ylim(_height(section, rows, samples), 0)
    for i, row in enumerate(rows):
        centre = NAMES + WIDTH * (i + 0.5)
        color = MUTED if row.source in ("reals", "noise") else INK
        axis.text(
            *(centre, y + 0.28, for_terminal(row.label)),
            fontsize=8.5,
            color=color,
            ha="center",
            va="center",
            weight="bold",
            parse_math=False,
        )
        axis.text(centre, y + 0.46, _seeds(row), fontsize=6.5, color=MUTED, ha="center", va="center")
    y += 0.62
    axis.plot([0.1, NAMES + WIDTH * len(rows) - 0.1], [y, y], color=INK, linewidth=0.8)
    for column in section.columns:
        y += LINE_HEIGHT
        axis.text(0.15, y - 0.11, header(column, section), fontsize=8, color=INK, va="center")
        for i, row in enumerate(rows):
            _draw_cell(axis, NAMES + WIDTH * (i + 0.5), y - 0.11, row, column, section)
        axis.plot([0.1, NAMES + WIDTH * len(rows) - 0.1], [y + 0.02, y + 0.02], color=LINE, linewidth=0.5)


def _draw_cell(axis, x: float, y: float, row: Row, column: Column, section: Section) -> None:
    cell = row.cells.get(column.metric)
    if cell is None:
        return
    muted = row in section.controls or cell.degenerate is not None
    best = not muted and cell.mean.mean == section.best(column.metric)
    color = MUTED if muted else BEST if best else INK
    weight = "bold" if best else "normal"
    text = format(cell.mean.mean, column.format) + (f" {DEGENERATE}" if cell.degenerate else "")
    axis.text(x, y, text, fontsize=8, color=color, weight=weight, ha="right", va="center")
    if cell.mean.half_width is not None:
        tied = " ≈" if not muted and cell.mean in section.tied(column.metric) else ""
        error = f" ± {format(cell.mean.half_width, column.format)}{tied}"
        axis.text(x, y, error, fontsize=6.5, color=MUTED, ha="left", va="center")


def _seeds(row: Row) -> str:
    n = len(row.train_seeds)
    return ", ".join([*([f"{n} training seed{'s' * (n > 1)}"] if n else []), *row_marks(row)])


def _split_grid(text: str) -> tuple[str, str]:
    label, equals, file = text.partition("=")
    if not equals or not Path(file).is_file():
        raise UsageError(f"--grid {text!r}: give LABEL=FILE with an existing picture")
    return label, file
