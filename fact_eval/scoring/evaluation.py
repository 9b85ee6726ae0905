"""Carries out jobs: one generation pass per snapshot and seed feeds every detector; then come the metrics.

A metric or job that fails leaves a failure record and the others go on; the outcome lists every failure.
Ctrl-C and SIGTERM leave a `cancelled` record of the metric they hit; finished records and cached features
stay.
"""

import dataclasses
import math
import os
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from fact_eval.features.extract import Features, extract_features
from fact_eval.features.processes import Processes, describe, started_together
from fact_eval.features.store import FeatureCache
from fact_eval.images.encoder import Encoder
from fact_eval.images.sources import GeneratorSource, NoiseSource, PicturesSource, Source
from fact_eval.jobs.catalog import Card
from fact_eval.jobs.plan import Job
from fact_eval.scoring.reals import NoSplit, References, StatisticsOnly
from fact_leaderboard.records import Record, append_records, finite
from fact_metrics.base import provenance
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.memory import keep_freed_memory
from fact_metrics.base.progress import Progress
from fact_metrics.base.tf32 import tf32
from fact_metrics.engines.frechet import FeatureStatistics
from fact_metrics.registry import FeatureNeed, MetricValue, get_metric
from fact_metrics.weight_store import mentions_random_weights
from fact_train.snapshot import load_snapshot

T = TypeVar("T")


@dataclass
class Outcome:
    """Records written, and (job, metric, error) of everything that failed."""

    written: list[Record] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)

    def problems(self) -> list[str]:
        """One line per job and error; metrics that failed alike are named together."""
        together: dict[tuple[str, str], list[str]] = defaultdict(list)
        for job, metric, error in self.failures:
            together[job, error].append(metric)
        return [
            f"{job}: {metrics[0] if len(metrics) == 1 else f'{len(metrics)} metrics'}: {error}"
            for (job, error), metrics in together.items()
        ]


class Inputs:
    """What a metric computes from: `MetricInputs` of metrics/registry.py, for one source and seed."""

    def __init__(
        self,
        source: Source,
        generated: Features,
        references: References,
        *,
        seed: int,
        device: str,
        encoder: Encoder | NoSplit | None = None,
        reconstructed: Features | None = None,
    ):
        self.seed, self.device = seed, torch.device(device)
        self.generator = source if isinstance(source, GeneratorSource) else None
        self._encoder = encoder
        self._source, self._generated, self._references = source, generated, references
        self._reconstructed = reconstructed

    @property
    def encoder(self) -> Encoder | None:
        """Of a StylEx run; NoSplit where the dataset has no held-out images to show it."""
        if isinstance(self._encoder, NoSplit):
            raise self._encoder
        return self._encoder

    def features(self, need: FeatureNeed) -> torch.Tensor:
        """[N, D] float32 on the CPU, in index order. UserError where there are too few images."""
        if need.side == "reconstructed":
            return self._reconstructed.get(need.detector, wanted_count(need.count, self.encoder.source))
        if need.side == "real":
            return self._references.features(need.detector, need.split or "train", need.count)
        return self._generated.get(need.detector, wanted_count(need.count, self._source))

    def of_reals(self, need: FeatureNeed, name: str, function: Callable[[torch.Tensor], T]) -> T:
        """function(features of a need's reals, on `device`); kept with the features."""
        key = (need.detector, need.split, need.count, name)
        return self._references.kept(key, lambda: function(self.features(need).to(self.device)))

    def statistics(self, need: FeatureNeed, *, correction: int) -> FeatureStatistics | None:
        """Statistics of a need's reals where the reference is a file of them; None where there are images."""
        return self._references.statistics(need.detector, correction=correction)


class Evaluation:
    """Computes and appends missing records; nothing given here changes a number beyond rounding.

    `again` writes records also where the key is done already. Of several processes all make features; the
    first one computes the metrics and writes, while the others go on to the features of the next job.
    """

    def __init__(
        self,
        *,
        device: str = "cpu",
        batch: int = 64,
        cache: FeatureCache | None = None,
        progress: Progress | None = None,
        again: bool = False,
        processes: Processes | None = None,
    ):
        self.device, self.batch, self.again = device, batch, again
        self.processes = processes or Processes()
        self.progress = progress or Progress(quiet=True)
        self.cache = cache or FeatureCache(report=self.progress.note)
        self.outcome = Outcome()
        self._references: dict[str, References] = {}
        self._origin = provenance.collect(
            device=device, threads=torch.get_num_threads(), world_size=self.processes.size
        )

    def run(self, jobs: Sequence[Job]) -> Outcome:
        """All missing records of the jobs, in order; returns what was written and what failed."""
        with tf32(False):  # float32 means float32
            for job in jobs:
                self._run_job(job)
        return self.outcome

    def forget(self) -> None:
        """Drop what was done and the real features; opened datasets stay, and the store has the rest."""
        self.outcome = Outcome()
        for references in self._references.values():
            references.forget_features()

    def _run_job(self, job: Job) -> None:
        # Held-out reals are of the split that a metric does not compare with: one pass per such split.
        passes: dict[tuple[int, str], list[Card]] = defaultdict(list)
        for card, seed in job.missing:
            passes[seed, held_out_split(card) if job.source == "reals" else ""].append(card)
        for (seed, split), cards in passes.items():
            self._score(job, seed, split, cards)

    def _score(self, job: Job, seed: int, split: str, cards: Sequence[Card]) -> None:
        """Metrics of a job for one evaluation seed: one pass over the images, then each metric."""
        try:
            source = self.processes.together(lambda: self._source(job, seed, split))
            real = self._real(job)
            wanted = _wanted(cards, "generated", source)
            generated = self._extract(source, wanted, title=f"{job.title}, images")
            encoder, reconstructed = self._encode(job, source, cards)
            real.prepare(need for card in cards for need in card.needs if need.side == "real")
        except NoSplit as error:  # no row to be had, now or later: a record without a value, not a failure
            for card in cards:
                self._append(job, card, seed, provenance.utc_now(), error=str(error))
            return
        except Exception as error:
            for card in cards:
                self._fail(job, card, seed, error)
            return
        if self.processes.rank > 0:
            return
        inputs = Inputs(
            source,
            generated,
            real,
            seed=seed,
            device=self.device,
            encoder=encoder,
            reconstructed=reconstructed,
        )
        for card in cards:
            self._compute(job, card, seed, inputs)

    def _encode(
        self, job: Job, source: Source, cards: Sequence[Card]
    ) -> tuple[Encoder | NoSplit | None, Features | None]:
        """The encoder's side where a metric asks for it, or why there is none."""
        if not any(card.needs_encoder for card in cards):
            return None, None
        try:
            encoder = Encoder(source, self._real(job).dataset("test"), batch=self.batch)
        except NoSplit as error:
            return error, None
        wanted = _wanted(cards, "reconstructed", encoder.source)
        return encoder, self._extract(encoder.source, wanted, title=f"{job.title}, reconstructions")

    def _compute(self, job: Job, card: Card, seed: int, inputs: Inputs) -> None:
        started, clock = provenance.utc_now(), time.monotonic()
        try:
            with self.progress.stage(f"{job.title}: {card.name}", 1, unit="steps") as stage:
                if inputs.generator is not None:
                    inputs.generator.progress = stage.update
                value = get_metric(card.name).compute(inputs)
            dataset = self._real(job).dataset(card.reference_split).describe()
        except NoSplit as error:
            self._append(job, card, seed, started, error=str(error))
            return
        except Exception as error:
            self._fail(job, card, seed, error)
            return
        except BaseException:  # Ctrl-C, SIGTERM
            self._append(job, card, seed, started, status="cancelled", error="interrupted")
            raise
        number = value.value
        if number is not None and not math.isfinite(number):
            self._fail(job, card, seed, UserError(f"{card.name} came out as {number}"))
            return
        record = self._append(
            job, card, seed, started, value=value, dataset=dataset, seconds=time.monotonic() - clock
        )
        shown = "no value" if number is None else f"{number:.6g}"
        if verdict := value.extras.get("verdict"):
            shown = f"{shown}, {verdict}"
        self.progress.note(f"{job.title}: {card.name} = {shown} ({record.seconds:.1f} s)")

    def _source(self, job: Job, seed: int, split: str) -> Source:
        """The images a job scores; `split` is where held-out reals come from."""
        if job.source == "noise":
            train = job.reference.train
            return NoiseSource((train["channels"], train["resolution"], train["resolution"]), seed=seed)
        if job.source == "reals":
            return PicturesSource(self._real(job).dataset(split), seed=seed)
        if job.source == "images":
            return PicturesSource(job.pictures, seed=seed)
        with torch.random.fork_rng(devices=[]):  # networks are drawn before their weights are read
            snapshot = load_snapshot(job.snapshot, device=self.device)
        if snapshot.sha256 != job.content_sha256:
            raise UserError(f"{job.snapshot} changed while it was scored; run the same command again")
        labels_of = self._real(job).dataset("train") if snapshot.G.c_dim else None
        return GeneratorSource(snapshot, seed=seed, device=self.device, labels_of=labels_of)

    def _real(self, job: Job) -> References:
        if job.reference.name not in self._references:
            kind = References if job.reference.statistics is None else StatisticsOnly
            self._references[job.reference.name] = kind(job.reference, self._extract, self.progress)
        return self._references[job.reference.name]

    def _extract(self, source: Source, wanted: dict[str, int], *, title: str) -> Features:
        return extract_features(
            source,
            wanted,
            title=title,
            cache=self.cache,
            device=self.device,
            batch=self.batch,
            progress=self.progress,
            processes=self.processes,
        )

    def _fail(self, job: Job, card: Card, seed: int, error: Exception) -> None:
        """Record a failure; a mistake of the user is one line, anything else also shows where it happened."""
        text = describe(error)
        if not isinstance(error, UserError):
            self.progress.note("".join(traceback.format_exception(error)).rstrip())
        self._append(job, card, seed, provenance.utc_now(), status="failed", error=text)
        self.outcome.failures.append((job.title, card.name, text))

    def _append(
        self,
        job: Job,
        card: Card,
        seed: int,
        started: str,
        *,
        status: str = "ok",
        error: str | None = None,
        value: MetricValue | None = None,
        dataset: dict | None = None,
        seconds: float | None = None,
    ) -> Record:
        label = f"{job.label} (random weights)" if mentions_random_weights(card.protocol) else job.label
        requested = card.n_generated
        if requested is None and value is not None:
            requested = value.n_generated
        record = Record(
            run_id=job.run_id,
            source=job.source,
            label=label,
            snapshot=job.snapshot.name if job.snapshot else None,
            snapshot_sha256=job.content_sha256,
            kimg=job.kimg,
            train_seed=job.train_seed,
            config_sha256=job.config_sha256,
            metric=card.name,
            metric_version=card.version,
            summary=card.summary,
            citation=card.citation,
            protocol=card.protocol,
            protocol_sha256=card.protocol_sha256,
            seed=seed,
            higher_is_better=card.higher_is_better,
            value=value.value if value else None,
            stderr=finite(value.stderr) if value else None,
            ci=finite(value.ci) if value else None,
            extras=finite(dict(value.extras)) if value else {},
            n_requested=requested,
            n_effective=value.n_generated if value else None,
            n_real=value.n_real if value else None,
            status=status,
            error=error,
            seconds=seconds,
            dataset=dataset or job.reference.train,
            training=job.training,
            provenance={**self._origin, "started": started, "finished": provenance.utc_now()},
        )
        if self.processes.rank == 0 and append_records(job.results, [record], again=self.again):
            self.outcome.written.append(record)
        return record


def score(
    jobs: Sequence[Job], *, device: str, batch: int, threads: int | None, again: bool = False
) -> Outcome:
    """Evaluate jobs with progress on stderr, on `threads` CPU threads (torch's own choice for None).

    Under torchrun all its processes evaluate the jobs of the first one.
    """
    device = choose_device(device)
    keep_freed_memory()
    if threads is None and started_together() > 1:  # torchrun sets one; use the cores that each can have
        threads = max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    if threads is not None:
        torch.set_num_threads(threads)
    processes = Processes.join()
    progress = Progress(quiet=processes.rank > 0)
    try:
        jobs = agreed(jobs, processes)
        missing = len([job for job in jobs if job.missing])
        if processes.rank == 0 and missing:
            shared = f", {processes.size} processes" if processes.size > 1 else ""
            progress.note(f"scoring {missing} sources on {device}{shared}")
        return Evaluation(
            device=device, batch=batch, progress=progress, again=again, processes=processes
        ).run(jobs)
    finally:
        processes.leave()


def agreed(jobs: Sequence[Job], processes: Processes) -> list[Job]:
    """The jobs of the first process, with the images that this one has opened: those are not sent around."""
    pictures = {job.content_sha256: job.pictures for job in jobs}
    opened = {job.reference.name: job.reference.opened for job in jobs}

    def of_each(job: Job, pictures, opened) -> Job:
        return dataclasses.replace(
            job, pictures=pictures, reference=dataclasses.replace(job.reference, opened=opened)
        )

    agreed = processes.first([of_each(job, None, None) for job in jobs])
    return [of_each(j, pictures.get(j.content_sha256), opened.get(j.reference.name)) for j in agreed]


def choose_device(name: str) -> str:
    """`auto` is the GPU where there is one; under torchrun each process takes that of its LOCAL_RANK.

    UsageError where the named device cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not name.startswith("cuda"):
        raise UsageError(f"--device {name!r}: give auto, cpu, cuda or cuda:N")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no CUDA GPU here; use --device cpu")
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return name


def wanted_count(count: int | None, source: Source) -> int:
    """How many generated images a need gets: all it asks for, or as many as a finite source has."""
    if source.size is None:
        if count is None:
            raise ValueError("a metric asks for all generated images, and there is no end of them")
        return count
    return source.size if count is None else min(count, source.size)


def _wanted(cards: Sequence[Card], side: str, source: Source) -> dict[str, int]:
    """Images that each detector is to see of one side."""
    wanted: dict[str, int] = {}
    for need in (need for card in cards for need in card.needs if need.side == side):
        wanted[need.detector] = max(wanted.get(need.detector, 0), wanted_count(need.count, source))
    return wanted


def held_out_split(card: Card) -> str:
    """The split whose images a metric has not seen as its reference: the ceiling row is scored on them."""
    return "train" if card.reference_split == "test" else "test"
