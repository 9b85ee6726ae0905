"""What a search has found: a table of its trials and a plot of the metric against each setting."""

from collections.abc import Sequence
from pathlib import Path

from fact_train.sweeps.search import COMPLETE, Trial
from fact_train.sweeps.space import Dimension

PLOT = "tune.png"


def trials_table(trials: Sequence[Trial], space: Sequence[Dimension], metric: str) -> str:
    """One line per trial, in the order given."""
    from tabulate import tabulate

    rows = [
        [
            trial.number,
            *(str(d.value(trial.chosen[d.name])) for d in space),
            "" if trial.value is None else f"{trial.value:.4g}",
            max(trial.steps, default=""),
            trial.state,
        ]
        for trial in trials
    ]
    headers = ["trial", *(d.name for d in space), metric, "kimg", "state"]
    return tabulate(rows, headers=headers, disable_numparse=True)


def plot_trials(path: Path, trials: Sequence[Trial], space: Sequence[Dimension], metric: str) -> None:
    """The metric of each complete trial against each setting, and the last value of the others in grey."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(space), figsize=(4 * len(space), 3.2), squeeze=False, sharey=True, layout="constrained"
    )
    groups = {"complete": ("tab:blue", []), "ended early": ("0.7", [])}
    for trial in trials:
        value = trial.value if trial.state == COMPLETE else trial.steps.get(max(trial.steps, default=0))
        if value is not None:
            groups["complete" if trial.state == COMPLETE else "ended early"][1].append((trial, value))
    for plot, dimension in zip(axes[0], space, strict=True):
        for name, (color, points) in groups.items():
            if points:
                settings = [dimension.value(trial.chosen[dimension.name]) for trial, _ in points]
                settings = [str(x) for x in settings] if dimension.scale is None else settings
                plot.scatter(settings, [value for _, value in points], color=color, s=18, label=name)
        if dimension.scale == "log":
            plot.set_xscale("log")
        plot.set_xlabel(dimension.name)
    axes[0][0].set_ylabel(metric)
    if any(points for _, points in groups.values()):
        axes[0][0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
