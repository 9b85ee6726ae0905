"""The machinery of a step, whatever is trained: shares and micro-batches, phases, gradients, Adam.

A lazy regulariser is multiplied by its interval R, and Adam's rate and betas are corrected by c = R / (R + 1)
(Karras et al. 2020, appendix B).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from fact_metrics.base.errors import UsageError
from fact_train.settings.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Share:
    """This process' part of every batch: `rounds` micro-batches of `size`, starting at `start`."""

    start: int
    size: int
    rounds: int

    def slices(self) -> Iterator[slice]:
        for i in range(self.rounds):
            first = self.start + i * self.size
            yield slice(first, first + self.size)


def share_of_batch(cfg: TrainConfig, *, rank: int, world_size: int) -> Share:
    """Split cfg.batch over processes and micro-batches; UsageError where it does not divide."""
    if cfg.batch % world_size:
        raise UsageError(f"--batch {cfg.batch} does not divide over {world_size} processes.")
    mine = cfg.batch // world_size
    size = min(cfg.batch_gpu or mine, mine)
    if mine % size:
        raise UsageError(f"--batch-gpu {size} does not divide the {mine} images of each process.")
    group = min(cfg.mbstd_group_size, size)
    if size % group:
        raise UsageError(
            f"--mbstd-group-size {cfg.mbstd_group_size} does not divide the {size} images at once."
        )
    return Share(start=rank * mine, size=size, rounds=mine // size)


class Work:
    """One micro-batch of one phase: what it may draw, and what it leaves for the trainer to take in.

    Micro-batches of a phase run side by side, so they change nothing: reports and averages are kept here and
    taken in afterwards, in order.
    """

    def __init__(
        self, part: slice, gen: torch.Generator, host_gen: torch.Generator, *, phase: str = ""
    ) -> None:
        self.part, self.phase = part, phase
        self.gen = gen  # on the device
        self.host_gen = host_gen  # for what the host must know: reading it from a GPU would wait for it
        self.reports: list[tuple[str, Tensor]] = []
        self.w_means: list[Tensor] = []
        self.pl_mean: Tensor | None = None

    @property
    def size(self) -> int:
        return self.part.stop - self.part.start

    def report(self, name: str, values: Tensor) -> None:
        self.reports.append((name, values.detach()))


@dataclasses.dataclass(frozen=True)
class Phase:
    """One loss of a step, as a function of a micro-batch, and the optimiser whose weights learn from it."""

    name: str
    optimiser: torch.optim.Optimizer
    loss_of: Callable[[Work], Tensor]

    @property
    def params(self) -> list[nn.Parameter]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]


def gradients(loss: Tensor, params: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    """d loss / d params, None for those it does not depend on; nothing is added to `.grad`.

    In the memory layout of the parameters: the fused Adam of a CPU reads both in storage order, unchecked.
    """
    found = torch.autograd.grad(loss, params, allow_unused=True)
    return tuple(
        g if g is None or g.stride() == p.stride() else torch.empty_like(p).copy_(g)
        for p, g in zip(params, found, strict=True)
    )


def set_gradients(params: list[nn.Parameter], found: list[tuple[Tensor | None, ...]]) -> None:
    """The sum of several gradients, in their order, as `.grad`."""
    first, *others = found
    for p, g in zip(params, first, strict=True):
        p.grad = g
    for more in others:
        both = [(p.grad, g) for p, g in zip(params, more, strict=True) if None not in (p.grad, g)]
        for p, g in zip(params, more, strict=True):
            p.grad = g if p.grad is None else p.grad  # micro-batches need not use the same networks
        if both:
            torch._foreach_add_([a for a, _ in both], [b for _, b in both])


def adam(
    groups: Iterable[tuple[nn.Module, float]], cfg: TrainConfig, *, interval: int | None
) -> torch.optim.Adam:
    """Adam over (network, learning rate) pairs with the lazy-regularisation correction.

    `interval` None means that no regulariser shares it.
    """
    c = 1.0 if interval is None else interval / (interval + 1)
    params = [{"params": list(net.parameters()), "lr": lr * c} for net, lr in groups]
    return torch.optim.Adam(params, betas=(cfg.beta1**c, cfg.beta2**c), eps=1e-8, fused=True)
