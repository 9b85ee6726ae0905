"""Intervals against closed forms and scipy; none where the data cannot support one."""

import math

import numpy as np
import pytest
from scipy import stats

from fact_leaderboard.intervals import (
    Mean,
    analytic_difference,
    difference_of_means,
    difference_of_pairs,
    holm,
    independent_difference,
    mean_over_seeds,
    paired_difference,
    t_quantile,
    variance_floor,
)

A, B = [10.1, 9.4, 11.2, 10.3], [8.9, 9.1, 9.9, 9.2]


def test_the_t_interval_of_one_two_three_is_the_textbooks():
    mean = mean_over_seeds([1.0, 2.0, 3.0])
    assert mean.mean == 2.0 and mean.n == 3
    # t(0.975, 2) = 4.302653, standard error 1/sqrt(3); both rounded to seven digits in the table.
    assert mean.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert mean.ci()["low"] == pytest.approx(2 - 4.302653 / math.sqrt(3), rel=1e-6)


def test_one_seed_has_no_interval():
    mean = mean_over_seeds([5.0])
    assert (mean.mean, mean.stderr, mean.half_width, mean.ci()) == (5.0, None, None, None)


def test_no_values_have_no_mean():
    with pytest.raises(ValueError, match="no values"):
        mean_over_seeds([])


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for values in rng.normal(3.0, 2.0, (2000, 4)):
        mean = mean_over_seeds(list(values))
        covered += abs(mean.mean - 3.0) <= mean.half_width
    assert abs(covered / 2000 - 0.95) < 0.02  # four standard deviations of 2000 draws


def test_t_quantiles_are_scipys():
    for df in (1, 2, 9, 100):
        assert t_quantile(0.975, df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-12)


def test_the_paired_difference_is_the_paired_t_test():
    ours, reference = paired_difference(A, B), stats.ttest_rel(B, A)
    assert ours.value == pytest.approx(np.mean(B) - np.mean(A))
    assert ours.p == pytest.approx(reference.pvalue, rel=1e-9)


def test_pairing_sees_a_small_shift_that_independent_seeds_hide():
    shifted = [x - 0.05 + 0.001 * i for i, x in enumerate(A)]
    assert paired_difference(A, shifted).p < 0.001 < 0.5 < independent_difference(A, shifted).p


def test_the_independent_difference_has_welchs_statistic():
    ours, reference = independent_difference(A, B[:3]), stats.ttest_ind(B[:3], A, equal_var=False)
    assert ours.value == pytest.approx(np.mean(B[:3]) - np.mean(A))
    assert ours.value / ours.stderr == pytest.approx(reference.statistic, rel=1e-9)
    assert ours.p > reference.pvalue  # whose degrees of freedom trust the spreads of few seeds


@pytest.mark.parametrize("sizes", [(3, 3), (2, 5), (3, 10), (10, 4), (150, 300)])
def test_p_is_that_of_the_worst_spreads_within_one_to_five(sizes):
    """Welch's statistic drawn for normal values: at 5 times the spread on a side, and never more between."""
    draws, rng = 400_000, np.random.default_rng(0)
    chances = {}
    for spread in (1 / 5, 1 / 2, 1.0, 2.0, 5.0):
        true = spread**2 / sizes[0], 1 / sizes[1]
        estimates = [v * rng.chisquare(n - 1, draws) / (n - 1) for v, n in zip(true, sizes, strict=True)]
        t = np.abs(rng.standard_normal(draws)) * np.sqrt(sum(true) / sum(estimates))
        chances[spread] = np.array([(t > limit).mean() for limit in (1.5, 3.0, 6.0)])
    worst = np.maximum(chances[1 / 5], chances[5.0])
    a, b = Mean(0.0, sizes[0], 0.6, None), (lambda t: Mean(t, sizes[1], 0.8, None))
    ours = np.array([difference_of_means(a, b(t)).p for t in (1.5, 3.0, 6.0)])
    error = 4 * np.sqrt(worst * (1 - worst) / draws) + 1e-5  # four standard deviations of the draws
    assert (np.abs(ours - worst) < error).all(), (ours, worst)
    assert all((chance < ours + error).all() for chance in chances.values())


def test_three_seeds_that_agree_are_no_proof():
    """p was 0 for these, however small the difference."""
    for other in ([9.0] * 3, [10.0 + 1e-7] * 3, [10.0, 10.0 + 1e-9, 10.0]):
        for difference in (independent_difference([10.0] * 3, other), paired_difference([10.0] * 3, other)):
            assert difference.value != 0
            assert (difference.stderr, difference.p) == (None, None), difference
            assert "seeds agree" in difference.method
    assert mean_over_seeds([10.0] * 3).ci() is None
    assert analytic_difference(1.0, 0.0, 0.5, 0.0).p is None
    assert difference_of_pairs(0.5, 0.0, n=100).p is None


def test_seeds_that_agree_spread_as_much_as_rounding_hides():
    """Three whole numbers: variance 1/12 each, so t is 1 / sqrt(2/36), and its p that of the test above."""
    whole = variance_floor(step=1.0)
    difference = independent_difference([10.0] * 3, [9.0] * 3, floor=whole)
    assert difference.stderr == pytest.approx(math.sqrt(2 / 36))
    assert 0.0132 < difference.p < 0.05  # Welch's own is 0.0132
    assert mean_over_seeds([10.0] * 3, floor=whole).half_width == pytest.approx(4.302653 / 6, rel=1e-6)
    assert paired_difference([10.0] * 3, [9.0] * 3, floor=whole).stderr == pytest.approx(math.sqrt(2 / 36))
    assert analytic_difference(1.0, 0.0, 0.5, 0.0, floor=whole).stderr == pytest.approx(math.sqrt(2 / 12))
    near = independent_difference([10.0] * 3, [10.0 + 1e-7] * 3, floor=whole)
    assert near.p > 0.99


def test_a_floor_is_rounding_plus_the_mean_square_of_evaluation_errors():
    assert variance_floor() == 0.0
    assert variance_floor(step=0.5, stderrs=[0.3, None, 0.4]) == pytest.approx(0.25 / 12 + 0.125)
    assert variance_floor(stderrs=[None]) == 0.0
    spread = [1.0, 2.0, 3.0]
    assert mean_over_seeds(spread, floor=0.5) == mean_over_seeds(spread)  # only a floor: not added


def test_a_difference_of_single_numbers_has_no_error():
    for difference in (paired_difference([1.0], [2.0]), independent_difference([1.0], [2.0, 3.0])):
        assert (difference.stderr, difference.p) == (None, None)


def test_standard_errors_add_in_quadrature():
    difference = analytic_difference(10.0, 0.3, 11.0, 0.4)
    assert (difference.value, difference.stderr) == (1.0, pytest.approx(0.5))
    assert difference.p == pytest.approx(2 * stats.norm.sf(2.0), rel=1e-9)


def test_equal_numbers_without_spread_are_no_difference():
    assert paired_difference([1.0, 1.0], [1.0, 1.0]).p == 1.0
    assert independent_difference([1.0, 1.0], [1.0, 1.0]).p == 1.0
    assert analytic_difference(1.0, 0.0, 1.0, 0.0).p == 1.0


def test_unequal_lists_cannot_be_paired():
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1.0], [1.0, 2.0])


def test_holm_multiplies_the_smallest_most_and_stays_monotone():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_holm_counts_the_comparisons_that_are_not_listed():
    """As if they were listed with p = 1, which Holm's correction leaves until the end."""
    p_values = [0.001, 0.02, 0.004]
    assert holm(p_values, family=10) == pytest.approx(holm([*p_values, *[1.0] * 7])[:3])
    with pytest.raises(ValueError, match="cannot hold 3"):
        holm(p_values, family=2)
