"""What an explaining GAN makes of held-out images: reconstruction, and whether the classifier agrees.

Images are compared as 8 bits, so that a saved picture has the value that is reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.family import Choice, Family, Source, one_image
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    import torch

    from fact_metrics.inputs import DeclaredInputs


def settings(choice: Choice) -> dict:
    """Of every metric here."""
    return {
        "images": "the test split in the order of torch.randperm of the evaluation seed",
        "count": choice.count,
        "pixels": "uint8",
        "w": "[E(x), C(x)], not truncated",
    }


def compute_lpips(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean distance of the pairs."""
    from fact_metrics.engines import pair_distances

    pairs = inputs.encoder.pairs(spec.count)
    if min(pairs.originals.shape[-2:]) < pair_distances.SMALLEST_LPIPS:
        raise ValueError(f"LPIPS needs images of {pair_distances.SMALLEST_LPIPS} pixels or more")
    (detector,) = spec.detectors
    return _mean(
        pair_distances.compute_lpips(
            pairs.originals,
            pairs.reconstructions,
            detector=detector,
            value_range=(0, 255),
            device=inputs.device,
        )
    )


def compute_mse(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean error of the pairs."""
    from fact_metrics.engines import pair_distances

    pairs = inputs.encoder.pairs(spec.count)
    return _mean(pair_distances.compute_mse(pairs.originals, pairs.reconstructions, value_range=(0, 255)))


def compute_psnr(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean of the pairs that differ; None if all are equal."""
    from fact_metrics.engines import pair_distances

    pairs = inputs.encoder.pairs(spec.count)
    values = pair_distances.compute_psnr(pairs.originals, pairs.reconstructions, value_range=(0, 255))
    equal = int(values.isinf().sum())
    if equal == len(values):
        return MetricValue(None, n_generated=len(values), extras={"equal_pairs": equal})
    mean, stderr = pair_distances.mean_and_stderr(values[values.isfinite()])
    return MetricValue(mean, stderr=stderr, n_generated=len(values), extras={"equal_pairs": equal})


def compute_ssim(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean similarity of the pairs."""
    from fact_metrics.engines import pair_distances

    pairs = inputs.encoder.pairs(spec.count)
    if min(pairs.originals.shape[-2:]) < pair_distances.WINDOW:
        raise ValueError(f"SSIM needs images of {pair_distances.WINDOW} pixels or more")
    return _mean(pair_distances.compute_ssim(pairs.originals, pairs.reconstructions, value_range=(0, 255)))


def compute_agreement(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Share of pairs with one class; `extras` have it for each class of the originals."""
    from fact_metrics.engines import explanation

    pairs = inputs.encoder.pairs(spec.count)
    agrees = explanation.compute_agreement(pairs.logits_original, pairs.logits_reconstruction)
    classes = pairs.logits_original.argmax(dim=1)
    per_class = [
        agrees[classes == k].mean().item() if (classes == k).any() else None
        for k in range(pairs.logits_original.shape[1])
    ]
    value = _mean(agrees)
    return MetricValue(
        value.value, stderr=value.stderr, n_generated=value.n_generated, extras={"per_class": per_class}
    )


def compute_kl(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean divergence of the pairs."""
    from fact_metrics.engines.explanation import compute_class_kl

    pairs = inputs.encoder.pairs(spec.count)
    return _mean(compute_class_kl(pairs.logits_original, pairs.logits_reconstruction))


def _mean(values: torch.Tensor) -> MetricValue:
    from fact_metrics.engines.pair_distances import mean_and_stderr

    mean, stderr = mean_and_stderr(values)
    return MetricValue(mean, stderr=stderr, n_generated=len(values))


SHARED = {
    "source": Source(
        "Lang et al. 2021, arXiv:2104.13369",
        "none: defined here; the distances equal their packages' (engines/pair_distances.py)",
    ),
    "settings": settings,
    "scored": None,
    "needs_encoder": True,
}

FAMILIES = (
    Family(
        name="recon",
        variant="lpips",
        summary="Perceptual distance of held-out images from their reconstructions, {features}.",
        higher_is_better=False,
        compute=compute_lpips,
        gives=("distance",),
        scale="ratio",
        listed=("recon10k_lpips_stlpips_alex",),
        **SHARED,
    ),
    Family(
        name="recon",
        variant="mse",
        summary="Mean squared error of held-out images and their reconstructions, pixels in [-1, 1].",
        higher_is_better=False,
        compute=compute_mse,
        unit="of [-1, 1]",
        scale="ratio",
        listed=("recon10k_mse",),
        **SHARED,
    ),
    Family(
        name="recon",
        variant="psnr",
        summary="Peak signal-to-noise ratio of held-out images and their reconstructions, the mean of the "
        "pairs' own.",
        higher_is_better=True,
        compute=compute_psnr,
        unit="dB",
        listed=("recon10k_psnr",),
        **SHARED,
    ),
    Family(
        name="recon",
        variant="ssim",
        summary="Structural similarity of held-out images and their reconstructions.",
        higher_is_better=True,
        compute=compute_ssim,
        listed=("recon10k_ssim",),
        **SHARED,
    ),
    Family(
        name="agreement",
        summary="Share of held-out images that the classifier gives the same class before and after "
        "reconstruction.",
        higher_is_better=True,
        compute=compute_agreement,
        step=one_image,
        scale="odds",
        listed=("agreement10k",),
        **SHARED,
    ),
    Family(
        name="kl",
        summary="KL divergence of the classifier's probabilities on held-out images from those on their "
        "reconstructions.",
        higher_is_better=False,
        compute=compute_kl,
        unit="nats",
        listed=("kl10k",),
        **SHARED,
    ),
)
