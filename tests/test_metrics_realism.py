"""Realism: by definition, its pruning of large balls, and its bounds."""

import pytest
import torch
from metric_toys import cloud, squared_distances

from fact_metrics.engines import neighbours, realism
from fact_metrics.engines.precision_recall import compute_precision
from fact_metrics.engines.realism import compute_realism


def by_definition(gen, real, *, k=3):
    radii = squared_distances(real, real).fill_diagonal_(torch.inf).kthvalue(k, dim=1).values.sqrt()
    kept = radii < radii.quantile(0.5)
    return (radii[kept] / squared_distances(gen, real[kept]).sqrt()).amax(dim=1)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("n", [200, 201])
def test_values_equal_the_definition(n, k, monkeypatch):
    for module in (neighbours, realism):
        monkeypatch.setattr(module, "BLOCK", 37)
    gen, real = cloud(150, 16, seed=0, shift=0.2), cloud(n, 16, seed=1)
    # A ratio of roots here, the root of a ratio there: a few roundings of float64.
    torch.testing.assert_close(
        compute_realism(gen, real, k=k), by_definition(gen, real, k=k), rtol=1e-14, atol=0
    )


def test_rounding_of_float32_products_decides_nothing():
    gen, real = (cloud(100, 8, seed=seed, scale=1e-3) + 1000 for seed in (2, 3))
    torch.testing.assert_close(compute_realism(gen, real), by_definition(gen, real), rtol=1e-14, atol=0)


def test_block_size_and_order_of_images_change_no_bit(monkeypatch):
    gen, real = cloud(80, 8, seed=4), cloud(90, 8, seed=5)
    expected = compute_realism(gen, real)
    for module in (neighbours, realism):
        monkeypatch.setattr(module, "BLOCK", 13)
    assert torch.equal(compute_realism(gen.flip(0), real.flip(0)).flip(0), expected)


def test_one_or_more_means_inside_a_kept_ball():
    gen, real = cloud(200, 6, seed=6, shift=0.4), cloud(200, 6, seed=7)
    radii = squared_distances(real, real).fill_diagonal_(torch.inf).kthvalue(3, dim=1).values
    kept = radii < radii.quantile(0.5)
    inside = (squared_distances(gen, real[kept]) <= radii[kept]).any(dim=1)
    assert torch.equal(compute_realism(gen, real) >= 1, inside)
    assert inside.double().mean() < compute_precision(gen, real)


def test_an_image_beside_an_outlier_is_not_realistic():
    """An outlier's ball is larger than the median, so it is not asked."""
    real = torch.cat([cloud(100, 4, seed=8), torch.full((1, 4), 100.0)])
    beside = torch.full((1, 4), 101.0)
    assert compute_precision(beside, real) == 1.0
    assert compute_realism(beside, real) < 0.1


def test_pictures_farther_from_the_reals_are_less_realistic():
    real = cloud(200, 8, seed=9)
    gen = cloud(1, 8, seed=10) + torch.arange(10.0)[:, None] * 3
    values = compute_realism(gen, real)[2:]
    assert (values.diff() < 0).all()


def test_a_copy_of_a_kept_real_is_infinitely_realistic():
    real = cloud(100, 4, seed=11)
    values = compute_realism(real, real)
    assert values.isinf().sum() == 50 and (values[~values.isinf()] > 0).all()


def test_scale_changes_nothing():
    gen, real = cloud(60, 8, seed=12), cloud(70, 8, seed=13)
    # By 3 the features are rounded anew in float32.
    torch.testing.assert_close(
        compute_realism(3 * gen, 3 * real), compute_realism(gen, real), rtol=1e-5, atol=0
    )
    assert torch.equal(compute_realism(4 * gen, 4 * real), compute_realism(gen, real))


def test_reals_that_are_all_copies_are_refused():
    with pytest.raises(ValueError, match="of 40 real balls none has a positive radius below the median"):
        compute_realism(cloud(10, 4, seed=14), torch.ones(40, 4))
