"""Records made again: from the snapshot that was scored, or by training its configuration anew.

Nothing stored is used: features are extracted into a folder of their own, which is removed afterwards.
"""

import dataclasses
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fact_eval.checks.claims import Claims, Planned, plan_claims, plan_snapshot
from fact_eval.checks.tolerance import from_snapshot, from_training
from fact_eval.features.store import FeatureCache
from fact_eval.scoring.evaluation import Evaluation
from fact_leaderboard.records import RESULTS, Record
from fact_leaderboard.verifications import Verification, verify
from fact_metrics.base import provenance
from fact_metrics.base.errors import UserError
from fact_metrics.base.progress import Progress
from fact_metrics.registry import get_spec
from fact_train.datasets import dataset_names
from fact_train.settings.config import TrainConfig
from fact_train.settings.presets import PRESETS

BY = "fact-eval recompute"


@dataclass
class Outcome:
    """What was made again, what was left out with the reason, and what failed."""

    verifications: list[tuple[Claims, Verification]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """A line for everything that failed or does not hold."""
        differing = [
            f"{v.run_id}: {v.metric} is claimed as {v.claimed:.8g} and recomputed as {v.found:.8g}; "
            f"tolerance {v.tolerance:.2g}"
            for _, v in self.verifications
            if v.holds is False
        ]
        return [*self.failures, *differing]


def draw(claims: Sequence[Claims], sample: int | None) -> list[Claims]:
    """`sample` snapshots or controls at random, unpredictable to who published them; None: all."""
    if sample is None or sample >= len(claims):
        return list(claims)
    chosen = set(random.SystemRandom().sample(range(len(claims)), sample))
    return [one for index, one in enumerate(claims) if index in chosen]


class Recomputation:
    """Makes records again on one device. `known`: published records, for the spread of training seeds."""

    def __init__(
        self,
        *,
        device: str,
        batch: int,
        threads: int,
        progress: Progress,
        data: str | None = None,
        known: Sequence[Record] = (),
    ):
        self.outcome = Outcome()
        self._data, self._known, self._threads, self._device = data, known, threads, device
        self._folder = tempfile.TemporaryDirectory(prefix="fact-recompute-")
        cache = FeatureCache(Path(self._folder.name), report=progress.note)
        self._evaluation = Evaluation(device=device, batch=batch, cache=cache, progress=progress, again=True)
        self._origin = provenance.collect(device=device, threads=threads)
        self._count = 0

    def __enter__(self) -> "Recomputation":
        return self

    def __exit__(self, *exception: object) -> None:
        self._folder.cleanup()

    def from_snapshot(self, claims: Claims) -> None:
        """Make the records of a snapshot or control again from the snapshot or the dataset."""
        try:
            planned = plan_claims(claims, data=self._data)
        except UserError as error:
            self.outcome.failures.append(str(error))
            return
        kind = "source" if planned.job.snapshot is None else "snapshot"
        self._compare(claims, planned, kind=kind)

    def from_training(self, claims: Claims, out: Path) -> None:
        """Train the configuration of a run again, into out/<run_id>, and score its snapshot."""
        first = claims.records[0]
        if first.source != "run":
            self.outcome.left_out.append(f"{first.run_id}: there is nothing to train")
            return
        try:
            snapshot = self._train(first, out)
            planned = plan_snapshot(claims, snapshot, data=self._data)
        except UserError as error:
            self.outcome.failures.append(f"{first.run_id}: {error}")
            return
        kind = "snapshot" if planned.job.content_sha256 == first.snapshot_sha256 else "training"
        basis = f"{first.training.get('preset')} trained again with seed {first.train_seed}"
        if kind == "snapshot":
            basis += ", bitwise the same snapshot"
        self._compare(claims, dataclasses.replace(planned, basis=basis), kind=kind)

    def _train(self, record: Record, out: Path) -> Path:
        from fact_train.training.loop import train

        cfg = training_config(record, data=self._data)
        threads = record.training.get("threads") or self._threads
        changes = {"kimg": record.kimg, "device": self._device, "threads": threads}
        cfg = dataclasses.replace(cfg, **changes)
        folder = Path(out) / Path(record.run_id).name
        return train(cfg, folder, preset=str(record.training.get("preset")), label=record.label).snapshot

    def _compare(self, claims: Claims, planned: Planned, *, kind: str) -> None:
        self.outcome.left_out += [f"{claims.title}: {line}" for line in planned.left_out]
        started = provenance.utc_now()
        self._count += 1
        results = Path(self._folder.name) / str(self._count) / RESULTS
        self._evaluation.clear()
        made = self._evaluation.run([dataclasses.replace(planned.job, results=results)])
        self.outcome.failures += made.problems()
        again = {(r.metric, r.seed): r for r in made.written if r.status == "ok"}
        origin = {**self._origin, "started": started, "finished": provenance.utc_now()}
        for record in planned.records:
            found = again.get((record.metric, record.seed))
            if found is None:
                continue  # among the failures
            where = f"{claims.title}: {record.metric}"
            if found.value is None:
                self.outcome.failures.append(f"{where} is claimed as {record.value:g} and has no value now")
                continue
            if found.dataset.get("sha256") != record.dataset.get("sha256"):
                self.outcome.failures.append(f"{where} was compared with other real images than are here now")
                continue
            if kind == "training":
                tolerance, reason = from_training(record, found.value, self._known, of=len(planned.records))
            else:
                tolerance, reason = from_snapshot(get_spec(record.metric), record)
            verification = verify(
                record,
                found.value,
                kind=kind,
                tolerance=tolerance,
                reason=reason,
                by=BY,
                basis=planned.basis,
                provenance=origin,
            )
            self.outcome.verifications.append((claims, verification))


def training_config(record: Record, *, data: str | None = None) -> TrainConfig:
    """The configuration that a record's run was trained with, certified by its hash.

    Records hold the settings that differ from the defaults; older ones name a preset. The hash covers the
    path of the data, which records do not hold: a run on a path is trained with `data`, and the hash of the
    images certifies them. UserError if the settings do not have the hash that the record holds.
    """
    training, seed = record.training, record.train_seed
    stated = training.get("config")
    if isinstance(stated, dict):
        cfg = TrainConfig.from_dict(stated)
    elif training.get("preset") in PRESETS:
        cfg = dataclasses.replace(PRESETS[training["preset"]].config, seed=seed)
    else:
        raise UserError(f"the record has no settings and no known preset: {training.get('preset')!r}")
    on_a_path = cfg.data not in dataset_names()
    here, there = cfg.sha256()[:12], str(record.config_sha256)[:12]
    if (here != there and not on_a_path) or cfg.seed != seed:
        raise UserError(
            f"its settings have hash {here} in this code and {there} in the record; check out commit "
            f"{_commit(training)}, which trained it"
        )
    if on_a_path and data is None:
        raise UserError(f"it was trained on {cfg.data}; name its place with --data")
    return cfg if data is None else dataclasses.replace(cfg, data=data)


def _commit(training: dict) -> str:
    return str((training.get("git") or {}).get("commit") or "none")[:12]
