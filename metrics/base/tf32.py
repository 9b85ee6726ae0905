"""TF32 on or off: whether a GPU may round what enters its convolutions and products to 10 bits."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in float32 convolutions and matrix products; the former state comes back after.

    Changes nothing on a CPU, where float32 is always float32.
    """
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, former in zip(backends, before, strict=True):
            backend.allow_tf32 = former
