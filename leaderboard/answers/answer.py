"""The answer of a study: its effects, its status, and one sentence with the numbers."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fact_leaderboard.answers.effects import (
    BASE_DIVERGES,
    BETTER,
    DECIDED,
    DIVERGES,
    MOST_SEEDS,
    NOT_RUN,
    SAME,
    UNDECIDED,
    WORSE,
    Effect,
    Pair,
    other_effects,
    primary_effects,
)
from fact_leaderboard.answers.samples import Evidence, Sample
from fact_leaderboard.answers.spread import Spread
from fact_metrics.registry import get_spec
from fact_train.sweeps.study import Study, StudyRun

ANSWERED, IN_PART, BLOCKED = "answered", "answered in part", "blocked"
STATUSES = (ANSWERED, IN_PART, UNDECIDED, NOT_RUN, BLOCKED)
NAMED_AT_MOST = 6  # a sentence on more settings than this counts them


@dataclass(frozen=True)
class Answer:
    """What the records say of a study; `effects` holds metric -> one effect a setting, the primary first.

    `spreads` holds metric -> how its seeds were compared.
    """

    study: Study
    samples: dict[str, Sample]
    effects: dict[str, list[Effect]]
    spreads: dict[str, Spread] = field(default_factory=dict)

    @property
    def primary(self) -> list[Effect]:
        return self.effects.get(self.study.primary, [])

    @property
    def status(self) -> str:
        """answered: every setting has a verdict; answered in part: some have; not run: a setting has no run;
        blocked; else undecided.
        """
        verdicts = [effect.verdict for effect in self.primary]
        if self.study.blocked:
            return BLOCKED
        if NOT_RUN in verdicts:
            return NOT_RUN
        if self.study.list == "null":
            return UNDECIDED if self.missing else ANSWERED
        decided = sum(verdict in DECIDED for verdict in verdicts)
        return ANSWERED if decided == len(verdicts) else IN_PART if decided else UNDECIDED

    @property
    def missing(self) -> tuple[StudyRun, ...]:
        """Runs without a value of the primary metric."""
        return tuple(run for sample in self.samples.values() for run in sample.missing)

    @property
    def runs(self) -> int:
        return sum(len(sample.runs) for sample in self.samples.values())

    @property
    def has_results(self) -> bool:
        """Whether a setting and its reference have a common metric: there is an effect to show."""
        return any(effect.value is not None for effects in self.effects.values() for effect in effects)

    @property
    def sentence(self) -> str:
        """The answer in one sentence with its numbers."""
        if self.study.blocked:
            return self.study.blocked
        if not self.has_results:
            return f"Not run: {len(self.missing)} of {self.runs} runs are missing."
        if self.study.list == "null":
            return null_sentence(self.effects)
        return _sentence(self.study, self.primary)

    def failures(self) -> list[str]:
        """Diverged and collapsed runs, one line for each setting that has some."""
        lines = []
        for name, sample in self.samples.items():
            parts = [f"{len(seeds)} {what}" for seeds, what in _failed(sample) if seeds]
            if parts:
                lines.append(f"{name}: of {len(sample.runs)} runs, {' and '.join(parts)}")
        return lines


def answer_study(study: Study, evidence: Evidence) -> Answer:
    """The answer that the records give to a study."""
    samples = evidence.samples(study)
    if study.blocked:
        return Answer(study, samples, {})
    effects, spreads = {}, {}
    for metric in study.metrics:
        pairs = [_pair(setting.name, setting.against, metric, samples) for setting in study.settings]
        spreads[metric] = evidence.spread(study, metric, samples)
        same = dict(metric=metric, higher_is_better=get_spec(metric).higher_is_better, spread=spreads[metric])
        if metric == study.primary:
            effects[metric] = primary_effects(pairs, relevant=study.relevant_difference, **same)
        else:
            effects[metric] = other_effects(pairs, **same)
    return Answer(study, samples, effects, spreads)


def seconds_spent(answers: Iterable[Answer]) -> tuple[float, int, int]:
    """Seconds of training of all runs, each once; how many runs have a time, and how many were trained."""
    seconds: dict[tuple, float] = {}
    trained = set()
    for answer in answers:
        for sample in answer.samples.values():
            missing = {run.key for run in sample.missing}
            for run in sample.runs:
                if run.key not in missing:
                    trained.add(run.key)
                if run.seed in sample.seconds:
                    seconds[run.key] = sample.seconds[run.seed]
    return math.fsum(seconds.values()), len(seconds), len(trained)


def digits_of(relevant: float) -> int:
    """Decimals that show a tenth of the relevant difference: 25 -> 1, 0.05 -> 4."""
    return max(0, 2 - math.floor(math.log10(relevant)))


def effect_text(effect: Effect, digits: int) -> str:
    """A difference with its interval: -22.1 [-31.2, -12.0]."""
    if effect.low is None:
        return f"{effect.value:+.{digits}f}"
    return f"{effect.value:+.{digits}f} [{effect.low:+.{digits}f}, {effect.high:+.{digits}f}]"


def more_text(effect: Effect) -> str:
    """How many seeds would decide an undecided effect."""
    if effect.low is None:
        return "a second seed gives an interval"
    if effect.more_seeds is None:
        return f"more than {MOST_SEEDS} further seeds would decide"
    return f"about {effect.more_seeds} more seed{'s' * (effect.more_seeds > 1)} of each would decide"


def null_sentence(effects: dict[str, list[Effect]]) -> str:
    """How often equal settings seem to differ, over all metrics and settings."""
    compared = [e for of_metric in effects.values() for e in of_metric if e.value is not None]
    counts = Counter(effect.verdict for effect in compared)
    claims = [f'{counts[verdict]} of {len(compared)} verdicts are "{verdict}"' for verdict in (BETTER, WORSE)]
    expected = 0.025 * len(compared)
    return f"Between equal settings {' and '.join(claims)}; chance alone gives about {expected:.1f} of each."


def _sentence(study: Study, effects: Sequence[Effect]) -> str:
    digits = digits_of(study.relevant_difference)
    direction = "higher" if effects[0].higher_is_better else "lower"
    bases = {(e.reference, e.base, e.base_seeds) for e in effects if e.base is not None}
    known = ""
    if len(bases) == 1:
        ((_, base, seeds),) = bases
        known = f", base {base:.{digits}f} over {seeds} seeds"
    start = f"On {study.primary} ({direction} is better{known}), "
    if len(effects) > NAMED_AT_MOST:
        return start + _counted(effects, digits) + "."
    groups = {
        verdict: [e for e in effects if e.verdict == verdict] for verdict in (*DECIDED, UNDECIDED, NOT_RUN)
    }
    parts = []
    for verdict in (BETTER, WORSE):
        if groups[verdict]:
            named = [f"{e.setting} ({effect_text(e, digits)})" for e in groups[verdict]]
            parts.append(f"{verdict}: {', '.join(named)}")
    if groups[SAME]:
        named = [f"{e.setting} ({effect_text(e, digits)})" for e in groups[SAME]]
        parts.append(f"no difference of {study.relevant_difference:g} or more: {', '.join(named)}")
    if groups[UNDECIDED]:
        named = [f"{e.setting} ({effect_text(e, digits)}; {more_text(e)})" for e in groups[UNDECIDED]]
        parts.append(f"undecided: {', '.join(named)}")
    for verdict in (DIVERGES, BASE_DIVERGES, NOT_RUN):
        if groups[verdict]:
            parts.append(f"{verdict}: {', '.join(e.setting for e in groups[verdict])}")
    return start + "; ".join(parts) + "."


def _counted(effects: Sequence[Effect], digits: int) -> str:
    counts = Counter(effect.verdict for effect in effects)
    order = (BETTER, WORSE, SAME, DIVERGES, BASE_DIVERGES, UNDECIDED, NOT_RUN)
    text = f"of {len(effects)} comparisons, " + ", ".join(f"{counts[v]} {v}" for v in order if counts[v])
    sign = 1 if effects[0].higher_is_better else -1
    for verdict, name, pick in ((BETTER, "largest gain", max), (WORSE, "largest loss", min)):
        named = [e for e in effects if e.verdict == verdict]
        if named:
            extreme = pick(named, key=lambda e: sign * e.value)
            text += f"; {name}: {extreme.setting} ({effect_text(extreme, digits)})"
    return text


def _pair(name: str, reference: str, metric: str, samples: dict[str, Sample]) -> Pair:
    setting, base = samples[name], samples[reference]
    return Pair(
        setting=name,
        reference=reference,
        values=setting.of(metric),
        base=base.of(metric),
        diverges=2 * len(setting.diverged) > len(setting.runs),
        base_diverges=2 * len(base.diverged) > len(base.runs),
    )


def _failed(sample: Sample) -> list[tuple[tuple[int, ...], str]]:
    return [(sample.diverged, "diverged"), (sample.collapsed, "collapsed")]
