"""The parts of a training step, whatever the model: batches and micro-batches, phases, gradients, Adam.

A lazy regulariser is multiplied by its interval R, and Adam's rate and betas are corrected by c = R / (R + 1)
(Karras et al. 2020, appendix B).
"""

import dataclasses
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from fact_metrics.base.errors import UsageError
from fact_train.settings.config import TrainConfig
from fact_train.settings.schedules import value_at


@dataclasses.dataclass(frozen=True)
class Share:
    """This process' part of every batch: `rounds` micro-batches of `size`, starting at image `start`."""

    start: int
    size: int
    rounds: int

    @property
    def count(self) -> int:
        """Images of this process in a batch."""
        return self.size * self.rounds


def share_of_batch(cfg: TrainConfig, *, rank: int, world_size: int) -> Share:
    """Split cfg.batch over processes and micro-batches; UsageError where it does not divide."""
    if cfg.batch % world_size:
        raise UsageError(f"--batch {cfg.batch} does not divide over {world_size} processes.")
    count = cfg.batch // world_size
    size = min(cfg.batch_gpu or count, count)
    if count % size:
        raise UsageError(f"--batch-gpu {size} does not divide the {count} images of each process.")
    group = min(cfg.mbstd_group_size, size)
    if size % group:
        raise UsageError(
            f"--mbstd-group-size {cfg.mbstd_group_size} does not divide the {size} images at once."
        )
    return Share(start=rank * count, size=size, rounds=count // size)


@dataclasses.dataclass(frozen=True)
class StepInputs:
    """What all phases of one step share: its number, and the real batch of this process."""

    step: int  # steps before this one
    nimg: int  # real images shown before it, over all processes
    share: Share
    real: Tensor  # [N, C, H, W], float32 in [-1, 1]
    c: Tensor | None  # [N, c_dim], what the model knows of these images: their labels, or C's logits
    regularise: bool | None = None  # True forces the lazy regularisers, False forbids them, None: by interval

    @property
    def forced(self) -> bool:
        """Whether this step is a probe or a timing, which must see every kind of work."""
        return self.regularise is not None

    def is_due(self, *, interval: int) -> bool:
        """Whether a lazy regulariser with this interval takes part in the step."""
        return self.step % interval == 0 if self.regularise is None else self.regularise


class Work:
    """One micro-batch of one phase: its inputs, its random streams, and the values it hands back.

    Micro-batches of a phase run in parallel, so they change no shared state. The trainer and the model read
    the fields below `Results` afterwards, in the order of the micro-batches.
    """

    def __init__(
        self,
        inputs: StepInputs,
        index: int,
        gen: torch.Generator,
        host_gen: torch.Generator,
        *,
        turn: int,
    ) -> None:
        self.inputs, self.index = inputs, index  # `index` of this micro-batch in its process
        self.gen = gen  # on the device
        self.host_gen = host_gen  # on the CPU, for what the host must know: reading a GPU would wait for it
        self.turn = turn  # how often the phase was due before this step
        # Results
        self.reports: list[tuple[str, Tensor]] = []  # (name in stats.jsonl, values)
        self.w_means: list[Tensor] = []  # [w_dim] each: mean w of the latents drawn, for w_avg
        self.pl_mean: Tensor | None = None  # new average of path lengths
        self.real_signs: Tensor | None = None  # [N, 1], signs of D's scores of real images
        self.rec_loss: Tensor | None = None  # weighted reconstruction loss of an encoder turn

    @property
    def size(self) -> int:
        """Images of the micro-batch."""
        return self.inputs.share.size

    @property
    def real(self) -> Tensor:
        """Real images of the micro-batch: [size, C, H, W], float32 in [-1, 1]."""
        return self.inputs.real[self.index * self.size :][: self.size]

    @property
    def c(self) -> Tensor | None:
        """What the model knows of these images: [size, c_dim], or None."""
        c = self.inputs.c
        return None if c is None else c[self.index * self.size :][: self.size]

    def take_results(self, other: "Work") -> None:
        """The results of another micro-batch, as this one's."""
        self.reports, self.w_means = other.reports, other.w_means
        self.pl_mean, self.real_signs, self.rec_loss = other.pl_mean, other.real_signs, other.rec_loss

    def report(self, name: str, values: Tensor) -> None:
        """Values for stats.jsonl, under a name such as Loss/G. Nothing is decided by them."""
        self.reports.append((name, values.detach()))


LossOf = Callable[[Work], Tensor]  # the loss of one micro-batch, a mean over its samples


@dataclasses.dataclass(frozen=True)
class Phase:
    """One loss of a step and the optimiser whose weights learn from it; due every `interval` steps."""

    name: str
    optimiser: torch.optim.Optimizer
    loss_of: LossOf
    interval: int = 1

    @property
    def params(self) -> list[nn.Parameter]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]


def gradients(loss: Tensor, params: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    """d loss / d params, None for parameters that the loss does not depend on; `.grad` is left alone.

    In the memory layout of the parameters: the fused Adam of a CPU reads both in storage order, unchecked.
    """
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    return tuple(
        g if g is None or g.stride() == p.stride() else torch.empty_like(p).copy_(g)
        for p, g in zip(params, grads, strict=True)
    )


def set_gradients(params: list[nn.Parameter], micro_batches: list[tuple[Tensor | None, ...]]) -> None:
    """Put the sum of the micro-batches' gradients, in their order, into `.grad`."""
    first, *others = micro_batches
    for p, g in zip(params, first, strict=True):
        p.grad = g
    for grads in others:
        pairs = [(p.grad, g) for p, g in zip(params, grads, strict=True) if None not in (p.grad, g)]
        for p, g in zip(params, grads, strict=True):
            p.grad = g if p.grad is None else p.grad  # micro-batches need not use the same networks
        if pairs:
            torch._foreach_add_([a for a, _ in pairs], [b for _, b in pairs])


class Adam(torch.optim.Adam):
    """Adam over (parameters, learning rate) pairs, corrected for lazy regularisation, following --schedule.

    `interval` is that of the regulariser that shares the optimiser; None without one. `rate` is the setting
    that the learning rates are multiples of.
    """

    def __init__(
        self,
        groups: Iterable[tuple[list[nn.Parameter], float]],
        cfg: TrainConfig,
        *,
        rate: str,
        interval: int | None,
    ) -> None:
        self._cfg, self._rate = cfg, rate
        self._correction = c = 1.0 if interval is None else interval / (interval + 1)
        params = [{"params": parameters, "lr": lr * c} for parameters, lr in groups]
        self._lrs = [group["lr"] for group in params]
        super().__init__(params, betas=(cfg.beta1**c, cfg.beta2**c), eps=1e-8, fused=True)

    def follow_schedule(self, nimg: int) -> None:
        """Set learning rates and beta2 to what they are after `nimg` images."""
        cfg, c = self._cfg, self._correction
        factor = value_at(cfg, self._rate, nimg=nimg) / getattr(cfg, self._rate)
        beta2 = value_at(cfg, "beta2", nimg=nimg)
        for group, lr in zip(self.param_groups, self._lrs, strict=True):
            group["lr"], group["betas"] = lr * factor, (cfg.beta1**c, beta2**c)
