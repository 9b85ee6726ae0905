"""Inception score: how sure a classifier is of each image, and of how many classes.

Salimans et al. 2016, arXiv:1606.03498: exp of the mean KL(p(y|x) || p(y)), in splits. Equals torch-fidelity
on the same logits. Inception's logits are taken without the bias of the last layer, over 1,008 classes, as in
the original graph, torch-fidelity (`logits_unbiased`) and NVIDIA's `no_output_bias`; that is up to the
detector.
"""

from dataclasses import dataclass

import numpy as np
import torch

from fact_metrics.engines.conventions import SCORE_SPLITS

SEED = 2020
SUM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class InceptionScore:
    """Scores of the splits, float64 [S]. Every split is biased downward by its size, and so is their mean."""

    scores: torch.Tensor

    @property
    def value(self) -> float:
        """Mean over splits: what peers report."""
        return self.scores.mean().item()

    @property
    def split_std(self) -> float:
        """Population standard deviation over splits: what peers print after "+-"."""
        return self.scores.std(correction=0).item()

    @property
    def split_stderr(self) -> float | None:
        """Standard error of the mean over splits, which are disjoint; None for one split."""
        if len(self.scores) == 1:
            return None
        return self.scores.std().item() / len(self.scores) ** 0.5


def compute_inception_score(
    outputs: torch.Tensor, *, logits: bool, splits: int = SCORE_SPLITS, seed: int | None = SEED
) -> InceptionScore:
    """Inception score of classifier outputs [N, K]: logits, or probabilities. From 1 to K; higher is better.

    Images are shuffled by the seed (torch-fidelity's and its default), or kept in order (None: NVIDIA).
    Raises ValueError where there are fewer images than splits, a value is not finite, or probabilities are
    negative or do not add up to 1.
    """
    if outputs.ndim != 2 or not 1 <= splits <= len(outputs):
        raise ValueError(f"{splits} splits need as many rows of [N, K], got {list(outputs.shape)}")
    if not torch.isfinite(outputs).all():
        raise ValueError("classifier outputs hold values that are not finite")
    n = len(outputs)
    if seed is not None:
        order = torch.from_numpy(np.random.RandomState(seed).permutation(n)).to(outputs.device)
        outputs = outputs[order]
    outputs = outputs.double()
    if logits:
        outputs = outputs.softmax(dim=1)
    elif (outputs < 0).any() or ((outputs.sum(dim=1) - 1).abs() > SUM_TOLERANCE).any():
        raise ValueError("probabilities must not be negative and must add up to 1; are these logits?")
    scores = []
    for split in range(splits):
        p = outputs[split * n // splits : (split + 1) * n // splits]
        divergence = torch.special.xlogy(p, p).sum(dim=1) - torch.special.xlogy(p, p.mean(dim=0)).sum(dim=1)
        scores.append(divergence.mean().exp())
    return InceptionScore(torch.stack(scores).cpu())
