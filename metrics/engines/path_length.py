"""PPL: perceptual path length, how far images move for a small step between latents. Lower is smoother.

    mean of d(G(path(t)), G(path(t + eps))) / eps^2,   eps = 1e-4,   d = LPIPS

Karras et al. 2019, arXiv:1812.04948, sec. 4.1; Karras et al. 2020, arXiv:1912.04958, for the whole image at
the ends of paths. Labels and noise are equal in a pair and fresh for every pair; images are float32 and
neither clamped nor quantised, as at this step uint8 would measure rounding alone; the mean leaves out
distances under the 1st and above the 99th percentile.
"""

import torch
import torch.nn.functional as F

from fact_metrics.base.pixels import to_signed
from fact_metrics.base.tf32 import tf32
from fact_metrics.engines.conventions import PATHS, STEP, LatentPath
from fact_metrics.features import Detector
from fact_metrics.inputs import GeneratorInputs

SMALLEST_UINT8_EPSILON = 1e-2  # below it most pixels stay within their grey level
BATCH = 25
MAX_RESOLUTION = 256
RESAMPLES = 1000
LEVEL = 0.95
END_STREAM = "path end"
POSITION_STREAM = "path position"


def compute_ppl(distances: torch.Tensor) -> float:
    """Mean of distances [N] from the 1st (`lower`) to the 99th (`higher`) percentile. Lower is better.

    The percentiles are taken at existing values, as in the reference. Raises ValueError on an empty or
    non-finite set.
    """
    if distances.ndim != 1 or len(distances) == 0 or not torch.isfinite(distances).all():
        raise ValueError(f"PPL needs finite distances [N], got {list(distances.shape)}")
    return _trimmed_means(distances.double().unsqueeze(0)).item()


def bootstrap_ppl(
    distances: torch.Tensor, *, seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float, float]:
    """Standard error, low and high of the trimmed mean of distances [N], by a seeded percentile bootstrap."""
    rng = torch.Generator().manual_seed(seed)
    distances = distances.double()
    means = torch.cat(
        [
            _trimmed_means(distances[torch.randint(len(distances), (1, len(distances)), generator=rng)])
            for _ in range(resamples)
        ]
    )
    tail = (1 - level) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=means.dtype)).tolist()
    return means.std().item(), low, high


def slerp(start: torch.Tensor, end: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Points [N, D] at t [N] on the great circles from start to end, [N, D] each, of length sqrt(D).

    (sin((1 - t) a) u + sin(t a) v) / sin a, with unit vectors u and v at an angle a (Shoemake 1985; named in
    Karras et al. 2019, sec. 4.1). Latents live on the sphere that the mapping network normalises them to, so
    their lengths do not count. In float64; NaN where start and end are parallel. Latents of several rows,
    [N, K, D], move each row on a circle of its own, all at the same t.
    """
    if start.ndim == 3:
        t = t.repeat_interleave(start.shape[1])
        return slerp(start.flatten(0, 1), end.flatten(0, 1), t).reshape(start.shape)
    u, v = (F.normalize(x.double(), dim=1) for x in (start, end))
    angle = 2 * torch.atan2((u - v).norm(dim=1, keepdim=True), (u + v).norm(dim=1, keepdim=True))
    t = t.double().unsqueeze(1)
    points = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / angle.sin()
    return (points * start.shape[1] ** 0.5).to(start.dtype)


def compute_step_distances(
    images_start: torch.Tensor,
    images_end: torch.Tensor,
    detector: Detector,
    *,
    epsilon: float = STEP,
    crop: bool = False,
) -> torch.Tensor:
    """LPIPS / epsilon^2, [N], of float32 images [N, C, H, W] in about [-1, 1] that are one step apart.

    `crop` keeps rows 3/8 to 7/8 and columns 2/8 to 6/8; what is then above 256 pixels is averaged down by a
    whole factor. uint8 images pass from an epsilon of 0.01. Raises ValueError on uint8 below it, on half
    precision and on other integers.
    """
    pair = [_prepared(images, epsilon=epsilon, crop=crop) for images in (images_start, images_end)]
    return detector.distance(*pair) / epsilon**2


def measure_path(
    generator: GeneratorInputs,
    detector: Detector,
    path: LatentPath = PATHS["ppl2_wend"],
    *,
    pairs: range,
    epsilon: float = STEP,
) -> torch.Tensor:
    """Step distances [N], on the CPU, of pairs by index along paths between independent latents.

    Everything random belongs to the index of its pair, so the batch changes rounding only. float32
    throughout: autocast and TF32 are off.
    """
    distances = []
    with tf32(False), torch.autocast(detector.device.type, enabled=False):
        for first in range(0, len(pairs), BATCH):
            indices = pairs[first : first + BATCH]
            ws = _step(generator, path, indices, epsilon=epsilon)
            noise = [torch.cat([one, one]) for one in generator.noise(indices)]
            pair = generator.synthesis(ws, noise).chunk(2)
            distances.append(compute_step_distances(*pair, detector, epsilon=epsilon, crop=path.crop).cpu())
            generator.progress(indices[-1] + 1, pairs.stop)
    return torch.cat(distances)


def _step(generator: GeneratorInputs, path: LatentPath, indices: range, *, epsilon: float) -> torch.Tensor:
    """ws [2 N, num_ws * K, w_dim]: the starts of N steps, then their ends."""
    labels = generator.labels(indices)
    z_start, z_end = generator.latents(indices), generator.latents(indices, stream=END_STREAM)
    t = torch.zeros(len(indices), dtype=torch.float64, device=z_start.device)
    if path.sampling == "full":  # the distribution function of a normal number is a uniform one
        t = torch.special.ndtr(generator.latents(indices, stream=POSITION_STREAM).flatten(1)[:, 0].double())
    if path.space == "z":
        z = torch.cat([slerp(z_start, z_end, t), slerp(z_start, z_end, t + epsilon)])
        return generator.mapping(z, None if labels is None else torch.cat([labels, labels]))
    w_start, w_end = generator.mapping(z_start, labels), generator.mapping(z_end, labels)
    steps = (x.to(w_start.dtype)[:, None, None] for x in (t, t + epsilon))
    return torch.cat([w_start.lerp(w_end, x) for x in steps])


def _prepared(images: torch.Tensor, *, epsilon: float, crop: bool) -> torch.Tensor:
    if images.dtype == torch.uint8:
        if epsilon < SMALLEST_UINT8_EPSILON:
            raise ValueError(
                f"uint8 images at epsilon {epsilon:g} would measure their rounding; give float32 images, "
                f"never quantised, or an epsilon of at least {SMALLEST_UINT8_EPSILON:g}"
            )
        images = to_signed(images)
    elif images.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"PPL takes float32 images, got {images.dtype}: a step would drown in rounding")
    if crop:
        height, width = images.shape[-2:]
        images = images[..., height * 3 // 8 : height * 7 // 8, width * 2 // 8 : width * 6 // 8]
    factor = max(max(images.shape[-2:]) // MAX_RESOLUTION, 1)
    return F.avg_pool2d(images, factor) if factor > 1 else images


def _trimmed_means(distances: torch.Tensor) -> torch.Tensor:
    low = distances.quantile(0.01, dim=1, interpolation="lower", keepdim=True)
    high = distances.quantile(0.99, dim=1, interpolation="higher", keepdim=True)
    kept = (distances >= low) & (distances <= high)
    return (distances * kept).sum(dim=1) / kept.sum(dim=1)
