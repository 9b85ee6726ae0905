"""MIND against its formula, a closed form, and exact transport between sets of different length."""

import numpy as np
import pytest
import torch

from fact_metrics.engines.mind import compute_mind


def features(n, seed, *, width=6, shift=0.0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=rng, dtype=torch.float64) + shift


def directions(count, width, seed):
    units = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return (units / units.norm(dim=1, keepdim=True)).double()


def test_sets_of_one_length_have_the_published_formula():
    x, y = features(70, 1, shift=0.3), features(70, 2)
    u = directions(130, 6, 5)
    gaps = (x @ u.T).sort(dim=0).values - (y @ u.T).sort(dim=0).values
    expected = 3 * 6 * gaps.square().mean().item()
    assert compute_mind(x, y, directions=130, seed=5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(30, 20), (7, 50), (1, 9), (64, 64)])
def test_sets_of_different_length_are_compared_by_exact_transport(n, m):
    x, y = features(n, 3, shift=0.5), features(m, 4)
    u = directions(20, 6, 8)
    common = np.lcm(n, m)  # with every row repeated both sets have one length, and the same distribution
    repeated = [rows.repeat_interleave(common // len(rows), dim=0) for rows in (x, y)]
    gaps = (repeated[0] @ u.T).sort(dim=0).values - (repeated[1] @ u.T).sort(dim=0).values
    expected = 18 * gaps.square().mean().item()
    assert compute_mind(x, y, directions=20, seed=8) == pytest.approx(expected, rel=1e-12)


def test_a_shift_has_its_closed_form_and_quantiles_are_not_merely_means():
    x = features(50, 5)
    # Every projection moves by u.s, whose mean square over directions is |s|^2 / D: 3 |s|^2 for many of them.
    assert compute_mind(x + 0.4, x, directions=20_000) == pytest.approx(3 * 6 * 0.16, rel=0.05)
    wide = compute_mind(2 * x, x, directions=200)
    assert wide > 1.0
    line = x[:, :1]
    # On a line the only directions are +1 and -1; numpy's quantiles at the middles of all pieces.
    grid = (np.arange(50 * 31) + 0.5) / (50 * 31)
    quantiles = [np.quantile(v.numpy(), grid, method="inverted_cdf") for v in (line[:, 0], 2 * line[:31, 0])]
    expected = 3 * ((quantiles[0] - quantiles[1]) ** 2).mean()
    assert compute_mind(line, 2 * line[:31], directions=1) == pytest.approx(expected, rel=0.01)


def test_equal_sets_are_zero_in_any_order_and_sides_may_change():
    x, y = features(80, 6), features(50, 7, shift=0.2)
    # The square of the rounding of a projection, which depends on where the row stands in its block.
    assert compute_mind(x, x.flip(0)) < 1e-28
    assert compute_mind(x, y) == pytest.approx(compute_mind(y, x), rel=1e-12)


def test_the_seed_alone_decides_the_directions():
    x, y = features(40, 8), features(40, 9, shift=0.2)
    torch.manual_seed(1)
    value = compute_mind(x, y, directions=30)
    torch.manual_seed(2)
    assert compute_mind(x, y, directions=30) == value
    assert compute_mind(x, y, directions=30, seed=1) != value


def test_float32_features_keep_six_digits():
    x, y = features(300, 10, shift=0.3), features(200, 11)
    assert compute_mind(x.float(), y.float()) == pytest.approx(compute_mind(x, y), rel=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.rand(9, 3), torch.rand(9, 4), "one detector"),
        (torch.rand(0, 4), torch.rand(9, 4), "one detector"),
        (torch.rand(9, 4), torch.full((9, 4), torch.nan), "not finite"),
    ],
)
def test_other_widths_empty_sets_and_non_finite_values_are_refused(x, y, words):
    with pytest.raises(ValueError, match=words):
        compute_mind(x, y)
