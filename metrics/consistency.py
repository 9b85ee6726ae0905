"""Fused against unfused modulated convolution: the same latents and noise rendered by both, compared.

Both are one formula (Karras et al. 2020, arXiv:1912.04958, eq. 1-3), so what differs is rounding, or a
defect. One pass over the generator serves every metric of this file.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from metrics.features import get_detector
from metrics.frechet import compute_fid
from metrics.reconstruction import mean_squared_difference, psnr_from_mse
from metrics.registry import GeneratorInputs, MetricInputs, MetricValue, Register, register_metric

PAIRS = 1000
BATCH = 50
DETECTOR = "stlpips_alex"
PSNR_CEILING = 200.0


@dataclass(frozen=True)
class RenderingPairs:
    """What is kept of N image pairs rendered by both paths: one value per pair [N], features [N, D]."""

    max_abs: torch.Tensor
    mean_abs: torch.Tensor
    mse: torch.Tensor
    changed: torch.Tensor
    lpips: torch.Tensor
    features_fused: torch.Tensor
    features_unfused: torch.Tensor


_MEASURED: WeakKeyDictionary[GeneratorInputs, RenderingPairs] = WeakKeyDictionary()


def measure_pairs(
    generator: GeneratorInputs, *, pairs: int = PAIRS, device: torch.device | str = "cpu"
) -> RenderingPairs:
    """Render `pairs` images with fused and with unfused modulated convolution and compare them.

    Differences are of float images, neither clamped nor quantised; `changed` is the share of pixels that
    differ as uint8, which is also what the detector's features see.
    """
    detector = get_detector(DETECTOR, device)
    rows = []
    for fused, unfused in _render(generator, pairs):
        difference = (fused - unfused).abs().flatten(1)
        fused_uint8, unfused_uint8 = _to_uint8(fused), _to_uint8(unfused)
        rows.append(
            (
                difference.amax(dim=1),
                difference.mean(dim=1),
                mean_squared_difference(fused, unfused),
                (fused_uint8 != unfused_uint8).double().flatten(1).mean(dim=1),
                detector.distance(fused, unfused),
                detector(fused_uint8),
                detector(unfused_uint8),
            )
        )
    return RenderingPairs(*(torch.cat(column).cpu() for column in zip(*rows, strict=True)))


def compute_consistency_psnr(mse: torch.Tensor) -> float:
    """PSNR in dB of mean squared errors [N] of pairs in [-1, 1]. Higher is better; at most 200 (equal)."""
    return min(psnr_from_mse(mse.double().mean()).item(), PSNR_CEILING)


def _render(generator: GeneratorInputs, pairs: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for start in range(0, pairs, BATCH):
        indices = range(start, min(start + BATCH, pairs))
        ws = generator.mapping(generator.latents(indices), generator.labels(indices))
        noise = generator.noise(indices)
        yield tuple(generator.synthesis(ws, noise, fused_modconv=fused) for fused in (True, False))
        generator.progress(indices[-1] + 1, pairs)


def _to_uint8(images: torch.Tensor) -> torch.Tensor:
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def _measured(inputs: MetricInputs) -> RenderingPairs:
    if inputs.generator not in _MEASURED:
        _MEASURED[inputs.generator] = measure_pairs(inputs.generator, device=inputs.device)
    return _MEASURED[inputs.generator]


def _value(value: float, pairs: RenderingPairs, *, stderr: float | None = None) -> MetricValue:
    extras = {
        "bitwise_equal": (pairs.max_abs == 0).double().mean().item(),
        "mean_abs": pairs.mean_abs.double().mean().item(),
        "uint8_pixels_changed": pairs.changed.mean().item(),
    }
    return MetricValue(value, stderr=stderr, n_generated=len(pairs.max_abs), extras=extras)


def _stderr(values: torch.Tensor) -> float:
    return values.double().std().item() / len(values) ** 0.5


def _fused(
    *, higher_is_better: bool, reference: str, unit: str = "", detectors: tuple[str, ...] = ()
) -> Register:
    return register_metric(
        family="fused",
        higher_is_better=higher_is_better,
        citation="Karras et al. 2020, arXiv:1912.04958; PSNR between renderings: arXiv:2106.12423",
        reference=reference,
        unit=unit,
        needs_generator=True,
        detectors=detectors,
        settings={"pairs": PAIRS, "noise": "equal in a pair", "images": "float32, not clamped"},
    )


@_fused(higher_is_better=False, reference="none: defined here", unit="of a range of 2")
def fused1k_maxabs(inputs: MetricInputs) -> MetricValue:
    """Largest pixel difference between fused and unfused modulated convolution; images span [-1, 1]."""
    pairs = _measured(inputs)
    return _value(pairs.max_abs.max().item(), pairs)


@_fused(higher_is_better=True, reference="PSNR as in StyleGAN3's equivariance metrics", unit="dB")
def fused1k_psnr(inputs: MetricInputs) -> MetricValue:
    """Agreement of fused and unfused modulated convolution as PSNR; 200 dB stands for equal images."""
    pairs = _measured(inputs)
    psnr = compute_consistency_psnr(pairs.mse)
    capped = psnr == PSNR_CEILING
    relative = 0.0 if capped else _stderr(pairs.mse) / pairs.mse.mean().item()
    return _value(psnr, pairs, stderr=10 / math.log(10) * relative)


@_fused(higher_is_better=False, reference="stlpips-pytorch 0.0.2", detectors=(DETECTOR,))
def fused1k_lpips_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Mean LPIPS between images of fused and of unfused modulated convolution."""
    pairs = _measured(inputs)
    return _value(pairs.lpips.double().mean().item(), pairs, stderr=_stderr(pairs.lpips))


@_fused(higher_is_better=False, reference="torch-fidelity 0.4.0 on the same features", detectors=(DETECTOR,))
def fused1k_fid_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """FID between uint8 images of fused and of unfused modulated convolution, on shift-tolerant AlexNet."""
    pairs = _measured(inputs)
    return _value(compute_fid(pairs.features_fused, pairs.features_unfused), pairs)
