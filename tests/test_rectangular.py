"""Rectangular images: their sizes, networks, data and augmentation, against closed forms, numpy and scipy.

Runs of every kind of model: test_rectangular_runs.py.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image
from test_augment_geometry import DELAY, affine, rotation

from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.image_size import BASES, ImageSize, parse_resolution, size_problem
from fact_train.augment import SETS, AugmentPipe, corruption, geometry
from fact_train.augment.geometry import Blits
from fact_train.data import open_dataset
from fact_train.data.processing import ANY_SHAPE, Processing
from fact_train.data.stacked import StackedPixels
from fact_train.networks.build import build_encoder, build_networks
from fact_train.settings.auto import auto_batch, auto_fields
from fact_train.settings.config import TrainConfig
from fact_train.settings.presets import configure
from fact_train.training.grids import grid_size
from fact_train.training.losses import resolve_r1_gamma

F64 = torch.float64
ROUNDING = (
    2e-5  # float32: sums of 54 terms in another order, through 10 layers, relative to the largest value
)

# Sizes


def test_a_size_is_its_base_doubled() -> None:
    """Every pair of sides to 32: it is a size exactly if some base, doubled, gives it, and then one does."""
    made = {(h << i, w << i): (h, w) for h, w in BASES for i in range(4)}
    assert len(made) == len(BASES) * 4  # no two ways to one size
    for height in range(1, 33):
        for width in range(1, 33):
            resolution = ImageSize(height, width).resolution
            problem = size_problem(resolution)
            assert (problem is None) == ((height, width) in made), resolution
            if problem is None:
                size = ImageSize.of(resolution)
                assert size.base == made[height, width]
                assert size.at(size.levels[-1]) == (height, width)
            else:
                assert size_problem(problem[1]) is None


def test_squares_are_the_powers_of_two_and_their_levels_the_sides() -> None:
    squares = [side for side in range(1, 2049) if size_problem(side) is None]
    assert squares == [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]
    size = ImageSize.of(32)
    assert [size.at(level) for level in size.levels] == [(4, 4), (8, 8), (16, 16), (32, 32)]


@pytest.mark.parametrize(
    ("text", "resolution"), [("256", 256), ("256x256", 256), ("256x128", "256x128"), (" 64X32 ", "64x32")]
)
def test_a_size_has_one_spelling(text: str, resolution: int | str) -> None:
    assert parse_resolution(text) == resolution
    assert TrainConfig(resolution=text).resolution == resolution
    assert TrainConfig(resolution=text).sha256() == TrainConfig(resolution=resolution).sha256()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("7x5", "the networks double a base shape with a longer side of 4 to 7, such as 4x2 or 4x3; try 8x6"),
        ("256x96", "the networks double a base shape .*; try 224x96"),
        ("48x48", "the networks need a power of two from 8 to 16384; try 64"),
        ("4x2", "the networks double .*; try 8x2"),
        ("32768x16384", "the networks double"),
        ("256*128", "it must be a side such as 256, or HEIGHTxWIDTH such as 256x128"),
        ("256x", "it must be a side"),
        ("0x8", "the networks double"),
    ],
)
def test_other_sizes_are_one_line_with_a_way_out(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=rf"^--resolution \S+: {why}") as caught:
        TrainConfig(resolution=text)
    assert "\n" not in str(caught.value)


def test_heuristics_count_pixels() -> None:
    """128x32 has the pixels of 64x64."""
    assert resolve_r1_gamma("auto", resolution="128x32", batch=16) == resolve_r1_gamma(
        "auto", resolution=64, batch=16
    )
    assert auto_fields("2048x512") == auto_fields(1024) and auto_batch("512x128") == auto_batch(256)
    for resolution, batch in (("1024x256", 8), ("256x128", 16), ("96x64", 32), ("8192x4096", 1), (256, 16)):
        cfg, _ = configure("auto", {"data": "d", "resolution": resolution})
        assert (cfg.resolution, cfg.batch, cfg.batch % cfg.mbstd_group_size) == (resolution, batch, 0)
    with pytest.raises(UsageError, match="--resolution 25-6: it must be a side"):
        configure("auto", {"data": "d", "resolution": "25-6"})


@pytest.mark.parametrize("resolution", ["64x32", "32x64", "256x64", "64x256", "1024x512", "8x2"])
def test_grids_of_rectangles_stay_pictures(resolution: str) -> None:
    rows, columns = grid_size(resolution)
    assert 2 <= rows <= 20 and 4 <= columns <= 20


# Networks


def networks(resolution: int | str, **changes):
    options = dict(z_dim=6, w_dim=6, map_depth=2, channel_base=256, channel_max=6, mbstd_group_size=2)
    cfg = TrainConfig(**{**options, **changes})
    dataset = {"resolution": resolution, "channels": 3, "classes": 0}
    torch.manual_seed(0)
    nets = *build_networks(cfg, dataset), build_encoder(cfg, dataset)
    return [net.requires_grad_(False) for net in nets]


NETWORKS = {
    "skip": {"d_arch": "skip"},
    "resnet": {"g_arch": "resnet"},
    "orig": {"g_arch": "orig", "d_arch": "orig"},
    "adain": {"injection": "adain"},
    "vectors": {"injection": "vectors", "style_vectors": 3},
    "matrix": {"injection": "matrix", "style_vectors": 6},
    "matrix 3x3": {
        "injection": "matrix",
        "style_vectors": 6,
        "style_kernel": 3,
        "fused_modconv": "never",
    },
    "adaconv": {"injection": "adaconv", "adaconv_groups": 3},
}


@pytest.mark.parametrize("changes", NETWORKS.values(), ids=NETWORKS)
def test_a_network_with_height_and_width_swapped_makes_the_transposed_image(changes: dict) -> None:
    """Kernels, constants, noise and the first linear layer transposed: nothing but the order of sums changes.

    A place that takes height for width, in any layer, breaks it.
    """
    tall, wide = networks("24x16", **changes), networks("16x24", **changes)
    for one, other in zip(tall, wide, strict=True):
        other.load_state_dict({key: transposed(key, value) for key, value in one.state_dict().items()})
    G, D, E = tall
    ws = G.mapping(torch.randn(2, *G.z_shape))
    noise = [torch.randn(2, 1, h, w) for h, w in G.synthesis.noise_shapes]
    made = G.synthesis(ws, noise_inputs=noise)
    flipped = wide[0].synthesis(ws, noise_inputs=[x.mT for x in noise])
    assert made.shape == (2, 3, 24, 16)
    assert_equal_up_to_rounding(flipped, made.mT)
    images = torch.randn(2, 3, 24, 16)
    for net, turned in ((D, wide[1]), (E, wide[2])):
        assert_equal_up_to_rounding(turned(images.mT), net(images))


def assert_equal_up_to_rounding(got: torch.Tensor, expected: torch.Tensor) -> None:
    largest = float(expected.abs().max())
    torch.testing.assert_close(got, expected, rtol=0, atol=ROUNDING * largest)


def transposed(key: str, value: torch.Tensor) -> torch.Tensor:
    """The weight of the network with height and width swapped; 24x16 doubles 6x4."""
    if key == "b4.fc.weight":
        return value.unflatten(1, (-1, 6, 4)).mT.flatten(1)
    if key.endswith(("noise_const", ".const")) or (value.ndim == 4 and "affine" not in key):
        return value.mT.contiguous()
    if "inject.affine" in key and value.shape[0] % 9 == 0 and value.shape[0] > 9:  # of a 3x3 style
        return value.unflatten(0, (-1, 3, 3)).transpose(1, 2).flatten(0, 2)
    return value


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_far_from_the_border_a_shorter_network_makes_the_rows_of_a_taller_one(architecture: str) -> None:
    """With equal weights, and the top 4 of 6 rows of one constant, rows that do not reach the cut are equal.

    The first convolution changes the last base row; doubling and two convolutions reach up to row 3.
    """
    whole, cut = (networks(size, g_arch=architecture, noise="off")[0] for size in ("12x14", "8x14"))
    state = whole.state_dict()
    state["synthesis.b4.const"] = state["synthesis.b4.const"][:, :4]
    cut.load_state_dict(state)
    ws = whole.mapping(torch.randn(2, *whole.z_shape))
    tall, short = whole.synthesis(ws), cut.synthesis(ws)
    assert (tall.shape[2:], short.shape[2:]) == ((12, 14), (8, 14))
    assert_equal_up_to_rounding(short[:, :, :3], tall[:, :, :3])
    assert (short - tall[:, :, :8])[:, :, -1].abs().max() > 0.01


# Data


def picture(path: Path, height: int, width: int) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels.transpose(2, 0, 1)


def test_images_of_the_size_are_read_as_they_are(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "d/a.png", 16, 8)
    dataset = open_dataset(tmp_path / "d", resolution="16x8")
    assert np.array_equal(dataset.images([0])[0].numpy(), pixels)
    assert (dataset.resolution, dataset.describe()["resolution"]) == ("16x8", "16x8")
    np.savez(tmp_path / "a.npz", arr_0=pixels.transpose(1, 2, 0)[None])
    assert open_dataset(tmp_path / "a.npz", resolution="16x8").sha256 == dataset.sha256
    in_memory = open_dataset(pixels.transpose(1, 2, 0)[None], resolution="16x8")
    assert in_memory.sha256 == dataset.sha256
    assert open_dataset(tmp_path / "d", resolution=ANY_SHAPE).sha256 == dataset.sha256


def test_larger_images_of_the_shape_are_resized_as_pillow_does(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "d/a.png", 40, 20)
    expected = Image.fromarray(pixels.transpose(1, 2, 0)).resize((8, 16), Image.Resampling.LANCZOS)
    made = open_dataset(tmp_path / "d", resolution="16x8").images([0])[0]
    assert np.array_equal(made.permute(1, 2, 0).numpy(), np.asarray(expected))
    with pytest.raises(UserError, match=r"a\.png is 20x40, not 8x16; choose another --resize than none"):
        open_dataset(tmp_path / "d", resolution="16x8", resize="none")


def test_crop_and_pad_give_the_shape(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "d/a.png", 16, 16)
    cut = open_dataset(tmp_path / "d", resolution="16x8", crop="center").images([0])[0]
    assert np.array_equal(cut.numpy(), pixels[:, :, 4:12])
    padded = open_dataset(tmp_path / "d", resolution="16x32", crop="pad").images([0])[0]
    assert np.array_equal(padded.numpy(), np.pad(pixels, [(0, 0), (0, 0), (8, 8)]))


@pytest.mark.parametrize(
    ("crop", "resolution", "expected"),
    [
        ("center", None, (30, 30)),
        ("pad", None, (50, 50)),
        ("center", "8x16", (50, 25)),  # cut to half as high as wide
        ("pad", "8x16", (60, 30)),
        ("center", "16x8", (15, 30)),
        ("pad", "16x8", (50, 100)),
    ],
)
def test_boxes_of_a_50_by_30_image(crop: str, resolution: str | None, expected: tuple[int, int]) -> None:
    assert Processing(crop=crop, resolution=resolution).box(50, 30) == expected


def test_images_of_another_shape_are_one_line_with_the_ways_out(tmp_path: Path) -> None:
    picture(tmp_path / "d/a.png", 8, 16)
    turned = r"a\.png is 8 high and 16 wide, not of the shape of --resolution 16x8; choose --crop center or "
    with pytest.raises(
        UserError, match=turned + r"--crop pad, or turn --resolution HEIGHTxWIDTH round: 8x16"
    ):
        open_dataset(tmp_path / "d", resolution="16x8")
    with pytest.raises(
        UserError, match=r"not of the shape of --resolution 16x12; choose --crop center or --crop pad$"
    ):
        open_dataset(tmp_path / "d", resolution="16x12")
    with pytest.raises(UserError, match=r"a\.png is 16x8, not square; .* keep the shape with --resolution"):
        open_dataset(tmp_path / "d")
    picture(tmp_path / "d/b.png", 16, 8)
    with pytest.raises(UserError, match=r"a\.png is 8 high and 16 wide|b\.png is 16 high"):
        open_dataset(tmp_path / "d", resolution="16x8")


def test_idx_digits_are_padded_to_the_next_doubling_of_the_base() -> None:
    square = open_dataset("mnist", max_images=3).images([0, 1, 2])
    wide = open_dataset("mnist", max_images=3, resolution="32x64", crop="pad").images([0, 1, 2])
    assert torch.equal(wide, torch.nn.functional.pad(square, (16, 16)))
    with pytest.raises(UserError, match="are 28 high and 28 wide, not of the shape of --resolution 32x64"):
        open_dataset("mnist", resolution="32x64")


def test_stacked_digits_keep_their_shape() -> None:
    digits = open_dataset("mnist", max_images=3, resolution="32x64", crop="pad")
    pixels = StackedPixels(digits, torch.tensor([[0, 1, 2], [2, 2, 0]]))
    assert pixels.shape == (2, 3, 32, 64)
    assert torch.equal(pixels.read(torch.tensor([1]))[0, 1], digits.images([2])[0, 0])


# Augmentation


def images(height: int, width: int, n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=F64) * 2 - 1


@pytest.mark.parametrize(("height", "width"), [(12, 20), (20, 12)])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_blits_turn_about_the_centre_and_reflect(height: int, width: int, mirrored: bool, turns: int) -> None:
    """As numpy does it: reflect to a large square, mirror, turn, cut around the centre moved by (-3, 2)."""
    x = images(height, width)
    blits = Blits(torch.full((2,), turns + 4 * mirrored), torch.tensor([3, -2]).expand(2, 2))
    rows, columns = (60 - height) // 2, (60 - width) // 2
    large = np.pad(x.numpy(), [(0, 0), (0, 0), (rows, rows), (columns, columns)], mode="reflect")
    large = large[..., ::-1] if mirrored else large
    large = np.rot90(large, -turns, (2, 3))
    expected = large[:, :, rows + 2 : rows + 2 + height, columns - 3 : columns - 3 + width]
    np.testing.assert_array_equal(geometry.blit(x, blits).numpy(), expected)


@pytest.mark.parametrize(("height", "width"), [(24, 48), (48, 24)])
def test_a_turned_rectangle_agrees_with_scipy_in_pixels(height: int, width: int) -> None:
    """A circle stays a circle. Tolerance and delay are those of test_augment_geometry, for its reasons."""
    gen = np.random.default_rng(0)
    smooth = scipy.ndimage.gaussian_filter(gen.standard_normal((height, width)), 3.0, mode="mirror")
    smooth /= np.abs(smooth).max()
    linear, shift = rotation(2.5) @ np.diag([1.3, 0.8]) @ rotation(-0.7), np.array([9.0, -6.0])
    swapped = linear[::-1, ::-1]  # scipy's axes are (y, x)
    center = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = center - DELAY + shift[::-1] - swapped @ (center - DELAY)
    expected = scipy.ndimage.affine_transform(smooth, swapped, offset, order=3, mode="mirror")
    got = geometry.resample(
        torch.from_numpy(smooth).expand(2, 1, -1, -1), affine(linear.tolist(), tuple(shift))
    )
    np.testing.assert_allclose(got[0, 0].numpy(), expected, atol=0.01)


def test_a_turned_rectangle_agrees_with_torchs_grid_of_the_right_aspect() -> None:
    """torch's grid counts half widths and half heights: rotations are scaled by the aspect.

    Where no position leaves the image. torch's bilinear samples err by w^2 / 8 an axis at most:
    (0.2^2 + 0.1^2) / 8 = 0.006; ours, at half pixels, by a quarter of it.
    """
    height, width, angle = 32, 64, 0.5
    y, x = torch.meshgrid(torch.arange(height, dtype=F64), torch.arange(width, dtype=F64), indexing="ij")
    wave = torch.cos(0.2 * x - 0.1 * y).expand(2, 1, -1, -1)
    linear = torch.from_numpy(rotation(angle))
    delayed = linear @ torch.tensor([DELAY, DELAY], dtype=F64) - DELAY
    theta = torch.eye(2, 3, dtype=F64)
    theta[:, :2] = linear * torch.tensor([[1, height / width], [width / height, 1]], dtype=F64)
    theta[:, 2] = 2 * delayed / torch.tensor([width, height], dtype=F64)
    grid = torch.nn.functional.affine_grid(theta.expand(2, -1, -1), list(wave.shape), align_corners=False)
    expected = torch.nn.functional.grid_sample(wave, grid, align_corners=False)
    got = geometry.resample(wave, affine(linear.tolist()))
    inside = (grid.abs() < 0.8).all(dim=3)[:, None]
    assert inside.double().mean() > 0.3
    torch.testing.assert_close(got[inside], expected[inside], rtol=0, atol=0.01)


def test_shifts_are_shares_of_width_and_of_height() -> None:
    gen = torch.Generator().manual_seed(0)
    blits = geometry.draw_blits(4000, (32, 64), torch.tensor(1.0), generator=gen)
    assert [int(blits.shift[:, axis].abs().max()) for axis in (0, 1)] == [8, 4]
    matrix, _ = geometry.draw_affine(20_000, (32, 64), torch.tensor(1.0, dtype=F64), generator=gen, dtype=F64)
    moved = -torch.linalg.solve(matrix[:, :, :2], matrix[:, :, 2])  # of the image, before the map
    assert moved.std(dim=0).tolist() == pytest.approx([8, 4], rel=4 / math.sqrt(2 * 20_000))


def test_bands_of_rows_and_of_columns_have_their_own_filters() -> None:
    """Equal gains of all bands multiply the image by their square: the filters add up to the identity."""
    x = images(8, 24)
    torch.testing.assert_close(corruption.amplify(x, torch.full((2, 4), 1.5, dtype=F64)), x * 2.25)
    gains = torch.tensor([[1.0, 2.0, 0.5, 3.0]], dtype=F64).expand(2, 4)
    assert torch.allclose(corruption.amplify(x.mT, gains), corruption.amplify(x, gains).mT)


@pytest.mark.parametrize("name", SETS)
def test_every_set_augments_rectangles_and_has_derivatives(name: str) -> None:
    def augment(x: torch.Tensor) -> torch.Tensor:
        gen = torch.Generator().manual_seed(1)
        return AugmentPipe(name)(x, torch.tensor(0.9, dtype=F64), generator=gen)

    x = images(8, 12).requires_grad_()
    assert augment(x).shape == x.shape
    assert torch.autograd.gradcheck(lambda y: augment(y).square().mean(dim=(1, 2, 3)), [x], fast_mode=True)
    assert torch.equal(AugmentPipe(name)(x, torch.tensor(0.0, dtype=F64), generator=torch.Generator()), x)
