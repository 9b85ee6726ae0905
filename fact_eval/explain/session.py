"""From runs to explanations: missing records, one explanation per snapshot and seed, its document."""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fact_eval.explain.document import question_name, write_explanation
from fact_eval.explain.explanation import Explanation
from fact_eval.explain.subject import NamedClassifier, Subject
from fact_eval.images.open import ImageRequest, open_for_scoring
from fact_eval.images.reals import RealImages
from fact_eval.jobs.plan import Job, Request, plan_run
from fact_eval.jobs.runs import Run
from fact_eval.scoring.record import Outcome, RecordWriter
from fact_eval.scoring.session import share_jobs
from fact_leaderboard.records import Key
from fact_metrics.base import provenance
from fact_metrics.base.devices import resolve_device, set_threads
from fact_metrics.base.errors import UsageError, UserError, unknown_name
from fact_metrics.base.memory import keep_freed_memory
from fact_metrics.base.processes import Processes, launched_world_size
from fact_metrics.base.progress import Progress
from fact_metrics.base.tf32 import tf32
from fact_metrics.families.attributes import METHODS, NUMBERS
from fact_metrics.families.edited_images import ON_FEATURES
from fact_metrics.families.separability import SPACES
from fact_metrics.family import spell_count
from fact_metrics.registry import FAMILIES, compute_metric, get_spec
from fact_metrics.spec import MetricSpec
from fact_train.classifiers.classifier import load_classifier
from fact_train.datasets import dataset_entry
from fact_train.snapshot import Snapshot

DISTANCE = "stlpips_alex"  # of cflpips
DRAWN = 40  # generated images of the linear separability per searched image: 10,000 of 250


@dataclass(frozen=True)
class ExplainOptions:
    """What to explain and how; the fields are the options of `fact-eval explain`.

    `classifier` None: that of the StylEx run. `classes`: names of the classes of interest, all by default.
    """

    images: int = 250
    classifier: str | None = None
    second: str | None = None
    classes: tuple[str, ...] = ()
    methods: tuple[str, ...] = tuple(name.replace("_", "-") for name in METHODS)
    shift: float = 1.0
    discriminator_filter: float | None = None

    def check(self) -> None:
        """UsageError for a method that does not exist."""
        known = [name.replace("_", "-") for name in METHODS]
        for name in self.methods:
            if name not in known:
                raise unknown_name("method", name, known)


def explanation_specs(run: Run, options: ExplainOptions) -> list[MetricSpec]:
    """The numbers of a run, bound to its classifiers and classes: values compare only if these are equal.

    UsageError for classes or a second classifier that do not fit the explained one.
    """
    sha256, names = _classifier_of(run, options)
    _wanted(options.classes, names)
    second = None if options.second is None else _named(options.second, "cpu")
    if second is not None and second.classes != names:
        raise UsageError(
            f"--second {options.second}: its classes are {', '.join(second.classes)}, those of the explained "
            f"classifier {', '.join(names)}; train one with fact-train classifier"
        )
    bound = {
        "classifier": sha256,
        "second_classifier": None if second is None else second.sha256,
        "classes": list(options.classes or names),
        "shift": options.shift,
        "discriminator_filter": options.discriminator_filter,
    }
    variants = [method.replace("-", "_") for method in options.methods]
    specs = [
        get_spec(f"{number}{spell_count(options.images)}_{variant}{detector}")
        for variant in variants  # all numbers of one method together: its pictures are in memory once
        for number, (*_, fields) in (NUMBERS | ON_FEATURES).items()
        if f"{number}_{variant}" in FAMILIES
        for detector in _detectors(fields, run.options["dataset"]["name"])
    ]
    specs += [get_spec(f"ls{spell_count(DRAWN * options.images)}_{space}") for space in SPACES]
    if run.config.get("model") == "stylex":
        specs.append(get_spec(f"composition{spell_count(options.images)}"))
    return [dataclasses.replace(spec, settings={**spec.settings, **bound}) for spec in specs]


def _detectors(fields: Mapping, dataset: str) -> list[str]:
    """The ends of the names of a number: its detectors; an empty one for a number without.

    Features are those of the digit classifier if images are digits, and those that suit the dataset.
    """
    if "distance" in fields.get("gives", ()):
        return [f"_{DISTANCE}"]
    if "features" not in fields.get("gives", ()):
        return [""]
    entry = dataset_entry(dataset)
    of_digits = ["digits"] if "digits" in entry.traits else []
    return [f"_{name}" for name in dict.fromkeys([*of_digits, entry.detector])]


@dataclass(frozen=True)
class Plan:
    """A job per snapshot with its missing records, and the keys of all records that were asked for."""

    jobs: list[Job]
    keys: set[Key]


def plan_explanations(
    runs: Sequence[Run], options: ExplainOptions, *, seeds: Sequence[int], snapshot: str, data: str | None
) -> Plan:
    """What `fact-eval explain` is to compute. UsageError for options that do not fit a run."""
    options.check()
    jobs, keys = [], set()
    for run in runs:
        specs = tuple(explanation_specs(run, options))
        planned = plan_run(run, Request(specs, tuple(seeds), snapshot=snapshot, data=data))
        jobs += planned
        keys |= {job.key(spec, seed) for job in planned for spec in specs for seed in seeds}
    return Plan(jobs, keys)


def explain_jobs(
    jobs: Sequence[Job],
    options: ExplainOptions,
    *,
    device: str,
    batch: int,
    threads: int | None = None,
    root: Path | None = None,
) -> Outcome:
    """Explain every job that misses a record, write its document and its records.

    Under torchrun all ranks compute effects; rank 0 continues alone and writes. `root` is the cache folder.
    """
    device = str(resolve_device(device))
    keep_freed_memory()
    if threads is not None or launched_world_size() > 1:
        set_threads(threads)
    processes = Processes.join()
    progress = Progress(quiet=processes.rank > 0)
    try:
        session = _Session(options, device, batch, progress, processes, root)
        with tf32(False):
            for job in share_jobs(jobs, processes):
                session.explain(job)
        return session.writer.outcome
    finally:
        processes.leave()


class _Session:
    """The explanations of one command."""

    def __init__(
        self,
        options: ExplainOptions,
        device: str,
        batch: int,
        progress: Progress,
        processes: Processes,
        root: Path | None,
    ) -> None:
        import torch

        self._options, self._device, self._batch = options, device, batch
        self._progress, self._processes, self._root = progress, processes, root
        threads, size = torch.get_num_threads(), processes.size
        origin = provenance.collect(device=device, threads=threads, world_size=size)
        self.writer = RecordWriter(origin, write=processes.rank == 0, note=progress.note)

    def explain(self, job: Job) -> None:
        """One explanation per evaluation seed that misses a record."""
        by_seed: dict[int, list[MetricSpec]] = defaultdict(list)
        for spec, seed in job.missing:
            by_seed[seed].append(spec)
        for seed, specs in by_seed.items():
            try:
                explanation = self._processes.run_on_all(partial(self._search, job, seed))
                if self._processes.rank == 0:
                    document = explanation.document(run_id=job.run_id)
                    path = write_explanation(job.results.parent, document, explanation.subject.question)
                    self._progress.note(f"wrote {path}")
            except UserError as error:
                for spec in specs:
                    self.writer.failure(job, spec, seed, error)
                continue
            if self._processes.rank == 0:
                inputs = _Inputs(explanation, seed=seed, device=self._device)
                for spec in specs:
                    self._record(job, spec, inputs)

    def _search(self, job: Job, seed: int) -> Explanation:
        """The explanation of a snapshot, with this rank's share of the effects computed."""
        explanation = self._open(job, seed)
        explanation.compute_share(self._processes)
        return explanation

    def _record(self, job: Job, spec: MetricSpec, inputs: "_Inputs") -> None:
        started, clock, seed = provenance.utc_now(), time.monotonic(), inputs.seed
        try:
            value = compute_metric(spec, inputs)
        except UserError as error:
            self.writer.failure(job, spec, seed, error)
        except BaseException:  # Ctrl-C, SIGTERM
            self.writer.cancelled(job, spec, seed, started=started)
            raise
        else:
            took = time.monotonic() - clock
            data = job.reference.train
            self.writer.value(job, spec, seed, value, dataset=data, started=started, seconds=took)

    def _open(self, job: Job, seed: int) -> Explanation:
        options, device, batch = self._options, self._device, self._batch
        subject = open_subject(job, options, seed=seed, device=device, batch=batch, progress=self._progress)
        second = None if options.second is None else _named(options.second, device)
        return Explanation(
            subject,
            count=options.images,
            second=second,
            methods=options.methods,
            shift=options.shift,
            largest_d_change=options.discriminator_filter,
            batch=batch,
            root=self._root,
            progress=self._progress,
        )


def open_subject(
    job: Job, options: ExplainOptions, *, seed: int, device: str, batch: int, progress: Progress
) -> Subject:
    """The generator of a snapshot with its images, and the classifier that `options` name."""
    reals = RealImages(job.reference.data, train=job.reference.train, progress=progress)
    request = ImageRequest(
        kind="run", sha256=job.content_sha256, seed=seed, train=job.reference.train, snapshot=job.snapshot
    )
    source = open_for_scoring(request, reals, device=device, batch=batch).source
    snapshot: Snapshot = source.snapshot
    classifier = _load(options.classifier, snapshot, device)
    return Subject(
        source,
        classifier,
        held_out=reals.dataset("test") if snapshot.E is not None else None,
        wanted=_wanted(options.classes, classifier.classes),
        batch=batch,
    )


class _Inputs:
    """What the numbers read: the explanation alone."""

    generator = encoder = None

    def __init__(self, explanation: Explanation, *, seed: int, device: str) -> None:
        import torch

        self.explanation, self.seed, self.device = explanation, seed, torch.device(device)


def _classifier_of(run: Run, options: ExplainOptions) -> tuple[str, list[str]]:
    """Hash and class names of the classifier that is explained. UsageError if there is none."""
    if options.classifier is not None:
        named = _named(options.classifier, "cpu")
        return named.sha256, named.classes
    card = run.options.get("classifier")
    if run.config.get("model") != "stylex" or not card:
        raise UsageError(
            f"{run.folder} is not a StylEx run, so it names no classifier; choose one with --classifier, "
            "such as --classifier mnist"
        )
    return card["weights_sha256"], [group["name"] for group in card["classes"]]


def question_of(run: Run, options: ExplainOptions, *, seed: int) -> str:
    """The name of what `options` ask about a run, with an evaluation seed. UsageError as for its numbers."""
    _, names = _classifier_of(run, options)
    wanted = _wanted(options.classes, names) or range(len(names))
    return question_name(Path(options.classifier or run.config["classifier"]).stem, names, wanted, seed=seed)


def _named(name: str, device: str) -> NamedClassifier:
    return NamedClassifier(Path(name).stem, *load_classifier(name, device))


def _load(name: str | None, snapshot: Snapshot, device: str) -> NamedClassifier:
    if name is not None:
        return _named(name, device)
    if snapshot.C is None:
        raise UsageError(
            f"{snapshot.path} is of a run without a classifier; choose one with --classifier, such as "
            "--classifier mnist"
        )
    label = Path(snapshot.config["classifier"]).stem
    return NamedClassifier(label, snapshot.C, snapshot.classifier)


def _wanted(classes: Sequence[str], known: Sequence[str]) -> list[int] | None:
    """Numbers of the named classes; None: all. UsageError for an unknown one, or for fewer than two."""
    for name in classes:
        if name not in known:
            raise unknown_name("class", name, known)
    if len(set(classes)) == 1:
        raise UsageError(f"--classes {classes[0]}: give two or more of {', '.join(known)}")
    return [known.index(name) for name in dict.fromkeys(classes)] or None
