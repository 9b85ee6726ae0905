"""The precision of feature maps in training; weights, styles, images and optimisers are float32.

fp32 is full float32, also on a GPU, where torch uses TF32 in convolutions by default. tf32 rounds the factors
of products to 10 bits (GPU only). bf16 holds feature maps in bfloat16 at all resolutions: half the memory, 8
bits of mantissa. fp16 has 11 bits and ends at 65,504; demodulated convolutions normalise weights and styles
beforehand, and StyleGAN2-ADA combines it with conv_clamp 256.

fp16_layers holds the highest resolutions alone in fp16, as StyleGAN2-ADA does, from 8x8 up. Its loss is not
scaled: gradients that are not finite become 0 or 100,000.
"""

from collections.abc import Iterable
from typing import Any

import torch

from fact_metrics.base.errors import UsageError
from fact_metrics.base.image_size import ImageSize, Resolution
from fact_train.settings.config import TrainConfig

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def set_precision(name: str, device: torch.device) -> torch.dtype:
    """Allow or forbid TF32 in this process; returns the dtype of feature maps.

    UsageError for tf32 without a GPU.
    """
    if name == "tf32" and device.type != "cuda":
        raise UsageError(f"--precision tf32: {device.type} has no TF32; use fp32 or bf16, or --device cuda.")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    torch.backends.cudnn.deterministic = True  # sums in a fixed order: a resumed run is bitwise equal
    return PRECISIONS[name]


def slow_on_cpu(precision: str) -> str | None:
    """How --precision is slower than fp32 on this processor; None if it is not."""
    if precision == "fp16":
        return "several times slower than fp32 on a CPU"
    if precision == "bf16" and not has_bf16():
        return "about ten times slower than fp32 on this processor, which has no instructions for it"
    return None


def has_bf16() -> bool:
    """Whether convolutions in bfloat16 have a kernel of their own on this CPU; without, they are emulated."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def feature_maps(cfg: TrainConfig, device: torch.device, *, resolution: Resolution) -> dict[str, Any]:
    """Which resolutions have which dtype, as G, D and E take it."""
    if cfg.fp16_layers and device.type == "cuda":
        highest = ImageSize.of(resolution).levels[-1]
        return {"dtype": torch.float16, "dtype_from": max(highest * 2 >> cfg.fp16_layers, 8)}
    return {"dtype": PRECISIONS[cfg.precision]}


def precision_notes(cfg: TrainConfig, device: torch.device) -> tuple[str, ...]:
    """What a run should say about --fp16-layers on a device without it."""
    if not cfg.fp16_layers or device.type == "cuda":
        return ()
    return (
        f"--fp16-layers {cfg.fp16_layers}: {device.type} computes in {cfg.precision}; only a GPU uses fp16.",
    )


def mend_gradients(params: Iterable[torch.nn.Parameter]) -> None:
    """Replace gradients of fp16 that are not finite, in place: NaN by 0, infinity by 100,000."""
    for p in params:
        if p.grad is not None:
            torch.nan_to_num_(p.grad, nan=0.0, posinf=1e5, neginf=-1e5)
