"""One image file to 8 bits. What is done with every kind of picture: metrics/base/pictures.py.

Beyond that, of files:

    WebP, AVIF                     count as colour, having no gray of their own
    gray and colour together       all become RGB, or what --channels says (gray is the ITU-R 601 luma)
    another format in the name     the content decides: a JPEG called .png is read as the JPEG it is
    1x1                            an image like any other
    corrupt, truncated, empty, text, another format      refused
    above 256 MiB                  refused
    mixed sizes                    refused without --resolution (folder.py)

Every refusal is one UserError line that begins with the file's name and ends with the way out.
"""

import functools
import importlib.util
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError, features

from fact_metrics.base.errors import UserError
from fact_metrics.base.limits import PIXELS
from fact_metrics.base.pictures import FIRST_PICTURE, check_picture, damaged, flatten, is_gray, upright
from fact_metrics.base.pictures import upright_size as size_of

# File name extension -> Pillow's name of the format.
EXTENSIONS = {
    ".png": "PNG",
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    ".webp": "WEBP",
    ".bmp": "BMP",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".gif": "GIF",
    ".avif": "AVIF",
    **dict.fromkeys((".heic", ".heif"), "HEIF"),
}
# What a format that this installation cannot read needs.
MISSING = {
    "AVIF": "a Pillow with AVIF",
    "HEIF": "pip install fact-stylegan[heic]",
    "WEBP": "a Pillow with WebP",
}


class Header(NamedTuple):
    """What an image file says before its pixels are decoded; the size is that of the upright picture."""

    width: int
    height: int
    gray: bool


class Decoded(NamedTuple):
    """A whole picture in mode L or RGB, and what was done to it: `turned` by EXIF, `first` of several."""

    image: Image.Image
    turned: bool
    first: bool


@functools.cache
def formats() -> tuple[str, ...]:
    """Formats that this installation reads, by Pillow's names."""
    lacking = {name for name in ("AVIF", "WEBP") if not features.check(name.lower())}
    if importlib.util.find_spec("pillow_heif") is None:
        lacking.add("HEIF")
    else:
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in dict.fromkeys(EXTENSIONS.values()) if name not in lacking)


def is_image_name(name: str) -> bool:
    """Whether a file's name is that of an image of a format that is read here."""
    return EXTENSIONS.get(extension(name)) in formats()


def extension(name: str) -> str:
    """The extension of a file name in lower case: `.png`; empty without one."""
    base = name.rpartition("/")[2].lstrip(".")
    return "." + base.rpartition(".")[2].lower() if "." in base else ""


def read_header(stream: BinaryIO, path: str) -> Header:
    """Size and kind of an image. Raises UserError beginning with `path` where it cannot be used at all."""
    with open_image(stream, path) as image:
        return Header(*size_of(image), is_gray(image))


def decode(stream: BinaryIO, path: str, *, channels: int, alpha: str) -> Decoded:
    """The whole image, upright, in mode L (channels 1) or RGB (3). Raises UserError beginning with `path`."""
    with open_image(stream, path) as image, PIXELS.reserve(image.width * image.height):
        first = image.format in FIRST_PICTURE[1:] and getattr(image, "is_animated", False)
        shown, turned = upright(image, path)
        flat = flatten(shown, path, alpha).convert("L" if channels == 1 else "RGB")
        return Decoded(flat, turned, first)


def open_image(stream: BinaryIO, path: str) -> Image.Image:
    """The image with its header read. Raises UserError beginning with `path` where it cannot be used."""
    try:
        image = Image.open(stream, formats=formats())
        check_picture(image, path)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        stream.seek(0)
        kinds = f"not a {', '.join(formats()[:-1])} or {formats()[-1]} image"
        what = kinds if stream.read(1) else "the file is empty"
        raise UserError(f"{path}: {what}; replace or remove it") from error
    except Exception as error:  # Pillow's decoders raise anything, from SyntaxError to struct.error
        raise damaged(path, error) from error
    return image
