"""Nearest neighbours and the balls they span, exact and in blocks: what precision and recall count.

float32 products bound every squared distance from below, their rounding taken off. What a bound leaves open
is settled on the features themselves, as a float64 sum of squared differences: ties are exact, and neither
the size of blocks nor the order of rows changes a result. Memory beyond the features is O(N). CPU and GPU.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from fact_metrics.engines.products import full_float32, multiply, operand

BLOCK = 1024  # rows and columns of a block of pairs
SPARE = 5  # neighbours kept beyond those asked for, so that rounding rarely hides one
EXACT_VALUES = {"cpu": 2**17, "cuda": 2**24}  # float64 differences at a time: on a CPU they stay in cache
MAX_OPEN = 2**14  # pairs of a block that are settled one by one; with more, float64 bounds it first
UNIT_ROUNDOFF = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
# Their squares, and those of sums and differences of many, stay inside float64 with all digits.
LARGEST, SMALLEST_SPREAD = 2.0**480, 2.0**-480
UNDERFLOW = 2.0**-120  # per value; what numbers up to 4 lose below float32's range is far less

Rows = slice | torch.Tensor


@dataclass(frozen=True)
class Hits:
    """Counts, int64, of m kinds of balls: balls that hold a point [P, m], points that a ball holds [N, m]."""

    per_point: torch.Tensor
    per_ball: torch.Tensor

    @staticmethod
    def none(points: int, balls: int, kinds: int, device: torch.device) -> "Hits":
        """Nothing counted yet."""
        return Hits(*(torch.zeros(n, kinds, dtype=torch.int64, device=device) for n in (points, balls)))

    def add(self, points: torch.Tensor, balls: torch.Tensor, inside: torch.Tensor) -> None:
        """Count the pairs [n] of a point and a ball for which `inside` [n, m] holds."""
        for kind, members in enumerate(inside.unbind(dim=1)):
            for counts, which in ((self.per_point, points[members]), (self.per_ball, balls[members])):
                counts[:, kind].index_add_(0, which, torch.ones_like(which))


def find_neighbours(
    queries: torch.Tensor, centres: torch.Tensor | None = None, *, ranks: Sequence[int] = (1,)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared distances of queries to their nearest, 2nd nearest ... centres (`ranks`), and which these are.

    Features are [Q, D] and [N, D], of any float type; results are float64 and int64 [Q, len(ranks)]. Without
    centres, neighbours are the other rows of queries; an equal row is a neighbour at distance 0. Of centres
    at one positive distance the first is named. Raises ValueError where a rank is under 1, there are too few
    centres, widths differ or a value is not finite.
    """
    own, most = centres is None, max(ranks)
    centres = queries if own else centres
    available = len(centres) - own
    if min(ranks) < 1:
        raise ValueError(f"neighbours are counted from 1, got {list(ranks)}")
    if available < most:
        more = f"more than {most}" if own else f"at least {most}"
        raise ValueError(f"{most} nearest neighbours need {more} images, got {len(centres)}")
    search = _Search(Pairs(queries, centres), own=own, ranks=ranks, kept=min(most + SPARE, available))
    with full_float32(queries.device):
        open_rows = search.propose()
        for rows in open_rows.split(BLOCK) if len(open_rows) else ():  # nothing splits into one empty part
            for row in search.refine(rows).tolist():
                search.exhaust(row)
    return search.distances * search.pairs.unit**2, search.indices


def find_radii(features: torch.Tensor, *, ks: Sequence[int]) -> torch.Tensor:
    """Squared distances of every row of [N, D] to its k-th nearest other row, float64 [N, len(ks)].

    Raises ValueError where there are k rows or fewer or a value is not finite.
    """
    return find_neighbours(features, ranks=ks)[0]


def count_hits(
    points: torch.Tensor,
    centres: torch.Tensor,
    *,
    centre_radii: torch.Tensor | None = None,
    point_radii: torch.Tensor | None = None,
    closed: Sequence[bool],
) -> tuple[Hits | None, Hits | None]:
    """Points in balls around centres and, from the same distances, centres in balls around points.

    Features are [P, D] and [N, D]; squared radii [N, m] and [P, m], or None to leave that side out. `closed`
    says of each of the m kinds of balls whether a distance equal to the radius is inside. Raises ValueError
    where widths differ or a value is not finite.
    """
    pairs = Pairs(points, centres)
    given = [(axis, radii) for axis, radii in ((1, centre_radii), (0, point_radii)) if radii is not None]
    sides = [_Side.of(pairs, axis, radii) for axis, radii in given]
    closed = torch.tensor(closed, device=points.device)
    with full_float32(points.device):
        for rows, columns, lower in pairs.blocks():
            near, distances = _near_pairs(pairs, sides, rows, columns, lower)
            for side in sides:
                radius = side.radii[near[side.axis]]
                inside = (distances < radius) | ((distances == radius) & closed)
                side.hits.add(near[1 - side.axis], near[side.axis], inside)
    found = {side.axis: side.hits for side in sides}
    return found.get(1), found.get(0)


class Pairs:
    """All pairs of a row of one set and a row of another: bounds of squared distances, and exact ones.

    Distances are in units of `unit`, a power of two, so that float32 neither overflows nor runs out of range.
    Bounds are products of features about the mean of the second set (smaller numbers round less).
    Raises ValueError where a set is empty, widths differ, a value is not finite, or squared distances would
    leave the range of float64.
    """

    def __init__(self, rows: torch.Tensor, columns: torch.Tensor) -> None:
        for features in (rows, columns):
            if features.ndim != 2 or not features.numel() or not features.is_floating_point():
                raise ValueError(f"features are float [N, D], got {features.dtype} {list(features.shape)}")
        if rows.shape[1] != columns.shape[1]:
            raise ValueError(f"features differ in width: {list(rows.shape)}, {list(columns.shape)}")
        self.sets = (rows.detach(), columns.detach())
        self.width = rows.shape[1]
        self.at_once = EXACT_VALUES.get(rows.device.type, EXACT_VALUES["cuda"]) // self.width
        largest = max(features.abs().amax().item() for f in self.sets for features in self._parts(f))
        if not math.isfinite(largest):
            raise ValueError("features hold values that are not finite")
        self._check_range(largest)
        # float32 features need 1 / unit in their own precision.
        most = 480 if all(f.dtype == torch.float64 for f in self.sets) else 120
        self.unit = 2.0 ** min(max(math.frexp(largest)[1], -120), most)
        mean = sum(part.double().sum(dim=0) for part in self._parts(self.sets[1])) / len(columns)
        self.origin = (mean / self.unit).float().double()
        self.norms = tuple(map(self._squared_norms, self.sets))
        self.positions = tuple(torch.arange(len(f), device=f.device) for f in self.sets)

    def _check_range(self, largest: float) -> None:
        """Squares of differences must neither overflow nor lose digits: else distances are infinite or 0."""
        first = self.sets[1][0].double()
        apart = max((part.double() - first).abs().amax().item() for f in self.sets for part in self._parts(f))
        if largest > LARGEST or 0 < apart < SMALLEST_SPREAD:
            raise ValueError(
                f"features are up to {largest:.3g} in size and {apart:.3g} apart: squared distances leave "
                f"float64's range; scale them to sizes under {LARGEST:.0e} and over {SMALLEST_SPREAD:.0e}"
            )

    def _parts(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return features.split(max(1, self.at_once))

    def _squared_norms(self, features: torch.Tensor) -> torch.Tensor:
        """About the origin, float64 [N]. Filled in place: results kept one by one between the parts' large
        blocks would pin the heap, one block a part."""
        norms = torch.empty(len(features), dtype=torch.float64, device=features.device)
        for part, into in zip(self._parts(features), self._parts(norms), strict=True):
            into.copy_(self._about_origin(part, torch.float64).square_().sum(dim=1))
        return norms

    def blocks(
        self,
        row_parts: Sequence[Rows] | None = None,
        column_parts: Sequence[Rows] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        triangle: bool = False,
    ) -> Iterator[tuple[Rows, Rows, torch.Tensor]]:
        """(rows, columns, lower bounds [R, C]) of all blocks or parts; `triangle`: from the diagonal on."""
        row_parts, column_parts = row_parts or _slices(self.sets[0]), column_parts or _slices(self.sets[1])
        for i, rows in enumerate(row_parts):
            left = self._operand(0, rows, dtype)
            for columns in column_parts[i if triangle else 0 :]:
                yield rows, columns, self._lower(left, rows, columns, dtype)

    def _operand(self, axis: int, index: Rows, dtype: torch.dtype) -> torch.Tensor:
        """Features about the origin (axis 0) or -2 times these (axis 1), as the product takes them."""
        return operand(self._about_origin(self.sets[axis][index], dtype, factor=(1.0, -2.0)[axis]))

    def _about_origin(self, part: torch.Tensor, dtype: torch.dtype, *, factor: float = 1.0) -> torch.Tensor:
        part = part.to(torch.promote_types(part.dtype, dtype))
        return torch.add(self.origin.to(part) * -factor, part, alpha=factor / self.unit).to(dtype)

    def _lower(self, left: torch.Tensor, rows: Rows, columns: Rows, dtype: torch.dtype) -> torch.Tensor:
        """|a|^2 + |b|^2 - 2 ab less its rounding, at most the exact squared distance."""
        products = multiply(left, self._operand(1, columns, dtype))
        kept = 1 - self._slack(dtype)
        products.add_((self.norms[1][columns] * kept - UNDERFLOW * self.width).to(dtype))
        return products.add_((self.norms[0][rows, None] * kept).to(dtype))

    def upper(
        self, rows: torch.Tensor, columns: torch.Tensor, lower: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        """Upper bounds, float64, of the pairs whose lower bounds came from products in `dtype`."""
        norms = self.norms[0][rows] + self.norms[1][columns]
        return lower.double() + 2 * (self._slack(dtype) * norms + UNDERFLOW * self.width)

    def _slack(self, dtype: torch.dtype) -> float:
        """Rounding of a squared distance over the sum of both squared norms: D sums, and 16 for the rest."""
        terms = (self.width + 16) * UNIT_ROUNDOFF[dtype]
        return terms / (1 - terms)

    def exact(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Squared distances, float64 [P], of rows[P] to columns[P]; equal pairs of features, equal bits."""
        # Beyond 2**14 values row by row: a lone long row may be summed in another order than one of many.
        at_once = self.at_once if self.width <= 2**14 else 1
        a, b = self.sets
        values = torch.empty(len(rows), dtype=torch.float64, device=a.device)
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            difference = a[rows[part]].double() - b[columns[part]].double()
            values[part] = difference.square_().sum(dim=1)
        return values / self.unit**2


class _Search:
    """The state of `find_neighbours`: per query the smallest lower bounds so far, and what is settled."""

    def __init__(self, pairs: Pairs, *, own: bool, ranks: Sequence[int], kept: int) -> None:
        self.pairs, self.own, self.ranks, self.kept = pairs, own, ranks, kept
        shape, device = (len(pairs.sets[0]), len(ranks)), pairs.sets[0].device
        self.distances = torch.empty(shape, dtype=torch.float64, device=device)
        self.indices = torch.empty(shape, dtype=torch.int64, device=device)

    def propose(self) -> torch.Tensor:
        """Settle what float32 bounds can; the rows that stay open."""
        nearest = _Nearest.none(len(self.distances), self.kept, torch.float32, self.distances.device)
        for rows, columns, lower in self.pairs.blocks(triangle=self.own):
            mirrored = self.own and rows != columns
            if self.own and not mirrored:
                lower.fill_diagonal_(torch.inf)
            nearest.merge(rows, columns, lower)
            if mirrored:
                nearest.merge(columns, rows, lower.T)
        whole = (self.pairs.positions[0], nearest.lower, nearest.which)
        return torch.cat([self._settle(*part) for part in zip(*(x.split(BLOCK) for x in whole), strict=True)])

    def refine(self, rows: torch.Tensor) -> torch.Tensor:
        """Settle what float64 bounds can of these rows [R]; those that stay open."""
        nearest = _Nearest.none(len(rows), self.kept, torch.float64, rows.device)
        for _, columns, lower in self.pairs.blocks([rows], dtype=torch.float64):
            if self.own:
                lower[rows[:, None] == self.pairs.positions[1][columns]] = torch.inf
            nearest.merge(slice(None), columns, lower)
        return self._settle(rows, nearest.lower, nearest.which)

    def exhaust(self, row: int) -> None:
        """Settle one row by its exact distances to all centres."""
        columns = self.pairs.positions[1]
        distances = self.pairs.exact(columns.new_full((len(columns),), row), columns)
        if self.own:
            distances[row] = torch.inf
        for place, rank in enumerate(self.ranks):
            value = distances.kthvalue(rank).values
            self.distances[row, place] = value
            self.indices[row, place] = (distances == value).nonzero()[0, 0]

    def _settle(self, rows: torch.Tensor, lower: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """Exact distances where rounding could change a rank; rows that may have a nearer one not kept."""
        upper = self.pairs.upper(rows[:, None], which, lower, lower.dtype)
        low, high = (
            torch.stack([bound.kthvalue(rank, dim=1).values for rank in self.ranks], dim=1)
            for bound in (lower.double(), upper)
        )
        # The k-th smallest distance lies between the k-th smallest lower and upper bounds; so do its rivals.
        rivals = ((upper[:, :, None] >= low[:, None]) & (lower[:, :, None] <= high[:, None])).any(dim=2)
        values = lower.to(torch.float64, copy=True)
        values[rivals] = self.pairs.exact(rows[rivals.nonzero()[:, 0]], which[rivals])
        for place, rank in enumerate(self.ranks):
            value = values.kthvalue(rank, dim=1).values
            self.distances[rows, place] = value
            tied = values == value[:, None]
            self.indices[rows, place] = torch.where(tied, which, len(self.pairs.sets[1])).amin(dim=1)
        if self.kept == len(self.pairs.sets[1]) - self.own:
            return rows[:0]
        farthest = self.distances[rows].amax(dim=1)
        return rows[(farthest >= lower[:, -1]) & (farthest > 0)]


@dataclass(frozen=True)
class _Nearest:
    """The smallest lower bounds met so far [Q, kept], ascending, and the columns they belong to."""

    lower: torch.Tensor
    which: torch.Tensor

    @staticmethod
    def none(rows: int, kept: int, dtype: torch.dtype, device: torch.device) -> "_Nearest":
        return _Nearest(
            torch.full((rows, kept), torch.inf, dtype=dtype, device=device),
            torch.zeros((rows, kept), dtype=torch.int64, device=device),
        )

    def merge(self, rows: slice, columns: slice, lower: torch.Tensor) -> None:
        """Take in the bounds [R, C] of a block."""
        kept = self.lower.shape[1]
        new = lower.contiguous().topk(min(kept, lower.shape[1]), largest=False)
        values, order = torch.cat([self.lower[rows], new.values], dim=1).topk(kept, largest=False)
        which = torch.cat([self.which[rows], new.indices + columns.start], dim=1).gather(1, order)
        self.lower[rows], self.which[rows] = values, which


@dataclass(frozen=True)
class _Side:
    """Balls around the rows (axis 0) or the columns (axis 1) of pairs: squared radii [N, m] in their unit."""

    axis: int
    radii: torch.Tensor
    reach: torch.Tensor
    hits: Hits

    @staticmethod
    def of(pairs: Pairs, axis: int, radii: torch.Tensor) -> "_Side":
        radii = radii / pairs.unit**2
        largest = radii.amax(dim=1).float()
        reach = torch.nextafter(largest, torch.full_like(largest, torch.inf))
        points = len(pairs.sets[1 - axis])
        return _Side(axis, radii, reach, Hits.none(points, *radii.shape, radii.device))

    def reached(self, rows: slice, columns: slice, lower: torch.Tensor) -> torch.Tensor:
        """Pairs of a block, bool [R, C], that may lie within the larger of the ball's radii."""
        return lower <= (self.reach[columns] if self.axis else self.reach[rows, None])


def _near_pairs(
    pairs: Pairs, sides: Sequence[_Side], rows: slice, columns: slice, lower: torch.Tensor
) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """(rows [n], columns [n]) of the pairs of a block near enough for a ball, and distances [n, 1].

    A distance is exact where that decides; elsewhere a bound, with every radius on the same side.
    """
    while True:
        reached = functools.reduce(torch.logical_or, (side.reached(rows, columns, lower) for side in sides))
        local = reached.nonzero()
        near = (local[:, 0] + rows.start, local[:, 1] + columns.start)
        low = lower[reached].double()
        high = pairs.upper(*near, low, lower.dtype)
        radii = [side.radii[near[side.axis]] for side in sides]
        open_ = torch.cat([(low[:, None] <= r) & (high[:, None] >= r) for r in radii], dim=1).any(dim=1)
        if lower.dtype == torch.float64 or open_.sum() <= MAX_OPEN:
            break
        ((_, _, lower),) = pairs.blocks([rows], [columns], dtype=torch.float64)
    high[open_] = pairs.exact(near[0][open_], near[1][open_])
    return near, high[:, None]


def _slices(features: torch.Tensor) -> list[slice]:
    n = len(features)
    return [slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
