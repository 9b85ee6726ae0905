"""Penalties: on the gradient of D at images (Mescheder et al. 2018), and path length of G.

Path length is Karras et al. 2020, sec. 3.2.
"""

import math

import torch
from torch import Tensor

from fact_metrics.base.image_size import ImageSize, Resolution

SMALL_RESOLUTION = 64  # up to here StyleGAN2-ADA's R1 heuristic is known to be too weak


def zero_centred(scores: Tensor, images: Tensor) -> Tensor:
    """Squared norm of the gradient of D at every image, [N]; images must require gradients."""
    return _gradients(scores, images).square().sum(dim=[1, 2, 3])


def one_centred(scores: Tensor, images: Tensor) -> Tensor:
    """Squared difference of that norm and 1, [N] (Gulrajani et al. 2017, here at the images themselves)."""
    norms = torch.linalg.vector_norm(_gradients(scores, images), dim=[1, 2, 3])  # its gradient at 0 is 0
    return (norms - 1).square()


GRADIENT_PENALTIES = {"zero": zero_centred, "one": one_centred}


def resolve_r1_gamma(gamma: float | str, *, resolution: Resolution, batch: int) -> float:
    """The number that --r1-gamma stands for; `auto` is StyleGAN2-ADA's heuristic for this size and batch."""
    size = ImageSize.of(resolution)
    return 0.0002 * (size.height * size.width) / batch if gamma == "auto" else gamma


def r1_notes(setting: float | str, gamma: float, *, resolution: Resolution, batch: int) -> tuple[str, ...]:
    """What a run should say about --r1-gamma auto: its number, and a warning where it is known to fail."""
    if setting != "auto":
        return ()
    said = f"--r1-gamma auto is {gamma:.3g} at {resolution} pixels and --r1-auto-batch {batch}"
    if ImageSize.of(resolution).mean_side > SMALL_RESOLUTION:
        return (said,)
    why = "in unpublished experiments several style vectors collapsed with it and trained at 10"
    return (f"warning: {said}. That is weak at {SMALL_RESOLUTION} pixels and below: {why}; try 1 to 10.",)


def path_lengths(images: Tensor, ws: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """Length of the image's change along a random direction y, per unit of w: [N].

    ||J_w^T y|| with y ~ N(0, I) / sqrt(H W), averaged over layers before the root (eq. 4 of the paper). With
    K style vectors the average runs over num_ws * K rows, which divides the length by sqrt(K): `pl_power` 0.5
    takes that back. Gradients of the convolutions' weights stay on: fused weights hold the styles.
    """
    y = torch.randn(images.shape, generator=generator, device=_device_of(generator, images)).to(images.device)
    y = y / math.sqrt(images.shape[2] * images.shape[3])
    (grads,) = torch.autograd.grad((images * y).sum(), [ws], create_graph=True)
    return grads.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(lengths: Tensor, average: Tensor, *, decay: float) -> tuple[Tensor, Tensor]:
    """((length - a)^2 per sample, new average a); a moves towards the batch mean and carries gradient."""
    moved = average.lerp(lengths.mean(), decay)
    return (lengths - moved).square(), moved.detach()


def _device_of(generator: torch.Generator | None, like: Tensor) -> torch.device:
    return like.device if generator is None else generator.device


def _gradients(scores: Tensor, images: Tensor) -> Tensor:
    (grads,) = torch.autograd.grad(scores.sum(), [images], create_graph=True)
    return grads
