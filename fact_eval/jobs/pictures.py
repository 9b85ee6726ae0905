"""Jobs over folders of pictures from any generator, and the reference data that a command names."""

import dataclasses
from pathlib import Path

from fact_eval.features.reference_stats import NEEDS_IMAGES, is_statistics, read_statistics
from fact_eval.images.datasets import open_images, open_reference_images
from fact_eval.jobs.plan import Job, ReferenceData, Request
from fact_leaderboard.records import RESULTS
from fact_metrics.base.canonical import canonical_sha256
from fact_metrics.base.errors import UserError
from fact_metrics.base.image_size import shown_size
from fact_metrics.base.progress import Progress
from fact_metrics.family import spell_count
from fact_metrics.spec import MetricSpec
from fact_train.data.errors import NeedsOption, UnusableFiles
from fact_train.data.processing import ANY_SHAPE
from fact_train.datasets import dataset_entry


def open_reference(data: str, *, progress: Progress | None = None) -> ReferenceData:
    """A dataset by name or path, or a file of statistics. Raises the errors of `open_dataset`."""
    if is_statistics(data):
        return statistics_reference(data)
    train = open_reference_images(data, progress=progress)
    return ReferenceData(data, train.describe(), opened=train)


def statistics_reference(data: str) -> ReferenceData:
    """A file of statistics, identified by its content; the size of its images may be unknown."""
    statistics = read_statistics(data)
    dataset = statistics.dataset or {}
    train = {
        "name": dataset.get("name", statistics.path.stem),
        "split": dataset.get("split", "train"),
        "n": statistics.parts[0].n,
        "sha256": statistics.sha256,
        "resolution": dataset.get("resolution"),
        "channels": dataset.get("channels"),
        "statistics": statistics.kind,
        "statistics_of": statistics.dataset,
    }
    return ReferenceData(data, train, statistics)


def plan_pictures(
    folder: Path, reference: ReferenceData, out: Path, request: Request, *, progress: Progress | None = None
) -> tuple[Job, list[str]]:
    """The job that scores a folder or archive of pictures, and a line for every metric that is left out.

    Pictures must have the reference's size; channels follow the reference. UserError if no metric is left, or
    if a metric that the user named needs more pictures than there are.
    """
    train = reference.train
    shape = ANY_SHAPE if isinstance(train["resolution"], str) else None
    try:
        pictures = open_images(folder, resolution=shape, channels=train["channels"], progress=progress)
    except UnusableFiles as error:
        raise UnusableFiles([_without_option(each) for each in error.errors], error.among) from error
    except NeedsOption as error:
        size = "one size" if train["resolution"] is None else shown_size(train["resolution"])
        raise error.with_way_out(f"save the pictures at {size}, the reference's size") from error
    if reference.statistics is not None:  # the pictures supply what the file does not record
        recorded = {key: value for key, value in train.items() if value is not None}
        measured = {key: pictures.describe()[key] for key in ("resolution", "channels")}
        train = {**train, **measured, **recorded}
        reference = dataclasses.replace(reference, train=train)
    if pictures.resolution != train["resolution"]:
        raise UserError(
            f"{folder} holds {shown_size(pictures.resolution)} pictures, {train['name']} is "
            f"{shown_size(train['resolution'])}; save the pictures at the reference's size"
        )
    fitting, left_out = fitting_specs(folder, reference, request, available=len(pictures))
    job = Job(
        source="images",
        run_id=f"images-{pictures.name}-{pictures.sha256[:8]}-vs-{reference.name}",
        label=pictures.name,
        results=out / f"images-{pictures.name}" / RESULTS,
        reference=reference,
        content_sha256=canonical_sha256({"pictures": pictures.sha256, "reference": train["sha256"]}),
        pictures=pictures,
    )
    return request.fill(job, specs=fitting), left_out


def fitting_specs(
    source: Path, reference: ReferenceData, request: Request, *, available: int | None
) -> tuple[list[MetricSpec], list[str]]:
    """The requested metrics that need images only, and a line for every other one.

    `available` is the number of images; None if there is no end of them. UserError if no metric is left, or
    if a metric that the user named does not fit.
    """
    fitting, left_out, reasons, few = [], [], [], False
    for spec in request.specs_for(reference.train["name"]):
        shortage = None if available is None else _shortage(spec, available)
        why = _obstacle(spec) or shortage or statistics_obstacle(spec, reference, request)
        if why is None:
            fitting.append(spec)
        elif request.named:
            raise UserError(f"{source}: {spec.name} {why}")
        else:
            left_out.append(f"{spec.name} {why}")
            reasons += left_out[-1:] if _obstacle(spec) is None else []
            few = few or why is shortage
    if not fitting:
        reason = (reasons or left_out)[0]
        if reference.statistics is not None:
            raise UserError(f"{reference.data}: no metric takes it: {reason}")
        if few:
            own = f"fid{spell_count(available)}_full_{dataset_entry(reference.train['name']).detector}"
            raise UserError(
                f"{source} holds {available:,} pictures, too few for every metric: {reason}. For a value "
                f"that compares with as many alone, name such a metric: --metrics {own}"
            )
        raise UserError(f"{source}: no metric takes it: {reason}")
    return fitting, left_out


def _without_option(error: UserError) -> UserError:
    """What training mends with a flag is only said here: pictures are scored as they are."""
    return UserError(error.problem) if isinstance(error, NeedsOption) else error


def _obstacle(spec: MetricSpec) -> str | None:
    if spec.needs_generator:
        return "needs a generator, not pictures"
    if spec.needs_encoder:
        return "needs an encoder, not pictures"
    if spec.needs_training:
        return "needs a training run, not pictures"
    return None


def _shortage(spec: MetricSpec, available: int) -> str | None:
    if spec.n_generated and spec.n_generated > available:
        return f"needs {spec.n_generated:,} pictures, there are {available:,}"
    return None


def statistics_obstacle(spec: MetricSpec, reference: ReferenceData, request: Request) -> str | None:
    """Why a metric cannot use a reference of statistics; None if it can, or if the reference has images."""
    statistics = reference.statistics
    need = next((need for need in spec.needs if need.side == "real"), None)
    if statistics is None or need is None:
        return None
    if not spec.from_statistics:
        return f"cannot be computed: {reference.data} {NEEDS_IMAGES}"
    detector = spec.protocol["detectors"][need.detector]
    if statistics.detector is None:
        if not request.named:
            return f"was not named with --metrics, and {reference.data} does not name its detector"
    elif statistics.detector != detector:
        differing = [key for key in detector if statistics.detector.get(key) != detector[key]]
        other = statistics.detector.get("detector")
        return f"uses {need.detector}, {reference.data} uses {other} (differing: {', '.join(differing)})"
    elif reference.train["split"] != need.split:
        return f"compares with {need.split} images, {reference.data} has {reference.train['split']} images"
    if statistics.part(detector["width"]) is None:
        widths = " and ".join(str(part.width) for part in statistics.parts)
        return f"takes {detector['width']} features, {reference.data} holds statistics of {widths}"
    return None
