"""StyleGAN2-ADA's configuration cfg=auto (train.py @d72cc7d): what it derives from resolution and GPUs."""

from typing import Any

from fact_metrics.base.image_size import ImageSize, Resolution


def auto_batch(resolution: Resolution, *, gpus: int = 1) -> int:
    """Images of a step over all GPUs; its R1 heuristic is 0.0002 pixels / this number.

    A rectangle counts as the square with as many pixels, rounded down to a power of two.
    """
    per_gpu = max(4096 // ImageSize.of(resolution).mean_side, 1)
    per_gpu = 1 << (per_gpu.bit_length() - 1)
    return max(min(gpus * min(per_gpu, 32), 64), gpus)


def auto_fields(resolution: Resolution, *, gpus: int = 1) -> dict[str, Any]:
    """The fields that depend on the resolution, and those that follow the batch."""
    batch = auto_batch(resolution, gpus=gpus)
    side = ImageSize.of(resolution).mean_side
    rate = 0.002 if side >= 1024 else 0.0025
    return dict(
        batch=batch,
        mbstd_group_size=min(batch // gpus, 4),
        channel_base=32768 if side >= 512 else 16384,
        g_lr=rate,
        d_lr=rate,
        ema_kimg=batch * 10 / 32,
    )
