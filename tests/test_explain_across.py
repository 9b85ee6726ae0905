"""Attributes of several runs, compared by what they change: brute force, other names of one world, spread."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from explain_toys import CLASSES, ToySubject, toy_attribute, toy_images

from fact_eval.explain.across import agreement, check_comparable, check_count, compare_attributes, summarise
from fact_eval.explain.document import ClassifierShape, ExplanationShape, FoundShape, ImagesShape
from fact_eval.explain.filming import Explained
from fact_eval.explain.subject import Images
from fact_eval.reports.attributes import agreement_table
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.engines.stability import matched_correlation


def test_the_match_is_the_best_of_all_permutations_of_numpy_s_correlations() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 30)), rng.normal(size=(4, 30))
    b[2] = a[0] + 0.1 * b[2]
    table = np.corrcoef(a, b)[:4, 4:]
    best = max(np.mean([table[i, p[i]] for i in range(4)]) for p in itertools.permutations(range(4)))
    found = matched_correlation(torch.tensor(a)[None], torch.tensor(b)[None])
    assert found.item() == pytest.approx(best, rel=1e-12)


def test_a_change_that_is_nothing_matches_nothing() -> None:
    rows = torch.stack([torch.zeros(30), torch.full([30], 0.3), torch.linspace(0, 1, 30)])
    assert matched_correlation(rows[None], rows[None]).item() == pytest.approx(1 / 3)


class Renamed(ToySubject):
    """The same world with other coordinates: number j here is number ORDER[j] there."""

    ORDER = (5, 3, 0, 4, 1, 2)

    def render(self, styles, indices):
        there = torch.empty_like(styles)
        there[:, list(self.ORDER)] = styles
        return super().render(there, indices)


def explained(run_id, *, renamed=False, found=None, sha256="c" * 64, shift=1.0):
    """A run with the attributes of methods: (method, target) -> [(coordinate there, direction, effect)]."""
    subject, images = (Renamed() if renamed else ToySubject()), toy_images()
    if renamed:
        images = Images(images.indices, images.styles[:, list(Renamed.ORDER)], images.logits)

    def attribute(coordinate, direction, effect):
        own = toy_attribute(coordinate, direction, effect)
        if renamed:
            here = Renamed.ORDER.index(coordinate)
            own.layer, own.index = f"b{4 * 2 ** (here // 2)}.conv1", here % 2
        return own

    document = ExplanationShape(
        schema=1,
        run_id=run_id,
        snapshot="s",
        snapshot_sha256="0" * 64,
        classifier=ClassifierShape(name="shapes", sha256=sha256, classes=list(CLASSES)),
        images=ImagesShape(kind="generated", count=0, seed=0, indices=[], predicted=[]),
        shift=shift,
        found=[
            FoundShape(method=method, class_index=target, attributes=[attribute(*one) for one in attributes])
            for (method, target), attributes in found.items()
        ],
    )
    return Explained(SimpleNamespace(run_id=run_id), subject, document, images, images)


RIGHT = [(1, -1, 2.5), (0, 1, 1.0), (3, 1, 0.2)]
WRONG = [(2, 1, 1.0), (4, -1, 0.0), (5, 1, 0.0)]


def test_runs_that_name_their_coordinates_otherwise_agree() -> None:
    """Greedy attributes are the same ones in another order and under other names; random ones are others."""
    a = explained("a", found={("attfind-greedy", 0): RIGHT, ("random", 0): RIGHT})
    b = explained("b", renamed=True, found={("attfind-greedy", 0): RIGHT[::-1], ("random", 0): WRONG})
    found = {one.method: one for one in compare_attributes([a, b])}
    assert found["attfind-greedy"].value == pytest.approx(1, abs=1e-5)
    assert found["attfind-greedy"].runs == ("a", "b") and found["attfind-greedy"].class_name == "disc"
    assert found["random"].value < 0.5
    names = {here.layer + str(here.index) for here in b.document.found[0].attributes}
    assert names != {here.layer + str(here.index) for here in a.document.found[0].attributes}


def test_the_error_is_the_spread_over_new_images() -> None:
    """Or up to the root of 2 more: noise in 50 free pixels makes most of this error, and counts twice.

    Two runs, 3 attributes, 40 images; 60 draws know a deviation to 9 %, three of which are allowed.
    """

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        common = torch.randn(3, 1, 50, generator=torch.Generator().manual_seed(9))
        own = [torch.randn(3, 40, 50, generator=generator) * 2 for _ in range(2)]
        return agreement(common + own[0], common + own[1])

    values, errors = zip(*(draw(seed) for seed in range(60)), strict=True)
    assert 0.73 < np.mean(errors) / np.std(values, ddof=1) < 2**0.5 * 1.27


def test_all_pairs_of_runs_and_classes_are_in_the_summary() -> None:
    lists = {("attfind-greedy", 0): RIGHT, ("attfind-greedy", 1): WRONG}
    runs = [explained(name, found=lists) for name in "abc"]
    found = compare_attributes(runs)
    assert {(one.runs, one.class_name) for one in found} == {
        (pair, name) for pair in (("a", "b"), ("a", "c"), ("b", "c")) for name in CLASSES[:2]
    }
    (line,) = summarise(found)
    assert line.value == pytest.approx(sum(one.value for one in found) / 6) and line.low <= line.value + 1e-9
    assert line.lowest - 1e-9 <= line.value <= line.highest + 1e-9 <= 1 + 1e-6
    table = agreement_table(found)
    assert table.startswith("attributes of 3 runs\n") and f"{line.value:.3f}" in table
    assert agreement_table([]) == ""


def test_runs_that_explain_different_things_are_refused() -> None:
    first, lists = explained("a", found={("random", 0): WRONG}), {("random", 0): WRONG}
    with pytest.raises(UsageError, match="--across compares two or more runs"):
        check_count(len([first]))
    with pytest.raises(UserError, match="a and b explain different classifiers"):
        check_comparable([first, explained("b", found=lists, sha256="d" * 64)])
    with pytest.raises(UserError, match="edits of shift 1 and 2; explain both with one --shift"):
        check_comparable([first, explained("b", found=lists, shift=2.0)])
