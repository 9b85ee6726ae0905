"""The processes that torchrun started, as one scorer: all make features, the first one measures and writes.

What they exchange lies in CPU memory (features on their way to metrics, small decisions), so it travels by
gloo whatever the device; each process works on the GPU of its LOCAL_RANK. One process without torchrun is a
group of one, and imports nothing.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from fact_metrics.base.errors import UserError

T = TypeVar("T")

PATIENCE = timedelta(days=7)  # the others wait while the first one measures


def first_of_group() -> bool:
    """Whether this is the process that speaks and writes; asks torchrun's environment, not torch."""
    return int(os.environ.get("RANK", 0)) == 0


def started_together() -> int:
    """How many processes torchrun started, on all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


class Processes:
    """This process among its group; every method is called by all of them in the same order."""

    def __init__(self, *, rank: int = 0, size: int = 1, group=None, joined: bool = False):
        self.rank, self.size, self._group, self._joined = rank, size, group, joined

    @classmethod
    def join(cls) -> "Processes":
        """The group that torchrun's environment describes, or the one that this process is in already."""
        import torch.distributed as dist

        joined = not dist.is_initialized()
        if joined:
            if started_together() == 1:
                return cls()
            dist.init_process_group("gloo", timeout=PATIENCE)
        if dist.get_world_size() == 1:
            return cls()
        return cls(
            rank=dist.get_rank(),
            size=dist.get_world_size(),
            group=dist.new_group(backend="gloo", timeout=PATIENCE),
            joined=joined,
        )

    def leave(self) -> None:
        """End the group if `join` began it."""
        if self._joined:
            import torch.distributed as dist

            dist.destroy_process_group()

    def share(self, items: list[T]) -> list[T]:
        """This process' part of the items, dealt like cards."""
        return items[self.rank :: self.size]

    def first(self, value: T) -> T:
        """What the first process gives."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """What every process gives, in the order of their ranks."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def together(self, function: Callable[[], T]) -> T:
        """function() in every process; where one of them fails, all raise, so that none waits for it."""
        try:
            result, error = function(), None
        except Exception as raised:
            result, error = None, raised
        told = self.gather(None if error is None else describe(error))
        if error is not None:
            raise error
        for rank, failure in enumerate(told):
            if failure is not None:
                raise UserError(f"process {rank} of {self.size}: {failure}")
        return result

    def add_up(self, rows) -> None:
        """Sum of everybody's tensor, in the first process: exact where all but one hold zeros."""
        if self.size > 1:
            import torch.distributed as dist

            dist.reduce(rows, dst=0, group=self._group)


def describe(error: Exception) -> str:
    """A user's mistake as its line; anything else with its kind."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
