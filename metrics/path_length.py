"""PPL: perceptual path length, how far images move for a small step in W. Lower is smoother.

Karras et al. 2020, arXiv:1912.04958, as `ppl2_wend`: endpoints of a linear path in W, eps = 1e-4, no crop,
labels and noise equal in a pair, float32 images that are neither clamped nor quantised (at this step uint8
would measure rounding alone), mean without the distances under the 1st and above the 99th percentile. The
published numbers use VGG16 LPIPS; these protocols use the shift-tolerant networks that work offline, so they
are not comparable with them.
"""

import torch
import torch.nn.functional as F

from metrics.features import Detector, get_detector
from metrics.registry import GeneratorInputs, MetricInputs, MetricValue, Register, register_metric

EPSILON = 1e-4
BATCH = 25
MAX_RESOLUTION = 256
RESAMPLES = 1000
LEVEL = 0.95
END_STREAM = "path end"


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


def compute_step_distances(
    images_start: torch.Tensor, images_end: torch.Tensor, detector: Detector, *, epsilon: float = EPSILON
) -> torch.Tensor:
    """LPIPS / epsilon^2, [N], of float images [N, C, H, W] in about [-1, 1] that are one step apart.

    Images above 256 pixels are first averaged down by a whole factor. Raises ValueError on integer images.
    """
    if not (images_start.is_floating_point() and images_end.is_floating_point()):
        raise ValueError(
            f"PPL takes float images, never quantised, got {images_start.dtype} and {images_end.dtype}"
        )
    factor = max(images_start.shape[-1] // MAX_RESOLUTION, 1)
    pair = (F.avg_pool2d(images, factor) if factor > 1 else images for images in (images_start, images_end))
    return detector.distance(*pair) / epsilon**2


def measure_path(
    generator: GeneratorInputs, detector: Detector, *, samples: int, epsilon: float = EPSILON
) -> torch.Tensor:
    """Step distances [samples], on the CPU, at the start of linear W paths between independent latents."""
    distances = []
    for start in range(0, samples, BATCH):
        indices = range(start, min(start + BATCH, samples))
        labels = generator.labels(indices)
        ws_start = generator.mapping(generator.latents(indices), labels)
        ws_end = generator.mapping(generator.latents(indices, stream=END_STREAM), labels)
        ws = torch.cat([ws_start, ws_start.lerp(ws_end, epsilon)])
        noise = [torch.cat([one, one]) for one in generator.noise(indices)]
        images = generator.synthesis(ws, noise).float()
        distances.append(compute_step_distances(*images.chunk(2), detector, epsilon=epsilon).cpu())
        generator.progress(indices[-1] + 1, samples)
    return torch.cat(distances)


def _trimmed_means(distances: torch.Tensor) -> torch.Tensor:
    low = distances.quantile(0.01, dim=1, interpolation="lower", keepdim=True)
    high = distances.quantile(0.99, dim=1, interpolation="higher", keepdim=True)
    kept = (distances >= low) & (distances <= high)
    return (distances * kept).sum(dim=1) / kept.sum(dim=1)


def _value(inputs: MetricInputs, detector: str, *, samples: int) -> MetricValue:
    distances = measure_path(inputs.generator, get_detector(detector, inputs.device), samples=samples)
    stderr, low, high = bootstrap_ppl(distances, seed=inputs.seed)
    interval = {"level": LEVEL, "low": low, "high": high, "method": "percentile bootstrap", "n": RESAMPLES}
    return MetricValue(compute_ppl(distances), stderr=stderr, ci=interval, n_generated=samples)


def _ppl(detector: str, *, samples: int) -> Register:
    return register_metric(
        family="ppl",
        higher_is_better=False,
        citation="Karras et al. 2020, arXiv:1912.04958",
        reference="stylegan2-ada-pytorch ppl2_wend, with another LPIPS network",
        needs_generator=True,
        detectors=(detector,),
        settings={
            "samples": samples,
            "space": "w, linear",
            "sampling": "end",
            "epsilon": EPSILON,
            "crop": False,
            "images": "float32, not clamped; box-averaged to 256 pixels where larger",
            "noise": "equal in a pair",
            "trim": "1st percentile lower to 99th higher",
        },
    )


@_ppl("stlpips_vgg", samples=2_000)
def ppl2k_wend_stlpips_vgg(inputs: MetricInputs) -> MetricValue:
    """Perceptual path length at the ends of paths in W, shift-tolerant VGG16 LPIPS, 2,000 pairs."""
    return _value(inputs, "stlpips_vgg", samples=2_000)


@_ppl("stlpips_alex", samples=2_000)
def ppl2k_wend_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Perceptual path length at the ends of paths in W, shift-tolerant AlexNet LPIPS, 2,000 pairs."""
    return _value(inputs, "stlpips_alex", samples=2_000)


@_ppl("stlpips_vgg", samples=50_000)
def ppl50k_wend_stlpips_vgg(inputs: MetricInputs) -> MetricValue:
    """Perceptual path length at the ends of paths in W, shift-tolerant VGG16 LPIPS, 50,000 pairs."""
    return _value(inputs, "stlpips_vgg", samples=50_000)
