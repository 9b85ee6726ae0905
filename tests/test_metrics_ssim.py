"""SSIM against its definition, window by window, its closed forms, and where black lies."""

import numpy as np
import pytest
import torch

from benchmarks.parity.images import picture_pairs, plain_ssim
from fact_metrics.engines.pair_distances import compute_ssim


def by_windows(a, b):
    """Wang et al. 2004, eq. 13-16, of images [H, W] in [0, 1]: every window by its weighted moments."""
    distance = np.arange(11) - 5
    weights = np.exp(-(distance[:, None] ** 2 + distance**2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for row in range(a.shape[0] - 10):
        for column in range(a.shape[1] - 10):
            x, y = (image[row : row + 11, column : column + 11] for image in (a, b))
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            cov = (weights * (x - mx) * (y - my)).sum()
            values.append(
                (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
            )
    return np.mean(values)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (11, 17)])
def test_ssim_equals_its_definition_window_by_window(height, width):
    a, b = (x[..., :height, :width] for x in picture_pairs(3, channels=1, size=32))
    expected = [by_windows(*((x[i, 0].double().numpy() + 1) / 2 for x in (a, b))) for i in range(3)]
    # Moments about the mean there, differences of squares here: float64 rounding over the constant 9e-4.
    assert compute_ssim(a, b, narrow_ok=True).tolist() == pytest.approx(expected, rel=1e-11)


def test_ssim_of_colour_is_the_mean_over_channels():
    a, b = picture_pairs(2)
    unit = [((x.double() + 1) / 2).numpy() for x in (a, b)]
    expected = [np.mean([plain_ssim(unit[0][i, c], unit[1][i, c]) for c in range(3)]) for i in range(2)]
    assert compute_ssim(a, b).tolist() == pytest.approx(expected, rel=1e-12)


def test_ssim_of_flat_images_is_the_closed_form_of_its_luminance():
    a, b = 0.2, 0.6
    flat = [torch.full((1, 1, 16, 16), 255 * x, dtype=torch.float64) for x in (a, b)]
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert compute_ssim(*flat, value_range=(0, 255)).item() == pytest.approx(expected, rel=1e-9)


def test_black_is_zero_whatever_the_range_though_the_formula_is_not_shift_invariant():
    a, b = picture_pairs(2, channels=1)
    signed = [x[:, 0].double().numpy() for x in (a, b)]
    shifted = [(x + 1) / 2 for x in signed]
    found = compute_ssim(a, b).tolist()
    assert found == pytest.approx([plain_ssim(*(x[i] for x in shifted)) for i in range(2)], rel=1e-12)
    # The same formula on [-1, 1] with a peak of 2 (constants times four) is another number.
    wrong = [plain_ssim(*(x[i] / 2 for x in signed)) for i in range(2)]
    assert all(abs(x - y) > 0.01 for x, y in zip(found, wrong, strict=True))


def test_ssim_falls_with_noise_and_is_negative_for_inverted_contrast():
    a, _ = picture_pairs(3)
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    values = [compute_ssim(a, (a + strength * noise).clamp(-1, 1)) for strength in (0.02, 0.1, 0.5)]
    assert (values[0] > values[1]).all() and (values[1] > values[2]).all()
    stripes = torch.ones(1, 1, 32, 32)
    stripes[..., ::2] = -1
    assert compute_ssim(stripes, -stripes) < -0.9


def test_ssim_is_symmetric():
    a, b = picture_pairs(3)
    torch.testing.assert_close(compute_ssim(a, b), compute_ssim(b, a), rtol=1e-14, atol=0)
