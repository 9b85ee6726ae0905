"""Linear separability: closed forms of the entropy, separable and unrelated latents, direction."""

import math
from types import SimpleNamespace

import pytest
import torch

from fact_metrics.engines.separability import conditional_entropy, separability
from fact_metrics.registry import compute_metric, get_spec


def normal(n, width, seed):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def test_entropy_of_a_table_is_its_closed_form() -> None:
    """Sides of 6 and 4 with 5 and 1 true labels; scipy's entropy of either side, weighted."""
    from scipy.stats import entropy

    sides = torch.tensor([False] * 6 + [True] * 4)
    labels = torch.tensor([True] * 5 + [False] + [True] + [False] * 3)
    expected = 0.6 * entropy([5, 1]) + 0.4 * entropy([1, 3])
    assert conditional_entropy(labels, sides) == pytest.approx(expected, abs=1e-12)
    assert conditional_entropy(labels, labels) == 0.0


def test_separable_latents_score_one_and_unrelated_ones_nearly_two_per_attribute() -> None:
    latents = normal(4000, 5, 0)
    margin = 5 * latents[:, 2]
    score, entropies = separability(latents, torch.stack([-margin, margin], dim=1))
    assert score == pytest.approx(1.0, abs=0.02) and len(entropies) == 1  # two classes are one attribute
    noise = normal(4000, 1, 1)[:, 0]
    score, _ = separability(latents, torch.stack([-noise, noise], dim=1))
    assert 1.95 < score <= 2.0


def test_each_class_has_its_entropy_and_a_class_without_images_has_none() -> None:
    latents = normal(3000, 4, 0)
    logits = torch.cat([8 * latents[:, :3], torch.full([3000, 1], -99.0)], dim=1)
    score, entropies = separability(latents, logits)
    assert entropies[3] is None and len(entropies) == 4
    assert score == pytest.approx(math.exp(sum(entropies[:3])))


def test_less_sure_images_are_left_out() -> None:
    """Images with a small margin have the wrong label here: they do not count."""
    latents = normal(2000, 3, 0)
    wrong = latents[:, 0].abs() < latents[:, 0].abs().median() * 0.98
    margin = torch.where(wrong, -0.01, 1.0) * latents[:, 0]
    score, _ = separability(latents, torch.stack([-margin, margin], dim=1))
    assert score == pytest.approx(1.0, abs=0.02)


def test_the_declared_direction_is_that_of_entangled_latents() -> None:
    latents = normal(2000, 4, 0)
    values = []
    for level in (0.0, 0.5, 1.0):
        margin = (1 - level) * latents[:, 0] + level * normal(2000, 1, 1)[:, 0]
        logits = torch.stack([-margin, margin], dim=1)
        explanation = SimpleNamespace(classes=["a", "b"], latents=lambda space, n, x=logits: (latents, x))
        inputs = SimpleNamespace(explanation=explanation, seed=0, device=torch.device("cpu"))
        found = compute_metric(get_spec("ls2k_w"), inputs)
        assert list(found.extras["entropy"]) == ["b"]
        values.append(found.value)
    assert values == sorted(values) and values[0] < values[2]
    assert not get_spec("ls2k_w").higher_is_better


def test_one_class_alone_has_no_value() -> None:
    logits = torch.tensor([[1.0, 0.0]]).repeat(50, 1)
    explanation = SimpleNamespace(classes=["a", "b"], latents=lambda space, n: (normal(50, 2, 0), logits))
    inputs = SimpleNamespace(explanation=explanation, seed=0, device=torch.device("cpu"))
    assert compute_metric(get_spec("ls2k_s"), inputs).value is None
