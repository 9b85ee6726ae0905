"""Images in an npz, as samplers of diffusion models write them: `arr_0` uint8 [N, H, W, C], `arr_1` labels.

The array may also be called `images` or be the only one; [N, C, H, W] and [N, H, W] are understood too.
Nothing in the file is ever unpickled.
"""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from fact_metrics.base.errors import UserError
from fact_train.data.dataset import Dataset, allocate_images
from fact_train.data.errors import MissingSplit, NeedsOption
from fact_train.data.parallel import ProgressCallback, for_each_image
from fact_train.data.processing import Processing, centre, check_resolution, resize

IMAGES, LABELS = ("arr_0", "images"), ("arr_1", "labels")


def open_npz(
    path: Path, *, split: str, processing: Processing, progress: ProgressCallback | None = None
) -> Dataset:
    """The images of an npz as a train split. UserError names the file and what is wrong with it."""
    if split != "train":
        raise MissingSplit(path, split, "give a folder with subfolders train/ and test/")
    pixels, labels = _read(path)
    height, width, depth = pixels.shape[1:]
    side = processing.square_side(width, height)
    if side is None:
        raise NeedsOption(
            f"{path}: images of {width}x{height} are not square", "choose --crop center or --crop pad"
        )
    resolution = processing.resolution or side
    check_resolution(resolution, f"{path}: image size")
    if resolution != side and processing.resize == "none":
        raise NeedsOption(f"{path}: images are {side}x{side}", "choose another --resize than none")
    chosen = processing.choose(len(pixels)).numpy()
    processing = processing.resolved(
        resolution=resolution, channels=processing.channels or depth, available=len(pixels)
    )
    images = allocate_images((len(chosen), processing.channels, resolution, resolution))
    mode = "L" if processing.channels == 1 else "RGB"

    def place(position: int) -> None:
        image = Image.fromarray(
            pixels[chosen[position]].squeeze(-1) if depth == 1 else pixels[chosen[position]]
        )
        image = resize(centre(image.convert(mode), side), resolution, processing.resize)
        images[position] = np.asarray(image).reshape(resolution, resolution, -1).transpose(2, 0, 1)

    for_each_image(place, len(chosen), progress)
    return Dataset(
        name=path.stem,
        split=split,
        images=images,
        labels=None if labels is None else labels[chosen].astype(np.int64),
        num_classes=0 if labels is None else int(labels.max()) + 1,
        processing=processing,
    )


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """uint8 [N, H, W, 1 or 3] and class indices [N], if there are any."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            name = next((n for n in IMAGES if n in archive.files), None)
            if name is None and len(archive.files) == 1:
                (name,) = archive.files
            if name is None:
                found = ", ".join(archive.files) or "nothing"
                raise UserError(f"{path}: holds {found}; call the array of images arr_0 or images")
            pixels = archive[name]
            label_name = next((n for n in LABELS if n in archive.files), None)
            labels = None if label_name is None else archive[label_name]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable npz of plain arrays ({error}); save it again") from error
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    elif pixels.ndim == 4 and pixels.shape[3] not in (1, 3) and pixels.shape[1] in (1, 3):
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or not pixels.size:
        shape = " x ".join(map(str, pixels.shape))
        raise UserError(f"{path}: {name} is {pixels.dtype} {shape}; save uint8 images [N, H, W, 1 or 3]")
    if labels is not None and (labels.shape != (len(pixels),) or labels.dtype.kind not in "iu"):
        raise UserError(f"{path}: {label_name} is not a list of {len(pixels)} class indices; remove it")
    return pixels, labels
