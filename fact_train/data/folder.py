"""Image folders, zips and tars of them: every image below, in the order of their names.

- Where the files lie: files.py; which of them are images of which split: splits.py; labels: label_files.py.
  A folder, its zip and its tar (WebDataset) give the same dataset.
- Every file is decoded once, in threads, while opening: afterwards no file can fail and no epoch decodes
  again. Pixels are held as uint8, in memory or beyond 4 GiB in a file under TMPDIR (allocate_images).
- Opened lazily, files that were all decoded before and have not changed since (index.py) are decoded on
  demand, one by one.
- Opening reports all damaged files: the error names the first and counts them. What happens to every
  unusual kind of file: decode.py.
"""

import dataclasses
import io
import weakref
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from fact_metrics.base.errors import NeedsOption, UserError
from fact_metrics.base.image_size import ImageSize
from fact_train.data.dataset import Dataset
from fact_train.data.decode import Header, decode, read_header
from fact_train.data.errors import MissingSplit
from fact_train.data.files import Files, attempt_all, image_files, raise_first
from fact_train.data.index import DatasetIndex
from fact_train.data.label_files import no_labels_error, read_labels
from fact_train.data.parallel import ProgressCallback
from fact_train.data.pixels import allocate_images
from fact_train.data.processing import Processing, Selection, centre, check_resolution, resize
from fact_train.data.splits import find_splits

# What decoding can find out about a file, with the words for it.
FINDINGS = {
    "exif_turned": "turned or flipped as their EXIF says",
    "first_frames": "animated, first frame read",
}


def open_folder(
    path: Path,
    *,
    split: str,
    processing: Processing,
    selection: Selection = Selection(),
    progress: ProgressCallback | None = None,
    lazy: bool = False,
) -> Dataset:
    """A folder, zip or tar of images as a dataset. UserError for what cannot be used, naming the first file.

    Where files are damaged it is an UnusableFiles, which has a line for each of them.
    """
    name = path.resolve().name if path.is_dir() else path.stem.removesuffix(".tar")
    with ExitStack() as stack:
        files = stack.enter_context(image_files(path))
        source = _source_of(files, name, split, selection)
        keep = stack if lazy else None
        return open_files(files, source, name, split, processing, selection, progress, keep)


class Source(NamedTuple):
    """Names of the image files of a split, in order; their labels, int64 [N], float32 [N, L] or None; and
    lines for the user."""

    names: list[str]
    labels: np.ndarray | None
    num_classes: int
    notes: list[str]


def _source_of(files: Files, name: str, split: str, selection: Selection) -> Source:
    splits = find_splits(files, selection.image_key)
    if split not in splits.names:
        raise MissingSplit(
            files.path, split, "put its images into subfolders train/ and test/, or use the train split"
        )
    labels = read_labels(files, splits, split, selection.labels)
    if selection.need_labels and labels.values is None:
        raise no_labels_error(files, splits, split, name)
    skipped = splits.skipped_line(labels.sidecars)
    notes = [*([skipped] if skipped else []), *splits.notes, *labels.notes]
    return Source(splits.names[split], labels.values, labels.num_classes, notes)


def open_files(
    files: Files,
    source: Source,
    name: str,
    split: str,
    processing: Processing,
    selection: Selection,
    progress: ProgressCallback | None,
    keep: ExitStack | None = None,
) -> Dataset:
    """Image files as a dataset. With `keep`, which closes them, they may be decoded on demand later."""
    index = DatasetIndex.of_files(files, split, processing, selection)
    if keep is None:
        return _open_files(files, source, name, split, processing, selection, index, progress)
    with index.locked():
        dataset = _open_files(files, source, name, split, processing, selection, index, progress, lazy=True)
        dataset.sha256  # noqa: B018 - saved before another process may look for it
    weakref.finalize(dataset, keep.pop_all().close)
    return dataset


def _open_files(
    files: Files,
    source: Source,
    name: str,
    split: str,
    processing: Processing,
    selection: Selection,
    index: DatasetIndex,
    progress: ProgressCallback | None,
    *,
    lazy: bool = False,
) -> Dataset:
    chosen = processing.choose(len(source.names)).numpy()
    chosen_names = [source.names[i] for i in chosen]

    if is_indexed := index.load():
        processing = Processing(**index.entries["processing"])
    else:
        headers = attempt_all(files, chosen_names, lambda position, stream, path: read_header(stream, path))
        headers_by_name = dict(zip(chosen_names, headers, strict=True))
        processing = _resolve(files.path, headers_by_name, processing, len(source.names))
        grays = sum(header.gray for header in headers if isinstance(header, Header))
        index.entries["grays"] = grays if processing.channels == 3 else 0
        index.entries["processing"] = dataclasses.asdict(processing)
    image_size, channels = processing.size, processing.channels
    images = allocate_images((len(chosen), channels, image_size.height, image_size.width))
    found: Counter[str] = Counter()

    def place(position: int, stream: BinaryIO, path: str) -> tuple[bool, bool]:
        if is_indexed and files.stamp(chosen_names[position]) != index.stamps[chosen_names[position]]:
            raise UserError(f"{path}: changed since it was opened; run the same command again")
        whole = io.BytesIO(stream.read())  # to its end: there a zip checks its CRC
        image, *findings = decode(whole, path, channels=channels, alpha=processing.alpha)
        image = resize(centre(image, processing.box(*image.size)), image_size, processing.resize)
        images[position] = np.asarray(image).reshape(*images.shape[2:], channels).transpose(2, 0, 1)
        return tuple(findings)

    def decode_some(positions: Sequence[int], progress: ProgressCallback | None = None) -> None:
        names = [chosen_names[position] for position in positions]
        results = attempt_all(files, names, lambda i, *file: place(positions[i], *file), progress)
        raise_first(results)
        for result in results:
            found.update(kind for kind, holds in zip(FINDINGS, result, strict=True) if holds)

    on_demand = lazy and is_indexed
    if not on_demand:
        decode_some(range(len(chosen)), progress)
        index.entries["found"] = dict(found)
    counts, grays = dict(index.entries["found"]), index.entries["grays"]
    notes = [f"{counts[kind]:,} images {words}" for kind, words in FINDINGS.items() if kind in counts]
    if 0 < grays < len(chosen):
        notes.append(f"{grays:,} of {len(chosen):,} images are gray, read as RGB")
    return Dataset(
        name=name,
        split=split,
        images=images,
        labels=None if source.labels is None else source.labels[chosen],
        num_classes=source.num_classes,
        processing=processing,
        index=index,
        decode=decode_some if on_demand else None,
        remarks={**selection.describe(), **counts},
        notes=[*source.notes, *notes],
    )


def _resolve(
    path: Path, headers: dict[str, Header | UserError], processing: Processing, available: int
) -> Processing:
    """Fill in resolution and channels from the files, and refuse shapes that the options do not allow."""
    readable = {name: header for name, header in headers.items() if isinstance(header, Header)}
    if not readable:
        raise_first(list(headers.values()))
    firsts: dict[tuple[int, int] | None, str] = {}  # width and height after cropping -> first such image
    for name, header in readable.items():
        firsts.setdefault(processing.box(header.width, header.height), name)

    def size(name: str) -> str:
        return f"{path / name} is {readable[name].width}x{readable[name].height}"

    if None in firsts:
        odd = readable[firsts[None]]
        raise processing.misfit(f"{path / firsts[None]} is", odd.width, odd.height)
    image_size = processing.size
    if image_size is None:
        if len(firsts) > 1:
            one, other = list(firsts.values())[:2]
            raise NeedsOption(
                f"{size(one)} and {size(other)}", "choose --resolution to resize all to one size"
            )
        ((width, height),) = firsts
        image_size = ImageSize(height, width)
        check_resolution(image_size.resolution, f"{path}: image size")
    if processing.resize == "none":
        for box, name in firsts.items():
            if box != (image_size.width, image_size.height):
                wanted = f"{image_size.width}x{image_size.height}"
                raise NeedsOption(f"{size(name)}, not {wanted}", "choose another --resize than none")
    channels = processing.channels or (1 if all(header.gray for header in readable.values()) else 3)
    return processing.resolved(resolution=image_size.resolution, channels=channels, available=available)
