"""Memorisation: whether generated images stand closer to training images than these do to each other.

AuthPct is Alaa et al. 2022, arXiv:2102.08921, as dgm-eval reports it: the percentage of authentic images.
(fld subtracts 50 and draws 10,000 of each set.) MiFID is Bai et al. 2021, arXiv:2106.03062, as in the Kaggle
competition it comes from: FID over the mean cosine distance of a generated image to its nearest training
image, where that mean is below a threshold. (torchmetrics 1.9 averages over training images instead, to
their nearest generated one, which a generator that copies a few of them passes.)
"""

from dataclasses import dataclass

import torch

from fact_metrics.engines.fid_error import compute_fid_influence, compute_fid_stderr, jackknife_variance
from fact_metrics.engines.frechet import FeatureStatistics, compute_fid, compute_statistics
from fact_metrics.engines.neighbours import find_neighbours

THRESHOLD = 0.1  # Kaggle's, for Inception
SMALLEST_DISTANCE = 1e-14
SMALLEST_FID = 1e-8
SMALLEST_MEANINGFUL = 1e-6  # of a mean cosine distance: ten times the rounding of float32 features


def find_authentic(features_gen: torch.Tensor, features_real: torch.Tensor) -> torch.Tensor:
    """Which generated features are authentic, bool [M]: their nearest real has another real nearer to it.

    Features are [M, D] and [N, D] of one detector. A generated image as near as that other real is a copy.
    Raises ValueError where there are fewer than 2 reals, the widths differ or a value is not finite.
    """
    distances, nearest = find_neighbours(features_gen, features_real)
    copied, which = nearest[:, 0].unique(return_inverse=True)
    # Among all reals, a real's nearest is itself and its second nearest the nearest other.
    among_reals, _ = find_neighbours(features_real[copied], features_real, ranks=(2,))
    return among_reals[which, 0] < distances[:, 0]


def compute_authpct(features_gen: torch.Tensor, features_real: torch.Tensor) -> float:
    """Percentage of generated features that are authentic, in [0, 100]. Higher is better.

    Held-out MNIST images reach 60 to 70, and noise 100: read it beside a distance. Arguments as in
    `find_authentic`.
    """
    return 100 * find_authentic(features_gen, features_real).double().mean().item()


def find_cosine_distances(features_gen: torch.Tensor, features_real: torch.Tensor) -> torch.Tensor:
    """1 - |cos| of every generated feature and the real one it is most parallel to, float64, in [0, 1].

    Features are [M, D] and [N, D]; rows of zeros have no direction and are left out on both sides. Raises
    ValueError where no row is left, the widths differ or a value is not finite.
    """
    gen, real = (_directions(features) for features in (features_gen, features_real))
    signs = (1, -1) if min(gen.min(), real.min()) < 0 else (1,)
    return torch.stack([find_neighbours(sign * gen, real)[0][:, 0] / 2 for sign in signs]).amin(dim=0)


def compute_mifid(
    features_gen: torch.Tensor, features_real: torch.Tensor, *, threshold: float = THRESHOLD
) -> float:
    """FID over the mean of `find_cosine_distances`, or FID itself where that mean is not below the threshold.

    Lower is better; 0 where FID is 0, also for a copy of the training set. Arguments as in `compute_fid`.
    """
    distances = find_cosine_distances(features_gen, features_real)
    return _penalised(compute_fid(features_gen, features_real), distances.mean().item(), threshold)


@dataclass(frozen=True)
class Mifid:
    """MiFID, its standard error (None with too few images), FID, and the mean distance it is divided by."""

    value: float
    stderr: float | None
    fid: float
    distance: float


def measure_mifid(
    features_gen: torch.Tensor, features_real: torch.Tensor, *, threshold: float = THRESHOLD
) -> Mifid:
    """As `compute_mifid`, with the standard error over draws of generated images; reals are held fixed."""
    real = compute_statistics(features_real)
    fid, distances = compute_fid(features_gen, real), find_cosine_distances(features_gen, features_real)
    distance = distances.mean().item()
    stderr = _mifid_stderr(features_gen, real, fid, distances, threshold)
    return Mifid(_penalised(fid, distance, threshold), stderr, fid, distance)


def _penalised(fid: float, distance: float, threshold: float) -> float:
    penalty = distance if distance < threshold else 1.0
    return fid / (penalty + SMALLEST_DISTANCE) if fid > SMALLEST_FID else 0.0


def _mifid_stderr(
    features_gen: torch.Tensor, real: FeatureStatistics, fid: float, distances: torch.Tensor, threshold: float
) -> float | None:
    """That of FID where nothing is penalised; else the jackknife of the ratio."""
    m = len(features_gen)
    if distances.mean() >= threshold:
        return compute_fid_stderr(features_gen, real)
    if m < 3 or len(distances) < m:  # images without a direction have no distance of their own
        return None
    value = _penalised(fid, distances.mean().item(), threshold)
    without = zip(
        (fid - compute_fid_influence(features_gen, real)).tolist(),
        ((distances.sum() - distances) / (m - 1)).tolist(),
        strict=True,
    )
    influence = [value - _penalised(*parts, threshold) for parts in without]
    return jackknife_variance(torch.tensor(influence, dtype=torch.float64)) ** 0.5


def _directions(features: torch.Tensor) -> torch.Tensor:
    norms = torch.linalg.vector_norm(features, dim=1, keepdim=True, dtype=torch.float64)
    directions = (features / norms)[norms[:, 0] != 0]
    if not len(directions):
        raise ValueError(f"features {list(features.shape)} are all zeros, without a direction")
    return directions
