"""Jobs over ONNX graphs: any generator, scored by every metric that needs images only."""

import dataclasses
from pathlib import Path

from fact_eval.images.onnx_graph import GraphOptions, OnnxGenerator
from fact_eval.jobs.pictures import fitting_specs
from fact_eval.jobs.plan import Job, ReferenceData, Request
from fact_leaderboard.records import RESULTS
from fact_metrics.base.canonical import canonical_sha256
from fact_metrics.base.errors import UsageError, UserError


def plan_graph(
    path: Path, options: GraphOptions, reference: ReferenceData, out: Path, request: Request
) -> tuple[Job, list[str]]:
    """The job that scores a graph's images, and a line for every metric left out and every warning.

    UserError for a graph that does not run or makes images of another size than the reference.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist; give an ONNX file")
    generator = OnnxGenerator(path, options)
    channels, height, width = generator.shape
    if reference.statistics is not None:  # the graph supplies what the file does not record
        recorded = {key: value for key, value in reference.train.items() if value is not None}
        made = {"resolution": height, "channels": channels}
        reference = dataclasses.replace(reference, train={**reference.train, **made, **recorded})
    train, side = reference.train, reference.train["resolution"]
    if (height, width) != (side, side):
        raise UserError(
            f"{path} makes {width}x{height} images, {train['name']} is {side}x{side}; "
            "give --data of the same size"
        )
    specs, left_out = fitting_specs(path, reference, request, available=None)
    described = generator.describe()
    identity = {"graph": described, "reference": train["sha256"]}
    job = Job(
        source="images",
        run_id=f"onnx-{path.stem}-{generator.sha256[:8]}-vs-{reference.name}",
        label=path.stem,
        results=out / f"onnx-{path.stem}" / RESULTS,
        reference=reference,
        content_sha256=canonical_sha256(identity),
        training={"onnx": described},
        graph=(path, options),
    )
    lines = [f"left out: {line}" for line in left_out]
    return request.fill(job, specs=specs), [*(f"warning: {line}" for line in generator.warnings), *lines]
