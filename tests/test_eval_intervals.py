"""Intervals against closed forms and scipy; none where the data cannot support one."""

import math

import numpy as np
import pytest
from scipy import stats

from fact_leaderboard.intervals import (
    analytic_difference,
    holm,
    independent_difference,
    mean_over_seeds,
    paired_difference,
    t_quantile,
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


def test_the_independent_difference_is_welchs_test():
    ours, reference = independent_difference(A, B[:3]), stats.ttest_ind(B[:3], A, equal_var=False)
    assert ours.p == pytest.approx(reference.pvalue, rel=1e-9)
    assert ours.value == pytest.approx(np.mean(B[:3]) - np.mean(A))


def test_a_difference_of_single_numbers_has_no_error():
    for difference in (paired_difference([1.0], [2.0]), independent_difference([1.0], [2.0, 3.0])):
        assert (difference.stderr, difference.p) == (None, None)


def test_standard_errors_add_in_quadrature():
    difference = analytic_difference(10.0, 0.3, 11.0, 0.4)
    assert (difference.value, difference.stderr) == (1.0, pytest.approx(0.5))
    assert difference.p == pytest.approx(2 * stats.norm.sf(2.0), rel=1e-9)


def test_equal_numbers_without_spread_are_no_difference():
    assert paired_difference([1.0, 1.0], [1.0, 1.0]).p == 1.0
    assert independent_difference([1.0, 1.0], [2.0, 2.0]).p == 0.0


def test_unequal_lists_cannot_be_paired():
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1.0], [1.0, 2.0])


def test_holm_multiplies_the_smallest_most_and_stays_monotone():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []
