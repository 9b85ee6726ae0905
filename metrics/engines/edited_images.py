"""Edited images as sets and beside their class: FID, split FID, counterfactual latent divergence.

Rows of features are images, row i of `edited` and of `originals` belong together.

FID against the very images that were edited is small by construction, since most of an image stays. Split FID
compares edits of one half with originals of the other half (Jeanneret et al. 2023, arXiv:2303.09962, sec. 4,
there called sFID; spatial FID is called so as well). Peers report neither with an error.

Counterfactual latent divergence (CLD): Sanchez & Tsaftaris 2022, arXiv:2202.10166; with weights it is
the minimality of Melistas et al. 2024, arXiv:2403.20287.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fact_metrics.engines.fid_error import (
    MINIMUM,
    compute_fid_influence,
    compute_fid_stderr,
    jackknife_variance,
)
from fact_metrics.engines.frechet import compute_fid, compute_fid_from_statistics, compute_statistics

SPLITS = 10
NEAR_WEIGHT, FAR_WEIGHT = 0.8, 0.2  # as in the benchmark of Melistas et al.


@dataclass(frozen=True)
class FidEstimate:
    """A distance and its standard error over new draws of images (None with too few)."""

    value: float
    stderr: float | None


def one_per_image(image: Tensor) -> Tensor:
    """Rows [N] of pairs, one for each image of `image` [P]: its first pair, its second and so on by turns.

    Distances of sets take independent rows, and pairs of one image are not.
    """
    rows = [(image == number).nonzero().flatten() for number in image.unique().tolist()]
    return torch.stack([own[turn % len(own)] for turn, own in enumerate(rows)])


def compute_edits_fid(edited: Tensor, originals: Tensor) -> FidEstimate:
    """FID of edited images [N, D] against their originals. Lower is better; 0 without an edit."""
    edited, originals = _in_joint_span(edited, originals)
    value = compute_fid(edited, originals)
    return FidEstimate(value, compute_fid_stderr(edited, originals, reference="paired"))


def compute_split_fid(edited: Tensor, originals: Tensor, *, seed: int, splits: int = SPLITS) -> FidEstimate:
    """Mean FID of edits of one half against originals of the other, both ways, over random halves.

    The error is the jackknife's: exact without each image, which is an edit or an original in every split. It
    counts the quadratic part of FID twice, so it is too large rather than too small.
    Raises ValueError for sets of different shape or fewer than 6 images.
    """
    n = len(edited)
    if edited.shape != originals.shape or n < 6:
        raise ValueError(
            f"split FID needs two sets [N, D] of one shape with N >= 6, got {list(edited.shape)} and "
            f"{list(originals.shape)}"
        )
    generator = torch.Generator().manual_seed(seed)
    edited, originals = _in_joint_span(edited, originals)
    values, influence = [], torch.zeros(n, dtype=torch.float64)
    for _ in range(splits):
        halves = torch.randperm(n, generator=generator).tensor_split(2)
        for own, other in (halves, halves[::-1]):
            edits, reals = edited[own], originals[other]
            of_edits, of_reals = compute_statistics(edits), compute_statistics(reals)
            values.append(compute_fid_from_statistics(of_edits, of_reals, clamp=False))
            influence[own] += compute_fid_influence(edits, of_reals).cpu()
            influence[other] += compute_fid_influence(reals, of_edits).cpu()
    value = max(sum(values) / len(values), 0.0)
    stderr = math.sqrt(jackknife_variance(influence / len(values))) if n >= 2 * MINIMUM else None
    return FidEstimate(value, stderr)


def _in_joint_span(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The rows in a basis of their span, float64: equal distances, fewer columns where rows are few."""
    rows = torch.cat([a, b]).double()
    if len(rows) >= rows.shape[1]:
        return a, b
    rows = rows - rows.mean(dim=0)
    a, b = (rows @ torch.linalg.qr(rows.T).Q).split([len(a), len(b)])
    return a, b


@dataclass(frozen=True)
class LatentDivergence:
    """CLD of every pair [P] and its two shares.

    near: images of the target's class that lie no farther from the original than the edit.
    far: images of the original's class that lie no nearer than the edit.
    """

    value: Tensor
    near: Tensor
    far: Tensor


def compute_latent_divergence(
    original: Tensor, edited: Tensor, own: Tensor, target: Tensor, others: Tensor, classes: Tensor
) -> LatentDivergence:
    """CLD of edits: log(0.8 exp(near) + 0.2 exp(far)), float64 [P] in [0, 1]. Lower is better.

    A minimal edit leaves its class (`far` is small) and goes no farther than needed (`near` is small).
    `original` and `edited` [P, D] are features, of classes `own` and `target` [P]; `others` [N, D] with
    `classes` [N] are the unedited images. The distance is the mean absolute difference of features.
    Raises ValueError for a class without an image.
    """
    missing = set(torch.cat([own, target]).tolist()) - set(classes.tolist())
    if missing:
        raise ValueError(f"no unedited image has class {min(missing)}")
    moved = (edited.double() - original.double()).abs().mean(dim=1)
    distances = torch.cdist(original.double(), others.double(), p=1) / original.shape[1]

    def share(hits: Tensor, of: Tensor) -> Tensor:
        fits = classes[None] == of[:, None]
        return (hits & fits).sum(dim=1).double() / fits.sum(dim=1)

    near = share(distances <= moved[:, None], target)
    far = share(distances >= moved[:, None], own)
    return LatentDivergence((NEAR_WEIGHT * near.exp() + FAR_WEIGHT * far.exp()).log(), near, far)
