"""From a metric's value to its record, and the outcome of a session: records written, failures."""

import traceback
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from fact_eval.jobs.plan import Job
from fact_leaderboard.records import Record, append_records
from fact_metrics.base import provenance
from fact_metrics.base.canonical import finite
from fact_metrics.base.errors import UserError
from fact_metrics.base.processes import describe_error
from fact_metrics.features.weight_store import mentions_random_weights
from fact_metrics.spec import MetricSpec, MetricValue


@dataclass
class Outcome:
    """Records written, and (job, metric, error) of every failure."""

    written: list[Record] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)

    def problems(self) -> list[str]:
        """One line per job and error; metrics with the same error share a line."""
        metrics_by_error: dict[tuple[str, str], list[str]] = defaultdict(list)
        for job, metric, error in self.failures:
            metrics_by_error[job, error].append(metric)
        return [
            f"{job}: {metrics[0] if len(metrics) == 1 else f'{len(metrics)} metrics'}: {error}"
            for (job, error), metrics in metrics_by_error.items()
        ]


class RecordWriter:
    """Appends records to the results of their jobs; `origin` is the provenance of the session.

    `write` False: another rank writes, failures are still collected. `again` also appends records whose key
    has an ok record.
    """

    def __init__(self, origin: dict, *, write: bool = True, again: bool = False, note: Callable[[str], None]):
        self._origin, self._write, self._again, self._note = origin, write, again, note
        self.outcome = Outcome()

    def value(
        self,
        job: Job,
        spec: MetricSpec,
        seed: int,
        value: MetricValue,
        *,
        dataset: dict,
        started: str,
        seconds: float,
    ) -> None:
        """A computed value, compared with the real images that `dataset` describes."""
        self._append(job, spec, seed, started, value=value, dataset=dataset, seconds=seconds)

    def blank(
        self, job: Job, spec: MetricSpec, seed: int, reason: Exception, *, started: str | None = None
    ) -> None:
        """A metric that has no value on these images: an ok record without one."""
        self._append(job, spec, seed, started, error=str(reason))

    def failure(self, job: Job, spec: MetricSpec, seed: int, error: Exception) -> None:
        """A failure, which the next command retries. An error that is not the user's prints its traceback."""
        message = describe_error(error)
        if not isinstance(error, UserError):
            self._note("".join(traceback.format_exception(error)).rstrip())
        self._append(job, spec, seed, None, status="failed", error=message)
        self.outcome.failures.append((job.title, spec.name, message))

    def cancelled(self, job: Job, spec: MetricSpec, seed: int, *, started: str) -> None:
        """A metric that Ctrl-C or SIGTERM interrupted."""
        self._append(job, spec, seed, started, status="cancelled", error="interrupted")

    def _append(self, job: Job, spec: MetricSpec, seed: int, started: str | None, **result) -> None:
        times = {"started": started or provenance.utc_now(), "finished": provenance.utc_now()}
        record = make_record(job, spec, seed, origin={**self._origin, **times}, **result)
        if self._write and append_records(job.results, [record], again=self._again):
            self.outcome.written.append(record)


def make_record(
    job: Job,
    spec: MetricSpec,
    seed: int,
    *,
    origin: dict,
    status: str = "ok",
    error: str | None = None,
    value: MetricValue | None = None,
    dataset: dict | None = None,
    seconds: float | None = None,
) -> Record:
    """The record of a job under a metric and an evaluation seed; without `dataset`, of the train split."""
    label = f"{job.label} (random weights)" if mentions_random_weights(spec.protocol) else job.label
    requested = spec.n_generated
    if requested is None and value is not None:
        requested = value.n_generated
    return Record(
        run_id=job.run_id,
        source=job.source,
        label=label,
        snapshot=job.snapshot.name if job.snapshot else None,
        snapshot_sha256=job.content_sha256,
        kimg=job.kimg,
        train_seed=job.train_seed,
        config_sha256=job.config_sha256,
        metric=spec.name,
        metric_version=spec.version,
        summary=spec.summary,
        citation=spec.citation,
        protocol=spec.protocol,
        protocol_sha256=spec.protocol_sha256,
        seed=seed,
        higher_is_better=spec.higher_is_better,
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
        provenance=origin,
    )
