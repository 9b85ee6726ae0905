"""Jobs over one checkpoint file: a snapshot of ours, or a file of another program that an importer knows."""

from pathlib import Path

from fact_eval.jobs.pictures import open_reference, statistics_obstacle
from fact_eval.jobs.plan import Job, Request
from fact_leaderboard.records import RESULTS
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.progress import Progress
from fact_train.imports import load_checkpoint
from fact_train.snapshot import Snapshot


def plan_checkpoint(
    path: Path, out: Path, request: Request, *, progress: Progress | None = None
) -> tuple[Job, list[str]]:
    """The job that scores a checkpoint file, and a line for every metric that is left out.

    UsageError without `data`. UserError if the images of the dataset are of another size or have other
    classes than the network's, or if no metric is left.
    """
    if request.data is None:
        raise UsageError(f"{path} does not say where its training images are; add --data NAME|PATH")
    if request.snapshot != "latest":
        raise UsageError(f"--snapshot {request.snapshot} chooses among those of a run; {path} is one file")
    snapshot = load_checkpoint(path)
    reference = open_reference(request.data, progress=progress)
    _check_fit(path, snapshot, reference.train)
    fitting, left_out = [], []
    for spec in request.specs_for(reference.train["name"]):
        why = "needs an encoder; this checkpoint has none" if spec.needs_encoder and not snapshot.E else None
        why = why or statistics_obstacle(spec, reference, request)
        if why is None:
            fitting.append(spec)
        elif request.named:
            raise UserError(f"{path}: {spec.name} {why}")
        else:
            left_out.append(f"{spec.name} {why}")
    if not fitting:
        raise UserError(f"{path}: no metric is left: {left_out[0] if left_out else 'none fits the dataset'}")
    origin = snapshot.origin or {"format": "fact-stylegan", "file": path.name}
    origin = {key: value for key, value in origin.items() if key != "tensors"}
    job = Job(
        source="imported",
        run_id=f"imported-{path.stem}-{snapshot.sha256[:8]}-vs-{reference.name}",
        label=f"{path.stem} (imported from {origin['format']})",
        results=out / f"imported-{path.stem}" / RESULTS,
        reference=reference,
        content_sha256=snapshot.sha256,
        snapshot=path,
        kimg=snapshot.kimg or None,
        training={"imported": {**origin, "run_id": snapshot.run_id}},
    )
    return request.fill(job, specs=fitting), left_out


def _check_fit(path: Path, snapshot: Snapshot, train: dict) -> None:
    """UserError unless the network makes images of the dataset's size, channels and classes."""
    for what, made in (("resolution", snapshot.G.img_resolution), ("channels", snapshot.G.img_channels)):
        if train[what] is not None and train[what] != made:
            raise UserError(f"{path} has {what} {made}, {train['name']} has {train[what]}; give other --data")
    classes = snapshot.G.c_dim if snapshot.C is None else 0
    if classes and train.get("classes") != classes:
        raise UserError(
            f"{path} is conditional on {classes} classes, {train['name']} has {train.get('classes', 0)}; "
            "give --data with these labels"
        )
