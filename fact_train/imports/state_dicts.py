"""A network's state dict in a checkpoint: nested keys, `module.` prefixes, the names of an average."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

AVERAGES = ("g_ema", "G_ema", "ema", "generator_ema", "params_ema")
DISCRIMINATORS = ("d", "D", "discriminator")
WRAPPERS = ("state_dict", "model", "models", "net", "networks")
PREFIXES = ("module.", "_orig_mod.")


def find_state(content: Any, names: Iterable[str], *, has: str) -> dict[str, Tensor] | None:
    """The first state dict under one of the names that holds the tensor `has`; None without one.

    It is looked for in the content, one wrapper deep; the content may be the state dict itself.
    """
    if not isinstance(content, dict):
        return None
    wrapped = [content.get(name) for name in WRAPPERS]
    for place in [content, *(inner for inner in wrapped if isinstance(inner, dict))]:
        for candidate in [*(place.get(name) for name in names), place]:
            state = _plain(candidate)
            if state is not None and has in state:
                return state
    return None


def _plain(candidate: Any) -> dict[str, Tensor] | None:
    """Tensors by name without prefixes of wrappers; None for anything else."""
    if not isinstance(candidate, Mapping):
        return None
    tensors = {k: v for k, v in candidate.items() if isinstance(k, str) and isinstance(v, Tensor)}
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
