"""The phases of a step as CUDA graphs: all kernels of a loss and its gradients start with one launch.

A small network is thousands of kernels of a few microseconds, and the host cannot start them that fast. A
phase runs as usual a few times, is captured once, and is replayed from then on. The kernels, their order and
the random numbers are the same, and so are the bits.

Everything that changes between steps must lie at a fixed address: weights (updated in place), the batch
(copied into buffers), weights of penalties (filled before every step), and the random stream (one generator
per graph, seeded before each replay). A graph cannot hold a decision of the host. So a model gives a key of
its decisions, `Model.graph_key`, and there is one graph per key. `why_not` rejects settings whose decisions
are too many.
"""

import dataclasses
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from fact_train.settings.config import TrainConfig
from fact_train.settings.schedules import schedules_of
from fact_train.training.step import Phase, StepInputs, Work

Grads = tuple[Tensor | None, ...]
GradientsOf = Callable[[tuple[Phase, Work]], Grads]

EAGER_CALLS = 2  # before the capture: libraries initialise and choose their kernels


def why_not(cfg: TrainConfig, device: torch.device) -> str | None:
    """The reason why the phases of a configuration cannot be captured; None if they can."""
    if device.type != "cuda":
        return "needs a CUDA device"
    for name, off in (
        ("style_mixing_prob", 0.0),
        ("cond", False),
        ("augment", "none"),
    ):
        if getattr(cfg, name) != off:
            return f"the host decides anew in every step with --{name.replace('_', '-')} {getattr(cfg, name)}"
    if "top_k" in schedules_of(cfg):  # the other schedules change optimisers, averages and tensors in place
        return f"the host decides anew in every step with --schedule {cfg.schedule}"
    return None


@dataclass(frozen=True)
class Captured:
    """A graph, its random stream, and the tensors that every replay fills."""

    graph: torch.cuda.CUDAGraph
    gen: torch.Generator
    work: Work
    grads: Grads


class PhaseGraphs:
    """Gradients of phases: computed as usual at first, by replaying a graph afterwards."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._calls: dict[Hashable, int] = {}
        self._captured: dict[Hashable, Captured] = {}
        self._buffers: dict[str, Tensor] = {}

    def hold(self, name: str, x: Tensor | None) -> Tensor | None:
        """A tensor of every step, copied to its fixed address."""
        if x is None:
            return None
        if name not in self._buffers:
            self._buffers[name] = torch.empty_like(x)
        return self._buffers[name].copy_(x)

    def gradients(self, job: tuple[Phase, Work], key: Hashable, gradients_of: GradientsOf) -> Grads:
        """Gradients of one micro-batch, with `work` filled in, as `gradients_of(job)` gives them.

        They are overwritten when the same phase runs again.
        """
        phase, work = job
        key = (phase.name, work.index, key)
        if key not in self._captured:
            self._calls[key] = self._calls.get(key, 0) + 1
            if self._calls[key] <= EAGER_CALLS:
                return gradients_of(job)
            self._captured[key] = self._capture(phase, work, gradients_of)
        captured = self._captured[key]
        captured.gen.manual_seed(work.gen.initial_seed())
        captured.graph.replay()
        work.take_results(captured.work)
        return captured.grads

    def _capture(self, phase: Phase, work: Work, gradients_of: GradientsOf) -> Captured:
        gen = torch.Generator(device=work.gen.device)
        own = Work(work.inputs, work.index, gen, work.host_gen, turn=work.turn)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(gen)
        with torch.cuda.graph(graph, pool=self._pool):
            grads = gradients_of((phase, own))
        return Captured(graph, gen, own, grads)


def held(graphs: PhaseGraphs | None, inputs: StepInputs) -> StepInputs:
    """The inputs of a step, at fixed addresses if there are graphs."""
    if graphs is None:
        return inputs
    return dataclasses.replace(inputs, real=graphs.hold("real", inputs.real), c=graphs.hold("c", inputs.c))
