"""Numbers of explanations against scipy, closed forms and hand-made cases."""

from types import SimpleNamespace

import pytest
import torch

from fact_eval.jobs.plan import Request
from fact_metrics.base.errors import UsageError
from fact_metrics.engines import attributes as engine
from fact_metrics.engines.stability import compute_stability
from fact_metrics.families.attributes import FAMILIES, NUMBERS
from fact_metrics.inputs import Counterfactuals, DeclaredInputs, UndeclaredNeed
from fact_metrics.registry import compute_metric, get_spec


def counterfactuals(after, *, second=None, edited=None, target=(1, 1, 1, 0), image=(0, 1, 2, 2)):
    """Four pairs of three images, two classes; `after` are margins of class 1 by number of attributes."""
    target, image = torch.tensor(target), torch.tensor(image)

    def logits(margins):
        return torch.stack([torch.zeros_like(margins), margins], dim=-1)

    before = logits(torch.where(target == 1, -1.0, 1.0))
    unedited = torch.zeros(4, 1, 4, 4, dtype=torch.uint8)
    return Counterfactuals(
        image=image,
        target=target,
        before=before,
        after=logits(torch.as_tensor(after)),
        second_before=None if second is None else before,
        second_after=None if second is None else logits(torch.as_tensor(second)),
        originals=unedited,
        unedited=unedited,
        edits=(unedited if edited is None else edited)[:, None],
    )


def value_of(name, found, **more):
    explanation = SimpleNamespace(classes=["low", "high"], counterfactuals=lambda method: found, **more)
    inputs = SimpleNamespace(explanation=explanation, seed=0, device=torch.device("cpu"))
    return compute_metric(get_spec(name), inputs)


# margins by k = 1, 2, 3; pair 3 is edited towards class 0
AFTER = [[-0.5, 0.5, 2.0], [0.5, -0.5, -2.0], [-1.0, -1.0, -1.0], [0.5, -0.5, -3.0]]


@pytest.mark.parametrize(("hits", "n"), [(0, 12), (3, 12), (60, 60), (250, 250), (127, 250)])
def test_intervals_of_shares_are_scipy_s(hits, n) -> None:
    from scipy.stats import binomtest

    theirs = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    low, high = engine.wilson_interval(hits / n, n)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert low <= hits / n <= high  # of 60 of 60 the formula gives 1 less a rounding


def test_flips_count_images_not_pairs() -> None:
    found = value_of("flips100_attfind_greedy", counterfactuals(AFTER))
    # by image: pair 0 flips at k = 3, pair 1 does not, of image 2 one of two pairs does
    assert found.value == pytest.approx((1 + 0 + 0.5) / 3) and found.n_generated == 3
    assert [point["value"] for point in found.extras["curve"]] == pytest.approx([1 / 3, 0.5, 0.5], abs=1e-4)
    assert [point["value"] for point in found.extras["towards"]["low"]] == [0.0, 1.0, 1.0]
    assert found.ci["low"] == pytest.approx(engine.wilson_interval(0.5, 3)[0], abs=1e-4)
    assert "second" not in found.extras


def test_an_explanation_of_its_own_classifier_alone_is_marked() -> None:
    """Forty images, all flipped by one classifier and none by the other."""
    both = torch.full([4, 3], 5.0), torch.full([4, 3], -5.0)
    many = {"image": torch.arange(40), "target": torch.ones(40, dtype=torch.long)}
    rows = torch.tensor([0]).repeat(40)

    def repeated(second):
        one = counterfactuals(both[0], second=second, target=(1, 1, 1, 1))
        parts = {
            name: getattr(one, name)[rows]
            for name in ("before", "after", "second_before", "second_after", "originals", "unedited", "edits")
        }
        return Counterfactuals(**many, **parts)

    assert value_of("flips100_random", repeated(both[1])).extras["own_only"] is True
    assert value_of("flips100_random", repeated(both[0])).extras["own_only"] is False
    assert value_of("effectiveness100_random", repeated(both[0])).value == 1.0
    assert value_of("effectiveness100_random", repeated(both[1])).value == 0.0
    assert value_of("effectiveness100_random", counterfactuals(AFTER)).value is None


def test_logit_changes_are_towards_the_target_whatever_its_side() -> None:
    found = counterfactuals(AFTER)
    changes = engine.logit_changes(found.before, found.after, found.target)
    assert changes[:, 2].tolist() == [3.0, -1.0, 0.0, 4.0]
    shifted = engine.logit_changes(found.before, found.after + 7.0, found.target)
    assert torch.allclose(changes, shifted)
    value = value_of("logitchange100_random", found)
    assert value.value == pytest.approx((3 - 1 + 2) / 3)


def test_sparsity_is_the_fewest_attributes_that_flip() -> None:
    found = counterfactuals(AFTER)
    assert engine.attributes_to_flip(found.after, found.target).tolist() == [2.0, 1.0, 4.0, 2.0]
    assert value_of("sparsity100_random", found).value == pytest.approx((2 + 1 + 3) / 3)


def test_gini_of_equal_and_of_single_values() -> None:
    assert engine.gini(torch.ones(10)) == pytest.approx(0.0)
    one = torch.zeros(10)
    one[4] = 3.0
    assert engine.gini(one) == pytest.approx(0.9) and engine.gini(torch.zeros(3)) == 0.0


def test_changed_pixels_are_those_beyond_the_threshold() -> None:
    edited = torch.zeros(4, 1, 4, 4, dtype=torch.uint8)
    edited[:, 0, 0, 0], edited[:, 0, 0, 1] = 13, 14
    found = counterfactuals(AFTER, edited=edited)
    assert value_of("cfchanged100_random", found).value == pytest.approx(1 / 16)
    mse = value_of("cfmse100_random", found).value
    assert mse == pytest.approx((13**2 + 14**2) / 16 / 127.5**2)


def test_cout_of_a_classifier_that_reads_one_pixel() -> None:
    """The target's probability jumps with the first pixel: target area 1 - 1/(2T), own area 1/(2T)."""
    unedited = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    edited = torch.full_like(unedited, 20)
    edited[0, 0, 2, 3] = 255  # the largest difference goes first

    def probabilities(images):
        high = (images[:, 0, 2, 3] > 0.5).float()
        return torch.stack([1 - high, high], dim=1)

    own, target = torch.tensor([0]), torch.tensor([1])
    cout = engine.compute_cout(unedited, edited, own, target, probabilities, steps=16)
    assert cout.item() == pytest.approx((1 - 1 / 32) - 1 / 32)
    same = engine.compute_cout(unedited, unedited, own, target, probabilities, steps=16)
    assert same.item() == -1.0


def test_stability_is_the_mean_over_classes_of_the_lists_from_halves() -> None:
    """Class 0: equal lists. Class 1: splits that share nothing, then everything."""
    a, b = [(0, 1), (1, 2)], [(1, 1), (0, 2)]
    halves = [[a, a, a, a], [a, b, a, a]]
    more = {"halves": lambda method, splits: halves, "attribute_count": 8}
    value = value_of("attstability100_gradient", None, **more)
    expected = [compute_stability(lists, 8) for lists in halves]
    assert value.extras["by_class"] == [1.0, expected[1][0]]
    assert value.value == pytest.approx((1 + expected[1][0]) / 2)
    assert value.stderr == pytest.approx(expected[1][1] / 2)
    assert value.ci["low"] < value.value <= value.ci["high"] <= 1
    assert value.extras["jaccard"] == value.extras["rank_biased_overlap"] == 0.75


def test_composition_is_the_drift_after_cycles_without_an_edit() -> None:
    pictures = {n: torch.full([3, 1, 4, 4], 10 * n, dtype=torch.uint8) for n in (0, 1, 10)}
    value = value_of("composition100", None, cycles=lambda counts: {n: pictures[n] for n in counts})
    assert value.value == pytest.approx((100 / 127.5) ** 2)
    assert value.extras["after_1"] == pytest.approx((10 / 127.5) ** 2)
    assert value_of("composition100", None, cycles=lambda counts: None).value is None


def test_numbers_are_not_computed_without_an_explanation() -> None:
    spec = get_spec("flips100_random")
    with pytest.raises(UsageError, match="fact-eval explain RUN"):
        Request((spec,), named=True).specs_for("mnist")
    inputs = DeclaredInputs(get_spec("recon10k_mse"), SimpleNamespace(seed=0, device=None))
    with pytest.raises(UndeclaredNeed, match="an explanation"):
        _ = inputs.explanation


def test_every_number_and_method_has_a_name_of_its_own() -> None:
    keys = [family.key for family in FAMILIES]
    assert len(set(keys)) == len(keys) and {family.name for family in FAMILIES} == {*NUMBERS, "composition"}
    assert get_spec("flips250_attfind_greedy").protocol["settings"]["method"] == "attfind-greedy"
