"""FID at infinitely many images: the line through its subsets, the bias it takes out, and its error."""

import numpy as np
import pytest
import torch

from fact_metrics.engines import frechet
from fact_metrics.engines.fid_extrapolation import compute_fid_extrapolated, compute_fid_infinity
from fact_metrics.engines.frechet import FeatureStatistics, compute_fid

WIDTH = 24
SCALES = torch.arange(1, WIDTH + 1).double() ** -0.5
ZERO = torch.zeros(WIDTH).double()
REAL = FeatureStatistics(10**9, ZERO, torch.diag(SCALES**2))
# Independent features of another scale: the true distance is the sum of (0.2 * scale)^2.
TRUTH = (0.2 * SCALES).square().sum().item()
DRAWS = 150


def generated(n, seed):
    rng = torch.Generator().manual_seed(seed)
    return 1.2 * SCALES * torch.randn(n, WIDTH, generator=rng, dtype=torch.float64)


def extrapolate(name, gen, seed):
    if name == "infinity":
        return compute_fid_infinity(gen, REAL, seed=seed, smallest=100)
    return compute_fid_extrapolated(gen, REAL, seed=seed)


def test_infinity_is_the_intercept_of_the_line_through_fifteen_sizes():
    curve = compute_fid_infinity(generated(400, 1), REAL, smallest=100)
    assert len(curve.sizes) == 15 and curve.sizes[0] == 100 and curve.sizes[-1] == 400
    slope, intercept = np.polyfit(1 / np.array(curve.sizes), curve.fids, 1)
    # polyfit solves a scaled system by singular values; both lose a few digits to 1/N of like size.
    assert curve.value == pytest.approx(intercept, rel=1e-9)
    assert curve.slope == pytest.approx(slope, rel=1e-9)
    assert curve.fids[-1] == pytest.approx(compute_fid(generated(400, 1), REAL), rel=1e-9)


def test_extrapolation_is_twice_the_whole_less_the_mean_of_two_disjoint_halves():
    gen = generated(101, 2)
    curve = compute_fid_extrapolated(gen, REAL, seed=3)
    order = torch.randperm(101, generator=torch.Generator().manual_seed(3))
    halves = [compute_fid(gen[order[:50]], REAL), compute_fid(gen[order[50:100]], REAL)]
    assert curve.fids[:2] == pytest.approx(halves, rel=1e-9)
    assert curve.value == pytest.approx(2 * compute_fid(gen, REAL) - sum(halves) / 2, rel=1e-9)
    assert curve.sizes == (50, 50, 101)


@pytest.mark.parametrize("name", ["infinity", "extrapolated"])
def test_bias_is_taken_out_and_the_error_is_that_of_repeated_draws(name):
    curves = [extrapolate(name, generated(300, 10 + i), i) for i in range(DRAWS)]
    values = torch.tensor([curve.value for curve in curves], dtype=torch.float64)
    spread = values.std().item()
    plain = np.mean([curve.fids[-1] for curve in curves])
    # The mean of the draws is known to spread / sqrt(150); what is left of the bias is of order 1/N^2.
    assert abs(values.mean().item() - TRUTH) < 4 * spread / DRAWS**0.5
    assert abs(plain - TRUTH) > 20 * spread / DRAWS**0.5
    # The sd of 150 draws is known to 6 %.
    assert np.mean([curve.stderr for curve in curves]) == pytest.approx(spread, rel=0.24)


@pytest.mark.parametrize("name", ["infinity", "extrapolated"])
def test_the_seed_alone_decides_the_subsets(name):
    gen = generated(200, 4)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = extrapolate(name, gen, 7)
        torch.manual_seed(2)
        assert extrapolate(name, gen, 7) == first
    assert extrapolate(name, gen, 8).value != first.value


def test_statistics_of_the_reals_are_made_once(monkeypatch):
    lengths = []
    original = frechet.compute_statistics
    monkeypatch.setattr(
        frechet, "compute_statistics", lambda f, **kw: lengths.append(len(f)) or original(f, **kw)
    )
    compute_fid_infinity(generated(90, 5), generated(777, 6))
    assert lengths.count(777) == 1


def test_small_sets_start_at_half_and_tiny_ones_are_refused():
    assert compute_fid_infinity(generated(60, 7), REAL).sizes[0] == 30
    assert compute_fid_infinity(generated(8, 7), REAL).stderr is None
    assert compute_fid_extrapolated(generated(8, 7), REAL).stderr is None
    for gen in (generated(3, 7), generated(2, 7)):
        with pytest.raises(ValueError, match="FID-infinity needs"):
            compute_fid_infinity(gen, REAL)
        with pytest.raises(ValueError, match="N >= 4"):
            compute_fid_extrapolated(gen, REAL)
    with pytest.raises(ValueError, match="FID-infinity needs"):
        compute_fid_infinity(generated(60, 7), REAL, sizes=1)
