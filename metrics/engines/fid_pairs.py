"""How much each pair moves the FID between two versions of the same images, exactly, from one decomposition.

Rows of a pair leave both sets together, which is a change of rank one of both covariances. With centred rows
A and B over sqrt(N - 1) and A B' = U diag(sigma) V', the trace of (S1 S2)^(1/2) is the sum of sigma, and all
its N changes follow from the squares and products of the entries of U and V. Singular covariances (N <= D)
and nearly equal sets keep their digits: nothing is squared and rooted again. Errors: fid_error.py.
"""

import math

import torch

from fact_metrics.engines.frechet import EPSILON, ROWS

# Trapezoid rule over e^s: a relative error of 1e-17, since FID is a small difference of such sums.
STEP, END = 0.25, 45.0
TINY = 1e-150


def compute_fid_pair_influence(features_a: torch.Tensor, features_b: torch.Tensor) -> torch.Tensor:
    """FID between two sets less the FID without each pair, float64 [N]; row i of both belong together.

    Exact for every N >= 3 and D. Raises ValueError where lengths or widths differ or N < 3.
    """
    if features_a.shape != features_b.shape or features_a.ndim != 2 or len(features_a) < 3:
        shapes = f"{list(features_a.shape)} and {list(features_b.shape)}"
        raise ValueError(f"pairs need two sets [N, D] of one shape with N >= 3, got {shapes}")
    n = len(features_a)
    means = [features.double().mean(dim=0) for features in (features_a, features_b)]
    a, b = ((f.double() - m) / (n - 1) ** 0.5 for f, m in zip((features_a, features_b), means, strict=True))
    (basis_a, factor_a), (basis_b, factor_b) = torch.linalg.qr(a), torch.linalg.qr(b)
    left, sigma, right = torch.linalg.svd(factor_a @ factor_b.T, full_matrices=False)
    kept = sigma > sigma[0] * n * EPSILON
    sigma = sigma[kept]
    grown, removed = (n - 1) / (n - 2), n / (n - 1)
    difference = a - b
    # tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), and by how much the pairs' own part of it falls when they leave.
    apart = (a.square().sum() + b.square().sum() - 2 * sigma.sum()).item()
    own = a.square().sum(dim=1) + b.square().sum(dim=1)
    parts = zip((basis_a @ left[:, kept]).split(ROWS), (basis_b @ right.T[:, kept]).split(ROWS), strict=True)
    roots = torch.cat([_changes_of_root(u, v, sigma, removed) for u, v in parts])
    moved = difference.square().sum(dim=1) / (n - 1)
    moved -= 2 / (n - 1) ** 0.5 * (difference @ (means[0] - means[1]))
    return grown * (removed * own + 2 * roots) - (grown - 1) * apart - moved


def _changes_of_root(u: torch.Tensor, v: torch.Tensor, sigma: torch.Tensor, removed: float) -> torch.Tensor:
    """By how much tr ((S1 - h a a')(S2 - h b b'))^(1/2) exceeds the whole, [R], for rows u and v [R, K].

    It is the integral over t > 0 of log D(t) / (2 pi sqrt(t)), D the determinant of what t + S1 S2 is
    multiplied by: (1 - h p)(1 - h q) + h^2 t r^2 with p = sum u^2 sigma^2 / (t + sigma^2), q the same of v,
    and r = sum u v sigma / (t + sigma^2).
    """
    s = torch.arange(-END, END, STEP, dtype=torch.float64, device=u.device)
    root = sigma.amax().clamp(min=TINY) * s.exp() if len(sigma) else s.exp()
    nodes = sigma[:, None].square() + root.square()
    gone, stays = sigma[:, None].square() / nodes, root.square() / nodes
    squares = torch.stack([u.square(), v.square()])
    p, q = removed * (squares @ gone)
    r = removed * ((u * v) @ (sigma[:, None] * root / nodes))  # times sqrt(t)
    # 1 - h p as a sum of positive parts; a row that is alone in its direction leaves nothing of the first.
    rest = 1 - removed * squares.sum(dim=2)
    rest[rest < 1e-12] = 0
    left_p, left_q = rest[:, :, None] + removed * (squares @ stays)
    small = torch.log1p((p * q + r.square() - p - q).clamp(min=-0.9))
    logs = torch.where(p + q < 0.5, small, (left_p * left_q + r.square()).clamp(min=1e-300).log())
    return logs @ root * (STEP / math.pi)
