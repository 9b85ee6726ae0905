"""One training step of StyleGAN2: networks, optimisers, the four phases, the moving average, and their whole
state.

The order is StyleGAN2-ADA's: generator, path length (every pl_interval steps), discriminator, R1 (every
r1_interval steps), each with its own gradient step (simultaneous updates: generator and discriminator from
one state, then the regularisers).
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fact_metrics.base.errors import UsageError
from fact_train import distributed
from fact_train.augment import build_augmentation
from fact_train.data import Dataset, batch_indices
from fact_train.networks.build import build_networks
from fact_train.networks.mapping import W_AVG_DECAY
from fact_train.seeds import generator_for
from fact_train.settings.config import TrainConfig
from fact_train.training import losses
from fact_train.training.grids import SampleGrid
from fact_train.training.precision import set_precision
from fact_train.training.stats import Stats
from fact_train.training.step import Phase, Work, adam, gradients, set_gradients, share_of_batch
from fact_train.training.thread_pool import Crew


class Trainer:
    """Holds everything that training changes; `step()` advances it, `state_dict()` is all of it.

    On a CPU, `threads` micro-batches are computed at a time, on one thread each (or on an equal share of the
    threads where there are fewer micro-batches than threads).
    """

    class_dim = 0  # of the classifier that StylEx explains
    card: dict[str, Any] | None = None  # what it is
    notes: tuple[str, ...] = ()  # what a run should say of itself when it starts
    period = 1  # steps after which every kind of step has been seen

    def __init__(self, cfg: TrainConfig, dataset: Dataset, device: torch.device, *, threads: int = 1) -> None:
        self.cfg, self.dataset, self.device = cfg, dataset, device
        self.share = share_of_batch(cfg, rank=distributed.rank(), world_size=distributed.world_size())
        if cfg.cond and not dataset.num_classes:
            raise UsageError(f"--cond: dataset {dataset.name} has no class labels.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for("cpu", "weights", cfg.seed).initial_seed())
            G, D = build_networks(cfg, dataset.describe(), class_dim=self.class_dim)
        self.G, self.D = G.to(device).train(), D.to(device).train()
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.G_opt = adam(self._g_groups(), cfg, interval=cfg.pl_interval if cfg.pl_weight else None)
        self.D_opt = adam(
            [(self.D, cfg.d_lr * cfg.ttur_mult)], cfg, interval=cfg.r1_interval if cfg.r1_gamma else None
        )
        self.r1_gamma = losses.resolve_r1_gamma(cfg.r1_gamma, resolution=dataset.resolution, batch=cfg.batch)
        self.notes += losses.r1_notes(
            cfg.r1_gamma, self.r1_gamma, resolution=dataset.resolution, batch=cfg.batch
        )
        self.pl_mean = torch.zeros([], device=device)
        self.augment = build_augmentation(cfg, device)
        self.stats = Stats()
        self.steps = 0
        self.dtype = set_precision(cfg.precision, device)
        jobs = self.share.rounds * (2 if cfg.updates == "simultaneous" else 1)
        side_by_side = min(threads, jobs) if device.type == "cpu" else 1
        self.crew = Crew(side_by_side, threads=threads)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Everything that is trained, by the name of its attribute."""
        return {"G": self.G, "D": self.D}

    @property
    def snapshot_networks(self) -> dict[str, nn.Module]:
        """What a snapshot holds, by the names that it gives them."""
        return {"G_ema": self.G_ema, "D": self.D}

    def _g_groups(self) -> list[tuple[nn.Module, float]]:
        """What G's optimiser trains, with the learning rate."""
        return [(self.G if self.cfg.train_mapping else self.G.synthesis, self.cfg.g_lr)]

    @property
    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        """(moving average, network it follows)."""
        return [(self.G_ema, self.G)]

    @property
    def nimg(self) -> int:
        """Real images shown so far, over all processes."""
        return self.steps * self.cfg.batch

    def step(self, *, regularise: bool | None = None) -> None:
        """One step of all phases; `regularise` forces (or forbids) the lazy ones, for probing and timing."""
        for together in self._phases(*self._real_batch(self.steps), regularise=regularise):
            self._take(*together)
        self._average()
        self.steps += 1
        for name, value in self.augment.update(self.steps).items():
            self.stats.report(name, value, step=self.steps - 1)

    def _phases(
        self, real: Tensor, real_c: Tensor | None, *, regularise: bool | None
    ) -> Iterator[tuple[Phase, ...]]:
        """The phases of this step in their order; those of one tuple start from the same weights."""
        cfg, t = self.cfg, self.steps
        g_main = Phase("G", self.G_opt, self._generator_main)
        d_main = Phase("D", self.D_opt, lambda work: self._discriminator_main(work, real, real_c))
        path_length = [(Phase("PL", self.G_opt, self._path_length),)]
        r1 = [(Phase("R1", self.D_opt, lambda work: self._r1(work, real, real_c)),)]
        if not (cfg.pl_weight and (t % cfg.pl_interval == 0 if regularise is None else regularise)):
            path_length = []
        if not (cfg.r1_gamma and (t % cfg.r1_interval == 0 if regularise is None else regularise)):
            r1 = []
        if cfg.updates == "simultaneous":
            yield from [(g_main, d_main), *path_length, *r1]
        else:
            yield from [(g_main,), *path_length, (d_main,), *r1]

    # Phases: each returns the loss of one micro-batch, a mean over its samples.

    def _generator_main(self, work: Work) -> Tensor:
        ws, c = self._sample_ws(work, work.size)
        scores = self._discriminate(self._generate(ws, work), c, work)
        loss = losses.generator_loss(scores)
        work.report("Loss/G", loss)
        work.report("Scores/generated", scores)
        return loss.mean()

    def _path_length(self, work: Work) -> Tensor:
        cfg = self.cfg
        ws, _ = self._sample_ws(work, max(work.size // cfg.pl_batch_shrink, 1))
        if not ws.requires_grad:  # a mapping that does not learn
            ws.requires_grad_(True)
        images = self._generate(ws, work)
        factor = cfg.style_vectors**cfg.pl_power
        lengths = losses.path_lengths(images, ws, generator=work.gen) * factor
        penalty, work.pl_mean = losses.path_length_penalty(lengths, self.pl_mean, decay=cfg.pl_decay)
        work.report("Loss/path_length_penalty", penalty)
        work.report("Path_length", lengths)
        return penalty.mean() * (cfg.pl_weight * cfg.pl_interval)

    def _discriminator_main(self, work: Work, real: Tensor, real_c: Tensor | None) -> Tensor:
        with torch.no_grad():
            ws, c = self._sample_ws(work, work.size)
            generated = self._generate(ws, work)
        real, real_c = self._mine(work, real), self._mine(work, real_c)
        images = torch.cat([generated, real])  # one pass over both: half as many operations to start
        c = None if c is None else torch.cat([c, real_c])
        scores_generated, scores_real = self._discriminate(images, c, work, parts=2).chunk(2)
        loss = losses.discriminator_loss(scores_real, scores_generated)
        work.report("Loss/D", loss)
        work.report("Scores/real", scores_real)
        work.report("Signs/real", scores_real.sign())
        return loss.mean() * self.cfg.d_loss_scale

    def _r1(self, work: Work, real: Tensor, real_c: Tensor | None) -> Tensor:
        x = self._mine(work, real).detach().requires_grad_(True)
        penalty = losses.r1_penalty(self._discriminate(x, self._mine(work, real_c), work), x)
        work.report("Loss/r1_penalty", penalty)
        cfg = self.cfg
        gamma = losses.r1_weight(
            self.r1_gamma, final=cfg.r1_gamma_final, decay_kimg=cfg.r1_decay_kimg, nimg=self.nimg
        )
        return penalty.mean() * (gamma / 2 * cfg.r1_interval)

    def _take(self, *phases: Phase) -> None:
        """Gradients of these phases, all at the present weights, then one optimiser step of each.

        The gradients of a phase are summed over micro-batches and averaged over processes.
        """
        params = {phase.name: phase.params for phase in phases}
        for net in self.networks.values():
            net.requires_grad_(False)
        for learning in params.values():
            for p in learning:
                p.requires_grad_(True)
        rounds = self.share.rounds
        jobs = [(phase, self._work(phase.name, part)) for phase in phases for part in self.share.slices()]
        found = self.crew.map(
            lambda job: gradients(job[0].loss_of(job[1]) / rounds, params[job[0].name]), jobs
        )
        for i, phase in enumerate(phases):
            mine = slice(i * rounds, (i + 1) * rounds)
            self._take_in([work for _, work in jobs[mine]])
            set_gradients(params[phase.name], found[mine])
            distributed.average_gradients(params[phase.name])
            phase.optimiser.step()

    def _work(self, phase: str, part: slice) -> Work:
        stream = ("phase", self.cfg.seed, self.steps, phase, part.start)
        gen = generator_for(self.device, *stream)
        host_gen = gen if self.device.type == "cpu" else generator_for("cpu", *stream)
        return Work(part, gen, host_gen, phase=phase)

    def _take_in(self, works: list[Work]) -> None:
        """What the micro-batches of a phase leave, in their order."""
        for work in works:
            for name, values in work.reports:
                self.stats.report(name, values, step=self.steps)
                if name == "Signs/real":
                    self.augment.observe(values)
            for mean in work.w_means:
                self.G.mapping.w_avg.lerp_(mean, W_AVG_DECAY)
        if works[0].pl_mean is not None:
            self.pl_mean = distributed.average_(torch.stack([work.pl_mean for work in works]).mean())

    # Samples

    def _sample_ws(self, work: Work, n: int) -> tuple[Tensor, Tensor | None]:
        """ws [n, num_ws * K, w_dim] of fresh latents and the labels they were drawn with."""
        z = torch.randn(n, *self.G.z_shape, generator=work.gen, device=self.device)
        c = None
        if self.cfg.cond:
            c = self._one_hot(torch.randint(len(self.dataset), [n], generator=work.host_gen))
        ws = self.G.mapping(z, c)
        work.w_means.append(self.G.mapping.mean_w(ws))
        mixed = losses.style_mixing(
            self.G.mapping,
            ws,
            c,
            prob=self.cfg.style_mixing_prob,
            generator=work.gen,
            host_generator=work.host_gen,
        )
        return mixed, c

    def _generate(self, ws: Tensor, work: Work) -> Tensor:
        return self.G.synthesis(ws, generator=work.gen, dtype=self.dtype)

    def _discriminate(self, images: Tensor, c: Tensor | None, work: Work, *, parts: int = 1) -> Tensor:
        """Scores [N, 1]: the one place where images, `parts` batches of them, are augmented and meet D."""
        images = self.augment(images, work.gen)
        return self.D(images, c, parts=parts, dtype=self.dtype)

    def _mine(self, work: Work, batch: Tensor | None) -> Tensor | None:
        """The micro-batch's rows of this process' batch."""
        return None if batch is None else batch[work.part.start - self.share.start :][: work.size]

    def _real_batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """This process' real images of a step, float32 in [-1, 1], and their labels."""
        cfg, share = self.cfg, self.share
        count = share.size * share.rounds
        index = batch_indices(
            size=len(self.dataset), seed=cfg.seed, position=step * cfg.batch + share.start, count=count
        )
        x = self._to_device(self.dataset.images(index)).float() / 127.5 - 1
        if cfg.mirror:
            gen = generator_for("cpu", "mirror", cfg.seed, step, share.start)
            flip = torch.rand(count, generator=gen) < 0.5
            x = torch.where(self._to_device(flip)[:, None, None, None], x.flip(3), x)
        return x, self._one_hot(index) if cfg.cond else None

    def _one_hot(self, index: Tensor) -> Tensor:
        labels = self.dataset.labels(index)
        if labels.dtype == torch.int64:
            labels = nn.functional.one_hot(labels, self.dataset.num_classes).float()
        return self._to_device(labels)

    def _to_device(self, x: Tensor) -> Tensor:
        """Without waiting for a GPU: only pinned memory is copied while the host goes on."""
        return x if self.device.type == "cpu" else x.pin_memory().to(self.device, non_blocking=True)

    # Pictures

    def grid(self) -> SampleGrid:
        """The latents that every picture of this run is drawn from."""
        return SampleGrid(self.G_ema, self.dataset, seed=self.cfg.seed, device=self.device)

    def pictures(self, grid: SampleGrid) -> dict[str, Tensor]:
        """What the run shows now and then: pictures [C, H, W] uint8 by the names of their files."""
        return {"fakes": grid.draw(self.G_ema)}

    # Averages and state

    @torch.no_grad()
    def _average(self) -> None:
        """G_ema follows G with half-life ema_kimg, ramped up; w_avg, of every process, is copied."""
        cfg = self.cfg
        half_life = cfg.ema_kimg * 1000
        if cfg.ema_rampup is not None:
            half_life = min(half_life, self.nimg * cfg.ema_rampup)
        update = get_ema_multi_avg_fn(0.5 ** (cfg.batch / max(half_life, 1e-8)))
        for average, net in self.averages:
            update(list(average.parameters()), list(net.parameters()), None)
        distributed.average_(self.G.mapping.w_avg)
        self.G_ema.mapping.w_avg.copy_(self.G.mapping.w_avg)  # the other buffers, noise maps, never change

    def weights_finite(self) -> bool:
        """Whether every trained weight is finite; a checkpoint is only worth saving if so."""
        totals = [p.detach().sum() for net in self.networks.values() for p in net.parameters()]
        return bool(torch.stack(totals).isfinite().all())

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, averages, counters and unfinished statistics; tensors are not copied."""
        return {
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "G_ema": self.G_ema.state_dict(),
            "G_opt": self.G_opt.state_dict(),
            "D_opt": self.D_opt.state_dict(),
            "pl_mean": self.pl_mean,
            "augment": self.augment.state_dict(),
            "steps": self.steps,
            "stats": self.stats.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.G.load_state_dict(state["G"])
        self.D.load_state_dict(state["D"])
        self.G_ema.load_state_dict(state["G_ema"])
        self.G_opt.load_state_dict(state["G_opt"])
        self.D_opt.load_state_dict(state["D_opt"])
        self.pl_mean = state["pl_mean"].to(self.device)
        self.augment.load_state_dict(state.get("augment", {}))  # older states have none, and need none
        self.steps = state["steps"]
        self.stats.load_state_dict(state["stats"], device=self.device)
