"""Stability of selections: whether other images give the same attributes.

Stability: Nogueira, Sechidis & Brown 2018, JMLR 18(174), definition 4 and theorem 7. It is 1 for equal sets
and 0 on average for random ones, whatever their size. Rank-biased overlap: Webber, Moffat & Zobel 2010, ACM
TOIS 28(4), eq. 32.
"""

import math
from collections import Counter
from collections.abc import Collection, Hashable, Sequence

PERSISTENCE = 0.9  # the first 10 ranks have 86 % of the weight


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
