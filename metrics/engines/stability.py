"""Stability of selections: whether other images give the same attributes.

Stability: Nogueira, Sechidis & Brown 2018, JMLR 18(174), definition 4 and theorem 7. It is 1 for equal sets
and 0 on average for random ones, whatever their size. Rank-biased overlap: Webber, Moffat & Zobel 2010, ACM
TOIS 28(4), eq. 32.

Between networks, coordinates have no common names. There the effects of attributes are compared, after the
best one-to-one match: Li et al. 2015, arXiv:1511.07543, sec. 3, who match units by the correlation of what
they do.
"""

import math
from collections import Counter
from collections.abc import Collection, Hashable, Sequence

import torch
from torch import Tensor

PERSISTENCE = 0.9  # the first 10 ranks have 86 % of the weight
ROUNDING, TINY = 1e-6, 1e-300  # of float32 rows of a thousand values


def compute_stability(sets: Sequence[Collection[Hashable]], universe: int) -> tuple[float, float]:
    """Stability of M selections out of `universe` items, and its standard error over selections.

    Raises ValueError for fewer than 2 selections, or selections of nothing or of everything.
    """
    m = len(sets)
    sizes = [len(set(one)) for one in sets]
    size = sum(sizes) / m if m else 0
    if m < 2 or not 0 < size < universe:
        raise ValueError(f"stability takes 2 selections of some of {universe} items, got sizes {sizes}")
    shares = {item: count / m for item, count in Counter(item for one in sets for item in set(one)).items()}
    largest = size / universe * (1 - size / universe)
    varies = sum(p * (1 - p) for p in shares.values()) / universe
    value = 1 - m / (m - 1) * varies / largest
    parts = []
    for one, k in zip(sets, sizes, strict=True):
        shared = sum(shares[item] for item in set(one)) / universe
        expected = k * size / universe**2
        scale = 2 * expected - k / universe - size / universe + 1
        parts.append((shared - expected + value / 2 * scale) / largest)
    mean = sum(parts) / m
    return value, math.sqrt(4 / m**2 * sum((part - mean) ** 2 for part in parts))


def rank_biased_overlap(
    a: Sequence[Hashable], b: Sequence[Hashable], *, persistence: float = PERSISTENCE
) -> float:
    """Extrapolated overlap of two rankings of one length: 1 if equal, 0 if disjoint; the top counts most."""
    depth = len(a)
    if depth != len(b) or not depth:
        raise ValueError(f"rankings have {depth} and {len(b)} items; give two of one length")
    shares = [len(set(a[:d]) & set(b[:d])) / d for d in range(1, depth + 1)]
    weighted = sum(share * persistence**d for d, share in enumerate(shares, start=1))
    return shares[-1] * persistence**depth + (1 - persistence) / persistence * weighted


def matched_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Mean correlation of rows of a with rows of b in the best one-to-one match, float64 [B], in [-1, 1].

    a [B, K, D] and b [B, K, D] are B sets of K rows. A constant row correlates with nothing: 0.
    Raises ValueError for sets of different shape.
    """
    from scipy.optimize import linear_sum_assignment

    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(f"a match takes two [B, K, D] of one shape, got {list(a.shape)} and {list(b.shape)}")
    a, b = (_standardised(x.double()) for x in (a, b))
    values = []
    for table in (a @ b.transpose(1, 2)).cpu().numpy():
        values.append(table[linear_sum_assignment(table, maximize=True)].mean())
    return torch.tensor(values, dtype=torch.float64)


def _standardised(rows: Tensor) -> Tensor:
    """Rows with mean 0 and length 1; a row that is constant but for rounding is 0."""
    centred = rows - rows.mean(dim=-1, keepdim=True)
    lengths, sizes = centred.norm(dim=-1, keepdim=True), rows.norm(dim=-1, keepdim=True)
    return torch.where(lengths > ROUNDING * sizes, centred / lengths.clamp(min=TINY), 0)
