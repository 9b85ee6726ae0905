"""Images given to the Python API follow the rules of image files, or are refused with a way out."""

import warnings

import numpy as np
import pytest
import torch
from data_files import encode, gray, rgb, write_files
from eval_toys import register_toys
from PIL import Image

import fact_metrics
import fact_metrics.registry
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.images import to_uint8
from fact_train.data import open_dataset

NAMES = ("toy_distance", "toy_sharpness")


@pytest.fixture(autouse=True)
def toys(monkeypatch, tmp_path):
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    register_toys()


def images(n=30, side=8, channels=1, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=gen)


REAL = images(40, seed=1)


def with_alpha(level):
    image = rgb()
    image.putalpha(level)
    return image


def turned():
    image, exif = rgb(3), Image.Exif()
    exif[0x0112] = 6
    image.getexif()[0x0112] = 6
    return image


PICTURES = {
    "16 bit": Image.fromarray(np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)),
    "one bit": gray().convert("1"),
    "palette": rgb().quantize(8),
    "opaque alpha": with_alpha(255),
    "gray with alpha": gray().convert("LA"),
    "CMYK": rgb().convert("CMYK"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_has_the_pixels_of_its_file(tmp_path, kind):
    image = PICTURES[kind]
    name, file_format = ("a.tif", "TIFF") if kind == "CMYK" else ("a.png", "PNG")
    dataset = open_dataset(write_files(tmp_path, {name: encode(image, file_format)}))
    assert torch.equal(to_uint8([image]), dataset.images([0]))


def test_a_picture_is_shown_upright():
    image = turned()
    expected = np.asarray(rgb(3)).transpose(1, 0, 2)[:, ::-1]  # EXIF 2.32: orientation 6
    assert np.array_equal(to_uint8([image])[0].permute(1, 2, 0).numpy(), expected)
    assert image.getexif()[0x0112] == 6  # the caller's picture stays as it was


def test_gray_among_colour_becomes_rgb():
    found = to_uint8([gray(), rgb()])
    assert found.shape == (2, 3, 8, 8)
    assert torch.equal(found[0], torch.from_numpy(np.array(gray())).expand(3, -1, -1))


REFUSED = {
    "transparent": ([with_alpha(100)], "picture 0: has transparent pixels; composite it over a colour first"),
    "float": ([Image.fromarray(np.full((8, 8), 0.5, np.float32))], "picture 0: pixel format F is not read"),
    "32 bit": ([Image.fromarray(np.zeros((8, 8), np.int32))], "picture 0: pixel format I is not read"),
    "sizes": ([rgb(), rgb(side=16)], "image 1 is 16 x 16 and image 0 is 8 x 8; resize all"),
    "types": ([torch.zeros(3, 8, 8), torch.zeros(3, 8, 8).byte()], "use one type"),
    "nothing": ([None], r"image 0 is nothing \(None\)"),
    "text": (["a.png"], r"image 0 is the text 'a.png' \(open the files first"),
    "an empty list": ([], "an empty list"),
    "objects": (np.array([{}], dtype=object), "an array of object"),
    "no pixel": (torch.zeros(2, 3, 0, 8).byte(), "without a pixel"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused_with_a_way_out(kind):
    given, message = REFUSED[kind]
    with pytest.raises(UserError, match=message):
        to_uint8(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("photos/", r"images are the text 'photos/' \(open the files first, or use fact-eval images\)"),
        ({"a": 1}, "images are a dictionary of a"),
        ([{"file": 1, "size": 2}], "an item of the dataset has the entries file, size; .*call one image"),
        (lambda n: None, r"the callable returned nothing \(None\)"),
    ],
)
def test_what_is_no_set_of_images_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        fact_metrics.compute(given, REAL, NAMES)


def test_items_that_are_dictionaries_with_an_image_are_read():
    rows = [{"image": Image.fromarray(image[0].numpy()), "label": 1} for image in images()]
    found, expected = (fact_metrics.compute(kind, REAL, NAMES) for kind in (rows, images()))
    assert found["toy_distance"].value == pytest.approx(expected["toy_distance"].value, rel=1e-6)


def test_images_of_different_sizes_are_not_compared():
    with pytest.raises(
        UserError, match="generated images are 16x16, those of the real images 8x8; use one size"
    ):
        fact_metrics.compute(images(side=16), REAL, NAMES)
    with pytest.raises(UserError, match="generated images are 16x16, those of the real images 8x8"):
        fact_metrics.compute(iter([images(8), images(8, side=16)]), REAL, NAMES)
    scores = fact_metrics.ImageMetrics(["toy_sharpness"])
    scores.update(images(4))
    with pytest.raises(UserError, match="generated images are 16x16, those before 8x8"):
        scores.update(images(4, side=16))
    scores.reset()
    scores.update(images(4, side=16))


def test_channels_of_a_side_are_those_of_its_first_batch():
    scores = fact_metrics.ImageMetrics(["toy_sharpness"])
    scores.update(images(4, channels=3))
    scores.update(images(4))
    with pytest.raises(UserError, match="real images were gray and are RGB now; convert all to RGB"):
        scores.update(images(4), real=True)
        scores.update(images(4, channels=3), real=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value_range": (1, 1)}, r"value_range \(1, 1\): give \(lowest, highest\)"),
        ({"value_range": (1, 0)}, r"value_range \(1, 0\): give"),
        ({"value_range": (0, float("nan"))}, "give"),
        ({"value_range": "01"}, "value_range 01: give"),
        ({"batch": 0}, "batch 0: give a whole number"),
        ({"batch": 2.5}, "batch 2.5: give a whole number"),
        ({"count": 0}, "count 0: give a whole number"),
        ({"count": 2.5}, "count 2.5: give a whole number"),
        ({"count": -1}, "count -1: give a whole number"),
        ({"device": "gpu"}, "--device gpu: use auto, cpu, cuda"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        fact_metrics.compute(images(), REAL, NAMES, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="this machine has no usable GPU"):
        fact_metrics.compute(images(), REAL, NAMES, device="cuda")


def test_floats_of_half_the_range_are_said_once():
    floats = images().float() / 255
    with pytest.warns(
        UserWarning, match=r"no value of the generated images is below 0.*value_range=\(0, 1\)"
    ):
        fact_metrics.compute(floats, floats, NAMES, value_range=(-1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fact_metrics.compute(floats * 2 - 1, floats * 2 - 1, NAMES, value_range=(-1, 1))
