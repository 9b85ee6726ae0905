"""KID against its definition, its error against repeated draws, and what it refuses."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from fact_metrics.engines import kernel
from fact_metrics.engines.kid import compute_kid, compute_kid_difference

WIDTH = 8


def features(n, seed, *, scale=1.0, shift=0.0):
    rng = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(n, WIDTH, generator=rng, dtype=torch.float64)).abs() + shift


def gram(name, x, y):
    if name == "polynomial":
        return (x @ y.T / WIDTH + 1) ** 3
    return (-((x[:, None] - y) ** 2).sum(dim=2) / 200).exp()


@pytest.mark.parametrize("name", ["polynomial", "rbf"])
def test_kid_of_all_images_is_the_unbiased_estimate(name):
    x, y = features(40, 1, scale=1.2), features(25, 2)
    xx, yy, xy = gram(name, x, x), gram(name, y, y), gram(name, x, y)
    own = [(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    expected = (sum(own) - 2 * xy.mean()).item()
    # The RBF kernel is taken less 1, which the plain sum keeps: 1e-16 of it.
    assert compute_kid(x, y, kernel=name, subsets=0).value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("name", "theirs"), [("polynomial", "poly"), ("rbf", "rbf")])
def test_subsets_are_torch_fidelitys_in_number_order_and_spread(name, theirs):
    x, y = features(90, 3, scale=1.2), features(70, 4)
    ours = compute_kid(x, y, kernel=name, subsets=12, subset_size=30, seed=7)
    peer = kid_features_to_metric(
        x, y, kid_subsets=12, kid_subset_size=30, kid_kernel=theirs, rng_seed=7, verbose=False
    )
    assert ours.subset_mean == pytest.approx(peer["kernel_inception_distance_mean"], rel=1e-10)
    assert ours.subset_std == pytest.approx(peer["kernel_inception_distance_std"], rel=1e-10)
    rng = np.random.RandomState(7)
    first = [torch.from_numpy(rng.choice(n, 30, replace=False)) for n in (90, 70)]
    alone = compute_kid(x[first[0]], y[first[1]], kernel=name, subsets=0).value
    assert ours.subsets[0].item() == pytest.approx(alone, rel=1e-10)


def test_subsets_that_hold_everything_are_the_full_estimate():
    x, y = features(50, 5), features(50, 6, shift=0.1)
    ours = compute_kid(x, y, subsets=3, subset_size=50)
    assert ours.subsets.tolist() == pytest.approx([ours.value] * 3, rel=1e-10)
    assert compute_kid(x, y, subsets=0).subsets.tolist() == []


@pytest.mark.parametrize("name", ["polynomial", "rbf"])
@pytest.mark.parametrize(("n", "m"), [(150, 150), (60, 240), (240, 60)])
@pytest.mark.parametrize("scale", [1.0, 1.15])
def test_stderr_matches_repeated_draws(name, n, m, scale):
    draws = [
        compute_kid(features(n, 2 * i, scale=scale), features(m, 2 * i + 1), kernel=name, subsets=0)
        for i in range(200)
    ]
    spread = torch.tensor([draw.value for draw in draws]).std().item()
    # The sd of 200 draws is known to 5 % for normal values; the cubic kernel's tails make that about 7 %. At
    # scale 1 the error without the second-order term would be 41 % too large.
    assert torch.tensor([d.stderr for d in draws]).mean().item() == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("scale", [1.0, 1.15])
def test_stderr_against_a_population_is_over_generated_draws_alone(scale):
    population = features(800, 0)
    rng = torch.Generator().manual_seed(1)
    draws = []
    for i in range(200):
        drawn = features(80, 10 + i, scale=scale)
        if scale == 1:  # of the population itself
            drawn = population[torch.randint(800, (80,), generator=rng)]
        draws.append(compute_kid(drawn, population, kernel="rbf", subsets=0, reference="population"))
    spread = torch.tensor([draw.value for draw in draws]).std().item()
    assert torch.tensor([d.stderr for d in draws]).mean().item() == pytest.approx(spread, rel=0.25)


def test_the_spread_over_subsets_is_not_the_standard_error():
    x, y = features(400, 8, scale=1.1), features(400, 9)
    small, large = (compute_kid(x, y, subsets=50, subset_size=size) for size in (20, 200))
    assert small.stderr == large.stderr and small.value == large.value
    assert small.subset_std > 3 * large.subset_std


@pytest.mark.parametrize("name", ["polynomial", "rbf"])
def test_blocks_do_not_change_the_result(monkeypatch, name):
    x, y = features(50, 10), features(33, 11, shift=0.2)
    whole = compute_kid(x, y, kernel=name, subsets=5, subset_size=20)
    monkeypatch.setattr(kernel, "BLOCK", 7)
    cut = compute_kid(x, y, kernel=name, subsets=5, subset_size=20)
    assert cut.value == pytest.approx(whole.value, rel=1e-10)
    assert cut.stderr == pytest.approx(whole.stderr, rel=1e-10)
    torch.testing.assert_close(cut.subsets, whole.subsets, rtol=1e-9, atol=1e-14)


def test_float32_features_lose_less_than_the_standard_error_by_far():
    x, y = features(300, 12, scale=1.1), features(300, 13)
    single = compute_kid(x.float(), y.float(), subsets=0)
    double = compute_kid(x, y, subsets=0)
    # Each product is rounded to 6e-8 of itself; 90,000 of them average that out.
    assert abs(single.value - double.value) < 1e-5 * double.stderr
    assert single.stderr == pytest.approx(double.stderr, rel=1e-4)


def test_order_and_side_do_not_matter():
    x, y = features(80, 14), features(60, 15, shift=0.2)
    value = compute_kid(x, y, subsets=0).value
    assert compute_kid(x.flip(0), y.flip(0), subsets=0).value == pytest.approx(value, rel=1e-10)
    assert compute_kid(y, x, subsets=0).value == pytest.approx(value, rel=1e-10)


def test_equal_sets_are_below_zero_by_their_diagonal_alone():
    x = features(50, 16)
    k = gram("polynomial", x, x)
    off = (k.sum() - k.diagonal().sum()) / (50 * 49)
    expected = 2 / 50 * (off - k.diagonal().mean()).item()
    assert compute_kid(x, x.clone(), subsets=0).value == pytest.approx(expected, rel=1e-9)
    assert compute_kid(x, x, subsets=0).value == pytest.approx(expected, rel=1e-9)


def test_too_few_images_for_a_subset_are_refused_with_the_way_out():
    x = features(999, 17)
    with pytest.raises(ValueError, match=r"1000 images cannot be drawn from 999 generated.*subset_size"):
        compute_kid(x, features(1200, 18))
    assert np.isfinite(compute_kid(x[:40], x[40:80], subsets=0).value)


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match="'poly', not one of polynomial, rbf"):
        compute_kid(features(9, 19), features(9, 20), kernel="poly", subsets=0)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.rand(9, 3), torch.rand(9, 4), "one detector"),
        (torch.rand(3, 4), torch.rand(9, 4), "4 images"),
        (torch.rand(9, 4), torch.full((9, 4), torch.inf), "not finite"),
        (torch.rand(9), torch.rand(9), "one detector"),
    ],
)
def test_other_widths_handfuls_and_non_finite_values_are_refused(x, y, words):
    with pytest.raises(ValueError, match=words):
        compute_kid(x, y, subsets=0)


@pytest.mark.parametrize("name", ["polynomial", "rbf"])
def test_the_difference_of_two_runs_is_that_of_their_kids(name):
    a, b, y = features(40, 40), features(40, 41, scale=1.3), features(25, 42)
    found = compute_kid_difference(a, b, y, kernel=name)
    values = [compute_kid(x, y, kernel=name, subsets=0).value for x in (a, b)]
    assert found.value == pytest.approx(values[1] - values[0], rel=1e-10)
    same = compute_kid_difference(a, a, y, kernel=name)
    assert (same.value, same.stderr) == (0, 0)
    with pytest.raises(ValueError, match="got 40 and 39"):
        compute_kid_difference(a, b[1:], y)


@pytest.mark.parametrize("reference", ["population", "sample"])
@pytest.mark.parametrize("apart", [0.3, 0.0])
def test_the_error_of_a_paired_difference_is_that_of_repeated_draws(reference, apart):
    population = features(60, 43)

    def once(i):
        a = features(60, 100 + 3 * i)
        b = (1 + apart) * a + 0.2 * features(60, 101 + 3 * i)
        y = population if reference == "population" else features(60, 102 + 3 * i)
        independent = compute_kid(a, y, kernel="rbf", subsets=0, reference=reference).stderr
        return compute_kid_difference(a, b, y, kernel="rbf", reference=reference), independent

    draws = [once(i) for i in range(200)]
    spread = torch.tensor([draw.value for draw, _ in draws]).std().item()
    stderr = torch.tensor([draw.stderr for draw, _ in draws]).mean().item()
    # The sd of 200 draws is known to 5 %; the kernel's tails make that about 7 %.
    assert stderr == pytest.approx(spread, rel=0.25)
    assert torch.tensor([independent for _, independent in draws]).mean() > 0


@pytest.mark.parametrize("reference", ["population", "sample"])
@pytest.mark.parametrize(("mean", "spread"), [(0.14, 0.006), (1e3, 5.0), (0.0, 1.0), (300.0, 0.01)])
def test_float32_features_that_vary_little_have_the_error_and_value_of_float64(mean, spread, reference):
    """(0.14, 0.006) is that of shift-tolerant LPIPS features: the error was 2,797 times too large."""
    rng = torch.Generator().manual_seed(0)
    x, y = ((mean + spread * torch.randn(700, 50, generator=rng)).float() for _ in range(2))
    single = compute_kid(x, y, subsets=5, subset_size=300, reference=reference)
    double = compute_kid(x.double(), y.double(), subsets=5, subset_size=300, reference=reference)
    assert double.stderr > 0
    # Products of 50 values of float32 round to about 1e-6 of their size; many of them average out.
    assert single.stderr == pytest.approx(double.stderr, rel=1e-5)
    assert single.value == pytest.approx(double.value, abs=1e-4 * double.stderr)
    assert single.subset_mean == pytest.approx(double.subset_mean, abs=1e-4 * double.stderr)
    a, b = (
        compute_kid_difference(*(s.to(t) for s in (x, y, x + y)), reference=reference)
        for t in (torch.float32, torch.float64)
    )
    assert a.stderr == pytest.approx(b.stderr, rel=1e-4)
