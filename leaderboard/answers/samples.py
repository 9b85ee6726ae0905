"""What records say of each setting of a study: the values of its training seeds, and the runs that failed.

A run is found by the hash of its configuration, its thousand images and its training seed, whatever folder
it was trained in. Studies that share a configuration share its records: every published seed of it counts,
also those that another study asked for.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from fact_leaderboard.answers.spread import Spread
from fact_leaderboard.gate import git_problem
from fact_leaderboard.records import DIVERGED, Record, latest_records
from fact_metrics.engines.conventions import COLLAPSED
from fact_metrics.registry import get_spec
from fact_train.sweeps.study import Study, StudyRun

STYLE_DIVERSITY = "style_diversity"  # the family whose small values are a collapse


@dataclass(frozen=True)
class Sample:
    """The runs of one setting.

    `values` holds metric -> training seed -> value, `seconds` the time of training by seed, where records
    have it. `missing` are runs without a value of the primary metric.
    """

    runs: tuple[StudyRun, ...]
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    diverged: tuple[int, ...] = ()
    collapsed: tuple[int, ...] = ()
    missing: tuple[StudyRun, ...] = ()
    seconds: dict[int, float] = field(default_factory=dict)

    def of(self, metric: str) -> list[float]:
        """The values of a metric in the order of seeds."""
        return [value for _, value in sorted(self.values.get(metric, {}).items())]


class Evidence:
    """Records that count, by configuration and training seed.

    A published record counts if it was trained and scored from committed code. A `local` one always does.
    """

    def __init__(self, published: Iterable[Record], *, local: Iterable[Record] = ()):
        counting = [record for record in published if not git_problem(record)] + list(local)
        self._by_config: dict[str, dict[int, list[Record]]] = defaultdict(lambda: defaultdict(list))
        for record in latest_records(counting):
            valued = record.status == "ok" and record.value is not None
            if valued and record.config_sha256 is not None and not record.invalid:
                self._by_config[record.config_sha256][record.train_seed].append(record)
        self._of_presets: dict[tuple[str, str], dict[str, list[float]]] = {}

    def samples(self, study: Study) -> dict[str, Sample]:
        """The sample of every reference and setting, by its name.

        It has the runs of the study, and those of other seeds that have records. Only a null study, which
        divides the seeds of one configuration, keeps to its own.
        """
        runs: dict[str, list[StudyRun]] = defaultdict(list)
        for run in study.runs():
            runs[run.setting.name].append(run)
        if study.list != "null":
            for of_setting in runs.values():
                of_setting += self._further(study, of_setting)
        return {name: self._sample(study, tuple(of_setting)) for name, of_setting in runs.items()}

    def spread(self, study: Study, metric: str, samples: dict[str, Sample]) -> Spread:
        """How far the seeds of the study's configurations lie apart, by all configurations of its preset."""
        known = dict(self._of_preset(study.base, metric))
        known |= {sample.runs[0].key[0]: sample.of(metric) for sample in samples.values() if sample.runs}
        return Spread.of(known.values(), get_spec(metric))

    def _further(self, study: Study, runs: Sequence[StudyRun]) -> list[StudyRun]:
        """The same runs with other seeds, as far as they have a value of the primary metric or diverged."""
        config, kimg, _ = runs[0].key

        def counts(record: Record) -> bool:
            ended = record.metric == study.primary and record.kimg == kimg
            return ended or (record.metric == DIVERGED and record.kimg <= kimg)

        trained = {seed for seed, known in self._by_config[config].items() if any(map(counts, known))}
        return [study.run(runs[0].setting, seed) for seed in sorted(trained - {run.seed for run in runs})]

    def _of_preset(self, preset: str, metric: str) -> dict[str, list[float]]:
        """Values of all configurations that were trained from a preset, at the end of training."""
        if (preset, metric) not in self._of_presets:
            found: dict[str, list[float]] = defaultdict(list)
            pairs = ((config, known) for config, seeds in self._by_config.items() for known in seeds.values())
            for config, known in pairs:
                own = [r for r in known if r.metric == metric and r.training.get("preset") == preset]
                last = max((r.kimg for r in own), default=None)
                records = _of_one_snapshot([r for r in own if r.kimg == last], [metric])
                found[config] += _means(records, [metric]).values()
            self._of_presets[preset, metric] = found
        return self._of_presets[preset, metric]

    def _sample(self, study: Study, runs: tuple[StudyRun, ...]) -> Sample:
        values: dict[str, dict[int, float]] = defaultdict(dict)
        diverged, seconds = [], {}
        for run in runs:
            config_sha256, kimg, seed = run.key
            known = self._by_config[config_sha256][seed]
            records = _of_one_snapshot([r for r in known if r.kimg == kimg], study.metrics)
            for metric, value in _means(records, study.metrics).items():
                values[metric][seed] = value
            if not records and any(r.metric == DIVERGED and r.kimg <= kimg for r in known):
                diverged.append(seed)
            times = [r.training["seconds"] for r in records if r.training.get("seconds") is not None]
            seconds |= {seed: times[0]} if times else {}
        return Sample(
            runs=runs,
            values=dict(values),
            diverged=tuple(diverged),
            collapsed=_collapsed(values),
            missing=tuple(r for r in runs if r.seed not in values[study.primary] and r.seed not in diverged),
            seconds=seconds,
        )


def _of_one_snapshot(records: Sequence[Record], metrics: Collection[str]) -> list[Record]:
    """The records of one snapshot: of the one with most metrics, then of the one that was scored last.

    Two machines can train one configuration and seed; a mean over both would count one seed twice.
    """
    by_snapshot: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.metric in metrics and record.protocol_sha256 == _protocol(record.metric):
            by_snapshot[record.snapshot_sha256].append(record)

    def rank(snapshot: str) -> tuple:
        own = by_snapshot[snapshot]
        finished = max(record.provenance.get("finished") or "" for record in own)
        return len({record.metric for record in own}), finished, snapshot

    return by_snapshot[max(by_snapshot, key=rank)] if by_snapshot else []


@functools.cache
def _protocol(metric: str) -> str:
    return get_spec(metric).protocol_sha256


def _means(records: Iterable[Record], metrics: Collection[str]) -> dict[str, float]:
    """Mean over evaluation seeds of each metric."""
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        values[record.metric].append(record.value)
    return {metric: math.fsum(values[metric]) / len(values[metric]) for metric in metrics if metric in values}


def _collapsed(values: dict[str, dict[int, float]]) -> tuple[int, ...]:
    """Seeds whose style diversity is that of a collapsed network."""
    seeds = {
        seed
        for metric, by_seed in values.items()
        if get_spec(metric).family == STYLE_DIVERSITY
        for seed, value in by_seed.items()
        if value < COLLAPSED
    }
    return tuple(sorted(seeds))
