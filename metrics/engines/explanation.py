"""What an explaining GAN makes of held-out images: reconstruction, and whether the classifier says the same.

Lang et al. 2021, arXiv:2104.13369 (StylEx) want G([E(x), C(x)]) to be x and C to say of it what it says of x.
The reproductions print no number for either. Images are compared as 8 bits, so that a saved picture has the
value that is reported.
"""

import torch
import torch.nn.functional as F


def compute_agreement(logits_a: torch.Tensor, logits_b: torch.Tensor) -> torch.Tensor:
    """1 where both sets of logits [N, K] have their largest value at the same class, else 0: float64 [N]."""
    _check_logits(logits_a, logits_b)
    return (logits_a.argmax(dim=1) == logits_b.argmax(dim=1)).double()


def compute_class_kl(logits_a: torch.Tensor, logits_b: torch.Tensor) -> torch.Tensor:
    """KL(softmax a || softmax b) in nats of every row of logits [N, K]: float64 [N], 0 for equal rows."""
    _check_logits(logits_a, logits_b)
    log_a, log_b = (F.log_softmax(logits.double(), dim=1) for logits in (logits_a, logits_b))
    return (log_a.exp() * (log_a - log_b)).sum(dim=1).clamp(min=0)


def _check_logits(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape or len(a) == 0:
        raise ValueError(f"logits are two sets [N, K] of one shape, got {list(a.shape)} and {list(b.shape)}")
