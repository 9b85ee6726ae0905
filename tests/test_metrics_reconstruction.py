"""Image pairs: LPIPS of any network, MSE and PSNR in closed form, every range and shape that is refused."""

import math

import pytest
import torch
from metric_toys import MeanSquares
from torch import nn

from fact_metrics.engines import pair_distances as reconstruction
from fact_metrics.engines.pair_distances import (
    compute_lpips,
    compute_mse,
    compute_psnr,
    compute_ssim,
    mean_and_stderr,
)
from fact_metrics.features import get_detector

ALL = pytest.mark.parametrize("compute", [compute_lpips, compute_mse, compute_psnr, compute_ssim])


def images(n, *, seed, channels=1, size=32):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def pair(n=3):
    """Pictures in [-1, 1] and the same with some noise."""
    a = images(n, seed=0) * 0.8
    return a, (a + 0.2 * images(n, seed=1)).clamp(-1, 1)


def test_distances_of_equal_images_are_zero_their_psnr_infinite_and_their_ssim_one():
    a = images(3, seed=0)
    assert compute_lpips(a, a).tolist() == [0, 0, 0]
    assert compute_mse(a, a).tolist() == [0, 0, 0]
    assert compute_psnr(a, a).tolist() == [math.inf] * 3
    assert compute_ssim(a, a).tolist() == [1, 1, 1]


def test_mse_and_psnr_of_a_constant_offset_are_their_closed_forms():
    a = images(4, seed=1) * 0.5
    torch.testing.assert_close(
        compute_mse(a, a + 0.1), torch.full((4,), 0.01, dtype=torch.float64), rtol=1e-5, atol=0
    )
    # Peak to peak is 2: 10 log10(4 / 0.01).
    torch.testing.assert_close(
        compute_psnr(a, a + 0.1), torch.full((4,), 26.0206, dtype=torch.float64), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("detector", ["stlpips_alex", "stlpips_vgg"])
def test_lpips_is_symmetric_and_grows_with_noise(detector):
    a, noise = images(3, seed=2) * 0.5, images(3, seed=3)
    near, far = (compute_lpips(a, a + strength * noise, detector=detector) for strength in (0.1, 0.4))
    assert (near > 0).all() and (far > near).all()
    torch.testing.assert_close(
        compute_lpips(a + 0.1 * noise, a, detector=detector), near, rtol=1e-4, atol=1e-6
    )


def test_lpips_of_gray_equals_that_of_the_same_image_in_three_channels():
    a, b = images(2, seed=4), images(2, seed=5)
    rgb = compute_lpips(a.repeat(1, 3, 1, 1), b.repeat(1, 3, 1, 1))
    torch.testing.assert_close(compute_lpips(a, b), rgb, rtol=1e-5, atol=1e-7)


def test_lpips_takes_a_name_a_detector_a_module_or_a_function():
    class Module(nn.Module):  # as those of the lpips package: [N, 1, 1, 1]
        def forward(self, a, b):
            assert a.shape[1] == b.shape[1] == 3 and a.dtype == b.dtype == torch.float32
            return (a - b).square().mean(dim=(1, 2, 3), keepdim=True)

    a, b = pair()
    expected = compute_mse(a, b).float()
    for detector in (MeanSquares(), Module(), lambda a, b: (a - b).square().mean(dim=(1, 2, 3))):
        torch.testing.assert_close(compute_lpips(a, b, detector=detector), expected)
    named, held = (compute_lpips(a, b, detector=d) for d in ("stlpips_alex", get_detector("stlpips_alex")))
    assert torch.equal(named, held) and not torch.allclose(named, expected)


def test_a_function_that_does_not_give_a_value_a_pair_is_refused():
    a, b = pair()
    with pytest.raises(ValueError, match=r"gave \[\] for 3 pairs, not a value each"):
        compute_lpips(a, b, detector=lambda a, b: (a - b).square().mean())


@ALL
def test_values_do_not_depend_on_the_parts_they_are_computed_in(compute, monkeypatch):
    a, b = pair(5)
    whole = compute(a, b)
    monkeypatch.setattr(reconstruction, "BATCH", 2)
    # LPIPS convolves in float32, which sums in another order for another batch; the rest is in float64.
    torch.testing.assert_close(compute(a, b), whole, rtol=1e-4 if compute is compute_lpips else 1e-12, atol=0)
    torch.testing.assert_close(compute(a[1:3], b[1:3]), whole[1:3], rtol=1e-4, atol=0)


@ALL
def test_the_same_pictures_have_one_value_in_every_stated_range(compute):
    levels = [((x + 1) * 127.5).round() for x in pair()]
    expected = compute(*(x / 127.5 - 1 for x in levels))
    for value_range, given in (
        ((0, 1), [x / 255 for x in levels]),
        ((0, 255), levels),
        ((0, 255), [x.to(torch.uint8) for x in levels]),
    ):
        # float32 rounding of the pictures; squared errors and SSIM see it twice.
        torch.testing.assert_close(compute(*given, value_range=value_range), expected, rtol=1e-4, atol=1e-7)


@ALL
def test_unit_range_passed_as_signed_is_an_error_not_another_number(compute):
    """lpips gives 0.0654 for 0.1306 there (evaluation.md, section 2)."""
    a, b = pair()
    with pytest.raises(ValueError, match=r"looks like \[0, 1\]; state value_range=\(0, 1\), or narrow_ok"):
        compute((a + 1) / 2, (b + 1) / 2)


@ALL
def test_one_side_in_unit_range_is_an_error_too(compute):
    a, b = pair()
    for mixed in ((a, (b + 1) / 2), ((a + 1) / 2, b)):
        with pytest.raises(ValueError, match=r"looks like \[0, 1\]"):
            compute(*mixed)


@ALL
def test_unit_range_passed_as_grey_levels_is_an_error(compute):
    a, b = pair()
    with pytest.raises(ValueError, match=r"expected \[0, 255\]: this looks like \[0, 1\]"):
        compute((a + 1) / 2, (b + 1) / 2, value_range=(0, 255))


@ALL
@pytest.mark.parametrize("value_range", [(-1, 1), (0, 1)])
def test_values_outside_the_stated_range_are_an_error_whatever_is_ok(compute, value_range):
    a, b = pair()
    for off in ((a + 1) * 127.5, 1.01 * torch.ones_like(a) * a.sign(), torch.full_like(a, torch.nan)):
        with pytest.raises(ValueError, match=rf"expected \[{value_range[0]}, 1\]"):
            compute(b.abs() if value_range == (0, 1) else b, off, value_range=value_range, narrow_ok=True)


@ALL
def test_dark_pictures_pass_as_they_are_and_bright_ones_by_saying_so(compute):
    a, b = pair()
    dark = [(x - 1) / 2 - 0.05 * (x + 1) / 2 for x in (a, b)]
    bright = [-x for x in dark]
    assert max(x.max() for x in dark) < 0 < min(x.min() for x in bright)
    assert torch.isfinite(compute(*dark)).all()
    with pytest.raises(ValueError, match="narrow_ok=True if they really are"):
        compute(*bright)
    assert torch.isfinite(compute(*bright, narrow_ok=True)).all()
    black = torch.zeros(1, 1, 32, 32)
    assert compute(black, black, value_range=(0, 255), narrow_ok=True) == compute(black - 1, black - 1)


def test_shifted_range_would_have_halved_the_distance():
    """The number that the range check prevents, by the way out: a quarter of the squared error."""
    a, b = pair()
    wrong = compute_mse((a + 1) / 2, (b + 1) / 2, narrow_ok=True)
    torch.testing.assert_close(wrong, compute_mse(a, b) / 4, rtol=1e-5, atol=0)


@ALL
def test_shapes_types_and_channels_that_peers_broadcast_are_refused(compute):
    a = images(2, seed=6)
    rgb = a.repeat(1, 3, 1, 1)
    for b in (a[:1], a[..., :16], rgb, (a > 0).to(torch.uint8), a.double()):
        with pytest.raises(ValueError, match="of one shape and type"):
            compute(a, b)
    for odd in (a[:, 0], a.repeat(1, 2, 1, 1), a.repeat(1, 4, 1, 1), a.int(), a[:0]):
        with pytest.raises(ValueError, match="float or uint8 images"):
            compute(odd, odd)


@ALL
def test_ranges_that_are_none_and_uint8_in_another_range_are_refused(compute):
    a, b = pair()
    with pytest.raises(ValueError, match="value_range is"):
        compute(a, b, value_range=(0, 2))
    levels = ((a + 1) * 127.5).to(torch.uint8)
    with pytest.raises(ValueError, match=r"uint8 images go with value_range=\(0, 255\)"):
        compute(levels, levels)


@pytest.mark.parametrize(("compute", "least"), [(compute_lpips, 32), (compute_ssim, 11)])
def test_images_too_small_for_the_measure_are_refused_with_both_sizes(compute, least):
    small = images(1, seed=7, size=8)
    with pytest.raises(ValueError, match=f"images of {least} pixels or more, got 8x8"):
        compute(small, small)
    assert torch.isfinite(compute_mse(small, small)).all()


def test_mean_has_the_error_of_a_sample_mean():
    values = torch.tensor([1.0, 2.0, 4.0, 5.0])
    mean, stderr = mean_and_stderr(values)
    # sd over N - 1: sqrt(10 / 3), over sqrt(4).
    assert (mean, stderr) == (3.0, pytest.approx((10 / 3) ** 0.5 / 2))
    assert mean_and_stderr(values[:1]) == (1.0, None)
    assert mean_and_stderr(torch.tensor([1.0, math.inf])) == (math.inf, None)
