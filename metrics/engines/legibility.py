"""Legibility of generated digits: does a classifier trained on real digits read them, and are all ten there?

The judge is the `digits_probs` detector, trained by `fact-eval train-digits` and never seen by a generator.
It gives pictures that are no digit no confident class (metrics/features/weights/digits.json has the shares).
"""

import math

import torch

from fact_metrics.engines.conventions import COVERED, LEGIBLE


def compute_legibility(probabilities: torch.Tensor) -> float:
    """Share of images with a class at 0.9 or more, of class probabilities [N, K]. Higher is better."""
    return find_legible(probabilities).double().mean().item()


def compute_classes_covered(probabilities: torch.Tensor) -> int:
    """Number of classes with 2 % or more of the legible images of [N, K]. Higher is better; 0 to K."""
    counts = count_legible(probabilities)
    return int((counts >= COVERED * counts.sum().clamp(min=1)).sum())


def compute_class_entropy(probabilities: torch.Tensor) -> float | None:
    """Entropy of legible images' classes over log K: 1 is even, 0 one class; None without such an image."""
    counts = count_legible(probabilities).double()
    if counts.sum() == 0:
        return None
    shares = counts[counts > 0] / counts.sum()
    return -(shares * shares.log()).sum().item() / math.log(len(counts)) + 0.0


def count_legible(probabilities: torch.Tensor) -> torch.Tensor:
    """Legible images of every class: int64 [K]."""
    legible = probabilities[find_legible(probabilities)]
    return legible.argmax(dim=1).bincount(minlength=probabilities.shape[1])


def find_legible(probabilities: torch.Tensor) -> torch.Tensor:
    """bool [N]: images with a class at 0.9 or more. Raises ValueError unless rows are probabilities."""
    sums = probabilities.double().sum(dim=-1)
    if probabilities.ndim != 2 or len(probabilities) == 0 or not ((sums - 1).abs() < 1e-3).all():
        raise ValueError(f"class probabilities [N, K] sum to 1 in every row, got {list(probabilities.shape)}")
    return probabilities.amax(dim=1) >= LEGIBLE
