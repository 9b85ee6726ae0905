"""One image file to 8 bits: what is done with every kind of file, and what is refused.

    gray (1, 2, 4, 8 bit)          as it is, scaled to 0..255; counts as gray
    16-bit gray or colour          the high byte, v // 256: 0 -> 0, 65535 -> 255, nothing is clipped
    palette                        expanded to RGB; counts as colour, whatever the palette holds
    WebP                           counts as colour, having no gray of its own
    CMYK JPEG                      to RGB by Pillow's plain formula
    colour profiles                not applied
    EXIF orientation               applied
    alpha, every pixel opaque      dropped
    alpha, real transparency       refused; --alpha white or black composites over that colour
    transparent colour key         (a gray or RGB PNG with tRNS) refused
    gray and colour together       all become RGB, or what --channels says (gray is the ITU-R 601 luma)
    another format in the name     the content decides: a JPEG called .png is read as the JPEG it is
    MPO (stereo JPEG)              its first picture
    animated PNG or WebP           refused
    1x1                            an image like any other
    corrupt, truncated, empty, text, another format      refused
    above 256 MiB or 2^26 pixels   refused
    mixed sizes                    refused without --resolution (folder.py)

Every refusal is one UserError line that begins with the file's name and ends with the way out.
"""

from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fact_metrics.base.errors import UserError
from fact_metrics.base.limits import IMAGE_PIXELS, PIXELS
from fact_train.data.errors import NeedsOption
from fact_train.data.processing import ALPHAS

FORMATS = ("PNG", "JPEG", "WEBP")
GRAY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK")


class Header(NamedTuple):
    """What an image file says before its pixels are decoded; the size is that before EXIF rotation."""

    width: int
    height: int
    gray: bool


def read_header(stream: BinaryIO, path: str) -> Header:
    """Size and kind of an image. Raises UserError beginning with `path` where it cannot be used at all."""
    with open_image(stream, path) as image:
        return Header(*image.size, image.mode in GRAY_MODES)


def decode(stream: BinaryIO, path: str, *, channels: int, alpha: str) -> Image.Image:
    """The whole image, upright, in mode L (channels 1) or RGB (3). Raises UserError beginning with `path`."""
    with open_image(stream, path) as image, PIXELS.reserve(image.width * image.height):
        load_upright(image, path)
        return _flatten(image, path, alpha).convert("L" if channels == 1 else "RGB")


def open_image(stream: BinaryIO, path: str) -> Image.Image:
    """The image with its header read. Raises UserError beginning with `path` where it cannot be used."""
    try:
        image = Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError as error:
        stream.seek(0)
        what = "not a PNG, JPEG or WebP image" if stream.read(1) else "the file is empty"
        raise UserError(f"{path}: {what}; replace or remove it") from error
    except (
        Exception
    ) as error:  # Pillow's decoders raise anything, from SyntaxError to struct.error, on a damaged file
        raise _damaged(path, error) from error
    if image.mode not in GRAY_MODES + COLOUR_MODES:
        raise UserError(f"{path}: pixel format {image.mode} is not read; save it as 8-bit gray or RGB")
    IMAGE_PIXELS.check(image.width * image.height, path, "save it smaller")
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise UserError(f"{path}: animated ({image.n_frames} frames); save its frames as single images")
    return image


def load_upright(image: Image.Image, path: str) -> None:
    """Decode all pixels and turn them upright. Raises UserError beginning with `path` where that fails."""
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # as in open_image
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path}: cannot be decoded ({reason}); replace or remove it")


def _flatten(image: Image.Image, path: str, alpha: str) -> Image.Image:
    """The image in 8 bits without its alpha channel."""
    if "transparency" in image.info and image.mode not in ("P", "PA"):
        raise UserError(
            f"{path}: has a transparent colour (PNG tRNS); save it with an alpha channel, or without"
        )
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] == 255:
        return rgba.convert("RGB")
    level = ALPHAS[alpha]
    if level is None:
        raise NeedsOption(f"{path}: has transparent pixels", "choose --alpha white or black to fill them")
    background = Image.new("RGBA", rgba.size, (level, level, level, 255))
    return Image.alpha_composite(background, rgba).convert("RGB")
