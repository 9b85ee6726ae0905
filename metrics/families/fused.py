"""Fused against unfused modulated convolution: the same latents and noise rendered by both, compared.

Both are one formula, so the differences are rounding, or a defect. One pass over the generator serves all
metrics of a count.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fact_metrics.engines.conventions import RENDERING_DETECTOR
from fact_metrics.family import Choice, Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.engines.consistency import RenderingPairs
    from fact_metrics.inputs import DeclaredInputs

PAPER = "Karras et al. 2020, arXiv:1912.04958; PSNR between renderings: arXiv:2106.12423"


def settings(choice: Choice) -> dict:
    """Of every metric here."""
    return {"pairs": choice.count, "noise": "equal in a pair", "images": "float32, not clamped"}


def compute(
    spec: MetricSpec,
    inputs: DeclaredInputs,
    *,
    of: Callable[[RenderingPairs], tuple[float, float | None]],
) -> MetricValue:
    """A number of the pairs and its standard error; `extras` have what is known of the pixels."""
    from fact_metrics.engines.consistency import measure_pairs

    detector = next(iter(spec.detectors), RENDERING_DETECTOR)
    pairs = inputs.shared(
        ("fused", spec.count, detector),
        lambda: measure_pairs(inputs.generator, pairs=spec.count, detector=detector, device=inputs.device),
    )
    value, stderr = of(pairs)
    extras = {
        "bitwise_equal": (pairs.max_abs == 0).double().mean().item(),
        "mean_abs": pairs.mean_abs.double().mean().item(),
        "uint8_pixels_changed": pairs.changed.mean().item(),
        "paths": list(pairs.paths),
    }
    return MetricValue(value, stderr=stderr, n_generated=len(pairs.max_abs), extras=extras)


def _largest_difference(pairs: RenderingPairs) -> tuple[float, None]:
    return pairs.max_abs.max().item(), None


def _psnr(pairs: RenderingPairs) -> tuple[float, float]:
    from fact_metrics.engines.consistency import PSNR_CEILING, compute_consistency_psnr
    from fact_metrics.engines.pair_distances import mean_and_stderr

    psnr = compute_consistency_psnr(pairs.mse)
    mse, stderr = mean_and_stderr(pairs.mse)
    relative = 0.0 if psnr == PSNR_CEILING else stderr / mse
    return psnr, 10 / math.log(10) * relative


def _pixels_changed(pairs: RenderingPairs) -> tuple[float, float | None]:
    from fact_metrics.engines.pair_distances import mean_and_stderr

    return mean_and_stderr(pairs.changed)


def _lpips(pairs: RenderingPairs) -> tuple[float, float | None]:
    from fact_metrics.engines.pair_distances import mean_and_stderr

    return mean_and_stderr(pairs.lpips)


def _fid(pairs: RenderingPairs) -> tuple[float, float | None]:
    from fact_metrics.engines.fid_error import compute_fid_stderr
    from fact_metrics.engines.frechet import compute_fid

    features = pairs.features_fused, pairs.features_unfused
    return compute_fid(*features), compute_fid_stderr(*features, reference="paired")


def _family(
    variant: str,
    of: Callable[[RenderingPairs], tuple[float, float | None]],
    summary: str,
    reference: str,
    *,
    higher_is_better: bool = False,
    unit: str = "",
    on_detector: bool = False,
) -> Family:
    name = f"fused1k_{variant}"
    return Family(
        name="fused",
        variant=variant,
        summary=summary,
        higher_is_better=higher_is_better,
        source=Source(PAPER, reference),
        compute=partial(compute, of=of),
        unit=unit,
        scored=None,
        gives=("distance",) if on_detector else (),
        settings=settings,
        needs_generator=True,
        listed=(f"{name}_{RENDERING_DETECTOR}" if on_detector else name,),
    )


FAMILIES = (
    _family(
        "maxabs",
        _largest_difference,
        "Largest pixel difference between fused and unfused modulated convolution; images span [-1, 1].",
        "none: defined here",
        unit="of a range of 2",
    ),
    _family(
        "psnr",
        _psnr,
        "Agreement of fused and unfused modulated convolution as PSNR; 200 dB stands for equal images.",
        "PSNR as in StyleGAN3's equivariance metrics",
        higher_is_better=True,
        unit="dB",
    ),
    _family(
        "pixels_changed",
        _pixels_changed,
        "Share of uint8 pixel values that differ between fused and unfused modulated convolution.",
        "none: defined here",
    ),
    _family(
        "lpips",
        _lpips,
        "Mean distance of images of fused and of unfused modulated convolution, {features}.",
        "stlpips-pytorch 0.0.2",
        on_detector=True,
    ),
    _family(
        "fid",
        _fid,
        "FID between uint8 images of fused and of unfused modulated convolution, on {features}.",
        "torch-fidelity 0.4.0 on the same features",
        on_detector=True,
    ),
)
