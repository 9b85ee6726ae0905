"""Images in memory, of any kind, as uint8 tensors: by the rules of image files, or refused.

    a tensor [N, C, H, W], an array [N, H, W, C] or a list of PIL pictures
    a dataset (of torch, torchvision or Hugging Face: `dataset[i]` is an image, a tuple that begins with one,
    or a dictionary with one under `image` or `img`)
    an iterable of batches (a DataLoader)
    a callable that takes a number and returns that many images, as long as images are needed

Values are uint8, or floats in a stated `value_range`; C is 1 or 3. Pictures: base/pictures.py.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fact_metrics.base.errors import NeedsOption, UsageError, UserError
from fact_metrics.base.pictures import check_picture, flatten, is_gray, upright

ValueRange = tuple[float, float]

KINDS = "a tensor [N, C, H, W], an array [N, H, W, C] or PIL pictures, with C of 1 or 3"
IMAGE_KEYS = ("image", "img")


def check_value_range(value_range: ValueRange | None) -> None:
    """Raise UsageError unless a range is two ascending numbers."""
    if value_range is None:
        return
    try:
        low, high = value_range
    except (TypeError, ValueError):
        low = high = math.nan
    numbers = isinstance(low, int | float) and isinstance(high, int | float)
    if not (numbers and math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"value_range {value_range}: give (lowest, highest), such as (-1, 1) or (0, 1)")


def to_uint8(images: object, *, value_range: ValueRange | None = None) -> Tensor:
    """uint8 [N, C, H, W] of a batch of any kind the top of the file names; floats are rounded and clamped.

    Gray and colour pictures of one list become RGB. Raises UserError for images that cannot be used.
    """
    check_value_range(value_range)
    if isinstance(images, list | tuple):
        images = _stack([_one(image, position) for position, image in enumerate(images)])
    elif isinstance(images, np.ndarray):
        images = _tensor(images)
        if images.ndim == 4 and images.shape[3] in (1, 3):
            images = images.permute(0, 3, 1, 2)
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UserError(f"images are {_what(images)}; give {KINDS}")
    if 0 in images.shape[1:]:
        raise UserError(f"images are {_what(images)}, without a pixel; give {KINDS}")
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point() or value_range is None:
        raise UserError(
            f"images are {images.dtype}; give uint8, or floats with value_range=(-1, 1) or (0, 1)"
        )
    low, high = map(float, value_range)
    slack, scale = (high - low) / 2, 255 / (high - low)
    if len(images) and not (low - slack <= images.min() and images.max() <= high + slack):
        found = f"[{images.min().item():.3g}, {images.max().item():.3g}]"
        raise UserError(f"images have values in {found}, far outside of value_range {value_range}")
    return (images.float() * scale + (0.5 - low * scale)).clamp(0, 255).to(torch.uint8)


def picture_pixels(image: Image.Image, name: str) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] of a PIL picture, by the rules of image files; errors begin with `name`."""
    try:
        check_picture(image, name)
        shown, _ = upright(image, name)
        return np.asarray(flatten(shown, name, "refuse").convert("L" if is_gray(image) else "RGB"))
    except NeedsOption as error:
        raise error.with_way_out("composite it over a colour first") from error


def batches(images: object, batch: int, lacking: Callable[[], int | None]) -> Iterator[object]:
    """Batches of any kind of images, no more than `lacking()` says are still needed (None: all)."""
    if isinstance(images, Tensor | np.ndarray):
        yield from (images[start : start + batch] for start in range(0, len(images), batch))
    elif isinstance(images, str | bytes | Mapping):
        raise UserError(f"images are {_what(images)}; give {KINDS}, a dataset, a loader or a callable")
    elif isinstance(images, list | tuple) or hasattr(images, "__getitem__"):
        for start in range(0, len(images), batch):
            if lacking() == 0:
                return
            yield [_image_of(images[i]) for i in range(start, min(start + batch, len(images)))]
    elif isinstance(images, Iterable):
        for rows in images:
            if lacking() == 0:
                return
            labelled = isinstance(rows, list | tuple) and rows and isinstance(rows[0], Tensor)
            yield rows[0] if labelled and rows[0].ndim == 4 else _image_of(rows)
    elif callable(images):
        while left := lacking():
            made = images(min(batch, left))
            if not hasattr(made, "__len__"):
                raise UserError(f"the callable returned {_what(made)}; it returns {KINDS}")
            if not len(made):
                raise UserError(f"the callable returned no images; {min(batch, left)} are missing")
            yield made
        if left is None:
            raise UserError("a metric needs all real images, but a callable never ends; give a dataset")
    else:
        raise UserError(f"images are {_what(images)}; give {KINDS}, a dataset, a loader or a callable")


def _image_of(row: object) -> object:
    """The image of a dataset's item."""
    if isinstance(row, Mapping):
        key = next((key for key in IMAGE_KEYS if key in row), None)
        if key is None:
            names = ", ".join(map(str, list(row)[:8]))
            raise UserError(
                f"an item of the dataset has the entries {names}; give images alone, or call one image"
            )
        return row[key]
    return row[0] if isinstance(row, list | tuple) and row else row


def _one(image: object, position: int) -> Tensor:
    """[C, H, W] of a tensor, an array [H, W] or [H, W, C], or a PIL picture."""
    if isinstance(image, Tensor):
        found = image
    elif isinstance(image, Image.Image):
        found = _channels_first(_tensor(picture_pixels(image, f"picture {position}")))
    elif isinstance(image, np.ndarray) and image.ndim in (2, 3):
        found = _channels_first(_tensor(image))
    else:
        raise UserError(f"image {position} is {_what(image)}; give {KINDS}")
    if found.ndim != 3 or found.shape[0] not in (1, 3):
        raise UserError(f"image {position} is {_what(image)}; give {KINDS}")
    return found


def _stack(images: list[Tensor]) -> Tensor:
    """[N, C, H, W]; gray among colour is repeated. UserError for images of different sizes or types."""
    if not images:
        raise UserError(f"images are an empty list; give {KINDS}")
    for position, image in enumerate(images):
        if image.shape[1:] != images[0].shape[1:]:
            one, other = (" x ".join(map(str, each.shape[1:])) for each in (images[0], image))
            raise UserError(f"image {position} is {other} and image 0 is {one}; resize all to one size")
        if image.dtype != images[0].dtype:
            raise UserError(f"image {position} is {image.dtype} and image 0 {images[0].dtype}; use one type")
    channels = max(len(image) for image in images)
    return torch.stack([image.expand(channels, -1, -1) for image in images])


def _channels_first(image: Tensor) -> Tensor:
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1)


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise UserError(f"images are an array of {array.dtype}; give numbers")
    return torch.from_numpy(np.array(array))


def _what(images: object) -> str:
    """What something is, in a few words."""
    if isinstance(images, Tensor | np.ndarray):
        return f"{'a tensor' if isinstance(images, Tensor) else 'an array'} {list(images.shape)}"
    if isinstance(images, str | bytes):
        return f"the text {images[:60]!r} (open the files first, or use fact-eval images)"
    if isinstance(images, Mapping):
        return f"a dictionary of {', '.join(map(str, list(images)[:8])) or 'nothing'}"
    return "nothing (None)" if images is None else f"of type {type(images).__name__}"
