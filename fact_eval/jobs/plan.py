"""Jobs: which records of which sources are missing. Reads files and specs only; does not import torch."""

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fact_eval.jobs.runs import Run, choose_snapshots
from fact_leaderboard.records import RESULTS, Key, done_keys, iter_records
from fact_metrics.base.canonical import canonical_sha256
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.provenance import portable_argv
from fact_metrics.registry import find_spec
from fact_metrics.spec import MetricSpec
from fact_train.datasets import dataset_entry
from fact_train.settings.config import changed_fields

if TYPE_CHECKING:
    from fact_eval.features.reference_stats import ReferenceStatistics
    from fact_eval.images.onnx_graph import GraphOptions
    from fact_train.data import Dataset


@dataclass(frozen=True)
class ReferenceData:
    """The real images: where they are, and the description that their train split must have.

    `statistics` replaces the images if only a file of statistics is given. `opened` is the train split if a
    command has opened it already.
    """

    data: str
    train: dict  # Dataset.describe() of the training set
    statistics: "ReferenceStatistics | None" = None
    opened: "Dataset | None" = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"{self.train['name']}-{self.train['resolution']}px-{self.train['sha256'][:8]}"


@dataclass(frozen=True)
class Job:
    """One scored source and the (metric, seed) pairs whose records are missing."""

    source: str  # run | images | reals | noise
    run_id: str
    label: str
    results: Path
    reference: ReferenceData
    content_sha256: str
    snapshot: Path | None = None
    kimg: float | None = None
    train_seed: int | None = None
    config_sha256: str | None = None
    training: dict = dataclasses.field(default_factory=dict)
    pictures: "Dataset | None" = None  # of an images job, opened
    graph: "tuple[Path, GraphOptions] | None" = None  # of an images job whose images a graph makes
    missing: tuple[tuple[MetricSpec, int], ...] = ()

    def key(self, spec: MetricSpec, seed: int, *, protocol_sha256: str | None = None) -> Key:
        """Key of this job's record of a metric and an evaluation seed; the spec's hash may be at hand."""
        protocol = protocol_sha256 or spec.protocol_sha256
        return (self.run_id, self.content_sha256, spec.name, spec.version, protocol, seed)

    @property
    def title(self) -> str:
        return self.run_id if self.kimg is None else f"{self.run_id} at {self.kimg:g} kimg"


@dataclass(frozen=True)
class Request:
    """What the user requested: metrics, evaluation seeds, snapshots.

    `named`: the user named the metrics, so each must fit the dataset. Otherwise `defaults` names the metrics
    of a dataset; without `defaults` all that fit are requested.
    """

    specs: tuple[MetricSpec, ...]
    seeds: tuple[int, ...] = (0,)
    named: bool = False
    defaults: Callable[[str], Sequence[str]] | None = None
    snapshot: str = "latest"  # latest | all | a kimg
    data: str | None = None  # where the real images are now, if they were moved after training
    force: bool = False  # score again what has a record
    _specs: dict[str, list[MetricSpec]] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    _hashes: dict[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def specs_for(self, dataset: str) -> list[MetricSpec]:
        """The requested metrics that fit a dataset. UsageError if a named one does not."""
        if dataset not in self._specs:  # the same for hundreds of runs
            self._specs[dataset] = self._fitting(dataset)
        return self._specs[dataset]

    def _fitting(self, dataset: str) -> list[MetricSpec]:
        traits = dataset_entry(dataset).traits
        specs = self.specs
        if not self.named and self.defaults is not None:
            found = map(find_spec, self.defaults(dataset))
            specs = sorted((c for c in found if c is not None), key=lambda c: (c.family, c.name))
        for spec in specs:
            if self.named and spec.needs_explanation:
                raise UsageError(f"--metrics {spec.name} is computed by fact-eval explain RUN")
            if self.named and not spec.fits(traits):
                raise UsageError(f"--metrics {spec.name} is for {spec.needs_trait} only, not for {dataset}")
        return [spec for spec in specs if spec.fits(traits)]

    def fill(self, job: Job, *, specs: Sequence[MetricSpec] | None = None, done: Collection[Key] = ()) -> Job:
        """The job with the records missing from its results file and from `done`; under `force` with all."""
        specs = self.specs_for(job.reference.train["name"]) if specs is None else specs
        done = set() if self.force else done_keys(iter_records(job.results)).union(done)
        missing = [
            (spec, seed)
            for seed in self.seeds
            for spec in specs
            if job.key(spec, seed, protocol_sha256=self._protocol_sha256(spec)) not in done
        ]
        return dataclasses.replace(job, missing=tuple(missing))

    def _protocol_sha256(self, spec: MetricSpec) -> str:
        if spec.name not in self._hashes:
            self._hashes[spec.name] = spec.protocol_sha256
        return self._hashes[spec.name]


def unwritable(job: Job) -> str | None:
    """Why the records of a job could not be written, before anything is measured; None if they can."""
    folder = next(parent for parent in job.results.absolute().parents if parent.exists())
    if os.access(job.results if job.results.exists() else folder, os.W_OK):
        return None
    return f"{job.results} cannot be written: {folder} is read-only; make it writable, or copy the run"


def plan_run(run: Run, request: Request) -> list[Job]:
    """Jobs of one run, one per chosen snapshot. UserError for a missing snapshot or broken records."""
    jobs = []
    specs = _specs_of_run(run, request)
    for chosen in choose_snapshots(run, request.snapshot):
        job = Job(
            source="run",
            run_id=run.run_id,
            label=run.label,
            results=run.folder / RESULTS,
            reference=ReferenceData(request.data or run.config["data"], run.options["dataset"]),
            content_sha256=chosen.sha256(),
            snapshot=chosen.path,
            kimg=chosen.kimg,
            train_seed=run.options["seed"],
            config_sha256=run.options["config_sha256"],
            training=describe_training(run, kimg=chosen.kimg),
        )
        jobs.append(request.fill(job, specs=specs))
    return jobs


def describe_training(run: Run, *, kimg: float) -> dict:
    """How a run was trained up to a snapshot, as its records hold it: all that trains it again.

    `config` has the settings that are not at their default, `init` describes the checkpoint of --init,
    `resumed` the starts before the snapshot, `seconds` the time of training.
    """
    options, seconds = run.options, run.training_seconds(kimg)
    resumed = [start for start in options.get("resumed", []) if start.get("kimg", 0) < kimg]
    return {
        "preset": options["preset"],
        "argv": portable_argv(options.get("argv") or []),
        **{name: options.get(name) for name in ("git", "packages", "started")},
        **{name: options[name] for name in ("device", "threads", "world_size") if name in options},
        "config": _portable_values(changed_fields(options["config"])),
        **({"init": options["init"]} if options.get("init") else {}),
        **({"resumed": resumed} if resumed else {}),
        **({} if seconds is None else {"seconds": seconds}),
    }


def _portable_values(values: dict) -> dict:
    """Settings without absolute paths, as in command lines."""
    paths = {name: value for name, value in values.items() if isinstance(value, str)}
    return values | dict(zip(paths, portable_argv(["", *paths.values()])[1:], strict=True))


def _specs_of_run(run: Run, request: Request) -> list[MetricSpec]:
    """The requested metrics that fit a run: encoder metrics only if it trained an encoder."""
    specs = request.specs_for(run.options["dataset"]["name"])
    config = run.config
    if config.get("model") == "stylex" and (config["branches"] != "mapping" or config["rec_in_d_phase"]):
        return specs
    for spec in specs:
        if request.named and spec.needs_encoder:
            raise UsageError(
                f"--metrics {spec.name} is for StylEx runs with a trained encoder, not for {run.folder}"
            )
    return [spec for spec in specs if not spec.needs_encoder]


def plan_controls(
    references: Iterable[ReferenceData], root: Path, request: Request, *, done: Collection[Key] = ()
) -> list[Job]:
    """Jobs of the ceiling row (held-out reals) and the floor row (noise), once per dataset, in root/controls.

    `done`: keys that have a record elsewhere (the published control rows); only `force` scores them again.
    """
    by_name = {reference.name: reference for reference in references}
    jobs = []
    for name, reference in sorted(by_name.items()):
        specs = request.specs_for(reference.train["name"])
        specs = [
            spec for spec in specs if not (spec.needs_generator or spec.needs_encoder or spec.needs_training)
        ]
        for source in ("reals", "noise"):
            job = Job(
                source=source,
                run_id=f"{source}-{name}",
                label=source,
                results=root / "controls" / name / RESULTS,
                reference=reference,
                content_sha256=canonical_sha256({"source": source, "dataset": reference.train["sha256"]}),
            )
            jobs.append(request.fill(job, specs=specs, done=done))
    return jobs


def plan_all(
    runs: Sequence[Run],
    root: Path,
    request: Request,
    *,
    controls: bool = True,
    published: Collection[Key] = (),
) -> tuple[list[Job], list[str]]:
    """Jobs of all runs and of the control rows, and a line for every run that cannot be planned.

    Control rows with a `published` key are not scored again: they depend on the dataset alone.
    """
    jobs, problems = [], []
    for run in runs:
        try:
            jobs += plan_run(run, request)
        except UserError as error:
            problems.append(str(error))
    if controls:
        try:
            jobs += plan_controls([job.reference for job in jobs], root, request, done=published)
        except UserError as error:
            problems.append(str(error))
    return jobs, problems
