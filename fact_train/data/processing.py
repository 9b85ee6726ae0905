"""The processing options of a dataset: resolution, named resize, crop and alpha modes, channels, subset.

Resizing is Pillow's, in 8 bits, antialiased when it shrinks. The filter changes a published FID (FFHQ-256
built with Lanczos or box: 3.8 against 5.3, NVlabs/stylegan2-ada-pytorch#283), so the content hash covers it.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
from PIL import Image

from fact_metrics.base.errors import UsageError, unknown_name
from fact_metrics.base.pictures import ALPHAS
from fact_train.data.errors import BadResolution
from fact_train.data.sampler import batch_indices

RESIZES: dict[str, Image.Resampling | None] = {
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "nearest": Image.Resampling.NEAREST,
    "none": None,  # refuse images of another size
}

# side of the centred square taken from a width x height image; outside the image it holds zeros
CROPS: dict[str, Callable[[int, int], int] | None] = {
    "none": None,  # refuse images that are not square
    "center": min,
    "pad": max,
}

# where labels come from (label_files.py)
LABELS = ("auto", "folders", "none")

SMALLEST_RESOLUTION = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processing:
    """The processing options of a dataset. None: resolution and channels as the images have them, all images.

    Raises UsageError for a value outside its table.
    """

    resolution: int | None = None
    resize: str = "lanczos"
    crop: str = "none"
    channels: int | None = None
    alpha: str = "refuse"
    max_images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for option, table in (("resize", RESIZES), ("crop", CROPS), ("alpha", ALPHAS)):
            if getattr(self, option) not in table:
                raise unknown_name(option, getattr(self, option), table)
        if self.resolution is not None:
            check_resolution(self.resolution, "--resolution")
        if self.channels not in (None, 1, 3):
            raise UsageError(f"--channels {self.channels}: must be 1 (gray) or 3 (RGB)")
        if self.max_images is not None and self.max_images < 1:
            raise UsageError(f"--max-images {self.max_images}: must be at least 1")

    def resolved(self, *, resolution: int, channels: int, available: int) -> "Processing":
        """The same options with what the files have filled in; a subset of everything is no subset."""
        chosen = self.max_images is not None and self.max_images < available
        subset = {} if chosen else {"max_images": None, "seed": 0}
        return dataclasses.replace(self, resolution=resolution, channels=channels, **subset)

    def choose(self, available: int) -> torch.LongTensor:
        """Indices of the images to keep, ascending: all, or a random `max_images` of them drawn by `seed`."""
        if self.max_images is None or self.max_images >= available:
            return torch.arange(available)
        return batch_indices(size=available, seed=self.seed, position=0, count=self.max_images).sort().values

    def square_side(self, width: int, height: int) -> int | None:
        """Side of the square that the crop mode takes from a width x height image; None: it takes none."""
        if width == height:
            return width
        side = CROPS[self.crop]
        return side and side(width, height)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """Which images and labels of the files are read; `need_labels`: refuse a set without labels."""

    labels: str = "auto"
    image_key: str | None = None
    need_labels: bool = False

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise unknown_name("labels", self.labels, LABELS)
        if self.need_labels and self.labels == "none":
            raise UsageError("--cond needs labels, and --labels none reads none; leave out one of them")

    def describe(self) -> dict:
        """What differs from the default, by the names that a dataset's description has for it."""
        given = {"labels_from": self.labels, "image_key": self.image_key}
        return {name: value for name, value in given.items() if value not in ("auto", None)}

    def refuse_folders(self, data: object) -> None:
        """UsageError where `labels` asks for folders that the data does not have."""
        if self.labels == "folders":
            raise UsageError(f"--labels folders: {data} holds no folders of image files; leave it out")

    def refuse_without_files(self, data: object) -> None:
        """UsageError where options are given that mean something for image files alone."""
        self.refuse_folders(data)
        if self.image_key is not None:
            raise UsageError(f"--image-key {self.image_key}: {data} holds no image files; leave it out")


def check_resolution(resolution: int, what: str) -> None:
    """Raise BadResolution unless the networks can have this resolution: a power of two, at least 4."""
    if resolution < SMALLEST_RESOLUTION or resolution & (resolution - 1):
        nearest = max(SMALLEST_RESOLUTION, 2 ** round(math.log2(max(1, resolution))))
        raise BadResolution(
            f"{what} {resolution}: the networks need a power of two of at least {SMALLEST_RESOLUTION}",
            f"try --resolution {nearest}",
        )


def centre(image: Image.Image, side: int) -> Image.Image:
    """The side x side square around the image's centre, with zeros outside the image."""
    if image.size == (side, side):
        return image
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def resize(image: Image.Image, resolution: int, mode: str) -> Image.Image:
    """A square 8-bit image at the wanted resolution; untouched where it has it already."""
    return image if image.width == resolution else image.resize((resolution, resolution), RESIZES[mode])
