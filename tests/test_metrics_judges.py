"""Sharpness, legibility and classes covered: closed forms, bounds and refusals."""

import math

import pytest
import torch

from fact_metrics.engines.legibility import (
    compute_class_entropy,
    compute_classes_covered,
    compute_legibility,
    count_legible,
)
from fact_metrics.engines.sharpness import compute_sharpness, compute_sharpness_stderr


def probabilities(counts, *, confidence=0.95):
    """One row per image, `counts[c]` images of class c, the rest of the probability spread evenly."""
    rows = []
    for label, count in enumerate(counts):
        row = torch.full((10,), (1 - confidence) / 9)
        row[label] = confidence
        rows.append(row.expand(count, 10))
    return torch.cat(rows)


def test_sharpness_is_the_log2_of_the_ratio_both_ways():
    quarter, half = torch.full((10, 1), 0.25), torch.full((20, 1), 0.5)
    assert compute_sharpness(quarter, half) == compute_sharpness(half, quarter) == 1.0
    assert compute_sharpness(half, half) == 0.0


def test_sharpness_of_blank_images_is_finite_and_the_worst():
    real = torch.full((10, 1), 0.1)
    blank = compute_sharpness(torch.zeros(10, 1), real)
    assert blank == pytest.approx(math.log2(0.1 / 1e-6), rel=1e-6)
    assert blank > compute_sharpness(torch.full((10, 1), 0.001), real)


def test_stderr_of_sharpness_matches_repeated_draws():
    rng = torch.Generator().manual_seed(0)
    real = torch.full((10, 1), 0.3)
    samples = [torch.rand(400, 1, generator=rng) * 0.8 for _ in range(300)]
    spread = torch.tensor([math.log2(sample.double().mean().item() / 0.3) for sample in samples]).std().item()
    # The sd of 300 draws is known to 4 %; four of those.
    assert compute_sharpness_stderr(samples[0]) == pytest.approx(spread, rel=0.16)
    assert compute_sharpness_stderr(real[:1]) is None


def test_shares_outside_zero_to_one_are_refused():
    for shares in (torch.full((3, 1), 1.5), torch.full((3, 1), torch.nan), torch.zeros(0, 1)):
        with pytest.raises(ValueError, match="shares lie in"):
            compute_sharpness(shares, torch.full((3, 1), 0.5))


def test_legibility_counts_images_at_the_threshold_and_above():
    rows = torch.cat([probabilities([0, 3], confidence=0.95), probabilities([5], confidence=0.85)])
    assert compute_legibility(rows) == 3 / 8
    exactly = torch.tensor([[0.9, 0.1]])
    assert compute_legibility(exactly) == 1.0


def test_a_class_is_covered_from_two_percent_of_the_legible_images():
    assert compute_classes_covered(probabilities([98, 2])) == 2
    assert compute_classes_covered(probabilities([99, 1])) == 1
    assert compute_classes_covered(probabilities([10] * 10)) == 10
    # Illegible images count for nothing, however many there are.
    illegible = probabilities([0, 0, 500], confidence=0.5)
    assert compute_classes_covered(torch.cat([probabilities([98, 2]), illegible])) == 2


def test_no_legible_image_covers_no_class_and_has_no_entropy():
    rows = probabilities([5, 5], confidence=0.5)
    assert compute_legibility(rows) == 0.0
    assert compute_classes_covered(rows) == 0
    assert compute_class_entropy(rows) is None


def test_entropy_is_one_for_even_classes_and_zero_for_one_class():
    assert compute_class_entropy(probabilities([7] * 10)) == pytest.approx(1.0, rel=1e-12)
    assert compute_class_entropy(probabilities([0, 9])) == 0.0
    assert compute_class_entropy(probabilities([5, 5])) == pytest.approx(
        math.log(2) / math.log(10), rel=1e-12
    )


def test_counts_are_per_class():
    assert count_legible(probabilities([1, 0, 4])).tolist() == [1, 0, 4, 0, 0, 0, 0, 0, 0, 0]


def test_rows_that_are_no_probabilities_are_refused():
    for rows in (torch.rand(4, 10) * 3, torch.zeros(0, 10), torch.full((2, 10), torch.nan)):
        with pytest.raises(ValueError, match="sum to 1"):
            compute_legibility(rows)
