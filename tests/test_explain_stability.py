"""Stability of selections over images: the authors' own numbers, closed cases, and a planted classifier."""

import random
import statistics

import pytest
import torch
from test_attfind import PLANTED, planted

from fact_metrics.engines.stability import compute_stability, rank_biased_overlap
from fact_metrics.registry import compute_metric, get_spec

SETS = [[0, 1, 2], [0, 1, 3], [0, 2, 4], [0, 1, 2, 5]]


def test_stability_and_its_error_are_those_of_the_authors_code() -> None:
    """getVarianceofStability of nogueirs/JMLR2018 at 9ccbea8, on the sets as rows of a 4 x 8 matrix."""
    assert compute_stability(SETS, 8) == pytest.approx((0.3522267206477733, 0.11061026556205676), rel=1e-12)


def test_rank_biased_overlap_is_that_of_a_package() -> None:
    """RankingSimilarity.rbo_ext(p=0.9) of the package rbo 0.1.3."""
    assert rank_biased_overlap([1, 2, 3, 4, 5], [3, 2, 1, 6, 5]) == pytest.approx(0.705555, rel=1e-12)
    assert rank_biased_overlap([1, 2, 3], [4, 5, 1]) == pytest.approx(0.27, rel=1e-12)
    assert rank_biased_overlap("abc", "abc") == pytest.approx(1) and rank_biased_overlap("abc", "def") == 0


def test_equal_sets_are_stable_and_random_ones_are_at_chance() -> None:
    assert compute_stability([{1, 2, 3}] * 5, 40) == pytest.approx((1, 0), abs=1e-12)
    rng = random.Random(0)
    values = [compute_stability([rng.sample(range(40), 10) for _ in range(20)], 40)[0] for _ in range(50)]
    # the mean of 50 values is known to a seventh of their deviation; four of these are allowed
    assert abs(statistics.mean(values)) < 4 * statistics.stdev(values) / 50**0.5


@pytest.mark.parametrize(("sets", "universe"), [([{1}], 9), ([set(), set()], 9), ([{0, 1}] * 3, 2)])
def test_what_has_no_stability_is_refused(sets, universe) -> None:
    with pytest.raises(ValueError, match="stability takes 2 selections"):
        compute_stability(sets, universe)


class Inputs:
    seed, device = 0, torch.device("cpu")

    def __init__(self, explanation):
        self.explanation = explanation


def test_attributes_that_are_there_are_stable_and_random_ones_are_not(tmp_path) -> None:
    """Three planted coordinates fill three of ten places; the other seven have no effect and go by place."""
    explanation = planted(count=24, root=tmp_path)
    names = [explanation.subject.space.coordinate(layer, i) for layer, i, _ in PLANTED]
    for lists in explanation.halves("attfind-greedy", 4):
        assert len(lists) == 8 and all(len(one) == 10 for one in lists)
        for one in lists:
            assert {int(explanation.search.coordinates[place]) for _, place in one[:3]} == set(names)
    values = {
        method: compute_metric(get_spec(f"attstability24_{method}"), Inputs(explanation))
        for method in ("attfind_greedy", "random")
    }
    found, chance = values["attfind_greedy"], values["random"]
    assert found.value > 0.9 and chance.ci["low"] < 0 < chance.ci["high"]
    assert found.extras["rank_biased_overlap"] > 0.9 > 0.2 > chance.extras["jaccard"]


def test_the_halves_of_a_split_are_complementary_and_balanced(tmp_path, monkeypatch) -> None:
    explanation = planted(count=24, root=tmp_path)
    parts = []

    def seen(known, method, *, within, draw):
        parts.append((within.tolist(), draw))
        return [(0, 0)]

    monkeypatch.setattr(explanation.methods, "find", seen)
    explanation.halves("random", 3)
    of_class, draws = [rows for rows, _ in parts[:6]], [draw for _, draw in parts[:6]]
    assert draws == [1, 2, 3, 4, 5, 6]
    for one, two in zip(of_class[::2], of_class[1::2], strict=True):
        assert sorted(one + two) == list(range(24))
        assert int(explanation.searched.predicted[one].sum()) == 6
    assert len({tuple(rows) for rows in of_class}) == 6
