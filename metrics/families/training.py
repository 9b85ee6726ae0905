"""How training went: its speed, spikes of the reconstruction, and the way to legible digits.

The numbers come from the statistics of the run and from the records of its snapshots, up to the scored one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from fact_metrics.base.errors import UserError
from fact_metrics.engines.conventions import LEGIBLE_RUN
from fact_metrics.family import Choice, Family, Source, spell_count
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.inputs import DeclaredInputs, TrainingHistory

DEFINED_HERE = Source("this project", "none: defined here")


def compute_seconds(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean seconds per `count` images; pauses before a resume do not count."""
    last = inputs.training.ticks[-1]
    return MetricValue(last.seconds / last.kimg * spec.count / 1000, n_generated=None)


def compute_spikes(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Spikes per `count` encoder turns, with the error of a Poisson count; None without such a turn."""
    ticks = inputs.training.ticks
    turns, spikes = sum(tick.encoder_turns for tick in ticks), sum(tick.spikes for tick in ticks)
    if not turns:
        return MetricValue(None, extras={"encoder_turns": 0})
    per = spec.count / turns
    return MetricValue(spikes * per, stderr=spikes**0.5 * per, extras={"encoder_turns": turns})


def compute_legible(
    spec: MetricSpec, inputs: DeclaredInputs, *, of: Literal["kimg", "seconds"]
) -> MetricValue:
    """kimg or seconds of training to the first legible snapshot; None if there is none yet."""
    history, metric = inputs.training, f"legible{spell_count(spec.count)}"
    kimg = find_legible_kimg(history, metric)
    value = kimg if kimg is None or of == "kimg" else seconds_at(history, kimg)
    return MetricValue(value, extras={"snapshots": len(history.snapshots)})


def find_legible_kimg(history: TrainingHistory, metric: str) -> float | None:
    """kimg of the first snapshot with 80 % legible digits. UserError where a snapshot is not scored."""
    scores = history.scores.get(metric, {})
    if missing := [kimg for kimg in history.snapshots if kimg not in scores]:
        raise UserError(
            f"{len(missing)} of {len(history.snapshots)} snapshots have no {metric}; "
            f"`fact-eval run RUN --snapshot all --metrics {metric}` scores them"
        )
    return next((kimg for kimg in history.snapshots if scores[kimg] >= LEGIBLE_RUN), None)


def seconds_at(history: TrainingHistory, kimg: float) -> float:
    """Seconds of training at the first tick with so many images."""
    return next((tick.seconds for tick in history.ticks if tick.kimg >= kimg), history.ticks[-1].seconds)


def legible_settings(choice: Choice) -> dict:
    """Of the way to legible digits."""
    return {"snapshots": "all up to the scored one", "legible": f">= {LEGIBLE_RUN} of {choice.count} images"}


FAMILIES = (
    Family(
        name="seconds",
        summary="Seconds of training per {count} images, on the machine that trained.",
        higher_is_better=False,
        source=DEFINED_HERE,
        compute=compute_seconds,
        unit="s",
        scored=None,
        needs_training=True,
        settings=lambda choice: {"time": "ticks, without pauses"},
        scale="ratio",
        listed=("seconds1k",),
    ),
    Family(
        name="spikes",
        summary="Reconstruction losses above twice their running mean, per {count} encoder turns.",
        higher_is_better=False,
        source=DEFINED_HERE,
        compute=compute_spikes,
        scored=None,
        needs_encoder=True,
        needs_training=True,
        settings=lambda choice: {"spike": "as training counts it: Rec/spikes of stats.jsonl"},
        listed=("spikes1k",),
    ),
    *(
        Family(
            name=f"legible{of}",
            summary=f"{what} until 80 % of {{count}} generated digits are legible, by the run's snapshots.",
            higher_is_better=False,
            source=DEFINED_HERE,
            compute=partial(compute_legible, of=of),
            unit=unit,
            scored=None,
            fixed_detector="digits_probs",
            needs_training=True,
            settings=legible_settings,
        )
        for of, what, unit in (("kimg", "Thousand images", "kimg"), ("seconds", "Seconds of training", "s"))
    ),
)
