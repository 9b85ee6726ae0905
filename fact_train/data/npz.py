"""Images in an npz, as samplers of diffusion models write them: `arr_0` uint8 [N, H, W, C], `arr_1` labels.

The array may also be called `images` or be the only one; [N, C, H, W] and [N, H, W] are understood too.
Nothing in the file is ever unpickled. Images are read in blocks, after their header was checked.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fact_metrics.base import arrays
from fact_metrics.base.errors import UserError
from fact_metrics.base.limits import IMAGE_PIXELS
from fact_train.data.dataset import Dataset
from fact_train.data.errors import MissingSplit, NeedsOption
from fact_train.data.labels import MAX_CLASSES
from fact_train.data.parallel import ProgressCallback, for_each_image
from fact_train.data.pixels import allocate_images
from fact_train.data.processing import Processing, centre, check_resolution, resize

IMAGES, LABELS = ("arr_0", "images"), ("arr_1", "labels")


def open_npz(
    path: Path, *, split: str, processing: Processing, progress: ProgressCallback | None = None
) -> Dataset:
    """The images of an npz as a train split. UserError names the file and what is wrong with it."""
    if split != "train":
        raise MissingSplit(path, split, "give a folder with subfolders train/ and test/")
    with arrays.open_npz(path) as archive:
        name, layout = _find_images(archive)
        labels = _read_labels(archive, layout.count)
        side = processing.square_side(layout.width, layout.height)
        if side is None:
            raise NeedsOption(
                f"{path}: images of {layout.width}x{layout.height} are not square",
                "choose --crop center or --crop pad",
            )
        resolution = processing.resolution or side
        check_resolution(resolution, f"{path}: image size")
        if resolution != side and processing.resize == "none":
            raise NeedsOption(f"{path}: images are {side}x{side}", "choose another --resize than none")
        IMAGE_PIXELS.check(side * side, path, "save them smaller")
        chosen = processing.choose(layout.count).numpy()
        processing = processing.resolved(
            resolution=resolution, channels=processing.channels or layout.depth, available=layout.count
        )
        images = allocate_images((len(chosen), processing.channels, resolution, resolution))
        mode = "L" if processing.channels == 1 else "RGB"
        first, done = 0, 0  # of the block in the file, and of its chosen images among all chosen
        for block in archive.rows(name):
            block = layout.channels_last(block)
            positions = chosen[(chosen >= first) & (chosen < first + len(block))] - first

            def place(number: int, block=block, positions=positions, done=done) -> None:
                pixels = block[positions[number]]
                image = Image.fromarray(pixels.squeeze(-1) if layout.depth == 1 else pixels)
                image = resize(centre(image.convert(mode), side), resolution, processing.resize)
                target = images[done + number]
                target[:] = np.asarray(image).reshape(resolution, resolution, -1).transpose(2, 0, 1)

            for_each_image(place, len(positions))
            first, done = first + len(block), done + len(positions)
            if progress is not None:
                progress(done, len(chosen))
    return Dataset(
        name=path.stem,
        split=split,
        images=images,
        labels=None if labels is None else labels[chosen].astype(np.int64),
        num_classes=0 if labels is None else int(labels.max()) + 1,
        processing=processing,
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
    refusal = f"{archive.path}: {name} is not a list of {count} class indices; remove it"
    if header.shape != (count,) or header.dtype.kind not in "iu":
        raise UserError(refusal)
    labels = archive.read(name)
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        raise UserError(refusal)
    return labels
