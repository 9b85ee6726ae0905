"""Finds all problems of image files at once, before any costly work.

Errors are files that scoring would reject. Warnings are properties that change a value silently: bit depth,
palettes, duplicates, lossy compression on one side only, too few images for a metric or a covariance.
"""

import contextlib
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from fact_eval.features.reference_stats import is_statistics
from fact_eval.jobs.plan import Job
from fact_metrics.base.errors import NeedsOption, UserError
from fact_metrics.base.image_size import ImageSize
from fact_metrics.base.pictures import is_gray, upright, upright_size
from fact_metrics.spec import MetricSpec
from fact_train.data import open_dataset
from fact_train.data.decode import open_image
from fact_train.data.files import Files, attempt_all, image_files
from fact_train.data.idx import is_idx_folder
from fact_train.data.label_files import read_labels
from fact_train.data.parallel import ProgressCallback
from fact_train.data.processing import ANY_SHAPE, check_resolution
from fact_train.data.splits import Splits, find_splits
from fact_train.datasets import dataset_names

# Findings that opening the pictures reports as well, in more words.
SAID_BY_OPENING = ("size", "shape", "labels", "files", "EXIF", "animated")


@dataclass(frozen=True)
class Finding:
    """An error or a warning about files; `files` are names inside the audited path."""

    kind: str
    error: bool
    message: str
    files: tuple[str, ...] = ()


class ImageProperties(NamedTuple):
    """Properties of one image file; `pixels` is a hash of the decoded pixels, None if it was not decoded."""

    width: int
    height: int
    gray: bool
    bits: int
    palette: bool
    alpha: bool  # has an alpha channel or a transparent colour
    transparent: bool  # has a pixel that is not opaque; needs decoding
    turned: bool  # EXIF turns or flips it
    animated: bool  # its first frame is read
    lossy: bool
    pixels: bytes | None


@dataclass(frozen=True)
class Audit:
    """A summary of image files and the findings about them."""

    path: Path
    count: int
    size: tuple[int, int] | None  # the most frequent one
    lossy: float  # share of the files
    findings: tuple[Finding, ...]
    splits: dict[str, int]  # images of the train split, and of the test split if there is one

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.error]


def audit(
    path: Path,
    *,
    decode: bool = True,
    progress: ProgressCallback | None = None,
    image_key: str | None = None,
) -> Audit:
    """Check what scoring reads of a folder, zip or tar; without `decode` only the headers of its images.

    Only decoding finds damaged pixels, transparent pixels and duplicates. UserError if there is no image.
    """
    path = Path(path)
    if image_file_path(path) is None:
        return _audit_opened(str(path))
    with image_files(path) as files:
        splits = find_splits(files, image_key)
        names = [name for names in splits.names.values() for name in names]

        def inspect(position: int, stream: BinaryIO, name: str) -> ImageProperties:
            return _inspect(stream, name, decode=decode)

        results = attempt_all(files, names, inspect, progress)
        results = dict(zip(names, results, strict=True))
        prefix = f"{files.path}/"
        labels = _label_findings(files, splits)
        skipped = splits.skipped_line()
        notes = [*([skipped] if skipped else []), *splits.notes]
    images = {name: result for name, result in results.items() if isinstance(result, ImageProperties)}
    errors = {name: str(e).removeprefix(prefix) for name, e in results.items() if isinstance(e, UserError)}
    findings = [Finding("unusable", True, reason, (name,)) for name, reason in errors.items()]
    findings += _findings(images) + labels
    findings += [Finding("files", False, note) for note in notes]
    sizes = Counter((image.width, image.height) for image in images.values())
    return Audit(
        path=path,
        count=len(names),
        size=sizes.most_common(1)[0][0] if sizes else None,
        lossy=sum(image.lossy for image in images.values()) / max(len(images), 1),
        findings=tuple(findings),
        splits={split: len(names) for split, names in splits.names.items()},
    )


def image_file_path(data: str | Path) -> Path | None:
    """The path of a dataset of image files; None for a name, idx files, arrays, statistics."""
    path = Path(data)
    if str(data) in dataset_names() or is_statistics(path) or path.suffix.lower() in (".npz", ".npy"):
        return None
    return path if path.exists() and not (path.is_dir() and is_idx_folder(path)) else None


def audit_data(data: str) -> Audit:
    """A dataset by name or path: the headers of its image files, or its size once it is opened."""
    path = image_file_path(data)
    return _audit_opened(data) if path is None else audit(path, decode=False)


def _audit_opened(data: str) -> Audit:
    train = open_dataset(data, resolution=ANY_SHAPE)
    splits = {"train": len(train)}
    with contextlib.suppress(UserError):  # no test split
        splits["test"] = len(open_dataset(data, split="test", resolution=ANY_SHAPE))
    size = (train.size.width, train.size.height)
    notes = tuple(Finding("files", False, note) for note in train.notes)
    return Audit(Path(data), sum(splits.values()), size, 0.0, notes, splits)


def audit_pictures(pictures: Path, reference: str) -> list[Finding]:
    """Findings from the headers of pictures, alone and beside the real images.

    If a header has an error, all files are decoded, so that every bad file is named at once.
    """
    if image_file_path(pictures) is None:
        return []
    result = audit(pictures, decode=False)
    if result.errors:
        result = audit(pictures)
    if is_statistics(reference) or image_file_path(reference) is None:
        differences = []
    else:
        differences = compare_with_reference(result, audit(Path(reference), decode=False))
    return [f for f in (*result.findings, *differences) if f.kind not in SAID_BY_OPENING]


def audit_references(jobs: Sequence[Job], report: Callable[[str], None]) -> tuple[list[Job], list[str]]:
    """The jobs whose real images have readable headers, and a line for every dataset without.

    Warnings go to `report`. Jobs without missing records are not checked.
    """
    problems: dict[str, list[str]] = {}
    for data, jobs_of_data in _by_data(job for job in jobs if job.missing).items():
        try:
            path, key = image_file_path(data), jobs_of_data[0].reference.train.get("image_key")
            result = audit(path, decode=False, image_key=key) if path else None
        except UserError as error:
            problems[data] = [str(error)]
            continue
        unusable = [f for f in result.findings if f.kind == "unusable"] if result else []
        if unusable:
            problems[data] = [f"{data}: {line}" for line in lines(unusable)]
        real = _real_counts(jobs_of_data[0], result)
        for line in lines(check_counts(_cards(jobs_of_data), generated=None, real=real)):
            report(line)
    usable = [job for job in jobs if not (job.missing and job.reference.data in problems)]
    return usable, [line for each in problems.values() for line in each]


def compare_with_reference(pictures: Audit, reference: Audit) -> list[Finding]:
    """Differences of two sets of files that change a metric."""
    findings = []
    if pictures.size and reference.size and pictures.size != reference.size:
        ours, theirs = ("x".join(map(str, audit.size)) for audit in (pictures, reference))
        findings.append(
            Finding(
                "size", True, f"{pictures.path} is {ours}, {reference.path} is {theirs}; one size is needed"
            )
        )
    if abs(pictures.lossy - reference.lossy) > 0.5:
        ours, theirs = (f"{audit.path} {audit.lossy:.0%}" for audit in (pictures, reference))
        findings.append(
            Finding(
                "compression", False,
                f"lossy files (JPEG, WebP): {ours}, {theirs}; FID and KID see compression as a difference",
            )
        )  # fmt: skip
    return findings


def check_counts(
    specs: Iterable[MetricSpec], *, generated: int | None, real: dict[str, int]
) -> list[Finding]:
    """Warnings for metrics with fewer images than requested, or fewer than the width of their features.

    `generated`: how many images there are, None for a generator; `real`: how many per split.
    """
    few: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    rank: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for spec in specs:
        for need in spec.needs:
            available = generated if need.side == "generated" else real.get(need.split or "train")
            if need.side == "real" and available is None:
                continue
            if need.count is not None and available is not None and available < need.count:
                few[need.side, need.count, available].append(spec.name)
            used = min(n for n in (need.count, available) if n is not None)
            width = spec.protocol["detectors"][need.detector]["width"]
            if spec.from_statistics and used <= width:
                rank[need.side, used][spec.name] = width
    findings = [
        Finding("sample size", False, f"{available:,} {side} images, {count:,} requested: {_some(names)}")
        for (side, count, available), names in few.items()
    ]
    return findings + [
        Finding(
            "rank", False,
            f"{used:,} {side} images and {_range(widths.values())} features: the covariance is singular, "
            f"the distance biased: {_some(list(widths))}",
        )
        for (side, used), widths in rank.items()
    ]  # fmt: skip


def lines(findings: Sequence[Finding], *, names: int | None = None) -> list[str]:
    """A line per finding: severity, kind, message and its files (the first `names` of them; None: all)."""
    return [
        f"{'error' if f.error else 'warning'}: {f.kind}: {f.message}"
        + (f" ({_some(f.files, names)})" if f.files and f.kind != "unusable" else "")
        for f in findings
    ]


def _by_data(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[job.reference.data].append(job)
    return groups


def _cards(jobs: Iterable[Job]) -> list[MetricSpec]:
    return list({spec.name: spec for job in jobs for spec, _ in job.missing}.values())


def _real_counts(job: Job, result: Audit | None) -> dict[str, int]:
    if result is not None:
        return result.splits
    whole = job.reference.train.get("max_images") is None
    return {"train": job.reference.train["n"]} if whole else {}


def _label_findings(files: Files, splits: Splits) -> list[Finding]:
    """What scoring says of the labels: an error where it refuses them."""
    findings = []
    for split in splits.names:
        try:
            notes = read_labels(files, splits, split, "auto").notes
        except UserError as error:
            findings.append(Finding("labels", True, str(error)))
        else:
            findings += [Finding("labels", False, note) for note in notes]
    return list(dict.fromkeys(findings))


def _findings(images: dict[str, ImageProperties]) -> list[Finding]:
    """Findings about the readable files together."""

    def select(condition) -> tuple[str, ...]:
        return tuple(name for name, image in images.items() if condition(image))

    sizes = Counter((image.width, image.height) for image in images.values())
    usual = sizes.most_common(1)[0][0] if sizes else None
    odd = select(lambda image: (image.width, image.height) != usual)
    gray = select(lambda image: image.gray)
    firsts: dict[bytes, str] = {}
    copies = {
        name: first
        for name, image in images.items()
        if image.pixels is not None and (first := firsts.setdefault(image.pixels, name)) != name
    }
    candidates = [
        Finding(
            "mixed sizes", True, f"not {usual[0]}x{usual[1]} as {sizes[usual]:,} others" if usual else "", odd
        ),
        Finding(
            "transparent", True, "has transparent pixels; save opaque",
            select(lambda image: image.transparent),
        ),
        Finding("EXIF", False, "turned or flipped as it says", select(lambda image: image.turned)),
        Finding("animated", False, "its first frame is read", select(lambda image: image.animated)),
        Finding("16-bit", False, "read as 8 bits, the high byte", select(lambda image: image.bits == 16)),
        Finding("palette", False, "expanded to RGB", select(lambda image: image.palette)),
        Finding(
            "alpha", False, "an alpha channel, dropped where all is opaque",
            select(lambda image: image.alpha and not image.transparent),
        ),
        Finding(
            "gray and colour", False, f"gray among {len(images) - len(gray):,} colour images, read as RGB",
            gray if len(gray) < len(images) else (),
        ),
        Finding(
            "duplicates", False, "the same pixels as another file",
            tuple(f"{name} = {first}" for name, first in copies.items()),
        ),
        Finding("lossy", False, "compressed with loss (JPEG, WebP)", select(lambda image: image.lossy)),
    ]  # fmt: skip
    return [finding for finding in candidates if finding.files] + _shape_findings(usual)


def _shape_findings(size: tuple[int, int] | None) -> list[Finding]:
    """An error where scoring refuses all images of this size."""
    if size is None:
        return []
    width, height = size
    resolution = ImageSize(height, width).resolution
    try:
        check_resolution(resolution, "image size")
    except NeedsOption as error:
        return [Finding("shape", True, f"{error.problem}; resize them")]
    if width == height:
        return []
    train = f"to train on them, choose --resolution {resolution} or --crop center"
    return [Finding("shape", False, f"rectangles, {height} high and {width} wide; {train}")]


def _inspect(stream: BinaryIO, path: str, *, decode: bool) -> ImageProperties:
    data = io.BytesIO(stream.read()) if decode else stream  # reads to the end, where a zip checks its CRC
    with open_image(data, path) as image:
        mode, size, gray = image.mode, upright_size(image), is_gray(image)
        turned, animated = False, image.format == "GIF" and image.is_animated
        bits = 16 if mode.startswith("I") or any(";16" in str(tile[3]) for tile in image.tile) else 8
        alpha, lossy, pixels, transparent = image.has_transparency_data, _is_lossy(image, data), None, False
        if decode:
            shown, turned = upright(image, path)
            size = shown.size
            shown = shown.convert("RGBA") if mode in ("P", "PA") or alpha else shown
            transparent = alpha and shown.getchannel("A").getextrema()[0] < 255
            pixels = hashlib.sha256(f"{shown.mode} {shown.size}".encode() + shown.tobytes()).digest()
    return ImageProperties(
        *size,
        *(gray, bits, mode in ("P", "PA"), alpha, transparent, turned, animated, lossy, pixels),
    )


def _is_lossy(image: Image.Image, data: BinaryIO) -> bool:
    """JPEG always; WebP if it has a VP8 chunk instead of VP8L (RIFF container specification)."""
    if image.format != "WEBP":
        return image.format in ("JPEG", "MPO")
    position = data.tell()
    data.seek(12)
    lossy = b"VP8 " in data.read(4096)
    data.seek(position)
    return lossy


def _range(numbers: Iterable[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _some(names: Sequence[str], limit: int | None = 4) -> str:
    shown = ", ".join(names if limit is None else names[:limit])
    left = 0 if limit is None else len(names) - limit
    return f"{shown} and {left:,} more" if left > 0 else shown
