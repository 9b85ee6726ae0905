"""The record of a run that diverged: a result too, which studies count."""

from pathlib import Path

from fact_eval.jobs.plan import describe_training
from fact_eval.jobs.runs import read_run
from fact_leaderboard.records import DIVERGED, RESULTS, Record, append_records
from fact_metrics.base import provenance
from fact_metrics.base.canonical import canonical_sha256
from fact_train.sweeps.progress import read_diverged

PROTOCOL = {"metric": DIVERGED, "version": 1}


def record_divergence(folder: Path) -> Record:
    """Append to a run's records what its diverged.json says: where training ended, and of which term."""
    import torch

    run, now = read_run(folder), provenance.utc_now()
    found = read_diverged(run.folder)
    origin = provenance.collect(device=run.config["device"], threads=torch.get_num_threads())
    record = Record(
        run_id=run.run_id,
        source="run",
        label=run.label,
        snapshot=None,
        snapshot_sha256=canonical_sha256({"run_id": run.run_id, **PROTOCOL}),
        kimg=found.kimg,
        train_seed=run.options["seed"],
        config_sha256=run.options["config_sha256"],
        metric=DIVERGED,
        metric_version=PROTOCOL["version"],
        summary="Training ended with a loss or a weight that is not finite.",
        citation="this project",
        protocol=PROTOCOL,
        protocol_sha256=canonical_sha256(PROTOCOL),
        seed=0,
        higher_is_better=False,
        value=1.0,
        extras={"term": found.term, "step": found.step},
        n_requested=None,
        n_effective=None,
        n_real=None,
        status="ok",
        dataset=run.options["dataset"],
        training=describe_training(run, kimg=found.kimg),
        provenance={**origin, "started": now, "finished": now},
    )
    append_records(run.folder / RESULTS, [record])
    return record
