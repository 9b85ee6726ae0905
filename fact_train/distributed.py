"""The group of processes that torchrun started: rank, size, averages, barriers.

One process without torchrun is a group of one.
"""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn


def init(device: torch.device) -> None:
    """Join the group that torchrun's environment describes; without torchrun, do nothing."""
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def shutdown() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Rank of this process; 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes; 1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average_gradients(params: Iterable[nn.Parameter]) -> None:
    """Average the gradients over the group, in one flat all-reduce.

    A parameter without a gradient has none in any process; the optimiser leaves it alone.
    """
    if world_size() == 1:
        return
    params = [p for p in params if p.grad is not None]
    flat = torch.cat([p.grad.flatten() for p in params])
    dist.all_reduce(flat)
    flat /= world_size()
    for p, g in zip(params, flat.split([p.numel() for p in params]), strict=True):
        p.grad.copy_(g.reshape(p.shape))


def average_(x: torch.Tensor) -> torch.Tensor:
    """Average a tensor over the group in place."""
    if world_size() > 1:
        dist.all_reduce(x)
        x /= world_size()
    return x


def any_rank(flag: int, device: torch.device) -> int:
    """The largest flag of all ranks: a signal to one process stops all of them."""
    if world_size() == 1:
        return flag
    t = torch.tensor(flag, device=device)
    dist.all_reduce(t, op=dist.ReduceOp.MAX)
    return int(t)


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()
