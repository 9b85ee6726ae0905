"""Density and coverage: by definition, in expectation, and where precision and recall are fooled."""

import doctest

import pytest
import torch
from metric_toys import cloud, squared_distances

from fact_metrics.engines import density_coverage, neighbours
from fact_metrics.engines.conventions import PRDC
from fact_metrics.engines.density_coverage import compute_coverage, compute_density, compute_prdc
from fact_metrics.engines.overlap import measure_overlap
from fact_metrics.engines.precision_recall import compute_precision, compute_recall


def by_definition(gen, real, *, k=5):
    """(precision, recall, density, coverage) from matrices of all distances, with `<` as in prdc."""
    of_real, of_gen = (
        squared_distances(x, x).fill_diagonal_(torch.inf).kthvalue(k, dim=1).values for x in (real, gen)
    )
    distances = squared_distances(gen, real)
    inside = distances < of_real
    return (
        inside.any(dim=1).double().mean().item(),
        (distances < of_gen[:, None]).any(dim=0).double().mean().item(),
        inside.sum().item() / (k * len(gen)),
        (distances.amin(dim=0) < of_real).double().mean().item(),
    )


def values(found):
    return (found.precision, found.recall, found.density, found.coverage)


@pytest.mark.parametrize(("width", "k"), [(2, 5), (64, 5), (16, 1)])
def test_all_four_equal_their_definition(width, k, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 37)
    gen, real = cloud(180, width, seed=0, scale=0.9), cloud(220, width, seed=1)
    expected = by_definition(gen, real, k=k)
    # Density is a ratio of integers here and a mean over k there: one rounding of float64.
    assert values(compute_prdc(gen, real, k=k)) == pytest.approx(expected, rel=1e-15)


def test_one_pass_gives_what_each_function_gives_alone():
    gen, real = cloud(150, 8, seed=2, shift=0.3), cloud(120, 8, seed=3)
    for k, closed in ((5, False), (3, True)):
        alone = [
            compute(gen, real, k=k, closed=closed)
            for compute in (compute_precision, compute_recall, compute_density, compute_coverage)
        ]
        assert values(compute_prdc(gen, real, k=k, closed=closed)) == tuple(alone)


def test_equal_distributions_have_the_expected_density_and_coverage():
    # Naeem et al. 2020, eq. 8 and 9: expected density is 1 for any distribution, and coverage
    # 1 - (N-1)...(N-k) / (M+N-1)...(M+N-k).
    m = n = 500
    expected = 1.0
    for i in range(1, 6):
        expected *= (n - i) / (m + n - i)
    found = [compute_prdc(cloud(m, 8, seed=10 + i), cloud(n, 8, seed=40 + i)) for i in range(20)]
    density, coverage = (
        torch.tensor([getattr(one, name) for one in found]) for name in ("density", "coverage")
    )
    # Means of 20 independent pairs of sets, within 4 of their own standard errors.
    assert abs(density.mean() - 1) < 4 * density.std() / 20**0.5
    assert abs(coverage.mean() - (1 - expected)) < 4 * coverage.std() / 20**0.5


def test_density_exceeds_one_where_generated_images_crowd_at_a_mode():
    gen, real = cloud(300, 8, seed=4, scale=0.3), cloud(300, 8, seed=5)
    assert compute_density(gen, real) > 1.5
    assert compute_coverage(gen, real) < compute_coverage(cloud(300, 8, seed=6), real)


def test_a_few_outliers_among_reals_raise_precision_more_than_density():
    """Their balls are so large that noise around them counts as precise (Naeem et al. 2020, figure 3)."""
    real, noise = cloud(500, 4, seed=7), cloud(200, 4, seed=8, scale=20)
    outliers = cloud(10, 4, seed=9, scale=20)
    spoilt = torch.cat([real, outliers])
    assert compute_precision(noise, real) < 0.1 and compute_precision(noise, spoilt) > 0.8
    assert compute_density(noise, spoilt) < 2 * 10 / 5  # at most the outliers' balls


def test_generated_outliers_raise_recall_and_not_coverage():
    real, gen = cloud(500, 4, seed=10), cloud(300, 4, seed=11, scale=0.01)
    spoilt = torch.cat([gen, cloud(10, 4, seed=12, scale=20)])
    assert compute_recall(spoilt, real, k=5) > compute_recall(gen, real, k=5) + 0.5
    assert compute_coverage(spoilt, real) == pytest.approx(compute_coverage(gen, real), abs=0.01)


def test_the_standard_error_of_density_is_the_spread_over_repeated_draws():
    real, rng = cloud(300, 4, seed=13), torch.Generator().manual_seed(14)
    found = [
        measure_overlap(torch.randn(200, 4, generator=rng) * 0.9, real, conventions=[PRDC])[0]
        for _ in range(200)
    ]
    spread = torch.tensor([one.density for one in found]).std().item()
    stated = torch.tensor([one.density_stderr for one in found]).mean().item()
    # The spread of 200 draws is itself known to 1 / sqrt(400) = 5 %; four times that.
    assert stated == pytest.approx(spread, rel=0.2)


def test_k_or_fewer_images_are_refused_on_either_side():
    few, many = torch.rand(5, 4), torch.rand(10, 4)
    for compute in (compute_density, compute_coverage):
        with pytest.raises(ValueError, match="more than 5 images, got 5"):
            compute(many, few)
        assert compute(few, many) >= 0
    for sets in ((few, many), (many, few)):
        with pytest.raises(ValueError, match="more than 5 images, got 5"):
            compute_prdc(*sets)


def test_the_example_in_the_documentation_runs():
    assert doctest.testmod(density_coverage).attempted
    assert not doctest.testmod(density_coverage).failed
