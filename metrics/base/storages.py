"""How torch's files spell tensors: flat storages of one type, and views of them."""

import math
from typing import Any

import torch
from torch import Tensor

from fact_metrics.base.pickles import Refused

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage, inside it and with no more values than it has."""
    numbers = (offset, *size, *stride) if isinstance(size, tuple) and isinstance(stride, tuple) else (-1,)
    if not isinstance(storage, Tensor) or any(type(n) is not int or n < 0 for n in numbers):
        raise Refused("holds a tensor of unknown form")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    count = math.prod(size)
    if count and (last >= len(storage) or count > len(storage)):
        raise Refused(f"promises a tensor of shape {list(size)[:8]} in {len(storage):,} values")
    return storage.as_strided(size, stride, offset)


def no_hooks(*arguments: Any) -> dict:
    """The empty OrderedDict of hooks that every tensor carries."""
    if arguments:
        raise Refused("holds a tensor with hooks")
    return {}
