"""Numbers that explanations are judged by: flips, changes, sparsity, COUT, from logits and pictures.

Rows are pairs of an image and a target class. Means are over images, each image the mean of its pairs,
because only images are independent draws. Wilson's interval for a share: Wilson 1927, JASA 22(158). For means
of several pairs it is conservative: a share of shares varies less than one draw.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

LEVEL = 0.95
Z = 1.959963984540054  # normal quantile of LEVEL


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Bounds of a share of n independent draws at LEVEL, in [0, 1]; they hold the share, to the last bit."""
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return min(max(0.0, centre - half), share), max(min(1.0, centre + half), share)


def flips(after: Tensor, target: Tensor) -> Tensor:
    """Whether the target is the largest logit, float64 [P, K] of logits [P, K, C] and targets [P]."""
    return (after.argmax(dim=2) == target[:, None]).double()


def logit_changes(before: Tensor, after: Tensor, target: Tensor) -> Tensor:
    """Change of the target's logit less that of the image's class, float64 [P, K].

    `before` [P, C], `after` [P, K, C]. It is 0 without an effect, whatever constant is added to the logits.
    """
    own = before.argmax(dim=1)

    def margin(logits: Tensor) -> Tensor:
        rows = torch.arange(len(target))
        return (logits[rows, ..., target] - logits[rows, ..., own]).double()

    return torch.stack([margin(after[:, k]) for k in range(after.shape[1])], dim=1) - margin(before)[:, None]


def attributes_to_flip(after: Tensor, target: Tensor) -> Tensor:
    """The fewest attributes that flip each pair, float64 [P]; K + 1 where none of 1 to K does."""
    flipped = flips(after, target).bool()
    first = flipped.double().argmax(dim=1) + 1.0
    return first.where(flipped.any(dim=1), torch.tensor(flipped.shape[1] + 1.0, dtype=torch.float64))


def per_image(values: Tensor, image: Tensor) -> Tensor:
    """Mean of the pairs of every image: [P, ...] and image numbers [P] -> [N, ...]."""
    _, rows = image.unique(return_inverse=True)
    sums = values.new_zeros(int(rows.max()) + 1, *values.shape[1:]).index_add_(0, rows, values)
    counts = rows.bincount().to(values.dtype)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))


def changed_pixels(unedited: Tensor, edited: Tensor, *, threshold: int) -> Tensor:
    """Share of pixels whose largest channel differs by more than `threshold` of 255, float64 [P]."""
    difference = (unedited.int() - edited.int()).abs().amax(dim=1)
    return (difference > threshold).double().flatten(1).mean(dim=1)


def gini(values: Tensor) -> float:
    """Gini index of the sizes of values [M], 0 if all are equal, near 1 if one has all; 0 of zeros.

    Hurley & Rickard 2009, IEEE TIT 55(10), table II.
    """
    sizes = values.abs().double().sort().values
    total, m = sizes.sum().item(), len(sizes)
    if total == 0:
        return 0.0
    ranks = torch.arange(1, m + 1, dtype=torch.float64)
    return 1 - 2 * ((sizes / total) * ((m - ranks + 0.5) / m)).sum().item()


def compute_cout(
    unedited: Tensor,
    edited: Tensor,
    own: Tensor,
    target: Tensor,
    probabilities: Callable[[Tensor], Tensor],
    *,
    steps: int,
) -> Tensor:
    """COUT of every pair of pictures, float64 [P] in [-1, 1]. Higher is better.

    Khorram & Fuxin 2022, arXiv:2203.15064, eq. 8: pixels of the unedited picture are replaced by those of the
    edited one in `steps` equal parts, from the largest difference. The area under the curve of the target's
    probability less that of the class `own`. `probabilities` takes float pictures in [-1, 1].
    """
    before, after = (x.float() / 127.5 - 1 for x in (unedited, edited))
    difference = (before - after).abs().sum(dim=1).flatten(1)
    order = difference.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).reshape(len(before), 1, *before.shape[2:])
    pixels, rows = difference.shape[1], torch.arange(len(before))
    curves = []
    for step in range(steps + 1):
        mixed = torch.where(rank < round(step * pixels / steps), after, before)
        p = probabilities(mixed).double()
        curves.append(p[rows, target] - p[rows, own])
    curve = torch.stack(curves, dim=1)
    return (curve[:, 1:] + curve[:, :-1]).mean(dim=1) / 2
