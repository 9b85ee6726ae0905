"""Improved precision and recall: the share of one set inside the k-nearest-neighbour balls of the other.

Kynkäänniemi et al. 2019, arXiv:1904.06991; k = 3 and `<=` as in the reference and in torch-fidelity. Exact:
float32 products propose, and every comparison that rounding could turn is repeated in float64 on the
differences themselves. Memory beyond the features is O(N): no N x N matrix is ever held.
"""

import torch

from metrics.registry import FeatureNeed, MetricInputs, MetricValue, Register, against_reals, register_metric

K = 3
ROWS = 1024
COLUMNS = 4096
SPARE = 5
EXACT_VALUES = 2**22
ROUNDING = 2.0**-24


def compute_precision(features_gen: torch.Tensor, features_real: torch.Tensor, *, k: int = K) -> float:
    """Share of generated features within the k-th-neighbour distance of a real one. Higher is better.

    Both are [N, D] float32 from one detector; a distance equal to the radius counts.
    Raises ValueError where there are k reals or fewer, the widths differ or a value is not finite.
    """
    if features_gen.ndim != 2 or features_gen.shape[1:] != features_real.shape[1:]:
        raise ValueError(f"features differ in width: {list(features_gen.shape)}, {list(features_real.shape)}")
    if not (torch.isfinite(features_gen).all() and torch.isfinite(features_real).all()):
        raise ValueError("features hold values that are not finite")
    inside = find_covered(features_gen, features_real, compute_radii(features_real, k=k))
    return inside.double().mean().item()


def compute_recall(features_gen: torch.Tensor, features_real: torch.Tensor, *, k: int = K) -> float:
    """Share of real features within the k-th-neighbour distance of a generated one. Higher is better."""
    return compute_precision(features_real, features_gen, k=k)


def compute_radii(features: torch.Tensor, *, k: int = K) -> torch.Tensor:
    """Squared distance of every row of [N, D] to its k-th nearest other row, float64 [N]; duplicates count.

    Raises ValueError where there are k rows or fewer.
    """
    n = len(features)
    if n <= k:
        raise ValueError(f"{k} nearest neighbours need more than {k} images, got {n}")
    centred, norms = _centred(features, features)
    kept = min(k + SPARE, n - 1)
    radii = torch.empty(n, dtype=torch.float64, device=features.device)
    for start in range(0, n, ROWS):
        rows = torch.arange(start, min(start + ROWS, n), device=features.device)
        approximate, candidates = _nearest(rows, centred, norms, count=kept)
        pairs = torch.stack([rows.repeat_interleave(kept), candidates.flatten()], dim=1)
        radius = _distances(features, features, pairs).view(-1, kept).kthvalue(k, dim=1).values
        # A row that was not kept is no nearer than the last one kept, less the rounding of either value.
        slack = 2 * _relative_slack(features) * (norms[rows] + norms.max())
        unsure = (radius > approximate[:, -1] - slack) & (radius > 0) if kept < n - 1 else rows < 0
        for row in rows[unsure].tolist():
            others = torch.cat([torch.arange(row), torch.arange(row + 1, n)]).to(features.device)
            pairs = torch.stack([torch.full_like(others, row), others], dim=1)
            radius[row - start] = _distances(features, features, pairs).kthvalue(k).values
        radii[rows] = radius
    return radii


def find_covered(queries: torch.Tensor, centres: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """Which queries [Q, D] lie in a ball around any of centres [N, D] with squared radii [N]: bool [Q]."""
    centred, norms = _centred(centres, centres)
    query_centred, query_norms = _centred(queries, centres)
    relative = _relative_slack(queries)
    covered = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
    for start in range(0, len(queries), ROWS):
        row_norms = query_norms[start : start + ROWS, None]
        for first in range(0, len(centres), COLUMNS):
            column_norms, radius = norms[first : first + COLUMNS], radii[first : first + COLUMNS].float()
            excess = query_centred[start : start + ROWS] @ centred[first : first + COLUMNS].T
            excess.mul_(-2).add_(row_norms).add_(column_norms - radius)
            slack = relative * row_norms + (relative * column_norms + 8 * ROUNDING * radius)
            covered[start : start + ROWS] |= (excess <= -slack).any(dim=1)
            close = (excess.abs() < slack) & ~covered[start : start + ROWS, None]
            pairs = close.nonzero() + torch.tensor([start, first], device=close.device)
            inside = _distances(queries, centres, pairs) <= radii[pairs[:, 1]]
            covered[pairs[inside, 0]] = True
    return covered


def _nearest(
    rows: torch.Tensor, centred: torch.Tensor, norms: torch.Tensor, *, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` smallest float32 squared distances of rows to others, ascending, and whose they are."""
    values = torch.full((len(rows), count), torch.inf, device=centred.device)
    indices = torch.zeros((len(rows), count), dtype=torch.int64, device=centred.device)
    for first in range(0, len(centred), COLUMNS):
        block = centred[rows] @ centred[first : first + COLUMNS].T
        block.mul_(-2).add_(norms[rows, None]).add_(norms[first : first + COLUMNS])
        own = (rows >= first) & (rows < first + block.shape[1])
        block[own, rows[own] - first] = torch.inf
        nearest = block.topk(min(count, block.shape[1]), largest=False)
        values, order = torch.cat([values, nearest.values], dim=1).topk(count, largest=False)
        indices = torch.cat([indices, nearest.indices + first], dim=1).gather(1, order)
    return values, indices


def _centred(features: torch.Tensor, origin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 features less the mean of `origin` (smaller numbers round less) and their squared norms."""
    centred = (features.double() - origin.double().mean(dim=0)).float()
    return centred, centred.square().sum(dim=1)


def _relative_slack(features: torch.Tensor) -> float:
    """Rounding of a float32 squared distance over the sum of both squared norms: at most D + 16 half-ulps."""
    return (features.shape[1] + 16) * ROUNDING


def _distances(a: torch.Tensor, b: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Squared distances, float64 [P], of a's and b's rows at pairs [P, 2]; equal pairs, equal bits."""
    parts = [
        (a[part[:, 0]].double() - b[part[:, 1]].double()).square().sum(dim=1)
        for part in pairs.split(max(1, EXACT_VALUES // a.shape[1]))
    ]
    return torch.cat(parts)


def _protocol(family: str, needs: tuple[FeatureNeed, ...]) -> Register:
    return register_metric(
        family=family,
        higher_is_better=True,
        citation="Kynkäänniemi et al. 2019, arXiv:1904.06991",
        reference="torch-fidelity 0.4.0 PRC on the same features",
        needs=needs,
        settings={"k": K, "inside": "<= radius", "distances": "exact in float64"},
    )


def _precision(inputs: MetricInputs, needs: tuple[FeatureNeed, ...]) -> MetricValue:
    gen, real = (inputs.features(need).to(inputs.device) for need in needs)
    return MetricValue(compute_precision(gen, real), n_generated=len(gen), n_real=len(real))


def _recall(inputs: MetricInputs, needs: tuple[FeatureNeed, ...]) -> MetricValue:
    gen, real = (inputs.features(need).to(inputs.device) for need in needs)
    return MetricValue(compute_recall(gen, real), n_generated=len(gen), n_real=len(real))


TEST_ALEX = against_reals("stlpips_alex", split="test")
TEST_VGG = against_reals("stlpips_vgg", split="test")
TEST_PIXELS = against_reals("pixels", split="test")
FULL_ALEX = against_reals("stlpips_alex", split="train")
FULL_PIXELS = against_reals("pixels_rgb", split="train")


@_protocol("precision", TEST_ALEX)
def precision10k3_test_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Share of generated images in the 3-neighbour balls of test images, on AlexNet LPIPS features."""
    return _precision(inputs, TEST_ALEX)


@_protocol("precision", TEST_VGG)
def precision10k3_test_stlpips_vgg(inputs: MetricInputs) -> MetricValue:
    """Share of generated images in the 3-neighbour balls of test images, on VGG16 LPIPS features."""
    return _precision(inputs, TEST_VGG)


@_protocol("precision", TEST_PIXELS)
def precision10k3_test_pixels(inputs: MetricInputs) -> MetricValue:
    """Share of generated images in the 3-neighbour balls of test images, on raw pixels (MSE)."""
    return _precision(inputs, TEST_PIXELS)


@_protocol("precision", FULL_ALEX)
def precision10k3_full_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Share of generated images in the 3-neighbour balls of training images, on AlexNet LPIPS features."""
    return _precision(inputs, FULL_ALEX)


@_protocol("precision", FULL_PIXELS)
def precision10k3_full_pixels_rgb(inputs: MetricInputs) -> MetricValue:
    """Share of generated images in the 3-neighbour balls of training images, on raw colour pixels (MSE)."""
    return _precision(inputs, FULL_PIXELS)


@_protocol("recall", TEST_ALEX)
def recall10k3_test_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Share of test images in the 3-neighbour balls of generated ones, on AlexNet LPIPS features."""
    return _recall(inputs, TEST_ALEX)


@_protocol("recall", TEST_VGG)
def recall10k3_test_stlpips_vgg(inputs: MetricInputs) -> MetricValue:
    """Share of test images in the 3-neighbour balls of generated ones, on VGG16 LPIPS features."""
    return _recall(inputs, TEST_VGG)


@_protocol("recall", TEST_PIXELS)
def recall10k3_test_pixels(inputs: MetricInputs) -> MetricValue:
    """Share of test images in the 3-neighbour balls of generated ones, on raw pixels (MSE)."""
    return _recall(inputs, TEST_PIXELS)


@_protocol("recall", FULL_ALEX)
def recall10k3_full_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Share of training images in the 3-neighbour balls of generated ones, on AlexNet LPIPS features."""
    return _recall(inputs, FULL_ALEX)


@_protocol("recall", FULL_PIXELS)
def recall10k3_full_pixels_rgb(inputs: MetricInputs) -> MetricValue:
    """Share of training images in the 3-neighbour balls of generated ones, on raw colour pixels (MSE)."""
    return _recall(inputs, FULL_PIXELS)
