"""The processing options of a dataset: resolution, named resize, crop and alpha modes, channels, subset.

Resizing is Pillow's, in 8 bits, antialiased when it shrinks. The filter changes a published FID (FFHQ-256
built with Lanczos or box: 3.8 against 5.3, NVlabs/stylegan2-ada-pytorch#283), so the content hash covers it.
"""

import dataclasses
from collections.abc import Callable
from fractions import Fraction

import torch
from PIL import Image

from fact_metrics.base.errors import NeedsOption, UsageError, unknown_name
from fact_metrics.base.image_size import ImageSize, Resolution, parse_resolution, size_problem
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

# the wanted shape, scaled to the width of an image or to its height, is the centred box taken from the image:
# the smaller one or the larger one, which holds zeros outside the image
CROPS: dict[str, Callable[[Fraction, Fraction], Fraction] | None] = {
    "none": None,  # refuse images of another shape
    "center": min,
    "pad": max,
}

# where labels come from (label_files.py)
LABELS = ("auto", "folders", "none")

SQUARE = ImageSize(1, 1)
ANY_SHAPE = "any"  # a resolution: the size that all images have, rectangles included


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processing:
    """The processing options of a dataset. None: resolution and channels as the images have them, all images.

    Without a resolution images must be square; ANY_SHAPE takes rectangles too. Raises UsageError for a value
    outside its table.
    """

    resolution: Resolution | None = None
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
        if self.resolution not in (None, ANY_SHAPE):
            if isinstance(self.resolution, str):
                object.__setattr__(self, "resolution", _canonical(self.resolution))
            check_resolution(self.resolution, "--resolution")
        if self.channels not in (None, 1, 3):
            raise UsageError(f"--channels {self.channels}: must be 1 (gray) or 3 (RGB)")
        if self.max_images is not None and self.max_images < 1:
            raise UsageError(f"--max-images {self.max_images}: must be at least 1")

    @property
    def size(self) -> ImageSize | None:
        """The size that images get; None: the one they have."""
        return None if self.resolution in (None, ANY_SHAPE) else ImageSize.of(self.resolution)

    def resolved(self, *, resolution: Resolution, channels: int, available: int) -> "Processing":
        """The same options with what the files have filled in; a subset of everything is no subset."""
        chosen = self.max_images is not None and self.max_images < available
        subset = {} if chosen else {"max_images": None, "seed": 0}
        return dataclasses.replace(self, resolution=resolution, channels=channels, **subset)

    def choose(self, available: int) -> torch.LongTensor:
        """Indices of the images to keep, ascending: all, or a random `max_images` of them drawn by `seed`."""
        if self.max_images is None or self.max_images >= available:
            return torch.arange(available)
        return batch_indices(size=available, seed=self.seed, position=0, count=self.max_images).sort().values

    def box(self, width: int, height: int) -> tuple[int, int] | None:
        """Width and height of what the crop mode takes from a width x height image; None: it takes nothing.

        The box has the shape of `size`, and is square without one.
        """
        if self.resolution == ANY_SHAPE:
            return width, height
        shape = self.size or SQUARE
        scales = Fraction(width, shape.width), Fraction(height, shape.height)
        if scales[0] == scales[1]:
            return width, height
        choose = CROPS[self.crop]
        if choose is None:
            return None
        scale = choose(*scales)
        return max(1, round(shape.width * scale)), max(1, round(shape.height * scale))

    def misfit(self, subject: str, width: int, height: int) -> NeedsOption:
        """The error for images that have no box. `subject` names them, as in "a.png is"."""
        size, ways = self.size or SQUARE, "choose --crop center or --crop pad"
        if size.width == size.height:
            ways += ", or keep the shape with --resolution HEIGHTxWIDTH"
            return NeedsOption(f"{subject} {width}x{height}, not square", ways)
        if width * size.width == height * size.height:
            ways += f", or turn --resolution HEIGHTxWIDTH round: {size.width}x{size.height}"
        found = f"{subject} {height} high and {width} wide"
        return NeedsOption(f"{found}, not of the shape of --resolution {self.resolution}", ways)


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


def check_resolution(resolution: Resolution, what: str) -> None:
    """Raise BadResolution unless the networks can have this resolution."""
    problem = size_problem(resolution)
    if problem is not None:
        why, nearest = problem
        raise BadResolution(f"{what} {resolution}: {why}", f"try --resolution {nearest}")


def centre(image: Image.Image, box: tuple[int, int]) -> Image.Image:
    """The box (width, height) around the image's centre, with zeros outside the image."""
    width, height = box
    if image.size == box:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def resize(image: Image.Image, size: ImageSize, mode: str) -> Image.Image:
    """An 8-bit image at the wanted size; untouched where it has it already."""
    wanted = size.width, size.height
    return image if image.size == wanted else image.resize(wanted, RESIZES[mode])


def _canonical(resolution: str) -> Resolution:
    try:
        return parse_resolution(resolution)
    except ValueError as error:
        raise UsageError(f"--resolution {resolution}: {error}") from None
