"""Named resize modes of the detectors; a mode is part of a detector's fingerprint (evaluation.md, section 2).

none       images keep their size
torch      F.interpolate bilinear, half-pixel centres, no antialias (pytorch-fid, clean-fid legacy_pytorch)
torch-aa   the same with antialias: equal to `torch` when enlarging (torchmetrics >= 1.8)
"""

import torch
import torch.nn.functional as F

RESIZE_MODES = ("none", "torch", "torch-aa")


def resize(images: torch.Tensor, *, mode: str, size: int | None = None) -> torch.Tensor:
    """float images [N, C, H, W] at [size, size], not quantised. Raises ValueError on an unknown mode."""
    if mode not in RESIZE_MODES:
        raise ValueError(f"unknown resize mode {mode!r}; known: {', '.join(RESIZE_MODES)}")
    if mode == "none" or tuple(images.shape[-2:]) == (size, size):
        return images
    return F.interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False, antialias=mode == "torch-aa"
    )
