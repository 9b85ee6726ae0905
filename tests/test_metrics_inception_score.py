"""The inception score against closed forms and torch-fidelity, and what it refuses."""

import math

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from fact_metrics.engines.inception_score import compute_inception_score


def logits(n, classes, seed):
    rng = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, classes, generator=rng, dtype=torch.float64)


def test_sure_and_even_predictions_score_the_number_of_classes():
    rows = torch.eye(5).repeat(20, 1)
    score = compute_inception_score(rows, logits=False, splits=4, seed=None)
    assert score.scores.tolist() == pytest.approx([5.0] * 4, rel=1e-12)


def test_predictions_that_do_not_depend_on_the_image_score_one():
    row = torch.tensor([0.7, 0.2, 0.1])
    assert compute_inception_score(row.repeat(30, 1), logits=False).value == pytest.approx(1.0, rel=1e-12)
    assert compute_inception_score(torch.eye(3)[[0] * 30], logits=False).value == 1.0


def test_one_class_in_all_images_and_one_in_each_have_their_closed_form():
    # Half of the images are sure of class 0, half are split evenly between 0 and 1: p(y) = (3/4, 1/4).
    rows = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64).repeat(10, 1)
    expected = math.exp((math.log(4 / 3) + (0.5 * math.log(2 / 3) + 0.5 * math.log(2))) / 2)
    score = compute_inception_score(rows, logits=False, splits=1, seed=None)
    assert score.value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [103, 40])
@pytest.mark.parametrize("shuffle", [True, False])
def test_logits_score_as_in_torch_fidelity_also_where_splits_are_uneven(n, shuffle):
    rows = logits(n, 7, seed=n)
    peer = isc_features_to_metric(rows, splits=10, shuffle=shuffle)
    ours = compute_inception_score(rows, logits=True, seed=2020 if shuffle else None)
    assert ours.value == pytest.approx(peer["inception_score_mean"], rel=1e-12)
    assert ours.split_std == pytest.approx(peer["inception_score_std"], rel=1e-10)


def test_probabilities_of_the_logits_score_the_same_and_a_bias_does_not():
    rows = logits(200, 6, seed=1)
    value = compute_inception_score(rows, logits=True).value
    assert compute_inception_score(rows.softmax(dim=1), logits=False).value == pytest.approx(value, rel=1e-12)
    biased = rows + torch.tensor([3.0, 0, 0, 0, 0, 0])
    assert abs(compute_inception_score(biased, logits=True).value - value) > 0.1


def test_the_error_over_splits_is_the_sample_one_and_absent_for_a_single_split():
    score = compute_inception_score(logits(100, 6, seed=2), logits=True)
    assert score.split_stderr == pytest.approx(score.split_std / 9**0.5, rel=1e-12)  # n - 1 of ten
    assert compute_inception_score(logits(100, 6, seed=2), logits=True, splits=1).split_stderr is None


def test_splits_make_the_score_smaller():
    rows = logits(200, 50, seed=3)
    values = [compute_inception_score(rows, logits=True, splits=splits).value for splits in (1, 10, 50)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("outputs", "is_logits", "words"),
    [
        (torch.rand(9, 3), True, "10 splits need"),
        (torch.rand(30), True, r"\[30\]"),
        (torch.full((30, 3), torch.nan), True, "not finite"),
        (torch.ones(30, 3), False, "add up to 1"),
        (torch.tensor([[1.5, -0.5]]).repeat(30, 1), False, "negative"),
    ],
)
def test_too_few_images_and_what_is_no_probability_are_refused(outputs, is_logits, words):
    with pytest.raises(ValueError, match=words):
        compute_inception_score(outputs, logits=is_logits)
