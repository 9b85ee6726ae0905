"""Geometry of the augmentation pipe: wavelets by their defining properties, moves against numpy, scipy and
closed forms, draws against their distributions.
"""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.stats
import torch

from fact_train.augment import geometry, wavelets
from fact_train.augment.geometry import Blits

CPU, F64 = torch.device("cpu"), torch.float64
SIZE = 32


def constant_blits(
    n: int, *, mirrored: bool = False, turns: int = 0, shift: tuple[int, int] = (0, 0)
) -> Blits:
    return Blits(torch.full((n,), turns + 4 * mirrored), torch.tensor(shift).expand(n, 2))


def random_images(n: int = 2, channels: int = 3, size: int = SIZE) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0), dtype=F64) * 2 - 1


def draw_affine(n: int, p: float) -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(1)
    return geometry.draw_affine(n, (SIZE, SIZE), torch.tensor(p, dtype=F64), generator=gen, dtype=F64)


def assert_share(hits: torch.Tensor, expected: float) -> None:
    """Within four binomial standard deviations."""
    n = hits.numel()
    error = math.sqrt(expected * (1 - expected) / n)
    assert abs(float(hits.double().mean()) - expected) < 4 * error


# Wavelets


@pytest.mark.parametrize(("taps", "moments"), [(wavelets.SYM2, 2), (wavelets.SYM6, 6)])
def test_taps_are_an_orthogonal_wavelet_with_its_vanishing_moments(taps: tuple, moments: int) -> None:
    """The conditions that define the family; published to 1e-12, times up to 11^5 in the highest moment."""
    h = np.array(taps)
    assert len(h) == 2 * moments
    for shift in range(0, len(h), 2):
        assert np.dot(h[shift:], h[: len(h) - shift]) == pytest.approx(float(shift == 0), abs=1e-11)
    k = np.arange(len(h)) - (len(h) - 1) / 2
    for m in range(moments):
        assert np.sum((-1) ** np.arange(len(h)) * k**m * h) == pytest.approx(0, abs=1e-8)


def test_sym2_is_the_closed_form_of_daubechies() -> None:
    r = math.sqrt(3)
    expected = np.array([1 - r, 3 - r, 3 + r, 1 + r]) / (4 * math.sqrt(2))
    np.testing.assert_allclose(wavelets.SYM2, expected, atol=1e-12)


def test_reflection_is_numpys_at_any_distance() -> None:
    expected = np.pad(np.arange(5), 23, mode="reflect")
    assert wavelets.reflect(torch.arange(-23, 28), 5).tolist() == expected.tolist()


def test_upsampling_is_zero_insertion_and_filtering_of_the_reflected_axis() -> None:
    x = np.random.default_rng(0).standard_normal(7)
    matrix = wavelets.upsampling(7, F64, CPU).numpy()
    padded = np.pad(x, 30, mode="reflect")
    filtered = scipy.signal.upfirdn(wavelets.SYM6, padded, up=2) * math.sqrt(2)
    np.testing.assert_allclose(matrix @ x, filtered[60 + 5 :][: len(matrix)], atol=1e-14)
    assert len(matrix) == wavelets.period_of(7) + 1
    np.testing.assert_array_equal(matrix[0], matrix[-1])


def test_downsampling_inverts_upsampling() -> None:
    up, down = (f(SIZE, F64, CPU) for f in (wavelets.upsampling, wavelets.downsampling))
    period = wavelets.period_of(SIZE)
    samples = up[torch.arange(-5, 2 * SIZE + 5).remainder(period)]
    torch.testing.assert_close(down @ samples, torch.eye(SIZE, dtype=F64), rtol=0, atol=1e-11)


def test_bands_add_up_to_the_identity_and_pass_their_own_frequencies() -> None:
    kernels = wavelets._band_kernels()
    torch.testing.assert_close(kernels, kernels.flip(1), rtol=0, atol=1e-15)  # zero phase
    total = wavelets.band_filters(SIZE, F64, CPU).sum(dim=0)
    torch.testing.assert_close(total, torch.eye(SIZE, dtype=F64), rtol=0, atol=1e-11)
    response = torch.fft.rfft(kernels, 512).abs()  # sampled at k / 256 of the Nyquist frequency
    for band, center in enumerate((0, 48, 96, 224)):
        assert int(response[:, center].argmax()) == band and response[band, center] > 0.7


# Blits


def test_blits_are_flip_quarter_turn_and_shift_bit_for_bit() -> None:
    x = random_images()
    assert torch.equal(geometry.blit(x, constant_blits(2)), x)
    assert torch.equal(geometry.blit(x, constant_blits(2, mirrored=True)), x.flip(3))
    for turns in range(4):
        assert torch.equal(geometry.blit(x, constant_blits(2, turns=turns)), x.rot90(-turns, (2, 3)))
    moved = geometry.blit(x, constant_blits(2, shift=(3, -2)))
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), (8, 8), (8, 8)], mode="reflect")
    np.testing.assert_array_equal(moved.numpy(), padded[:, :, 10 : 10 + SIZE, 5 : 5 + SIZE])


def test_blits_of_one_sample_are_done_in_their_order() -> None:
    x = random_images()
    once = geometry.blit(x, constant_blits(2, mirrored=True, turns=1, shift=(4, 1)))
    steps = [constant_blits(2, mirrored=True), constant_blits(2, turns=1), constant_blits(2, shift=(4, 1))]
    for step in steps:
        x = geometry.blit(x, step)
    assert torch.equal(once, x)


def test_samples_of_a_batch_move_on_their_own() -> None:
    x = random_images(3)
    blits = Blits(torch.tensor([0, 4, 2]), torch.tensor([[0, 0], [0, 0], [0, 0]]))
    assert torch.equal(geometry.blit(x, blits), torch.stack([x[0], x[1].flip(2), x[2].flip(1, 2)]))


# Resampling


def affine(linear: list[list[float]], shift: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
    rows = [[*row, s] for row, s in zip(linear, shift, strict=True)]
    return torch.tensor(rows, dtype=F64).expand(2, 2, 3)


def rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


EYE = [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (torch.float32, 1e-4)])
def test_resampling_by_whole_pixels_only_rounds(dtype: torch.dtype, tolerance: float) -> None:
    """The wavelet is orthogonal, so nothing is lost; float32 rounds positions to 1e-5 pixels."""
    x = random_images().to(dtype)
    for shift in ((0, 0), (5, -2), (-40, 100)):  # the last far outside of the image
        expected = geometry.blit(x, constant_blits(2, shift=(-shift[0], -shift[1])))
        got = geometry.resample(x, affine(EYE, shift).to(dtype))
        torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)


# The filter delays by the distance of its centre of mass to tap 5, in pixels: part of the design, since an
# orthogonal wavelet cannot be symmetric. What is read at A P + t is A (P + DELAY) + t - DELAY.
DELAY = (np.dot(wavelets.SYM6, np.arange(12)) / np.sum(wavelets.SYM6) - 5) / 2


def test_the_delay_of_the_filter_is_a_twentieth_of_a_pixel() -> None:
    assert 0 < DELAY < 0.05


def test_a_smooth_wave_is_resampled_to_its_closed_form() -> None:
    """Bilinear samples at half pixels err by w^2 / 32 an axis at most: (0.3^2 + 0.2^2) / 32 = 0.004."""
    at = torch.arange(SIZE, dtype=F64) - (SIZE - 1) / 2
    y, x = torch.meshgrid(at, at, indexing="ij")

    def wave(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.cos(0.3 * x - 0.2 * y + 0.5)

    linear, shift = rotation(0.4) @ np.diag([0.8, 0.7]), (1.3, -0.6)
    read = [linear[i][0] * (x + DELAY) + linear[i][1] * (y + DELAY) + shift[i] - DELAY for i in (0, 1)]
    got = geometry.resample(wave(x, y).expand(2, 1, -1, -1), affine(linear.tolist(), shift))[:, 0]
    inner = slice(8, -8)  # nothing from outside of the image is read there
    torch.testing.assert_close(
        got[:, inner, inner], wave(*read)[inner, inner].expand(2, -1, -1), rtol=0, atol=0.005
    )


def test_resampling_agrees_with_scipy_on_the_same_matrix() -> None:
    """Cubic splines there, a band-limited bilinear filter here: 1 % of the range on a smooth image."""
    gen = np.random.default_rng(0)
    smooth = scipy.ndimage.gaussian_filter(gen.standard_normal((SIZE, SIZE)), 3.0, mode="mirror")
    smooth /= np.abs(smooth).max()
    linear, shift = rotation(2.5) @ np.diag([1.3, 0.8]) @ rotation(-0.7), np.array([9.0, -6.0])
    swapped = linear[::-1, ::-1]  # scipy's axes are (y, x)
    center = (SIZE - 1) / 2
    offset = center - DELAY + shift[::-1] - swapped @ [center - DELAY, center - DELAY]
    expected = scipy.ndimage.affine_transform(smooth, swapped, offset, order=3, mode="mirror")
    images = torch.from_numpy(smooth).expand(2, 1, -1, -1)
    got = geometry.resample(images, affine(linear.tolist(), tuple(shift)))[0, 0]
    np.testing.assert_allclose(got.numpy(), expected, atol=0.01)


def test_blits_and_a_map_compose_as_matrices() -> None:
    """The inverse of: mirror, then turn, then shift, then the inverse of the map."""
    blits = Blits(torch.tensor([3 + 4, 1]), torch.tensor([[1, 4], [2, -3]]))
    matrix = affine((rotation(0.3) * 0.8).tolist(), (1.5, 0.3))
    got = geometry.after_blits(matrix, blits)
    bottom = [[0.0, 0.0, 1.0]]
    for i in range(2):
        shift, turns = blits.shift[i].tolist(), int(blits.symmetry[i]) % 4
        moved = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]], *bottom])
        turned, mirrored = np.eye(3), np.diag([-1.0 if blits.symmetry[i] >= 4 else 1.0, 1.0, 1.0])
        turned[:2, :2] = rotation(turns * math.pi / 2)
        mapped = np.linalg.inv(np.concatenate([matrix[i].numpy(), bottom]))
        expected = np.linalg.inv(mapped @ moved @ turned @ mirrored)
        np.testing.assert_allclose(got[i].numpy(), expected[:2], atol=1e-12)


def test_bilinear_derivatives_are_torchs_own() -> None:
    x = random_images(2, 2, 5).requires_grad_()
    grid = (
        torch.rand(2, 4, 6, 2, generator=torch.Generator().manual_seed(2), dtype=F64) * 2 - 1
    ).requires_grad_(False)
    y = torch.randn(2, 2, 4, 6, dtype=F64)
    plain = torch.nn.functional.grid_sample(x, grid, align_corners=True)
    ours = geometry._Bilinear.apply(x, grid)
    assert torch.equal(ours, plain)
    assert torch.equal(*(torch.autograd.grad(out, x, y)[0] for out in (ours, plain)))


# Draws


def test_blits_are_drawn_with_their_probabilities() -> None:
    n, p = 20_000, 0.3
    blits = geometry.draw_blits(n, (SIZE, SIZE), torch.tensor(p), generator=torch.Generator().manual_seed(0))
    assert_share(blits.symmetry >= 4, p / 2)
    for turns in (1, 2, 3):
        assert_share(blits.symmetry % 4 == turns, p / 4)
    for axis in (0, 1):  # +-4 pixels; uniform before rounding, so the ends have half a share: 1/16
        moved = blits.shift[:, axis]
        assert (int(moved.min()), int(moved.max())) == (-4, 4)
        assert_share(moved == 2, p / 8)
        assert_share(moved == 4, p / 16)
    assert_share((blits.shift != 0).all(dim=1), p * (7 / 8) ** 2)


def test_general_geometry_is_drawn_with_its_probabilities() -> None:
    n, p = 20_000, 0.3
    matrix, on = draw_affine(n, p)
    assert_share(on, 1 - (1 - p) ** 4)
    assert_share(matrix[:, 0, 1] != 0, p)  # a rotation, before or after the stretching, or both
    assert_share(matrix[:, 0, 2] != 0, p)
    eye = affine(EYE)[0]
    assert torch.equal((matrix == eye).all(dim=(1, 2)), ~on)


def test_general_geometry_has_the_published_spreads() -> None:
    """4,000 samples: a standard deviation is known to 1.1 %, so 5 % is four of its errors."""
    matrix, on = draw_affine(4000, 1.0)
    assert bool(on.all())
    linear = matrix[:, :, :2].numpy()
    scale = -np.log2(np.linalg.det(linear)) / 2  # the map is the inverse of what is done
    assert scale.std() == pytest.approx(0.2, rel=0.05) and abs(scale.mean()) < 0.02
    u, s, vt = np.linalg.svd(linear)
    stretch = np.log2(s[:, 0] / s[:, 1]) / 2
    assert math.sqrt((stretch**2).mean()) == pytest.approx(0.2, rel=0.05)
    shift = -np.linalg.solve(linear, matrix[:, :, 2:].numpy())
    assert shift.std() == pytest.approx(0.125 * SIZE, rel=0.05)
    turn = u @ vt
    angle = np.arctan2(turn[:, 1, 0], turn[:, 0, 0])
    assert scipy.stats.kstest(angle, "uniform", (-math.pi, 2 * math.pi)).pvalue > 1e-3


def test_p_above_one_is_drawn_like_one() -> None:
    """ADA's p has no bound of its own."""
    a, b = draw_affine(50, 1.0), draw_affine(50, 1.7)
    assert torch.equal(a[0], b[0]) and bool(b[1].all())
