"""Losses of the StyleGAN2 family, each a pure function of networks and tensors.

Non-saturating logistic loss (Goodfellow et al. 2014), R1 (Mescheder et al. 2018, eq. 9) and path length
(Karras et al. 2020, sec. 3.2). Higher discriminator scores mean "more real".
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL_RESOLUTION = 64  # up to here StyleGAN2-ADA's R1 heuristic is known to be too weak


def generator_loss(scores_generated: Tensor) -> Tensor:
    """-log sigmoid(D(G(z))), one value per sample."""
    return F.softplus(-scores_generated)


def discriminator_loss(scores_real: Tensor, scores_generated: Tensor) -> Tensor:
    """-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))), one value per pair."""
    return F.softplus(-scores_real) + F.softplus(scores_generated)


def r1_penalty(scores_real: Tensor, images_real: Tensor) -> Tensor:
    """Squared norm of the gradient of D at every real image, [N]; images must require gradients."""
    (grads,) = torch.autograd.grad(scores_real.sum(), [images_real], create_graph=True)
    return grads.square().sum(dim=[1, 2, 3])


def resolve_r1_gamma(gamma: float | str, *, resolution: int, batch: int) -> float:
    """The number that --r1-gamma stands for; `auto` is StyleGAN2-ADA's heuristic for this size and batch."""
    return 0.0002 * resolution**2 / batch if gamma == "auto" else gamma


def r1_notes(setting: float | str, gamma: float, *, resolution: int, batch: int) -> tuple[str, ...]:
    """What a run should say about --r1-gamma auto: its number, and a warning where it is known to fail."""
    if setting != "auto":
        return ()
    said = f"--r1-gamma auto is {gamma:.3g} at {resolution} pixels and batch {batch}; it follows both"
    if resolution > SMALL_RESOLUTION:
        return (said,)
    why = "in unpublished experiments several style vectors collapsed with it and trained at 10"
    return (f"warning: {said}. That is weak at {SMALL_RESOLUTION} pixels and below: {why}; try 1 to 10.",)


def r1_weight(gamma: float, *, final: float | None, decay_kimg: float, nimg: int) -> float:
    """gamma at `nimg` images: on a geometric path from `gamma` to `final` at `decay_kimg`, then constant.

    A strong penalty keeps an untrained pair together, a weak one lets D see detail later on. Huang et al.
    2025, arXiv:2501.05441, decay theirs by a cosine. `final` None keeps gamma.
    """
    if final is None:
        return gamma
    return gamma * (final / gamma) ** min(nimg / (decay_kimg * 1000), 1.0)


def class_divergence(logits_real: Tensor, logits_generated: Tensor) -> Tensor:
    """KL(C(x) || C(x')) of the softmax of two sets of logits [N, K], one value per pair."""
    log_p, log_q = F.log_softmax(logits_real, dim=1), F.log_softmax(logits_generated, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def mean_absolute(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of every pair of rows of [N, ...]: [N]."""
    return (a - b).abs().flatten(1).mean(dim=1)


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


def style_mixing(
    mapping: nn.Module,
    ws: Tensor,
    c: Tensor | None,
    *,
    prob: float,
    generator: torch.Generator,
    host_generator: torch.Generator,
) -> Tensor:
    """With probability `prob`, layers from a random cut on take a second latent's w (one cut per batch).

    The cut falls between layers, and so on a multiple of the K rows of ws that each layer owns.

    `generator` draws the latents on its device; `host_generator`, of the CPU, whether and where to cut.
    """
    num_ws = ws.shape[1] // mapping.vectors
    if prob <= 0 or num_ws < 2:
        return ws
    draw = torch.rand([], generator=host_generator).item()
    cut = int(torch.randint(1, num_ws, [], generator=host_generator)) * mapping.vectors
    z = torch.randn(ws.shape[0], *mapping.z_shape, generator=generator, device=generator.device)
    if draw >= prob:
        return ws
    other = mapping(z.to(ws.device), c)
    return torch.cat([ws[:, :cut], other[:, cut:]], dim=1)


def _device_of(generator: torch.Generator | None, like: Tensor) -> torch.device:
    return like.device if generator is None else generator.device
