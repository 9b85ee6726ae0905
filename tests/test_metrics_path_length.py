"""PPL against its closed form on a linear generator, its trimming against numpy, and its refusal of uint8."""

import numpy as np
import pytest
import torch
from metric_toys import MeanSquares, ToyGenerator

from metrics.path_length import bootstrap_ppl, compute_ppl, compute_step_distances, measure_path


def test_ppl_of_a_linear_generator_is_the_mean_squared_image_of_its_direction():
    generator = ToyGenerator(steepness=0.5)
    distances = measure_path(generator, MeanSquares(), samples=60)
    starts, ends = generator.latents(range(60)), generator.latents(range(60), stream="end")
    other = ToyGenerator(steepness=0.5)
    expected = MeanSquares().distance(
        *(other.synthesis(other.mapping(z, None), [torch.zeros(60, 1, 32, 32)]) for z in (starts, ends))
    )
    # The step is 1e-4 of images near 1 in float32: each difference carries 1e-7 / 1e-4 of rounding.
    torch.testing.assert_close(distances, expected, rtol=1e-2, atol=1e-4)


def test_ppl_grows_with_the_square_of_the_slope():
    flat, steep = (measure_path(ToyGenerator(steepness=s), MeanSquares(), samples=60) for s in (0.2, 0.4))
    assert compute_ppl(steep) / compute_ppl(flat) == pytest.approx(4, rel=1e-2)


def test_both_images_of_a_pair_get_the_same_noise():
    generator = ToyGenerator()
    measure_path(generator, MeanSquares(), samples=30)
    for noise in generator.noises:
        start, end = noise.chunk(2)
        assert torch.equal(start, end)
        assert not torch.equal(start[0], start[1])


def test_values_do_not_depend_on_the_batch(monkeypatch):
    whole = measure_path(ToyGenerator(), MeanSquares(), samples=30)
    monkeypatch.setattr("metrics.path_length.BATCH", 7)
    torch.testing.assert_close(
        measure_path(ToyGenerator(), MeanSquares(), samples=30), whole, rtol=1e-4, atol=0
    )


def test_trimming_equals_numpy_percentiles_lower_and_higher():
    distances = torch.rand(437, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4
    values = distances.numpy()
    low, high = np.percentile(values, 1, method="lower"), np.percentile(values, 99, method="higher")
    assert compute_ppl(distances) == pytest.approx(
        values[(values >= low) & (values <= high)].mean(), rel=1e-14
    )


def test_one_wild_pair_in_a_thousand_does_not_move_ppl():
    distances = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    wild = distances.clone()
    wild[distances.argmax()] = 1e9
    assert compute_ppl(wild) == compute_ppl(distances)


def test_bootstrap_interval_covers_the_value_and_narrows_with_the_sample():
    distances = torch.rand(4000, generator=torch.Generator().manual_seed(2))
    few, many = (bootstrap_ppl(distances[:n], seed=0, resamples=200) for n in (100, 4000))
    for sample, (stderr, low, high) in ((distances[:100], few), (distances, many)):
        assert low < compute_ppl(sample) < high
        # Trimming a fiftieth of a uniform sample leaves the error of its mean, sd / sqrt(n), within a fifth.
        assert stderr == pytest.approx(sample.std().item() / len(sample) ** 0.5, rel=0.2)
    assert many == bootstrap_ppl(distances, seed=0, resamples=200)
    assert many != bootstrap_ppl(distances, seed=1, resamples=200)


def test_quantised_images_are_refused():
    images = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"never quantised, got torch\.uint8"):
        compute_step_distances(images, images, MeanSquares())


def test_images_above_256_pixels_are_averaged_down():
    class Sizes(MeanSquares):
        def distance(self, a, b):
            assert a.shape[-1] == 256
            return super().distance(a, b)

    image = torch.rand(1, 1, 512, 512)
    blocks = image.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    found = compute_step_distances(image, torch.zeros_like(image), Sizes(), epsilon=1.0)
    assert found.item() == pytest.approx(blocks.square().mean().item(), rel=1e-5)


def test_ppl_of_nothing_is_refused():
    with pytest.raises(ValueError, match="finite distances"):
        compute_ppl(torch.zeros(0))


def test_progress_is_reported_up_to_the_last_pair():
    generator = ToyGenerator()
    measure_path(generator, MeanSquares(), samples=30)
    assert generator.reported == [(25, 30), (30, 30)]
