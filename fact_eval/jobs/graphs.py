"""Jobs over ONNX graphs: any generator, scored by every metric that needs images only."""

import dataclasses
from pathlib import Path

from fact_eval.images.onnx_graph import GraphOptions, OnnxGenerator
from fact_eval.jobs.pictures import fitting_specs, open_reference
from fact_eval.jobs.plan import Job, Request
from fact_leaderboard.records import RESULTS
from fact_metrics.base.canonical import canonical_sha256
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.image_size import ImageSize, shown_size
from fact_metrics.base.progress import Progress


def plan_graph(
    path: Path, options: GraphOptions, out: Path, request: Request, *, progress: Progress | None = None
) -> tuple[Job, list[str]]:
    """The job that scores a graph's images, and a line for every warning and every metric left out.

    UsageError without `data`. UserError for a graph that does not run, or makes images of another size.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist; give an ONNX file")
    if request.data is None:
        raise UsageError(f"{path} does not say where its training images are; add --data NAME|PATH")
    if request.snapshot != "latest":
        raise UsageError(f"--snapshot {request.snapshot} chooses among those of a run; {path} is one file")
    generator = OnnxGenerator(path, options)
    channels, height, width = generator.shape
    reference = open_reference(request.data, progress=progress)
    if reference.statistics is not None:  # the graph supplies what the file does not record
        recorded = {key: value for key, value in reference.train.items() if value is not None}
        made = {"resolution": ImageSize(height, width).resolution, "channels": channels}
        reference = dataclasses.replace(reference, train={**reference.train, **made, **recorded})
    train = reference.train
    if ImageSize(height, width).resolution != train["resolution"]:
        raise UserError(
            f"{path} makes {height}x{width} images (height x width), {train['name']} is "
            f"{shown_size(train['resolution'])}; give --data of the same size"
        )
    specs, left_out = fitting_specs(path, reference, request, available=None)
    made_by = generator.describe()
    job = Job(
        source="imported",
        run_id=f"imported-{path.stem}-{generator.sha256[:8]}-vs-{reference.name}",
        label=f"{path.stem} (imported from ONNX)",
        results=out / f"imported-{path.stem}" / RESULTS,
        reference=reference,
        content_sha256=canonical_sha256({"onnx": made_by, "reference": train["sha256"]}),
        training={
            "imported": {"format": "ONNX", "file": path.name, "file_sha256": generator.sha256, **made_by}
        },
        snapshot=path,
        graph=(path, options),
    )
    warnings = [f"warning: {line}" for line in generator.warnings]
    return request.fill(job, specs=specs), [*warnings, *(f"left out: {line}" for line in left_out)]
