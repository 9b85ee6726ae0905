"""The idx format of MNIST and its relatives (Fashion-MNIST, KMNIST ...), and the bundled MNIST itself.

Files: {train,t10k}-{images-idx3,labels-idx1}-ubyte, gzipped (.gz) or not. Images are zero-padded to the next
power of two (28 -> 32), like StyleGAN2-ADA's MNIST, and then resized where another resolution is asked for.
With a rectangular resolution they are padded to the next doubling of its base shape.
MNIST: LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/.
"""

import dataclasses
import gzip
import hashlib
import math
import zlib
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from fact_metrics.base.errors import NeedsOption, UserError
from fact_metrics.base.image_size import SMALLEST, ImageSize, shown_size
from fact_metrics.base.limits import check_unpacked
from fact_train.data.dataset import Dataset
from fact_train.data.errors import MissingSplit
from fact_train.data.parallel import ProgressCallback, for_each_image
from fact_train.data.pixels import allocate_images
from fact_train.data.processing import ANY_SHAPE, Processing, Selection, centre, resize

MNIST_FOLDER = Path(__file__).parent / "mnist"

# of the uncompressed files: a gzip can be packed again, the digits inside stay the published ones
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
IMAGES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
LABELS = {"train": "train-labels-idx1-ubyte", "test": "t10k-labels-idx1-ubyte"}


def open_mnist(
    *,
    split: str,
    processing: Processing,
    selection: Selection = Selection(),
    progress: ProgressCallback | None = None,
) -> Dataset:
    """The bundled MNIST: 60,000 train or 10,000 test digits. UserError where a file is damaged."""
    options = {"split": split, "processing": processing, "selection": selection, "progress": progress}
    return open_idx(MNIST_FOLDER, **options, md5=MNIST_MD5)


def is_idx_folder(folder: Path) -> bool:
    """Whether the folder holds idx images of either split."""
    return any(_find(folder, name) for name in IMAGES.values())


def open_idx(
    folder: Path,
    *,
    split: str,
    processing: Processing,
    selection: Selection = Selection(),
    progress: ProgressCallback | None = None,
    md5: dict[str, str] | None = None,
) -> Dataset:
    """One split of a folder of idx files; the classes are counted over both splits.

    Raises MissingSplit where neither images nor labels of the split are there, UserError for a missing,
    damaged or inconsistent file, and for one whose content has another md5.
    """
    selection.refuse_without_files(folder)
    files = IMAGES[split], LABELS[split]
    if not any(_find(folder, name) for name in files):
        raise MissingSplit(folder, split, f"put {' and '.join(files)} there, gzipped (.gz) or not")
    pixels = read_idx(folder, IMAGES[split], md5)
    labels = {
        name: read_idx(folder, file, md5)
        for name, file in LABELS.items()
        if name == split or _find(folder, file)
    }
    if len(pixels) != len(labels[split]):
        raise UserError(
            f"{folder}: {len(pixels)} images in {IMAGES[split]} and {len(labels[split])} labels in "
            f"{LABELS[split]}; put two files of one dataset there"
        )
    if selection.labels == "none":
        labels = {}
    chosen = processing.choose(len(pixels)).numpy()
    images, processing = _process(pixels, chosen, folder / IMAGES[split], processing, progress)
    return Dataset(
        name=folder.resolve().name,
        split=split,
        images=images,
        labels=labels[split][chosen].astype(np.int64) if labels else None,
        num_classes=max((int(values.max()) + 1 for values in labels.values()), default=0),
        processing=processing,
        remarks=selection.describe(),
    )


def read_idx(folder: Path, name: str, md5: dict[str, str] | None = None) -> np.ndarray:
    """The uint8 array in an idx file: [N, H, W] for idx3, [N] for idx1, N >= 1. UserError names the file."""
    path = _find(folder, name)
    if path is None:
        raise UserError(f"{folder / name}: no such file, gzipped (.gz) or not; put it beside the others")
    again, ndim = "fetch it again", 3 if "idx3" in name else 1
    try:
        content = _content(path, ndim)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read or unpacked ({error}); {again}") from error
    if md5 is not None:
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5[name]:
            raise UserError(f"{path}: md5 of its content is {found}, published is {md5[name]}; {again}")
    start = 4 + 4 * ndim
    if len(content) < start or content[:4] != bytes([0, 0, 8, ndim]):
        raise UserError(f"{path}: not an idx{ndim} file of unsigned bytes (its first bytes say so); {again}")
    shape = np.frombuffer(content, ">u4", ndim, offset=4).tolist()
    if len(content) - start != math.prod(shape):
        sides = " x ".join(map(str, shape))
        raise UserError(
            f"{path}: its header promises {sides} bytes and {len(content) - start} follow; {again}"
        )
    if math.prod(shape) == 0:
        raise UserError(f"{path}: holds nothing (its header says {shape}); {again}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _content(path: Path, ndim: int) -> bytes:
    """The unpacked bytes of a file; UserError once they are implausibly many."""
    if path.suffix != ".gz":
        return path.read_bytes()
    size, blocks, done = path.stat().st_size, [], 0
    with gzip.open(path) as packed:
        header = packed.read(4 + 4 * ndim)
        if len(header) == 4 + 4 * ndim and header[:4] == bytes([0, 0, 8, ndim]):
            check_unpacked(math.prod(np.frombuffer(header, ">u4", offset=4).tolist()), size, path)
        packed.seek(0)
        while block := packed.read(1 << 20):
            blocks.append(block)
            done += len(block)
            check_unpacked(done, size, path)
    return b"".join(blocks)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _process(
    pixels: np.ndarray,
    chosen: np.ndarray,
    path: Path,
    processing: Processing,
    progress: ProgressCallback | None,
) -> tuple[np.ndarray, Processing]:
    """Crop, pad and resize pixels [N, H, W]: images [n, C, H, W] and the resolved options."""
    height, width = pixels.shape[1:]
    if processing.resolution == ANY_SHAPE:  # padding needs a shape
        processing = dataclasses.replace(processing, resolution=None)
    box = processing.box(width, height)
    if box is None:
        raise processing.misfit(f"{path}: the images are", width, height)
    padded = _padded(box, (processing.size or ImageSize.of(SMALLEST)).base)
    image_size = processing.size or padded
    if image_size != padded and processing.resize == "none":
        raise NeedsOption(
            f"{path}: images are {shown_size(padded.resolution)} (padded) and --resolution is "
            f"{image_size.resolution}",
            "choose another --resize than none",
        )
    processing = processing.resolved(
        resolution=image_size.resolution, channels=processing.channels or 1, available=len(pixels)
    )
    images = allocate_images((len(chosen), processing.channels, image_size.height, image_size.width))
    if box == (width, height) and image_size == padded:  # the usual case, without a loop
        top, left = (padded.height - height + 1) // 2, (padded.width - width + 1) // 2
        images[:, :, top : top + height, left : left + width] = pixels[chosen][:, None]
        return images, processing

    def place(position: int) -> None:
        image = Image.fromarray(pixels[chosen[position]])
        image = centre(centre(image, box), (padded.width, padded.height))
        images[position] = np.asarray(resize(image, image_size, processing.resize))

    for_each_image(place, len(chosen), progress)
    return images, processing


def _padded(box: tuple[int, int], base: tuple[int, int]) -> ImageSize:
    """The smallest doubling of a base (height, width) that holds a box (width, height)."""
    width, height = box
    doublings = next(i for i in count() if base[0] << i >= height and base[1] << i >= width)
    return ImageSize(base[0] << doublings, base[1] << doublings)
