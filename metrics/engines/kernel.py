"""Kernel matrices of two feature sets summed in blocks: the unbiased MMD^2 and its standard error.

A difference of two MMDs against the same set is one of a kernel of pairs, and goes the same way.

Gretton et al. 2012, JMLR 13:723, eq. 3 (the U-statistic). One pass over all pairs serves the estimate, its
variance and every subset's own estimate; no N x N matrix is held.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from fact_metrics.engines.products import full_float32, multiply, operand

BLOCK = 512


@dataclass(frozen=True)
class Kernel:
    """A kernel of rows x and y by their products x'y and one number per row; less any constant.

    `per_row` gives those numbers, float64 [N], of rows [N, D]. `of_products` gives values [B, C] from
    products [B, C], float64, whose memory it may take, and from the numbers of both sides, [B, 1] and [C].
    Constants cancel in every MMD: values that are small beside the constant keep their digits without it.
    """

    per_row: Callable[[torch.Tensor], torch.Tensor]
    of_products: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Mmd:
    """A squared maximum mean discrepancy and its standard error."""

    value: float
    stderr: float


@dataclass(frozen=True)
class KernelSums:
    """Sums of one kernel matrix, float64: of rows, of columns, of all squares, and within subsets [S]."""

    rows: torch.Tensor
    columns: torch.Tensor
    squares: float
    within: torch.Tensor

    @staticmethod
    def none(n: int, device: torch.device) -> "KernelSums":
        """Of a kernel that is 0 for all n rows."""
        zeros = torch.zeros(n, dtype=torch.float64, device=device)
        return KernelSums(zeros, zeros, 0.0, zeros[:0])


def sum_kernel(
    kernel: Kernel,
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    *,
    less: torch.Tensor | None = None,
    members_x: torch.Tensor | None = None,
    members_y: torch.Tensor | None = None,
) -> KernelSums:
    """Sums over pairs of rows of x [N, D] and y [M, D], or, without y, of different rows of x.

    With `less` [N, D] they are of the kernel less that of these rows in the place of x's. members_x [S, N]
    and members_y [S, M], float64, are 1 where a row is in a subset, else 0. Products run in the features' own
    precision, float32 or float64; everything after them in float64.
    """
    own = y is None
    if own:
        y, members_y = x, members_x
    sets = [(x, y)] if less is None else [(x, y), (less, less if own else y)]
    numbers = [(kernel.per_row(a)[:, None], kernel.per_row(b)) for a, b in sets]
    rows = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    columns = rows if own else torch.zeros(len(y), dtype=torch.float64, device=x.device)
    subsets = 0 if members_x is None else len(members_x)
    within = torch.zeros(subsets, dtype=torch.float64, device=x.device)
    squares = 0.0
    with full_float32(x.device):
        for i in range(0, len(x), BLOCK):
            here = slice(i, i + BLOCK)
            left = [operand(a[here]) for a, _ in sets]
            for j in range(i if own else 0, len(y), BLOCK):
                there = slice(j, j + BLOCK)
                values, *taken = (
                    kernel.of_products(multiply(of_x, operand(b[there])).double(), p[here], q[there])
                    for of_x, (_, b), (p, q) in zip(left, sets, numbers, strict=True)
                )
                for other in taken:
                    values -= other
                if own and i == j:
                    values.fill_diagonal_(0)
                twice = 2 if own and i != j else 1  # the mirrored block
                rows[here] += values.sum(dim=1, dtype=torch.float64)
                if not own or i != j:
                    columns[there] += values.sum(dim=0, dtype=torch.float64)
                squares += twice * torch.linalg.vector_norm(values).item() ** 2
                if subsets:
                    inside = multiply(operand(values), operand(members_y[:, there].contiguous()))
                    within += twice * inside.mul_(members_x[:, here].T).sum(dim=0, dtype=torch.float64)
    return KernelSums(rows, columns, squares, within)


def in_parts(function: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    """function(rows) of parts of the rows [N, D], joined, so that a float64 copy is never one of all rows."""
    return torch.cat([function(part) for part in rows.split(BLOCK)])


def compute_mmd(xx: KernelSums, yy: KernelSums, xy: KernelSums) -> float:
    """The unbiased MMD^2 of all rows; may be a little below 0. 0 in expectation for equal distributions."""
    n, m = len(xx.rows), len(yy.rows)
    terms = xx.rows.sum() / (n * (n - 1)) + yy.rows.sum() / (m * (m - 1)) - 2 * xy.rows.sum() / (n * m)
    return terms.item()


def compute_mmd_stderr(
    xx: KernelSums, yy: KernelSums, xy: KernelSums, *, reference: Literal["population", "sample"]
) -> float:
    """Standard error of the unbiased MMD^2, exact to second order in 1/N also where N and M differ.

    Hoeffding's decomposition: 4 Var(h_x)/n + 4 Var(h_y)/m for the linear part, 2 E g_xx^2 / (n (n-1)) +
    2 E g_yy^2 / (m (m-1)) + 4 E g_xy^2 / (n m) for the kernels centred in both arguments. The sample variance
    of row means holds the latter twice; once is taken off, and never more than half of the whole.
    "population" holds y fixed. Raises ValueError under 4 rows.
    """
    n, m = len(xx.rows), len(yy.rows)
    if min(n, m) < 4:
        raise ValueError(f"the error of an MMD needs 4 images on each side, got {n} and {m}")
    variance = 4 / n * (xx.rows / (n - 1) - xy.rows / m).var().item()
    quadratic = 2 / (n * (n - 1)) * _centred_square(xx)
    if reference == "sample":
        variance += 4 / m * (yy.rows / (m - 1) - xy.columns / n).var().item()
        quadratic += 2 / (m * (m - 1)) * _centred_square(yy) + 4 / (n * m) * _cross_square(xy)
    return math.sqrt(max(variance - quadratic, variance / 2))


def _centred_square(own: KernelSums) -> float:
    """Mean square over pairs of different rows of the kernel centred in both arguments (U-centring)."""
    n, total = len(own.rows), own.rows.sum().item()
    rows = own.rows.square().sum().item()
    return (own.squares - 2 / (n - 2) * rows + total**2 / ((n - 1) * (n - 2))) / (n * (n - 3))


def _cross_square(cross: KernelSums) -> float:
    """The same over pairs of rows of two sets."""
    n, m, total = len(cross.rows), len(cross.columns), cross.rows.sum().item()
    rows, columns = cross.rows.square().sum().item(), cross.columns.square().sum().item()
    return (cross.squares - rows / m - columns / n + total**2 / (n * m)) / ((n - 1) * (m - 1))
