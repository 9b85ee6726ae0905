"""The walk from a job to its records: open images, extract features, compute metrics, append records.

A metric or job that fails leaves a failure record; the others continue. Ctrl-C and SIGTERM leave a record of
the interrupted metric, `cancelled`; finished records and cached features stay.
"""

import contextlib
import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch

from fact_eval.features.extract import FeatureExtractor
from fact_eval.features.store import FeatureCache
from fact_eval.images.open import ImageRequest, OpenedImages, open_for_scoring
from fact_eval.jobs.plan import Job, ReferenceData
from fact_eval.scoring.inputs import Inputs, request_features
from fact_eval.scoring.reals import RealSide, RealStatistics
from fact_eval.scoring.record import Outcome, RecordWriter
from fact_metrics.base import provenance
from fact_metrics.base.errors import UserError
from fact_metrics.base.processes import Processes
from fact_metrics.base.progress import Progress
from fact_metrics.base.tf32 import tf32
from fact_metrics.registry import compute_metric
from fact_metrics.spec import MetricSpec, MetricValue
from fact_train.data.errors import MissingSplit


class Evaluation:
    """Computes and appends missing records; no argument changes a value beyond rounding.

    `again` appends records even if their key has one. All ranks extract features and measure what metrics
    deal to them; rank 0 computes the metrics and writes the records while the other ranks continue with the
    features of the next job.
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
        self.device, self.batch, self._again = device, batch, again
        self.processes = processes or Processes()
        self.progress = progress or Progress(quiet=True)
        self._extractor = FeatureExtractor(
            device=device, batch=batch, cache=cache, progress=self.progress, processes=self.processes
        )
        self._origin = provenance.collect(
            device=device, threads=torch.get_num_threads(), world_size=self.processes.size
        )
        self._reals: dict[str, RealSide | RealStatistics] = {}
        self._records = self._new_writer()

    @property
    def outcome(self) -> Outcome:
        """What was written and what failed since the start, or since `clear`."""
        return self._records.outcome

    def run(self, jobs: Sequence[Job]) -> Outcome:
        """Compute all missing records of the jobs, in order."""
        with tf32(False):  # float32 means float32
            for job in jobs:
                for (seed, held_out), specs in _passes(job).items():
                    self._score(job, seed, held_out, specs)
        return self.outcome

    def clear(self) -> None:
        """Free the real features and start a new outcome; opened datasets stay."""
        self._records = self._new_writer()
        for reals in self._reals.values():
            reals.clear()

    def passes(
        self, job: Job, wanted: Sequence[tuple[MetricSpec, int]]
    ) -> Iterator[tuple[list[MetricSpec], int, Inputs]]:
        """What the metrics of a job read, one pass over the images at a time: (metrics, seed, inputs).

        Raises UserError if the images cannot be read.
        """
        with tf32(False):
            for (seed, held_out), specs in _passes(dataclasses.replace(job, missing=tuple(wanted))).items():
                yield specs, seed, self._open(job, seed, held_out, specs)[1]

    def _open(
        self, job: Job, seed: int, held_out: str, specs: Sequence[MetricSpec]
    ) -> tuple[OpenedImages, Inputs]:
        """The images of one pass and the features of its metrics."""
        reals = self._real_side(job.reference)
        images = self.processes.run_on_all(
            lambda: open_for_scoring(
                _image_request(job, seed, held_out, specs),
                reals.images,
                device=self.device,
                batch=self.batch,
            )
        )
        return images, self._extract(job, seed, specs, images, reals)

    def _score(self, job: Job, seed: int, held_out: str, specs: Sequence[MetricSpec]) -> None:
        """The records of a job for one evaluation seed: one pass over the images for all metrics."""
        try:
            images, inputs = self._open(job, seed, held_out, specs)
        except MissingSplit as error:  # these images can never have a value: no failure, nothing to try again
            for spec in specs:
                self._records.blank(job, spec, seed, error)
            return
        except Exception as error:
            for spec in specs:
                self._records.failure(job, spec, seed, error)
            return
        first, then = ([spec for spec in specs if spec.dealt == dealt] for dealt in (True, False))
        if self.processes.rank > 0:
            for spec in first:
                with contextlib.suppress(Exception):  # rank 0 raises as well, and records it
                    compute_metric(spec, inputs)
            return
        # A metric of the training reads records of the others.
        for spec in [*first, *sorted(then, key=lambda spec: spec.needs_training)]:
            self._compute(job, spec, seed, inputs, images)

    def _extract(
        self,
        job: Job,
        seed: int,
        specs: Sequence[MetricSpec],
        images: OpenedImages,
        reals: RealSide | RealStatistics,
    ) -> Inputs:
        needs = [need for spec in specs for need in spec.needs]
        scored_requests = request_features(needs, images, title=job.title)
        real_requests = reals.requests((need for need in needs if need.side == "real"), images.real)
        features = self._extractor.extract_all({**scored_requests, **real_requests})
        reals.add({split: features[split] for split in real_requests})
        return Inputs(
            images,
            features,
            reals,
            seed=seed,
            device=self.device,
            run=(job.results.parent, job.kimg),
            processes=self.processes,
        )

    def _compute(self, job: Job, spec: MetricSpec, seed: int, inputs: Inputs, images: OpenedImages) -> None:
        started, clock = provenance.utc_now(), time.monotonic()
        try:
            with self.progress.stage(f"{job.title}: {spec.name}", 1, unit="steps") as stage:
                if inputs.generator is not None:
                    inputs.generator.progress = stage.update
                value = compute_metric(spec, inputs)
            dataset = images.real(spec.reference_split).description
            if value.value is not None and not math.isfinite(value.value):
                raise UserError(f"{spec.name} came out as {value.value}")
        except MissingSplit as error:
            self._records.blank(job, spec, seed, error, started=started)
        except Exception as error:
            self._records.failure(job, spec, seed, error)
        except BaseException:  # Ctrl-C, SIGTERM
            self._records.cancelled(job, spec, seed, started=started)
            raise
        else:
            seconds = time.monotonic() - clock
            self._records.value(job, spec, seed, value, dataset=dataset, started=started, seconds=seconds)
            self.progress.note(f"{job.title}: {spec.name} = {_shown(value)} ({seconds:.1f} s)")

    def _real_side(self, reference: ReferenceData) -> RealSide | RealStatistics:
        if reference.name not in self._reals:
            self._reals[reference.name] = (
                RealSide(reference, self.progress)
                if reference.statistics is None
                else RealStatistics(reference)
            )
        return self._reals[reference.name]

    def _new_writer(self) -> RecordWriter:
        return RecordWriter(
            self._origin, write=self.processes.rank == 0, again=self._again, note=self.progress.note
        )


def held_out_split(spec: MetricSpec) -> str:
    """The split that a metric does not compare with: the ceiling row is scored on its images."""
    return "train" if spec.reference_split == "test" else "test"


def _passes(job: Job) -> dict[tuple[int, str], list[MetricSpec]]:
    """The missing metrics by (evaluation seed, split of the held-out reals); each group is one pass."""
    passes: dict[tuple[int, str], list[MetricSpec]] = defaultdict(list)
    for spec, seed in job.missing:
        passes[seed, held_out_split(spec) if job.source == "reals" else ""].append(spec)
    return passes


def _image_request(job: Job, seed: int, held_out: str, specs: Sequence[MetricSpec]) -> ImageRequest:
    splits = [need.split for spec in specs for need in spec.needs if need.side == "real"]
    splits += [spec.reference_split for spec in specs]  # the record describes it
    return ImageRequest(
        kind=job.source,
        sha256=job.content_sha256,
        seed=seed,
        train=job.reference.train,
        snapshot=job.snapshot,
        pictures=job.pictures,
        graph=job.graph,
        held_out=held_out,
        real_splits=tuple(dict.fromkeys(splits)),
        encoder=any(spec.needs_encoder for spec in specs),
    )


def _shown(value: MetricValue) -> str:
    shown = "no value" if value.value is None else f"{value.value:.6g}"
    notes = (value.extras.get("verdict"), value.degenerate and f"means little: {value.degenerate}")
    return ", ".join([shown, *(note for note in notes if note)])
