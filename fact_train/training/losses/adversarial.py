"""LOSSES: what D and G lose by D's scores of real and generated images, for each value of --loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AdversarialLoss:
    """Two functions of scores [N, 1], (real, generated) for D and (generated, real) for G: [N, 1] each.

    `pairs`: G's loss also needs the scores of real images, which are None otherwise.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor | None], Tensor]
    pairs: bool = False


def relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """-log sigmoid of the difference of paired scores: small where `better` exceeds its partner."""
    return F.softplus(worse - better)


def dual_contrastive(better: Tensor, worse: Tensor) -> Tensor:
    """Yu et al. 2021, eqs. 2 and 3: tell each `better` score from all `worse` ones, and each `worse` from all
    `better` ones. [N, 1] and [N, 1] to [N, 1].
    """
    return _contrast(better, worse) + _contrast(-worse, -better)


def _contrast(one: Tensor, others: Tensor) -> Tensor:
    """-log of the softmax share that each score [N, 1] has beside all scores of the other batch [M, 1]."""
    both = torch.cat([one, others.t().expand(len(one), -1)], dim=1)
    return both.logsumexp(dim=1, keepdim=True) - one


LOSSES = {
    # non-saturating (Goodfellow et al. 2014): -log sigmoid(D(x)) - log(1 - sigmoid(D(G(z))))
    "logistic": AdversarialLoss(
        discriminator=lambda real, generated: F.softplus(-real) + F.softplus(generated),
        generator=lambda generated, _: F.softplus(-generated),
    ),
    # Lim & Ye 2017
    "hinge": AdversarialLoss(
        discriminator=lambda real, generated: F.relu(1 - real) + F.relu(1 + generated),
        generator=lambda generated, _: -generated,
    ),
    # Jolicoeur-Martineau 2018, in the pairing of Huang et al. 2025
    "relativistic": AdversarialLoss(relativistic, relativistic, pairs=True),
    # G swaps the roles: its gradient does not vanish where D wins, as that of the negative of D's loss would
    "dual-contrastive": AdversarialLoss(dual_contrastive, dual_contrastive, pairs=True),
}


def best_scores(scores: Tensor, *, share: float) -> Tensor:
    """Indices of the images with the highest scores [N, 1], best first: `share` of them, rounded up.

    Top-k training of G (Sinha et al. 2020).
    """
    count = math.ceil(share * len(scores) - 1e-9)  # 0.3 * 10 is a little more than 3
    return scores.detach().flatten().topk(count).indices
