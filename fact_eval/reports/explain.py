"""Reports of a StylEx run beyond its records: a figure of the W-gap and the health of its training.

`fact-eval explain RUN` computes every encoder metric, draws the figure and prints the health.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from fact_eval.jobs.history import read_history, read_ticks
from fact_eval.jobs.runs import Run
from fact_leaderboard.records import Record
from fact_metrics.base.atomic import write_atomically
from fact_metrics.base.errors import UserError
from fact_metrics.base.plain_text import for_terminal
from fact_metrics.base.schema import fits
from fact_metrics.engines.conventions import LEGIBLE_RUN
from fact_metrics.families.training import seconds_at


class GapShape(msgspec.Struct):
    """The extras of a W-gap: mean and deviation per dimension."""

    mean: list[float]
    std: list[float]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError("mean and std differ in length")


@dataclass(frozen=True)
class Health:
    """How training went; None if the run has no data on it.

    `spikes_per_1k_steps`: encoder steps with a reconstruction loss above twice its running mean, per 1,000.
    `kimg_to_legible` and `seconds_to_legible`: the first scored snapshot with 80 % legible digits.
    """

    run_id: str
    kimg: float
    sec_per_kimg: float
    spikes_per_1k_steps: float | None
    kimg_to_legible: float | None
    seconds_to_legible: float | None
    snapshots_scored: int


def measure_health(run: Run) -> Health:
    """Health of one run, from its statistics and the `legible10k` records that there are."""
    ticks = read_ticks(run.folder)
    kimg, seconds = ticks[-1].kimg, ticks[-1].seconds
    history = read_history(run.folder, kimg=kimg)
    legible = sorted(history.scores.get("legible10k", {}).items())
    first = next((at for at, value in legible if value >= LEGIBLE_RUN), None)
    turns = sum(tick.encoder_turns for tick in ticks)
    return Health(
        run_id=run.run_id,
        kimg=kimg,
        sec_per_kimg=seconds / kimg,
        spikes_per_1k_steps=1000 * sum(tick.spikes for tick in ticks) / turns if turns else None,
        kimg_to_legible=first,
        seconds_to_legible=None if first is None else seconds_at(history, first),
        snapshots_scored=len(legible),
    )


def health_lines(health: Health) -> list[str]:
    """The health as lines of text."""

    def shown(value: float | None, form: str) -> str:
        return "not known" if value is None else form.format(value)

    reached = shown(health.kimg_to_legible, "{:g} kimg") + ", " + shown(health.seconds_to_legible, "{:.0f} s")
    if health.kimg_to_legible is None:
        reached = (
            f"not in {health.snapshots_scored} scored snapshots"
            if health.snapshots_scored
            else "not known: score them with `fact-eval run RUN --snapshot all --metrics legible10k`"
        )
    return [
        f"{for_terminal(health.run_id)}: {health.kimg:g} kimg, {health.sec_per_kimg:.2f} s per kimg",
        f"  reconstruction spikes per 1,000 encoder turns: {shown(health.spikes_per_1k_steps, '{:.1f}')}",
        f"  {LEGIBLE_RUN:.0%} legible: {reached}",
    ]


def draw_w_gap(record: Record, path: Path) -> Path:
    """Draw w of encoder and mapping network per dimension, from a `wgap10k_frechet` record.

    UserError if the record does not hold them.

    Every dimension is standardized by the mapping network's mean and deviation: its band is 0 +- 1.
    """
    try:
        fits(record.extras, GapShape)
    except ValueError as error:
        raise UserError(
            f"record of {record.run_id}, {record.metric}: extras hold no gap ({error})"
        ) from error
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    mean, std = (np.array(record.extras[name]) for name in ("mean", "std"))
    order = np.argsort(mean)
    mean, std, x = mean[order], std[order], np.arange(len(mean))
    figure, axes = plt.subplots(figsize=(9, 3.6))
    axes.axhspan(-1, 1, color="0.85", label="mapping(z): mean ± 1 std")
    axes.fill_between(x, mean - std, mean + std, alpha=0.4, step="mid", label="E(x): mean ± 1 std")
    axes.step(x, mean, where="mid", linewidth=1)
    axes.set_xlabel("dimension of w, sorted by the encoder's mean")
    axes.set_ylabel("mapping's std")
    axes.set_title(
        f"{record.run_id} at {record.kimg:g} kimg: W-gap {record.value:.3g} (Fréchet / D)", parse_math=False
    )
    axes.legend(loc="upper left")
    figure.tight_layout()
    write_atomically(path, lambda partial: figure.savefig(partial, format="png", dpi=110))
    plt.close(figure)
    return path
