"""KID: squared maximum mean discrepancy between features of generated and of real images.

Binkowski et al. 2018, arXiv:1801.01401. The full-sample unbiased estimate with its analytic standard error,
and beside it torch-fidelity's mean over random subsets, from the same pass over the kernel matrices. The
spread over subsets that peers print as "+-" is no standard error: subsets share images, and each is smaller.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from fact_metrics.engines.kernel import (
    BLOCK,
    Kernel,
    KernelSums,
    Mmd,
    compute_mmd,
    compute_mmd_stderr,
    in_parts,
    sum_kernel,
)

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020
COEF = 1.0  # of the polynomial kernel, of degree 3
SIGMA = 10.0


@dataclass(frozen=True)
class Kid(Mmd):
    """Unbiased MMD^2 of all images, its standard error, and the estimates of random subsets, float64 [S]."""

    subsets: torch.Tensor

    @property
    def subset_mean(self) -> float:
        """What peers report as KID."""
        return self.subsets.mean().item()

    @property
    def subset_std(self) -> float:
        """Population standard deviation over subsets: how unequal they are, not the error of anything."""
        return self.subsets.std(correction=0).item()


def compute_kid(
    features_gen: torch.Tensor,
    features_real: torch.Tensor,
    *,
    kernel: Literal["polynomial", "rbf"] = "polynomial",
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = SEED,
    reference: Literal["population", "sample"] = "sample",
    sums_real: KernelSums | None = None,
) -> Kid:
    """KID of features [N, D] and [M, D] of one detector. Lower is better; a little below 0 for equal ones.

    The polynomial kernel is (x.y / D + 1)^3, the RBF kernel exp(-|x - y|^2 / (2 * 10^2)). Subsets and their
    order are torch-fidelity's for the same seed; 0 of them is off. `reference` says whether the reals are
    held fixed or add to the error. `sums_real` are the sums over pairs of reals (`sum_over_reals`) if they
    are known; subsets need their own. Products have the precision of the features, float64 where both are,
    else float32, and are of rows less the mean of the reals. Raises ValueError where a set is smaller than a
    subset or than 4, the widths differ or a value is not finite.
    """
    x, y, centre = _centred(*check_sets(features_gen, features_real))
    members = [None, None]
    if subsets:
        members = _draw_subsets(x, y, subsets=subsets, size=subset_size, seed=seed)
    function = _kernel(kernel, centre)
    xx = sum_kernel(function, x, members_x=members[0])
    yy = sums_real
    if yy is None or subsets:
        yy = sum_kernel(function, y, members_x=members[1])
    xy = sum_kernel(function, x, y, members_x=members[0], members_y=members[1])
    own = (xx.within + yy.within) / (subset_size * (subset_size - 1))
    return Kid(
        compute_mmd(xx, yy, xy),
        compute_mmd_stderr(xx, yy, xy, reference=reference),
        own - 2 * xy.within / subset_size**2,
    )


def sum_over_reals(
    features_real: torch.Tensor, *, kernel: Literal["polynomial", "rbf"] = "polynomial"
) -> KernelSums:
    """Sums of the kernel over all pairs of reals [M, D], which every KID against them shares."""
    y, centre = _centred(*check_sets(features_real))
    return sum_kernel(_kernel(kernel, centre), y)


def compute_kid_difference(
    features_gen_a: torch.Tensor,
    features_gen_b: torch.Tensor,
    features_real: torch.Tensor,
    *,
    kernel: Literal["polynomial", "rbf"] = "polynomial",
    reference: Literal["population", "sample"] = "sample",
) -> Mmd:
    """KID of B less KID of A against the same reals, and its standard error; row i of both from one latent.

    That of all images. What images of a pair have in common cancels, and so does most of the error of a
    sample of reals: the error is that of the U-statistic of pairs, exact to second order.
    Raises ValueError where A and B differ in length, and as `compute_kid`.
    """
    if len(features_gen_a) != len(features_gen_b):
        raise ValueError(
            f"pairs need sets of one length, got {len(features_gen_a)} and {len(features_gen_b)}"
        )
    a, b, y, centre = _centred(*check_sets(features_gen_a, features_gen_b, features_real))
    function = _kernel(kernel, centre)
    own, cross = sum_kernel(function, b, less=a), sum_kernel(function, b, y, less=a)
    cancelled = KernelSums.none(len(y), y.device)
    return Mmd(
        compute_mmd(own, cancelled, cross), compute_mmd_stderr(own, cancelled, cross, reference=reference)
    )


def polynomial_kernel(centre: torch.Tensor) -> Kernel:
    """(x.y / D + 1)^3 less (c.c / D + 1)^3, of rows less the centre c [D], float64.

    With t = c.c / D + 1 it is (t + e)^3 - t^3, where e is small if features vary little about their mean.
    """
    width = len(centre)
    at_centre = centre.square().sum().item() / width + COEF

    def of_products(products: torch.Tensor, of_x: torch.Tensor, of_y: torch.Tensor) -> torch.Tensor:
        e = products.mul_(1 / width).add_(of_x).add_(of_y)
        return (e + 3 * at_centre).mul_(e).add_(3 * at_centre**2).mul_(e)

    return Kernel(lambda rows: in_parts(lambda part: part.double() @ centre / width, rows), of_products)


def rbf_kernel(centre: torch.Tensor | None = None) -> Kernel:
    """exp(-|x - y|^2 / (2 * 10^2)) - 1, the same about any centre; near rows would round to 1."""

    def of_products(products: torch.Tensor, of_x: torch.Tensor, of_y: torch.Tensor) -> torch.Tensor:
        return products.mul_(-2).add_(of_x).add_(of_y).mul_(-1 / (2 * SIGMA**2)).expm1_()

    return Kernel(lambda rows: in_parts(lambda part: part.double().square().sum(dim=1), rows), of_products)


KERNELS = {"polynomial": polynomial_kernel, "rbf": rbf_kernel}


def _kernel(name: str, centre: torch.Tensor) -> Kernel:
    if name not in KERNELS:
        raise ValueError(f"kernel is {name!r}, not one of {', '.join(KERNELS)}")
    return KERNELS[name](centre)


def _centred(*sets: torch.Tensor) -> list[torch.Tensor]:
    """The sets less the mean of the last one, in their own precision, and that mean, float64 [D].

    Products of rows about their mean are small numbers, so that float32 rounds what tells images apart and
    not what all of them share: of features that vary little, that left no digit of the standard error.
    """
    of_parts = (part.double().sum(dim=0) for part in sets[-1].split(BLOCK))
    centre = sum(of_parts) / len(sets[-1])
    return [*(in_parts(lambda part: (part.double() - centre).to(part.dtype), rows) for rows in sets), centre]


def check_sets(*sets: torch.Tensor) -> list[torch.Tensor]:
    """The sets in one precision: float64 where all are, else float32. Raises ValueError as `compute_kid`."""
    widths = [list(features.shape) for features in sets]
    if any(features.ndim != 2 for features in sets) or len({features.shape[1] for features in sets}) > 1:
        raise ValueError(f"features are not two sets [N, D] of one detector: {widths}")
    if min(len(features) for features in sets) < 4:
        raise ValueError(f"a kernel distance and its error need 4 images on each side, got {widths}")
    if not all(torch.isfinite(features).all() for features in sets):
        raise ValueError("features hold values that are not finite")
    double = all(features.dtype == torch.float64 for features in sets)
    return [(features.double() if double else features.float()).detach() for features in sets]


def _draw_subsets(
    x: torch.Tensor, y: torch.Tensor, *, subsets: int, size: int, seed: int
) -> list[torch.Tensor]:
    """Which rows are in which subset, 0 or 1, [S, N] and [S, M]; drawn in turn, as torch-fidelity does."""
    if min(len(x), len(y)) < size:
        raise ValueError(
            f"subsets of {size} images cannot be drawn from {len(x)} generated and {len(y)} real ones; "
            "give a smaller subset_size, or subsets=0 for the estimate of all images alone"
        )
    rng = np.random.RandomState(seed)
    members = [torch.zeros(subsets, len(features), dtype=torch.float64) for features in (x, y)]
    for subset in range(subsets):
        for side in members:
            side[subset, torch.from_numpy(rng.choice(side.shape[1], size, replace=False))] = 1
    return [side.to(x.device) for side in members]
