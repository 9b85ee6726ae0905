"""Images in arrays: an npz, as samplers of diffusion models write them, an npy, or arrays in memory.

An npz holds `arr_0` uint8 [N, H, W, C] and perhaps `arr_1`, class indices. The array may also be called
`images` or be the only one; [N, C, H, W] and [N, H, W] are understood too. Nothing in the file is ever
unpickled. Images are read in blocks, after their header was checked.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fact_metrics.base import arrays
from fact_metrics.base.errors import NeedsOption, UsageError, UserError
from fact_metrics.base.image_size import ImageSize
from fact_metrics.base.limits import IMAGE_PIXELS
from fact_train.data.dataset import Dataset
from fact_train.data.errors import MissingSplit
from fact_train.data.labels import MAX_CLASSES, check_classes
from fact_train.data.parallel import ProgressCallback, for_each_image
from fact_train.data.pixels import allocate_images
from fact_train.data.processing import Processing, Selection, centre, check_resolution, resize

IMAGES, LABELS = ("arr_0", "images"), ("arr_1", "labels")


def open_npz(
    path: Path,
    *,
    split: str,
    processing: Processing,
    selection: Selection = Selection(),
    progress: ProgressCallback | None = None,
) -> Dataset:
    """The images of an npz or npy as a train split. UserError names the file and what is wrong with it."""
    if split != "train":
        raise MissingSplit(path, split, "give a folder with subfolders train/ and test/")
    selection.refuse_without_files(path)
    with arrays.open_npz(path) as archive:
        name, layout = _find_images(archive)
        labels = None if selection.labels == "none" else _read_labels(archive, layout.count)
        blocks = map(layout.channels_last, archive.rows(name))
        return _from_blocks(
            blocks,
            layout,
            labels,
            name=path.stem,
            source=str(path),
            processing=processing,
            selection=selection,
            progress=progress,
        )


def open_arrays(
    images: np.ndarray, labels: np.ndarray | None, *, name: str, processing: Processing, selection: Selection
) -> Dataset:
    """Images uint8 [N, H, W, 1 or 3] and class indices [N] in memory as a train split."""
    layout = Layout(*images.shape, channels_first=False)
    if labels is not None:
        labels = np.asarray(labels)
        _check_labels(labels, "labels", layout.count)
    return _from_blocks(
        [images], layout, labels, name=name, source="images", processing=processing, selection=selection
    )


def _from_blocks(
    blocks: Iterable[np.ndarray],
    layout: "Layout",
    labels: np.ndarray | None,
    *,
    name: str,
    source: str,
    processing: Processing,
    selection: Selection,
    progress: ProgressCallback | None = None,
) -> Dataset:
    """Blocks of images [n, H, W, C] as a dataset."""
    if selection.need_labels and labels is None:
        raise UsageError(
            f"--cond: {source} holds no labels; save class indices [N] beside the images as arr_1"
        )
    box = processing.box(layout.width, layout.height)
    if box is None:
        raise processing.misfit(f"{source}: the images are", layout.width, layout.height)
    width, height = box
    image_size = processing.size or ImageSize(height, width)
    check_resolution(image_size.resolution, f"{source}: image size")
    if box != (image_size.width, image_size.height) and processing.resize == "none":
        raise NeedsOption(f"{source}: images are {width}x{height}", "choose another --resize than none")
    IMAGE_PIXELS.check(width * height, source, "save them smaller")
    num_classes = 0 if labels is None else int(labels.max()) + 1
    empty = None if labels is None else check_classes(labels, num_classes, source)
    chosen = processing.choose(layout.count).numpy()
    processing = processing.resolved(
        resolution=image_size.resolution,
        channels=processing.channels or layout.depth,
        available=layout.count,
    )
    images = allocate_images((len(chosen), processing.channels, image_size.height, image_size.width))
    mode = "L" if processing.channels == 1 else "RGB"
    first, done = 0, 0  # of the block in the file, and of its chosen images among all chosen
    for block in blocks:
        positions = chosen[(chosen >= first) & (chosen < first + len(block))] - first

        def place(number: int, block=block, positions=positions, done=done) -> None:
            pixels = block[positions[number]]
            image = Image.fromarray(pixels.squeeze(-1) if layout.depth == 1 else pixels)
            image = resize(centre(image.convert(mode), box), image_size, processing.resize)
            target = images[done + number]
            target[:] = np.asarray(image).reshape(*target.shape[1:], -1).transpose(2, 0, 1)

        for_each_image(place, len(positions))
        first, done = first + len(block), done + len(positions)
        if progress is not None:
            progress(done, len(chosen))
    return Dataset(
        name=name,
        split="train",
        images=images,
        labels=None if labels is None else labels[chosen].astype(np.int64),
        num_classes=num_classes,
        processing=processing,
        remarks=selection.describe(),
        notes=[] if empty is None else [empty],
    )


class Layout(NamedTuple):
    """How images lie in an array: their number, their size, and whether channels come first."""

    count: int
    height: int
    width: int
    depth: int
    channels_first: bool

    def channels_last(self, block: np.ndarray) -> np.ndarray:
        """Rows of the array as [n, H, W, C]."""
        block = block.transpose(0, 2, 3, 1) if self.channels_first else block
        return np.ascontiguousarray(block.reshape(len(block), self.height, self.width, self.depth))


def _find_images(archive: arrays.Archive) -> tuple[str, Layout]:
    """Name and layout of the array of images, from headers. UserError if there is none."""
    path, names = archive.path, archive.names
    name = next((n for n in IMAGES if n in names), None)
    if name is None and len(names) == 1:
        (name,) = names
    if {"mu", "sigma"} <= set(names):
        raise UserError(f"{path}: feature statistics, no images; give the images they were computed from")
    if name is None:
        raise UserError(
            f"{path}: holds {', '.join(names[:8]) or 'nothing'}; call the array of images arr_0 or images"
        )
    header = archive.header(name)
    shape = header.shape if len(header.shape) != 3 else (*header.shape, 1)
    first = len(shape) == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3)
    if first:
        shape = shape[0], shape[2], shape[3], shape[1]
    if header.dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
        shown = " x ".join(map(str, header.shape))
        raise UserError(f"{path}: {name} is {header.dtype} {shown}; save uint8 images [N, H, W, 1 or 3]")
    return name, Layout(*shape, channels_first=first)


def _read_labels(archive: arrays.Archive, count: int) -> np.ndarray | None:
    """Class indices [N], if there are any. UserError if they are something else."""
    name = next((n for n in LABELS if n in archive.names), None)
    if name is None:
        return None
    header = archive.header(name)
    if header.shape != (count,) or header.dtype.kind not in "iu":
        raise _not_labels(f"{archive.path}: {name}", count)
    labels = archive.read(name)
    _check_labels(labels, f"{archive.path}: {name}", count)
    return labels


def _check_labels(labels: np.ndarray, what: str, count: int) -> None:
    """UserError unless the labels are `count` class indices."""
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise _not_labels(what, count)
    far = [label for label in (labels.min(), labels.max()) if not 0 <= label < MAX_CLASSES]
    if far:
        raise UserError(f"{what} holds the class {far[0]:,}; number the classes from 0, or add --labels none")


def _not_labels(what: str, count: int) -> UserError:
    return UserError(f"{what} is not a list of {count} class indices from 0; remove it, or add --labels none")
