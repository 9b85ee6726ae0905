"""The hash of a set of named tensors."""

import hashlib

import torch
from torch import Tensor


def weights_sha256(tensors: dict[str, Tensor]) -> str:
    """Hash of names, shapes, dtypes and bytes, in name order."""
    h = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].contiguous()
        h.update(f"{name} {t.dtype} {tuple(t.shape)}\n".encode())
        h.update(t.reshape(-1).view(torch.uint8).numpy())
    return h.hexdigest()
