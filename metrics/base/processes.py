"""The processes that torchrun started, as one group: their ranks, and what they exchange in CPU memory.

Objects and features travel by gloo, whatever the device of the networks. A single process without torchrun is
a group of one; it does not import torch.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from fact_metrics.base.errors import UserError

T = TypeVar("T")

TIMEOUT = timedelta(days=7)  # the other ranks wait while rank 0 computes the metrics


def is_rank_zero() -> bool:
    """Whether this process prints and writes; reads torchrun's environment, not torch."""
    return int(os.environ.get("RANK", 0)) == 0


def launched_world_size() -> int:
    """How many processes torchrun started on all machines; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


class Processes:
    """This process within its group. All ranks call every method, in the same order."""

    def __init__(self, *, rank: int = 0, size: int = 1, group=None, owns_default_group: bool = False):
        self.rank, self.size, self._group = rank, size, group
        self._owns_default_group = owns_default_group

    @classmethod
    def join(cls) -> "Processes":
        """The group that torchrun's environment describes; within a group that exists already, all of it."""
        import torch.distributed as dist

        initialize = not dist.is_initialized()
        if initialize:
            if launched_world_size() == 1:
                return cls()
            dist.init_process_group("gloo", timeout=TIMEOUT)
        if dist.get_world_size() == 1:
            return cls()
        return cls(
            rank=dist.get_rank(),
            size=dist.get_world_size(),
            group=dist.new_group(backend="gloo", timeout=TIMEOUT),
            owns_default_group=initialize,
        )

    def leave(self) -> None:
        """Destroy the group if `join` created it."""
        if self._owns_default_group:
            import torch.distributed as dist

            dist.destroy_process_group()

    def share(self, items: list[T]) -> list[T]:
        """This rank's items, dealt round-robin."""
        return items[self.rank :: self.size]

    def owner(self, position: int) -> int:
        """The rank that `share` gives the item at a position to."""
        return position % self.size

    def deal(self, count: int, unit: int, function: Callable[[range], list[T]]) -> list[T]:
        """function(range(count)) on all ranks, in units dealt round-robin: each rank computes its own.

        The units do not depend on the number of ranks, nor does the result if a unit has a result of its own.
        """
        units = [range(start, min(start + unit, count)) for start in range(0, count, unit)]
        shares = self.gather(self.run_on_all(lambda: [function(own) for own in self.share(units)]))
        ordered = [shares[self.owner(i)][i // self.size] for i in range(len(units))]
        return [result for own in ordered for result in own]

    def broadcast(self, value: T) -> T:
        """The value of rank 0."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in the order of the ranks."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def run_on_all(self, function: Callable[[], T]) -> T:
        """function() on every rank. If it fails on one, all ranks raise, so that none waits for it."""
        try:
            result, error = function(), None
        except Exception as raised:
            result, error = None, raised
        failures = self.gather(None if error is None else describe_error(error))
        if error is not None:
            raise error
        for rank, failure in enumerate(failures):
            if failure is not None:
                raise UserError(f"process {rank} of {self.size}: {failure}")
        return result

    def send_to_rank_zero(self, rows, *, owner: int) -> None:
        """Put what rank `owner` has in `rows`, a contiguous tensor in CPU memory, into that of rank 0.

        The other ranks do nothing.
        """
        if owner == 0 or self.rank not in (0, owner):
            return
        import torch.distributed as dist

        if self.rank == 0:
            dist.recv(rows, src=owner, group=self._group)
        else:
            dist.send(rows, dst=0, group=self._group)


def describe_error(error: Exception) -> str:
    """The message of a user's error; any other error with its type."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
