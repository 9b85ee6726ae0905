"""The device and the CPU threads of a process, from what the user asked for and what torchrun set."""

import os

import torch

from fact_metrics.base.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """The device called `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the GPU where there is one.

    A bare `cuda` is the GPU of this process' LOCAL_RANK, and becomes the current one. Raises UsageError for
    any other name and for a GPU that this machine does not have.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: use auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if available else 0
    index = device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", 0))
    if index >= count:
        gpus = "no usable GPU" if count == 0 else f"{count} usable GPU{'s' if count > 1 else ''}"
        raise UsageError(f"--device {name}: this machine has {gpus}; use --device cpu or auto")
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def available_threads() -> int:
    """The cores that this process may use, shared among local processes."""
    return max(len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1)


def set_threads(threads: int | None) -> int:
    """Use this many CPU threads. None: all that are available."""
    if threads is None:
        threads = available_threads()
    torch.set_num_threads(threads)
    return threads
