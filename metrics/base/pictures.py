"""A Pillow picture in 8 bits: one rule for image files of every kind and for pictures in memory.

    gray (1, 2, 4, 8 bit)          as it is, scaled to 0..255; counts as gray
    16-bit gray or colour          the high byte, v // 256: 0 -> 0, 65535 -> 255, nothing is clipped
    32-bit or float values         refused: nothing says what black and white are
    palette                        expanded to RGB; counts as colour, whatever the palette holds
    CMYK                           to RGB by Pillow's plain formula
    colour profiles                not applied
    EXIF orientation               applied
    alpha, every pixel opaque      dropped
    alpha, real transparency       refused; an alpha mode composites over white or black
    transparent colour key         (gray or RGB with tRNS) refused
    animated GIF, MPO              the first picture
    other animations, pages        refused
    above 2^26 pixels              refused

Every refusal is one UserError line that begins with the picture's name and ends with the way out.
"""

import numpy as np
from PIL import Image, ImageOps

from fact_metrics.base.errors import NeedsOption, UserError
from fact_metrics.base.limits import IMAGE_PIXELS

GRAY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
# Formats whose first picture stands for the file.
FIRST_PICTURE = ("MPO", "GIF")
ORIENTATION = 0x0112  # EXIF 2.32

# colour put behind transparent pixels
ALPHAS: dict[str, int | None] = {
    "refuse": None,  # refuse images with a pixel that is not fully opaque
    "black": 0,
    "white": 255,
}


def is_gray(image: Image.Image) -> bool:
    """Whether a picture counts as gray; 16-bit gray PNG files have mode I in some versions of Pillow."""
    return image.mode in GRAY_MODES or _is_16_bit_png(image)


def check_picture(image: Image.Image, name: str) -> None:
    """Raise UserError beginning with `name` for what its header alone says cannot be used."""
    if not is_gray(image) and image.mode not in COLOUR_MODES:
        raise UserError(f"{name}: pixel format {image.mode} is not read; save it as 8-bit gray or RGB")
    IMAGE_PIXELS.check(image.width * image.height, name, "save it smaller")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in FIRST_PICTURE:
        kind = f"{frames} pages" if image.format == "TIFF" else f"animated ({frames} frames)"
        raise UserError(f"{name}: {kind}; save its frames as single images")
    if "transparency" in image.info and image.mode not in ("P", "PA"):
        raise UserError(
            f"{name}: has a transparent colour (PNG tRNS); save it with an alpha channel, or without"
        )


def upright(image: Image.Image, name: str) -> tuple[Image.Image, bool]:
    """The decoded picture as EXIF says it is shown, and whether it was turned or flipped for that.

    Raises UserError beginning with `name` where it cannot be decoded.
    """
    try:
        turned = image.getexif().get(ORIENTATION, 1) in range(2, 9)  # Pillow turns TIFF while it loads
        image.load()
        return (ImageOps.exif_transpose(image) if turned else image), turned
    except Exception as error:  # Pillow's decoders raise anything on a damaged file
        raise damaged(name, error) from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as EXIF says it is shown, from the header alone."""
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return image.size  # Pillow has swapped them; it would decode the PNG to look further
    sideways = image.getexif().get(ORIENTATION, 1) in range(5, 9)
    return image.size[::-1] if sideways else image.size


def flatten(image: Image.Image, name: str, alpha: str) -> Image.Image:
    """A decoded picture in 8 bits without its alpha channel, ready for `convert("L")` or `convert("RGB")`.

    Raises NeedsOption beginning with `name` for transparent pixels under alpha "refuse".
    """
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] == 255:
        return rgba.convert("RGB")
    level = ALPHAS[alpha]
    if level is None:
        raise NeedsOption(f"{name}: has transparent pixels", "choose --alpha white or black to fill them")
    background = Image.new("RGBA", rgba.size, (level, level, level, 255))
    return Image.alpha_composite(background, rgba).convert("RGB")


def damaged(name: str, error: Exception) -> UserError:
    """The error of a picture that Pillow cannot decode."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{name}: cannot be decoded ({reason}); replace or remove it")


def _is_16_bit_png(image: Image.Image) -> bool:
    return image.mode == "I" and image.format == "PNG"
