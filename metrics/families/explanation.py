"""What an explaining GAN makes of held-out images: reconstruction, and whether the classifier says the same.

Lang et al. 2021, arXiv:2104.13369 (StylEx) want G([E(x), C(x)]) to be x and C to say of it what it says of x.
The reproductions print no number for either. Images are compared as 8 bits, so that a saved picture has the
value that is reported.
"""

import torch
import torch.nn.functional as F

from fact_metrics.engines.pair_distances import (
    SMALLEST_LPIPS,
    WINDOW,
    compute_lpips,
    compute_mse,
    compute_psnr,
    compute_ssim,
    mean_and_stderr,
)
from fact_metrics.registry import MetricInputs, MetricValue, Register, register_metric

COUNT = 10_000
HELD_OUT = "the test split in the order of torch.randperm of the evaluation seed"
LPIPS = "stlpips_alex"


def compute_agreement(logits_a: torch.Tensor, logits_b: torch.Tensor) -> torch.Tensor:
    """1 where both sets of logits [N, K] have their largest value at the same class, else 0: float64 [N]."""
    _check_logits(logits_a, logits_b)
    return (logits_a.argmax(dim=1) == logits_b.argmax(dim=1)).double()


def compute_class_kl(logits_a: torch.Tensor, logits_b: torch.Tensor) -> torch.Tensor:
    """KL(softmax a || softmax b) in nats of every row of logits [N, K]: float64 [N], 0 for equal rows."""
    _check_logits(logits_a, logits_b)
    log_a, log_b = (F.log_softmax(logits.double(), dim=1) for logits in (logits_a, logits_b))
    return (log_a.exp() * (log_a - log_b)).sum(dim=1).clamp(min=0)


def _check_logits(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape or len(a) == 0:
        raise ValueError(f"logits are two sets [N, K] of one shape, got {list(a.shape)} and {list(b.shape)}")


def _metric(family: str, *, higher_is_better: bool, unit: str = "", **options) -> Register:
    return register_metric(
        family=family,
        higher_is_better=higher_is_better,
        citation="Lang et al. 2021, arXiv:2104.13369",
        reference="none: defined here; the distances equal their packages' (engines/pair_distances.py)",
        needs_encoder=True,
        settings={"images": HELD_OUT, "count": COUNT, "pixels": "uint8", "w": "[E(x), C(x)], not truncated"},
        unit=unit,
        **options,
    )


def _mean(values: torch.Tensor) -> MetricValue:
    mean, stderr = mean_and_stderr(values)
    return MetricValue(mean, stderr=stderr, n_generated=len(values))


@_metric("recon", higher_is_better=False, detectors=(LPIPS,))
def recon10k_lpips_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Perceptual distance (shift-tolerant AlexNet LPIPS) of held-out images from their reconstructions."""
    pairs = inputs.encoder.pairs(COUNT)
    if min(pairs.originals.shape[-2:]) < SMALLEST_LPIPS:
        raise ValueError(f"LPIPS needs images of {SMALLEST_LPIPS} pixels or more")
    distance = compute_lpips(
        pairs.originals, pairs.reconstructions, detector=LPIPS, value_range=(0, 255), device=inputs.device
    )
    return _mean(distance)


@_metric("recon", higher_is_better=False, unit="of [-1, 1]")
def recon10k_mse(inputs: MetricInputs) -> MetricValue:
    """Mean squared error of held-out images and their reconstructions, pixels in [-1, 1]."""
    pairs = inputs.encoder.pairs(COUNT)
    return _mean(compute_mse(pairs.originals, pairs.reconstructions, value_range=(0, 255)))


@_metric("recon", higher_is_better=True, unit="dB")
def recon10k_psnr(inputs: MetricInputs) -> MetricValue:
    """Peak signal-to-noise ratio of held-out images and their reconstructions, the mean of the pairs' own."""
    pairs = inputs.encoder.pairs(COUNT)
    values = compute_psnr(pairs.originals, pairs.reconstructions, value_range=(0, 255))
    equal = int(values.isinf().sum())
    if equal == len(values):
        return MetricValue(None, n_generated=len(values), extras={"equal_pairs": equal})
    mean, stderr = mean_and_stderr(values[values.isfinite()])
    return MetricValue(mean, stderr=stderr, n_generated=len(values), extras={"equal_pairs": equal})


@_metric("recon", higher_is_better=True)
def recon10k_ssim(inputs: MetricInputs) -> MetricValue:
    """Structural similarity of held-out images and their reconstructions."""
    pairs = inputs.encoder.pairs(COUNT)
    if min(pairs.originals.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs images of {WINDOW} pixels or more")
    return _mean(compute_ssim(pairs.originals, pairs.reconstructions, value_range=(0, 255)))


@_metric("agreement", higher_is_better=True)
def agreement10k(inputs: MetricInputs) -> MetricValue:
    """Share of held-out images that the classifier gives the same class before and after reconstruction."""
    pairs = inputs.encoder.pairs(COUNT)
    agrees = compute_agreement(pairs.logits_original, pairs.logits_reconstruction)
    classes = pairs.logits_original.argmax(dim=1)
    per_class = [
        agrees[classes == k].mean().item() if (classes == k).any() else None
        for k in range(pairs.logits_original.shape[1])
    ]
    value = _mean(agrees)
    return MetricValue(
        value.value, stderr=value.stderr, n_generated=value.n_generated, extras={"per_class": per_class}
    )


@_metric("kl", higher_is_better=False, unit="nats")
def kl10k(inputs: MetricInputs) -> MetricValue:
    """KL divergence of the classifier's word on held-out images from that on their reconstructions."""
    pairs = inputs.encoder.pairs(COUNT)
    return _mean(compute_class_kl(pairs.logits_original, pairs.logits_reconstruction))
