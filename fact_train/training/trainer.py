"""The trainer: takes the steps of any model of MODELS, and holds the state that a checkpoint saves.

A model says which phases a step has and what each is to learn (models/). The trainer runs a phase: its
micro-batches in parallel, their gradients summed and averaged over processes, one optimiser step.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fact_metrics.base.devices import set_threads
from fact_metrics.base.errors import UsageError
from fact_metrics.base.provenance import device_name
from fact_train import distributed
from fact_train.data import Dataset
from fact_train.seeds import generator_for
from fact_train.settings.checks import SMALLEST_TRAINED
from fact_train.settings.config import TrainConfig
from fact_train.training.averages import move_averages
from fact_train.training.cuda_graphs import PhaseGraphs, held, why_not
from fact_train.training.models import MODELS
from fact_train.training.precision import feature_maps, mend_gradients, set_precision
from fact_train.training.real_images import real_images
from fact_train.training.stats import Stats
from fact_train.training.step import Phase, StepInputs, Work, gradients, set_gradients, share_of_batch
from fact_train.training.thread_pool import MicroBatchPool


class Trainer:
    """`step()` trains the model by one batch; `state_dict()` is everything that training changes.

    On a CPU, `threads` micro-batches are computed at a time, on one thread each, or on an equal share of the
    threads where there are fewer micro-batches than threads. Raises UsageError where a setting does not fit
    the dataset or the number of processes.
    """

    def __init__(self, cfg: TrainConfig, dataset: Dataset, device: torch.device, *, threads: int = 1) -> None:
        self.cfg, self.dataset, self.device = cfg, dataset, device
        if dataset.size.levels[-1] < SMALLEST_TRAINED:
            raise UsageError(
                f"{cfg.data}: images of {dataset.resolution} px; D halves them down to 4 px, so give "
                f"--resolution {SMALLEST_TRAINED} or more."
            )
        set_precision(cfg.precision, device)  # before any network computes
        self.share = share_of_batch(cfg, rank=distributed.rank(), world_size=distributed.world_size())
        self.model = MODELS[cfg.model](cfg, dataset, device, self.share)
        held = feature_maps(cfg, device, resolution=dataset.resolution)
        self.in_fp16 = held["dtype"] == torch.float16
        self.stats = Stats()
        self.steps = 0
        self.threads, self.pool = threads, self._pool(threads)
        problem = why_not(cfg, device) if cfg.cuda_graphs else None
        if problem is not None:
            raise UsageError(f"--cuda-graphs: {problem}; leave it out.")
        self.graphs = PhaseGraphs() if cfg.cuda_graphs else None

    @property
    def nimg(self) -> int:
        """Real images shown so far, over all processes."""
        return self.steps * self.cfg.batch

    @property
    def machine(self) -> dict[str, Any]:
        """What decides the last bits beside the settings: device, CPU threads, number of processes."""
        return {
            "device": device_name(str(self.device)),
            "threads": self.threads if self.device.type == "cpu" else None,
            "world_size": distributed.world_size(),
        }

    def use_threads(self, threads: int) -> None:
        """Compute on so many CPU threads from the next step on."""
        set_threads(threads)
        self.threads, self.pool = threads, self._pool(threads)

    def step(self, *, regularise: bool | None = None) -> None:
        """One step of all phases; `regularise` forces or forbids the lazy ones, for probing and timing."""
        self._report(self.model.follow_schedules(self.nimg).items())
        inputs = self.inputs(regularise=regularise)
        for phases in self.model.phases(inputs):
            self.take(inputs, *phases)
        self.average()
        self._report(self.model.end_step(self.steps + 1).items())
        self.steps += 1

    def inputs(self, *, regularise: bool | None = None) -> StepInputs:
        """The real batch of the next step, and what the model knows of it."""
        images, index = real_images(
            self.cfg, self.dataset, self.share, self.device, step=self.steps, pools=self.model.pools
        )
        inputs = StepInputs(
            step=self.steps,
            nimg=self.nimg,
            share=self.share,
            real=images,
            c=self.model.condition(images, index),
            regularise=regularise,
        )
        return held(self.graphs, inputs)

    def take(self, inputs: StepInputs, *phases: Phase) -> None:
        """Gradients of these phases, all at the present weights, then one optimiser step of each.

        The gradients of a phase are summed over micro-batches and averaged over processes.
        """
        params = {phase.name: phase.params for phase in phases}
        for net in self.model.networks.values():
            net.requires_grad_(False)
        for learning in params.values():
            for p in learning:
                p.requires_grad_(True)
        rounds = self.share.rounds
        jobs = [(phase, self.work(inputs, phase, index)) for phase in phases for index in range(rounds)]

        def gradients_of(job: tuple[Phase, Work]) -> tuple[Tensor | None, ...]:
            phase, work = job
            return gradients(phase.loss_of(work) / rounds, params[phase.name])

        if self.graphs is None:
            grads = self.pool.map(gradients_of, jobs)
        else:
            grads = [self.graphs.gradients(job, self.model.graph_key(job[1]), gradients_of) for job in jobs]
        for i, phase in enumerate(phases):
            own = slice(i * rounds, (i + 1) * rounds)  # this phase's micro-batches
            works = [work for _, work in jobs[own]]
            for work in works:
                self._report(work.reports)
            self._report(self.model.end_phase(works).items())
            set_gradients(params[phase.name], grads[own])
            distributed.average_gradients(params[phase.name])
            if self.in_fp16:
                mend_gradients(params[phase.name])
            phase.optimiser.step()

    def work(self, inputs: StepInputs, phase: Phase, index: int) -> Work:
        """Micro-batch `index` of a phase, with the random streams of its place in the batch."""
        stream = ("phase", self.cfg.seed, inputs.step, phase.name, self.share.start + index * self.share.size)
        gen = generator_for(self.device, *stream)
        host_gen = gen if self.device.type == "cpu" else generator_for("cpu", *stream)
        return Work(inputs, index, gen, host_gen, turn=inputs.step // phase.interval)

    def average(self) -> None:
        """Move the averages towards the networks."""
        move_averages(self.model.averages, self.cfg, nimg=self.nimg)

    def weights_finite(self) -> bool:
        """Whether every trained weight is finite; a checkpoint is only worth saving if so."""
        totals = [p.detach().sum() for net in self.model.networks.values() for p in net.parameters()]
        return bool(torch.stack(totals).isfinite().all())

    def share_state(self) -> None:
        """Average what each process has gathered by itself; all call it before one saves the state."""
        self.model.gan.augment.share()

    def state_dict(self) -> dict[str, Any]:
        """The model's state, counters and unfinished statistics; tensors are not copied."""
        counters = {"steps": self.steps, "processes": distributed.world_size()}
        return {**self.model.state_dict(), **counters, "stats": self.stats.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. UsageError where it belongs to another classifier or number of processes."""
        there, here = state.get("processes", 1), distributed.world_size()
        if there != here:
            raise UsageError(
                f"the run was trained by {there} process(es) and would continue with {here}, which rounds "
                f"differently; use torchrun --nproc_per_node={there}, or another --outdir."
            )
        self.model.load_state_dict(state)
        self.steps = state["steps"]
        self.stats.load_state_dict(state["stats"], device=self.device)

    def _pool(self, threads: int) -> MicroBatchPool:
        micro_batches = self.share.rounds * (2 if self.cfg.updates == "simultaneous" else 1)
        workers = min(threads, micro_batches) if self.device.type == "cpu" else 1
        return MicroBatchPool(workers, threads=threads)

    def _report(self, reports: Iterable[tuple[str, Tensor]]) -> None:
        for name, values in reports:
            self.stats.report(name, values, step=self.steps)
