"""Every odd kind of image file: handled as the table in fact_train/data/decode.py says, or refused."""

import io

import numpy as np
import pytest
from data_files import encode, gray, png_16bit, rgb, write_files
from PIL import Image

from fact_metrics.base.errors import UserError
from fact_train.data import open_dataset


def open_one(tmp_path, content: bytes, name: str = "odd.png", **options):
    return open_dataset(write_files(tmp_path, {name: content}), **options)


def pixels_of(tmp_path, content: bytes, name: str = "odd.png", **options) -> np.ndarray:
    """The one image in a folder of one: [H, W] gray or [H, W, 3]."""
    image = open_one(tmp_path, content, name, **options).images([0])[0].numpy().transpose(1, 2, 0)
    return image[..., 0] if image.shape[2] == 1 else image


def with_alpha(image: Image.Image, alpha: np.ndarray) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return image


@pytest.mark.parametrize("make", [gray, rgb])
def test_lossless_8_bit_files_come_back_bit_for_bit(tmp_path, make):
    image = make()
    for name, content in (("a.png", encode(image)), ("a.webp", encode(image, "WEBP", lossless=True))):
        # WebP has no gray: it is stored and read as colour
        expected = image if name == "a.png" else image.convert("RGB")
        assert np.array_equal(pixels_of(tmp_path / name, content, name), np.asarray(expected))


def test_jpeg_is_what_pillow_decodes(tmp_path):
    content = encode(rgb(), "JPEG", quality=90)
    path = write_files(tmp_path / "reference", {"a.jpg": content}) / "a.jpg"
    assert np.array_equal(pixels_of(tmp_path / "a", content, "a.JPEG"), np.asarray(Image.open(path)))


def test_one_bit_images_become_black_and_white(tmp_path):
    image = gray().point(lambda value: 255 * (value > 127)).convert("1")
    assert np.array_equal(pixels_of(tmp_path, encode(image)), 255 * np.asarray(image).astype(np.uint8))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_is_scaled_to_its_high_byte_and_never_clipped(tmp_path, channels):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    stored = values if channels == 1 else np.repeat(values[:, :, None], channels, axis=2)
    if channels == 4:
        stored[..., 3] = 65535
    found = pixels_of(tmp_path, png_16bit(stored))
    expected = values // 256 if channels == 1 else np.repeat(values[:, :, None] // 256, 3, axis=2)
    assert np.array_equal(found, expected)
    assert found.min() == 0 and found.max() == 255


def test_palette_is_expanded_to_colour(tmp_path):
    image = rgb().quantize(16)
    assert np.array_equal(pixels_of(tmp_path, encode(image)), np.asarray(image.convert("RGB")))


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    colour = Image.new("RGB", (8, 8), (200, 40, 90))
    found = pixels_of(tmp_path, encode(colour.convert("CMYK"), "JPEG", quality=100), "a.jpg")
    # JPEG of a flat colour at quality 100: rounding of the DCT and of CMYK, at most a few grey levels
    assert found.shape == (8, 8, 3) and np.abs(found.astype(int) - (200, 40, 90)).max() <= 4


@pytest.mark.parametrize("make", [gray, rgb])
def test_opaque_alpha_is_dropped(tmp_path, make):
    image = make()
    found = pixels_of(tmp_path, encode(with_alpha(image, np.full((8, 8), 255))))
    assert np.array_equal(found, np.asarray(image))


def test_opaque_palette_alpha_is_dropped(tmp_path):
    image = rgb().quantize(16)
    content = encode(image, transparency=bytes([255] * 16))
    assert np.array_equal(pixels_of(tmp_path, content), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("make", [gray, rgb, lambda: rgb().quantize(16)])
def test_real_transparency_is_refused_unless_a_colour_is_chosen(tmp_path, make):
    image = make()
    alpha = np.full((8, 8), 255)
    alpha[0, 0], alpha[0, 1] = 0, 128
    if image.mode == "P":
        indices = np.asarray(image)
        content = encode(image, transparency=bytes(alpha.flatten()[:2].tolist() + [255] * 14))
        alpha = np.select([indices == 0, indices == 1], [0, 128], 255)
        image = image.convert("RGB")
    else:
        content = encode(with_alpha(image, alpha))
    with pytest.raises(UserError, match=r"odd\.png: has transparent pixels; choose --alpha white or black"):
        open_one(tmp_path, content)
    opaque = np.asarray(image).astype(float)
    weight = (alpha / 255).reshape(8, 8, *[1] * (opaque.ndim - 2))
    for name, level in (("white", 255), ("black", 0)):
        found = pixels_of(tmp_path, content, alpha=name)
        # 8-bit compositing rounds once: at most one grey level from the exact blend
        assert np.abs(found - (opaque * weight + level * (1 - weight))).max() <= 1
        assert (found[alpha == 0] == level).all()


def test_one_almost_opaque_pixel_is_transparency(tmp_path):
    alpha = np.full((8, 8), 255)
    alpha[5, 5] = 254
    with pytest.raises(UserError, match="has transparent pixels"):
        open_one(tmp_path, encode(with_alpha(rgb(), alpha)))


@pytest.mark.parametrize("image, key", [(gray(), 7), (rgb(), (1, 2, 3))])
def test_transparent_colour_key_is_refused(tmp_path, image, key):
    for alpha in ("refuse", "white"):
        with pytest.raises(UserError, match=r"odd\.png: has a transparent colour"):
            open_one(tmp_path, encode(image, transparency=key), alpha=alpha)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name, file_format, options", [
    ("a.png", "PNG", {}), ("a.webp", "WEBP", {"lossless": True}), ("a.jpg", "JPEG", {}),
])  # fmt: skip
def test_exif_orientation_is_applied(tmp_path, orientation, name, file_format, options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = np.asarray(Image.open(io.BytesIO(encode(rgb(), file_format, **options))))
    # how the stored rows must be turned for display: EXIF 2.32, tag 0x0112
    upright = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: p.transpose(1, 0, 2)[:, ::-1],
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: p.transpose(1, 0, 2)[::-1],
    }[orientation](plain)
    found = pixels_of(tmp_path, encode(rgb(), file_format, exif=exif, **options), name)
    assert np.array_equal(found, upright)


def test_the_content_decides_not_the_name(tmp_path):
    image = rgb()
    content = encode(image, "WEBP", lossless=True)
    assert np.array_equal(pixels_of(tmp_path, content, "really_webp.jpg"), np.asarray(image))


def test_stereo_jpeg_gives_its_first_picture(tmp_path):
    pair = encode(Image.new("RGB", (8, 8), (255, 0, 0)), "MPO", save_all=True, append_images=[rgb(1)])
    found = pixels_of(tmp_path, pair, "a.jpg")
    assert found.shape == (8, 8, 3) and np.abs(found.astype(int) - (255, 0, 0)).max() <= 4  # JPEG rounding


def test_one_by_one_is_an_image_like_any_other(tmp_path):
    content = encode(Image.new("RGB", (1, 1), (10, 20, 30)))
    assert (pixels_of(tmp_path, content, resolution=4) == (10, 20, 30)).all()
    with pytest.raises(UserError, match=r"image size 1: the networks need a power of two .* --resolution 4"):
        open_one(tmp_path, content)


REFUSED = {
    "empty": (b"", "the file is empty"),
    "text": (b"these are not pixels\n", r"not a PNG, JPEG, .* image; replace"),
    "ico": (encode(rgb(side=16), "ICO"), r"not a PNG, JPEG, .* image; replace"),
    "animated_png": (encode(rgb(), save_all=True, append_images=[rgb(1)]), r"animated \(2 frames\)"),
    "animated_webp": (encode(rgb(), "WEBP", save_all=True, append_images=[rgb(1)]), r"animated \(2 frames\)"),
    "half_png": (encode(rgb())[:150], "cannot be decoded"),
    "half_jpeg": (encode(rgb(), "JPEG")[:-20], "cannot be decoded"),
    "half_webp": (encode(rgb(), "WEBP", lossless=True)[:-20], "cannot be decoded"),
    "header_only": (encode(rgb())[:20], "cannot be decoded"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_is_no_whole_still_image_is_refused_in_one_line(tmp_path, kind):
    content, reason = REFUSED[kind]
    files = {"a.png": encode(rgb()), "b/odd.png": content, "c.png": encode(rgb(2))}
    with pytest.raises(UserError, match=reason) as failure:
        open_dataset(write_files(tmp_path, files))
    assert str(failure.value).startswith(f"{tmp_path / 'b' / 'odd.png'}: ")
    assert "\n" not in str(failure.value) and failure.value.exit_code == 1


def test_a_flipped_byte_in_png_pixels_is_found(tmp_path):
    content = bytearray(encode(rgb(side=32)))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(UserError, match=r"odd\.png: cannot be decoded"):
        open_one(tmp_path, bytes(content))


def test_no_damage_gets_past_as_anything_but_an_image_or_a_named_line(tmp_path):
    generator = np.random.default_rng(0)
    sources = [encode(rgb()), encode(rgb(), "JPEG"), encode(rgb(), "WEBP"), encode(rgb().quantize(8))]
    refused = 0
    for trial in range(120):
        content = bytearray(sources[trial % 4])
        for place in generator.integers(0, len(content), 3):
            content[place] = generator.integers(0, 256)
        try:
            dataset = open_one(tmp_path, bytes(content), resolution=8, crop="pad", alpha="black")
            assert dataset.images([0]).shape[2:] == (8, 8)
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{tmp_path / 'odd.png'}") and "\n" not in str(error)
    assert refused > 30


def test_all_bad_files_are_found_and_counted(tmp_path):
    files = {f"good{index}.png": encode(rgb(index)) for index in range(6)}
    files |= {"bad1.png": encode(rgb())[:150], "bad2.png": b"", "bad3.png": b"text"}
    with pytest.raises(UserError, match=r"bad1\.png: cannot be .*\(the first of 3 such files among 9\)$"):
        open_dataset(write_files(tmp_path, files))


def test_channels_follow_the_files_unless_they_are_given(tmp_path):
    grays = {f"{index}.png": encode(gray(index)) for index in range(3)}
    only_gray = open_dataset(write_files(tmp_path / "gray", grays))
    assert only_gray.num_channels == 1
    mixed = write_files(tmp_path / "mixed", grays | {"9.png": encode(rgb())})
    as_colour, as_gray = open_dataset(mixed), open_dataset(mixed, channels=1)
    assert (as_colour.num_channels, as_gray.num_channels) == (3, 1)
    assert (as_colour.images([0]) == only_gray.images([0])).all()  # gray is repeated
    luma = np.asarray(rgb().convert("L"))
    assert np.array_equal(as_gray.images([3])[0, 0].numpy(), luma)
    assert open_dataset(tmp_path / "gray", channels=3).num_channels == 3
