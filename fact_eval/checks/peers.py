"""Other people's code behind one signature each: features or images in, their number out.

`fact-eval crosscheck` compares records with these, and `python -m benchmarks.parity` our functions. They are
torch-fidelity, clean-fid, lpips and scikit-learn; none is used to compute a record.
"""

import contextlib
import importlib.metadata
import io
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

BLOCK = 2048  # rows: blocks of BLOCK x N float64 distances or kernels stay small


def package(name: str) -> str:
    """`torch-fidelity 0.4.0`: a package with its installed version."""
    return f"{name} {importlib.metadata.version(name)}"


# Fréchet distance


def moments(rows: Tensor, *, correction: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance (over N - correction) by numpy, as peers take them."""
    values = rows.double().cpu().numpy()
    return values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False, ddof=correction))


def fid_torch_fidelity(gen: Tensor, real: Tensor, *, correction: int = 1) -> float:
    """Root of a product through its eigenvalues."""
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    fitted = [
        dict(zip(("mu", "sigma"), moments(rows, correction=correction), strict=True)) for rows in (gen, real)
    ]
    return float(fid_statistics_to_metric(*fitted, verbose=False)["frechet_inception_distance"])


def fid_clean_fid(gen: Tensor, real: Tensor, *, correction: int = 1) -> float:
    """scipy's sqrtm, with its checks. TypeError under scipy 1.18 or later, which clean-fid cannot use."""
    from cleanfid.fid import frechet_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # `disp`, gone in scipy 1.18
        both = (moments(rows, correction=correction) for rows in (gen, real))
        return float(frechet_distance(*next(both), *next(both)))


# Kernel distance


def kid_torch_fidelity(
    gen: Tensor, real: Tensor, *, subsets: int, size: int, kernel: str = "polynomial"
) -> tuple[float, float]:
    """Mean over random subsets by its own seed, and their standard deviation."""
    from torch_fidelity.metric_kid import kid_features_to_metric

    found = kid_features_to_metric(
        gen,
        real,
        kid_subsets=subsets,
        kid_subset_size=size,
        kid_kernel="poly" if kernel == "polynomial" else kernel,
        verbose=False,
    )
    names = ("kernel_inception_distance_mean", "kernel_inception_distance_std")
    return tuple(float(found[name]) for name in names)


def kid_clean_fid(gen: Tensor, real: Tensor) -> float:
    """One subset of all images, which leaves nothing random. ValueError unless both sets have one size."""
    from cleanfid.fid import kernel_distance

    if len(gen) != len(real):
        raise ValueError(f"clean-fid compares sets of one size, not {len(gen)} and {len(real)}")
    values = (rows.double().cpu().numpy() for rows in (gen, real))
    return kernel_distance(*values, num_subsets=1, max_subset_size=len(gen))


def kid_scikit_learn(gen: Tensor, real: Tensor) -> tuple[float, float]:
    """The unbiased estimate from all images, by scikit-learn's polynomial kernel; and the mean kernel."""
    x, y = (rows.double().cpu().numpy() for rows in (gen, real))
    within_x, diagonal_x = _kernel_sums(x, x)
    within_y, diagonal_y = _kernel_sums(y, y)
    between, _ = _kernel_sums(x, y)
    n, m = len(x), len(y)
    value = (within_x - diagonal_x) / (n * (n - 1)) + (within_y - diagonal_y) / (m * (m - 1))
    return value - 2 * between / (n * m), (diagonal_x + diagonal_y) / (n + m)


def _kernel_sums(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Sum of (x.y / D + 1)^3 over all pairs, and over the diagonal if x is y."""
    from sklearn.metrics.pairwise import polynomial_kernel

    total = diagonal = 0.0
    for start in range(0, len(x), BLOCK):
        kernel = polynomial_kernel(x[start : start + BLOCK], y, degree=3, gamma=1 / x.shape[1], coef0=1)
        total += kernel.sum()
        if x is y:
            diagonal += kernel.diagonal(offset=start).sum()
    return total, diagonal


# Neighbours


def overlap_torch_fidelity(gen: Tensor, real: Tensor, *, k: int) -> tuple[float, float]:
    """Precision and recall, a distance equal to the radius inside; all pairs of distances in memory."""
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    return calculate_precision_recall_full(gen, real, neighborhood=k)


def overlap_scikit_learn(gen: Tensor, real: Tensor, *, k: int, closed: bool) -> dict[str, float]:
    """Precision, density and coverage by brute-force neighbours, exact in float64.

    Recall is the precision of the sets exchanged.
    """
    from sklearn.metrics import pairwise_distances

    x, y = (rows.double().cpu().numpy() for rows in (gen, real))
    radii, inside = neighbour_distances(y, k), np.less_equal if closed else np.less
    nearest, precise, balls = np.full(len(y), np.inf), 0, 0
    for start in range(0, len(x), BLOCK):
        distances = pairwise_distances(x[start : start + BLOCK], y)
        held = inside(distances, radii)
        precise += int(held.any(axis=1).sum())
        balls += int(held.sum())
        nearest = np.minimum(nearest, distances.min(axis=0))
    return {
        "precision": precise / len(x),
        "density": balls / (k * len(x)),
        "coverage": float(inside(nearest, radii).mean()),
    }


def authentic_scikit_learn(gen: Tensor, real: Tensor) -> float:
    """AuthPct: percentage of images whose nearest real image has a nearer real image."""
    from sklearn.neighbors import NearestNeighbors

    x, y = (rows.double().cpu().numpy() for rows in (gen, real))
    distances, nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(y).kneighbors(x)
    return float(100 * (neighbour_distances(y, 1)[nearest[:, 0]] < distances[:, 0]).mean())


def neighbour_distances(rows: np.ndarray, k: int) -> np.ndarray:
    """Distance of every row to its k-th nearest other row."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows)
    return found.kneighbors()[0][:, -1]  # without an argument, a row is not its own neighbour


# Classifiers and images


def inception_score_torch_fidelity(outputs: Tensor, *, logits: bool, splits: int, shuffle: bool) -> float:
    """Inception score of logits, or of probabilities, which are the softmax of their logarithms."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    outputs = outputs.double().cpu()
    with contextlib.redirect_stdout(io.StringIO()):
        found = isc_features_to_metric(
            outputs if logits else outputs.clamp(min=1e-300).log(), splits=splits, shuffle=shuffle
        )
    return float(found["inception_score_mean"])


def agreement_scikit_learn(first: Tensor, second: Tensor) -> float:
    """Share of rows whose largest logit is the same class."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(first.argmax(dim=1).cpu(), second.argmax(dim=1).cpu()))


def mse_scikit_learn(a: Tensor, b: Tensor) -> float:
    """Mean squared error of all values of two tensors."""
    from sklearn.metrics import mean_squared_error

    return float(mean_squared_error(*(x.double().flatten().cpu().numpy() for x in (a, b))))


class _Trunk(nn.Module):
    """The raw outputs of a perceptual network's stages, as the lpips package reads them."""

    def __init__(self, stages: nn.ModuleList):
        super().__init__()
        self.stages = stages

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


def lpips_on(net: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """LPIPS [N] of images in [-1, 1] by the lpips package, on the trunk and channel weights of our net."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision's renamed arguments
        model = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)
    model.L = len(net.stages)
    model.net = _Trunk(net.stages)
    model.scaling_layer.shift, model.scaling_layer.scale = net.shift, net.scale
    model.lins = nn.ModuleList(lpips.NetLinLayer(width) for width in net.widths)
    for index, layer in enumerate(model.lins):
        layer.model[-1].weight = nn.Parameter(getattr(net, f"channel_weights{index}"), requires_grad=False)
    with torch.inference_mode():
        return torch.cat([model.eval()(x, y).flatten() for x, y in _batches(a, b)])


def _batches(a: Tensor, b: Tensor, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(a), size):
        yield a[start : start + size], b[start : start + size]
