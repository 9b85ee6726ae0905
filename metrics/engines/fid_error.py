"""Standard error of FID, and how much each image moves it, from one eigendecomposition.

The influence of an image is exact, not first order: the FID without it follows from a rank-one change of the
covariance, for all images at once (the jackknife, Efron & Stein 1981, without its N repetitions). The
jackknife counts the quadratic part of FID twice, which is most of its error where generated and real images
are nearly alike; that part is estimated from pairs of images and taken off once. Checked against repeated
draws by `python -m benchmarks fid_error`; no peer reports an error at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from fact_metrics.engines.fid_pairs import compute_fid_pair_influence
from fact_metrics.engines.frechet import (
    EPSILON,
    ROWS,
    FeatureStatistics,
    as_statistics,
    check_comparable,
    compute_fid_from_statistics,
    compute_statistics,
    select_features,
    varying_features,
)

# Under this many images the error itself is known to no better than a half: none is given.
MINIMUM = 10
# Trapezoid rule for an integral over e^s: the step and where it ends, for a relative error of 1e-10.
STEP, END = 0.4, 26.0
TINY = 1e-120
# Images whose pairs give the quadratic part, and the quadrature over them: see `_second_derivatives`.
PAIRED = 512
SMALLEST_ROOT, LOG_STEP = 1e-4, 1.0

Reference = Literal["population", "sample", "paired"]
REFERENCES = get_args(Reference)


@dataclass(frozen=True)
class FidDifference:
    """FID of B less FID of A against the same reals, and its standard error (None under 10 images)."""

    value: float
    stderr: float | None


def compute_fid_influence(features_gen: torch.Tensor, real: FeatureStatistics) -> torch.Tensor:
    """FID less the FID without each image, float64 [N]: an image with a positive influence hurts.

    Exact for every N, also N <= D. features_gen are [N, D]; the two arguments may change roles for the
    influence of real images. Raises ValueError where N < 3 or the widths differ.
    """
    own = compute_statistics(features_gen, correction=real.correction)
    return _leave_one_out(features_gen, own, real, _directions(own, real))


def compute_fid_stderr(
    features_gen: torch.Tensor,
    features_real: torch.Tensor | FeatureStatistics,
    *,
    reference: Reference = "population",
    known: tuple[FeatureStatistics, FeatureStatistics] | None = None,
) -> float | None:
    """Standard error of the FID over new draws of the images; None under 10 of a set that is drawn.

    `reference` says what the reals are: all there are ("population", held fixed; statistics will do), a
    sample with an error of its own ("sample", [M, D]), or row by row the counterparts of the generated ones
    ("paired", [N, D]). `known` are the statistics of both sets where they are at hand, for no other result.
    Covers sampling noise, not the bias of a small N.
    Raises ValueError where the widths, or the lengths of pairs, differ, or a sample comes as statistics.
    """
    _check_reference(reference, REFERENCES)
    drawn = [features_gen] if reference == "population" else [features_gen, _rows(features_real)]
    if min(len(features) for features in drawn) < MINIMUM:
        return None
    if reference == "paired":
        _check_pairs(features_gen, features_real)
        return math.sqrt(jackknife_variance(compute_fid_pair_influence(features_gen, features_real)))
    if known is None:
        real = as_statistics(features_real)
        gen = compute_statistics(features_gen, correction=real.correction)
    else:
        gen, real = known
    directions = _directions(gen, real)
    variance, rate = jackknife_variance(_leave_one_out(features_gen, gen, real, directions)), 1 / gen.n
    if reference == "sample":
        exchanged = _exchanged(directions, gen, real)
        variance += jackknife_variance(_leave_one_out(features_real, real, gen, exchanged))
        rate += 1 / real.n
    return _corrected(variance, _quadratic_part(features_gen, gen, real, directions) * rate**2)


def compute_fid_difference(
    features_gen_a: torch.Tensor,
    features_gen_b: torch.Tensor,
    features_real: torch.Tensor | FeatureStatistics,
    *,
    paired: bool,
    reference: Literal["population", "sample"] = "population",
    correction: int = 1,
) -> FidDifference:
    """FID of B less FID of A and its standard error; paired: row i of both comes from the same latent.

    What images of a pair have in common cancels, and so does most of the error of a reference sample.
    `correction` is that of `compute_fid`; statistics carry their own.
    Raises ValueError where paired sets differ in length, and as `compute_fid_stderr`.
    """
    _check_reference(reference, REFERENCES[:2])
    drawn = [features_gen_a, features_gen_b] + ([_rows(features_real)] if reference == "sample" else [])
    if paired:
        _check_pairs(features_gen_a, features_gen_b)
    real = as_statistics(features_real, correction=correction)
    a, b = (compute_statistics(f, correction=real.correction) for f in (features_gen_a, features_gen_b))
    value = compute_fid_from_statistics(b, real) - compute_fid_from_statistics(a, real)
    if min(len(features) for features in drawn) < MINIMUM:
        return FidDifference(value, None)
    of_a, of_b = _directions(a, real), _directions(b, real)
    influence_a = _leave_one_out(features_gen_a, a, real, of_a)
    influence_b = _leave_one_out(features_gen_b, b, real, of_b)
    sides = ((features_gen_a, a, of_a), (features_gen_b, b, of_b))
    with_reals = 2 / (a.n * real.n) if reference == "sample" else 0.0
    if paired:
        variance = jackknife_variance(influence_b - influence_a)
        # Pairs that hardly differ count half as much beside a real image as beside another pair.
        twice = _quadratic_part_of_pairs(sides, real) * (1 / a.n**2 + with_reals / 2)
    else:
        variance = jackknife_variance(influence_a) + jackknife_variance(influence_b)
        rates = (1 / own.n**2 + (2 / (own.n * real.n) if reference == "sample" else 0.0) for own in (a, b))
        twice = sum(
            _quadratic_part(f, own, real, d) * rate for (f, own, d), rate in zip(sides, rates, strict=True)
        )
    if reference == "sample":
        of_reals = [
            _leave_one_out(features_real, real, own, _exchanged(directions, own, real))
            for _, own, directions in sides
        ]
        variance += jackknife_variance(of_reals[1] - of_reals[0])
    return FidDifference(value, _corrected(variance, twice))


def jackknife_variance(influence: torch.Tensor) -> float:
    """Variance over new draws by the influence of each image, [N]: (N - 1)/N sum (influence - mean)^2."""
    return influence.var(correction=0).item() * (len(influence) - 1)


@dataclass(frozen=True)
class _Directions:
    """Eigenvalues of M = H' S1 H, ascending, and how to have the scores V'v_i of an image (`_leave_one_out`).

    `basis` is H V; None where the images are fewer than the features, and `vectors` are those of the Gram
    matrix, row by row the scores themselves but for a factor.
    """

    values: torch.Tensor
    vectors: torch.Tensor
    basis: torch.Tensor | None


def _directions(own: FeatureStatistics, other: FeatureStatistics) -> _Directions:
    check_comparable(own, other)
    columns = varying_features(own, other)
    own_part, other_part = select_features(own, columns), select_features(other, columns)
    if own_part.rows is None:
        values, vectors = torch.linalg.eigh(other_part.factor.T @ own_part.cov @ other_part.factor)
        basis = other_part.factor @ vectors
    else:  # the Gram matrix has the same eigenvalues but zeros
        cross = other_part.factor.T @ own_part.factor
        values, vectors = torch.linalg.eigh(cross.T @ cross)
        basis = None
    values = values.clamp(min=0)
    values[values < values[-1] * len(values) * EPSILON] = 0  # a null direction, not a very short one
    return _Directions(values, vectors, basis)


def _exchanged(directions: _Directions, own: FeatureStatistics, other: FeatureStatistics) -> _Directions:
    """`_directions(other, own)`, without decomposing again where both have more images than features.

    With S1 = F F' and F'H = U diag(s) V', the other order's basis is F U = S1 H V / s. Null directions are 0.
    """
    columns = varying_features(own, other)
    own_part, other_part = select_features(own, columns), select_features(other, columns)
    if directions.basis is None or other_part.rows is not None:
        return _directions(other, own)
    lengths = directions.values.sqrt()
    scale = torch.where(lengths > 0, 1 / lengths.clamp(min=TINY), 0)
    return _Directions(directions.values, directions.vectors, own_part.cov @ directions.basis * scale)


def _leave_one_out(
    features: torch.Tensor,
    own: FeatureStatistics,
    other: FeatureStatistics,
    directions: _Directions,
) -> torch.Tensor:
    """FID(all) - FID(all but i), [N].

    With S2 = H H', M = H' S1 H = V diag(values) V' and v_i = H'(x_i - m), the set without i has g M - h v v'
    in place of M. The trace of a root changes by the integral over t > 0 of
    log(1 - h v'(g M + t)^(-1) v) / (2 pi sqrt(t)), as d/dx sqrt(x) is that of 1 / (x + t). All images share
    the nodes, t = e^(2s), so that one product of squared scores V'v with 1 / (g values + t) serves them.
    """
    check_comparable(own, other)
    n, degrees = own.n, own.n - own.correction
    if degrees < 2:
        raise ValueError(f"the FID without an image needs N >= {own.correction + 2}, got {n}")
    grown, removed = degrees / (degrees - 1), n / ((n - 1) * (degrees - 1))
    values, columns = directions.values, varying_features(own, other)
    s = torch.arange(-END, END, STEP, dtype=torch.float64, device=values.device)
    root = values[-1].sqrt().clamp(min=TINY) * s.exp()
    resolvent = removed / (grown * values[:, None] + root.square())
    shift, trace, roots = own.mean - other.mean, own.cov.trace(), values.sqrt()
    changes = []
    for start in range(0, n, ROWS):
        centred = features[start : start + ROWS].double() - own.mean
        if directions.basis is None:
            squares = degrees * values * directions.vectors[start : start + ROWS].square()
        else:
            squares = (centred[:, columns] @ directions.basis).square()
        leverage = (squares @ resolvent).clamp(max=1 - 1e-15)  # 1 where x is alone in its direction
        change_of_root = torch.log1p(-leverage) @ root * (STEP / math.pi) + (grown**0.5 - 1) * roots.sum()
        norms = centred.square().sum(dim=1)
        moved = norms / (n - 1) ** 2 - 2 / (n - 1) * centred @ shift
        changes.append(moved + (grown - 1) * trace - removed * norms - 2 * change_of_root)
    return -torch.cat(changes)


def _quadratic_part(
    features: torch.Tensor, own: FeatureStatistics, other: FeatureStatistics, directions: _Directions
) -> float:
    """E psi(x, y)^2 over pairs of images, psi the second derivative of FID in the shares of the two.

    Of real features it is 2 to 3 times that of normal ones, which is a closed form. It is no less than that
    here: from few images for many features, the fitted Gaussian leaves too little. There must be more images
    than features to estimate it at all.
    """
    normal = _normal_quadratic_part(directions.values.sqrt())
    if directions.basis is None:
        return normal
    return max(_mean_square_of_pairs(_second_derivatives(features, own, other, directions)), normal)


def _quadratic_part_of_pairs(
    sides: Sequence[tuple[torch.Tensor, FeatureStatistics, _Directions]], other: FeatureStatistics
) -> float:
    """The same of FID of B less FID of A over pairs of pairs; 0 where there are too few images for it."""
    if any(directions.basis is None for _, _, directions in sides):
        return 0.0
    of_a, of_b = (_second_derivatives(features, own, other, d) for features, own, d in sides)
    return _mean_square_of_pairs(of_b - of_a)


def _second_derivatives(
    features: torch.Tensor, own: FeatureStatistics, other: FeatureStatistics, directions: _Directions
) -> torch.Tensor:
    """psi of the first PAIRED images with each other, [P, P].

    In coordinates u where S1 and S2 are both diag(r), psi = 2 u'v + sum (u_i u_j - r_i d_ij)(v_i v_j - r_i
    d_ij) / (r_i + r_j). As 1 / (r_i + r_j) is the integral of exp(-s (r_i + r_j)) over s > 0, the double sum
    of products is that of (sum u_i v_i exp(-s r_i))^2: one product of matrices a node, s = e^t.
    """
    columns = varying_features(own, other)
    roots = directions.values.sqrt()
    kept = roots > SMALLEST_ROOT * roots[-1]
    roots = roots[kept]
    centred = (features[:PAIRED].double() - own.mean)[:, columns]
    u = centred @ directions.basis[:, kept] / roots.sqrt()
    own_part = 0.5 * (u.square().sum(dim=1) - roots.sum() / 2)
    psi = 2 * u @ u.T - own_part[:, None] - own_part
    if not len(roots):  # a set of equal images: the root of the covariances is 0 in all directions
        return psi
    first, last = math.log(1e-4 / roots[-1].item()), math.log(30 / roots[0].item())
    for node in torch.arange(first, last, LOG_STEP, dtype=torch.float64).exp().tolist():
        psi += LOG_STEP * node * (u * (-node * roots).exp() @ u.T).square()
    return psi


def _mean_square_of_pairs(psi: torch.Tensor) -> float:
    n = len(psi)
    return ((psi.square().sum() - psi.diagonal().square().sum()) / (n * (n - 1))).item()


def _normal_quadratic_part(roots: torch.Tensor) -> float:
    """E psi^2 of normal features: 4.5 sum r^2 + 2 sum (r_i r_j / (r_i + r_j))^2."""
    harmonic = roots[:, None] * roots / (roots[:, None] + roots).clamp(min=TINY)
    return (4.5 * roots.square().sum() + 2 * harmonic.square().sum()).item()


def _corrected(variance: float, twice: float) -> float:
    """Standard error from the jackknife's variance, which holds `twice` where half of it is right.

    That half is at most half of the variance: an estimate that says more is cut there.
    """
    return math.sqrt(max(variance - twice / 2, variance / 2))


def _check_reference(reference: str, known: tuple[str, ...]) -> None:
    if reference not in known:
        raise ValueError(f"reference is {reference!r}, not one of {', '.join(known)}")


def _rows(features: torch.Tensor | FeatureStatistics) -> torch.Tensor:
    if isinstance(features, FeatureStatistics):
        raise ValueError("reals that are drawn must come as features [M, D]: their statistics have no error")
    return features


def _check_pairs(features_a: torch.Tensor, features_b: torch.Tensor) -> None:
    if len(features_a) != len(features_b):
        raise ValueError(f"pairs need sets of one length, got {len(features_a)} and {len(features_b)}")
