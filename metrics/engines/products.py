"""Products of blocks of feature rows: float32 that stays float32, by the fastest library at hand."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F


def operand(features: torch.Tensor) -> torch.Tensor:
    """Rows [N, D] in the form that `multiply` takes; made once for many products."""
    # oneDNN multiplies twice as fast as torch's default library on some CPUs, and never slower.
    on_cpu = features.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return features.to_mkldnn() if on_cpu and features.dtype == torch.float32 else features


def multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left right' [N, M] of two operands; under `full_float32` alone is a GPU's float32 of full precision."""
    products = F.linear(left, right)
    return products.to_dense() if products.is_mkldnn else products


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """float32 products of full precision: no TF32, bfloat16 or autocast, which cost all but 3 digits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
