"""Image pairs: LPIPS, MSE and PSNR with their range check, and fused against unfused rendering."""

import math

import pytest
import torch
from metric_toys import MeanSquares, ToyGenerator

from metrics import consistency
from metrics.consistency import compute_consistency_psnr, measure_pairs
from metrics.reconstruction import compute_lpips, compute_mse, compute_psnr


def images(n, *, seed, channels=1):
    return torch.rand(n, channels, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture
def toy_detector(monkeypatch):
    monkeypatch.setattr(consistency, "get_detector", lambda name, device: MeanSquares(device))


def test_distances_of_equal_images_are_zero_and_their_psnr_infinite():
    a = images(3, seed=0)
    assert compute_lpips(a, a).tolist() == [0, 0, 0]
    assert compute_mse(a, a).tolist() == [0, 0, 0]
    assert compute_psnr(a, a).tolist() == [math.inf] * 3


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


@pytest.mark.parametrize("compute", [compute_lpips, compute_mse, compute_psnr])
def test_ranges_shapes_and_types_that_change_the_number_silently_are_refused(compute):
    a = images(2, seed=6)
    with pytest.raises(ValueError, match=r"expected \[-1, 1\]"):
        compute(a, (a + 1) * 127.5)
    with pytest.raises(ValueError, match="one shape"):
        compute(a, a[:1])
    with pytest.raises(ValueError, match="float images"):
        compute(a, (a > 0).to(torch.uint8))
    with pytest.raises(ValueError, match="expected"):
        compute(a, torch.full_like(a, torch.nan))


def test_equal_renderings_are_recognised_as_bitwise_equal(toy_detector):
    pairs = measure_pairs(ToyGenerator(defect=0.0), pairs=60)
    assert pairs.max_abs.max() == 0 and pairs.changed.max() == 0 and pairs.lpips.max() == 0
    assert compute_consistency_psnr(pairs.mse) == 200.0


def test_a_known_defect_is_measured_exactly(toy_detector):
    pairs = measure_pairs(ToyGenerator(defect=0.02), pairs=60)
    # The toy generator adds 0.02 to or takes it from every pixel in float32 near 1: rounding of 6e-8.
    torch.testing.assert_close(pairs.max_abs, torch.full((60,), 0.02), rtol=1e-4, atol=0)
    torch.testing.assert_close(pairs.mean_abs, torch.full((60,), 0.02), rtol=1e-4, atol=0)
    assert compute_consistency_psnr(pairs.mse) == pytest.approx(10 * math.log10(4 / 0.02**2), abs=1e-3)
    assert pairs.changed.min() > 0.9


def test_each_pair_is_rendered_once_per_path_with_equal_noise(toy_detector):
    generator = ToyGenerator()
    measure_pairs(generator, pairs=60)
    assert generator.fused == [True, False, True, False]
    assert torch.equal(generator.noises[0], generator.noises[1])
    assert generator.reported == [(50, 60), (60, 60)]


def test_one_pass_over_the_generator_serves_all_metrics_of_the_family(toy_detector, monkeypatch):
    from metric_toys import ToyInputs

    from metrics.registry import get_metric

    inputs = ToyInputs(generator=ToyGenerator(defect=0.01))
    names = ("fused1k_maxabs", "fused1k_psnr", "fused1k_lpips_stlpips_alex", "fused1k_fid_stlpips_alex")
    values = {name: get_metric(name).compute(inputs) for name in names}
    assert len(inputs.generator.fused) == 2 * 1000 / consistency.BATCH
    assert values["fused1k_maxabs"].value == pytest.approx(0.01, rel=1e-3)
    assert values["fused1k_psnr"].value == pytest.approx(10 * math.log10(4 / 0.01**2), abs=1e-2)
    assert all(value.n_generated == 1000 for value in values.values())
    assert values["fused1k_maxabs"].extras["bitwise_equal"] == 0
