"""One training step of StyleGAN2: networks, optimisers, the four phases, the moving average, and their whole
state.

The order is StyleGAN2-ADA's: generator, path length (every pl_interval steps), discriminator, R1 (every
r1_interval steps), each with its own gradient step; a lazy regulariser is multiplied by its interval, and
Adam's rate and betas are corrected by c = R / (R + 1) (Karras et al. 2020, appendix B).
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fact_train import distributed, losses
from fact_train.config import TrainConfig
from fact_train.data import Dataset, batch_indices
from fact_train.networks.discriminator import Discriminator
from fact_train.networks.generator import Generator
from fact_train.seeds import generator_for
from fact_train.stats import Stats
from metrics.errors import UsageError


def build_networks(cfg: TrainConfig, dataset: dict[str, Any]) -> tuple[Generator, Discriminator]:
    """G and D of a configuration for a dataset description (resolution, channels, classes), randomly
    initialised.
    """
    shape = dict(
        c_dim=dataset["classes"] if cfg.cond else 0,
        img_resolution=dataset["resolution"],
        img_channels=dataset["channels"],
    )
    G = Generator(
        **shape,
        z_dim=cfg.z_dim,
        w_dim=cfg.w_dim,
        map_depth=cfg.map_depth,
        mapping_lr_mult=cfg.mapping_lr_mult,
        channel_base=cfg.channel_base,
        channel_max=cfg.channel_max,
        architecture=cfg.g_arch,
        injection=cfg.injection,
        noise=cfg.noise,
        conv_clamp=cfg.conv_clamp,
        fused_modconv=cfg.fused_modconv,
    )
    D = Discriminator(
        **shape,
        channel_base=round(cfg.channel_base * cfg.d_channel_mult),
        channel_max=round(cfg.channel_max * cfg.d_channel_mult),
        architecture=cfg.d_arch,
        mbstd_group_size=cfg.mbstd_group_size,
        conv_clamp=cfg.conv_clamp,
    )
    return G, D


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


class Trainer:
    """Holds everything that training changes; `step()` advances it, `state_dict()` is all of it."""

    def __init__(self, cfg: TrainConfig, dataset: Dataset, device: torch.device) -> None:
        self.cfg, self.dataset, self.device = cfg, dataset, device
        self.share = share_of_batch(cfg, rank=distributed.rank(), world_size=distributed.world_size())
        if cfg.cond and not dataset.num_classes:
            raise UsageError(f"--cond: dataset {dataset.name} has no class labels.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for("cpu", "weights", cfg.seed).initial_seed())
            G, D = build_networks(cfg, dataset.describe())
        self.G, self.D = G.to(device).train(), D.to(device).train()
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.G_opt = _adam(self.G, cfg.g_lr, cfg, interval=cfg.pl_interval if cfg.pl_weight else None)
        self.D_opt = _adam(self.D, cfg.d_lr, cfg, interval=cfg.r1_interval if cfg.r1_gamma else None)
        self.pl_mean = torch.zeros([], device=device)
        self.stats = Stats()
        self.steps = 0

    @property
    def nimg(self) -> int:
        """Real images shown so far, over all processes."""
        return self.steps * self.cfg.batch

    def step(self, *, regularise: bool | None = None) -> None:
        """One step of all phases; `regularise` forces (or forbids) the lazy ones, for probing and timing."""
        cfg, t = self.cfg, self.steps
        reg_g = cfg.pl_weight > 0 and (t % cfg.pl_interval == 0 if regularise is None else regularise)
        reg_d = cfg.r1_gamma > 0 and (t % cfg.r1_interval == 0 if regularise is None else regularise)
        real, real_c = self._real_batch(t)
        self._phase("G", self.G, self.G_opt, self._generator_main)
        if reg_g:
            self._phase("PL", self.G, self.G_opt, self._path_length)
        self._phase("D", self.D, self.D_opt, lambda s, g: self._discriminator_main(s, g, real, real_c))
        if reg_d:
            self._phase("R1", self.D, self.D_opt, lambda s, g: self._r1(s, real, real_c))
        self._average()
        self.steps += 1

    # Phases: each returns the loss of one micro-batch, a mean over its samples.

    def _generator_main(self, part: slice, gen: torch.Generator) -> Tensor:
        ws, c = self._sample_ws(part, gen)
        scores = self.D(self.G.synthesis(ws, generator=gen), c)
        loss = losses.generator_loss(scores)
        self._report("Loss/G", loss)
        self._report("Scores/generated", scores)
        return loss.mean()

    def _path_length(self, part: slice, gen: torch.Generator) -> Tensor:
        cfg = self.cfg
        count = max((part.stop - part.start) // cfg.pl_batch_shrink, 1)
        ws, _ = self._sample_ws(slice(part.start, part.start + count), gen)
        lengths = losses.path_lengths(self.G.synthesis(ws, generator=gen), ws, generator=gen)
        penalty, mean = losses.path_length_penalty(lengths, self.pl_mean, decay=cfg.pl_decay)
        self.pl_mean = distributed.average_(mean)
        self._report("Loss/path_length_penalty", penalty)
        self._report("Path_length", lengths)
        return penalty.mean() * (cfg.pl_weight * cfg.pl_interval)

    def _discriminator_main(
        self, part: slice, gen: torch.Generator, real: Tensor, real_c: Tensor | None
    ) -> Tensor:
        with torch.no_grad():
            ws, c = self._sample_ws(part, gen)
            generated = self.G.synthesis(ws, generator=gen)
        mine = slice(part.start - self.share.start, part.stop - self.share.start)
        scores_generated = self.D(generated, c)
        scores_real = self.D(real[mine], None if real_c is None else real_c[mine])
        loss = losses.discriminator_loss(scores_real, scores_generated)
        self._report("Loss/D", loss)
        self._report("Scores/real", scores_real)
        self._report("Signs/real", scores_real.sign())
        return loss.mean()

    def _r1(self, part: slice, real: Tensor, real_c: Tensor | None) -> Tensor:
        mine = slice(part.start - self.share.start, part.stop - self.share.start)
        x = real[mine].detach().requires_grad_(True)
        penalty = losses.r1_penalty(self.D(x, None if real_c is None else real_c[mine]), x)
        self._report("Loss/r1_penalty", penalty)
        return penalty.mean() * (self.cfg.r1_gamma / 2 * self.cfg.r1_interval)

    def _phase(
        self,
        name: str,
        net: nn.Module,
        opt: torch.optim.Optimizer,
        loss_of: Callable[[slice, torch.Generator], Tensor],
    ) -> None:
        """Accumulate the loss over micro-batches, average over processes, take one optimiser step."""
        self.G.requires_grad_(net is self.G)
        self.D.requires_grad_(net is self.D)
        opt.zero_grad(set_to_none=True)
        for part in self.share.slices():
            gen = generator_for(self.device, "phase", self.cfg.seed, self.steps, name, part.start)
            (loss_of(part, gen) / self.share.rounds).backward()
        distributed.average_gradients(net.parameters())
        opt.step()

    # Samples

    def _sample_ws(self, part: slice, gen: torch.Generator) -> tuple[Tensor, Tensor | None]:
        n = part.stop - part.start
        z = torch.randn(n, self.cfg.z_dim, generator=gen, device=self.device)
        c = None
        if self.cfg.cond:
            index = torch.randint(len(self.dataset), [n], generator=gen, device=self.device)
            c = self._one_hot(index.cpu())
        ws = self.G.mapping(z, c, update_w_avg=True)
        return losses.style_mixing(self.G.mapping, ws, c, prob=self.cfg.style_mixing_prob, generator=gen), c

    def _real_batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """This process' real images of a step, float32 in [-1, 1], and their labels."""
        cfg, share = self.cfg, self.share
        count = share.size * share.rounds
        index = batch_indices(
            size=len(self.dataset), seed=cfg.seed, position=step * cfg.batch + share.start, count=count
        )
        x = self.dataset.images(index).to(self.device, non_blocking=True).float() / 127.5 - 1
        if cfg.mirror:
            gen = generator_for("cpu", "mirror", cfg.seed, step, share.start)
            flip = torch.rand(count, generator=gen) < 0.5
            x = torch.where(flip.to(self.device)[:, None, None, None], x.flip(3), x)
        return x, self._one_hot(index) if cfg.cond else None

    def _one_hot(self, index: Tensor) -> Tensor:
        labels = self.dataset.labels(index)
        if labels.dtype == torch.int64:
            labels = nn.functional.one_hot(labels, self.dataset.num_classes).float()
        return labels.to(self.device)

    # Averages and state

    @torch.no_grad()
    def _average(self) -> None:
        """G_ema follows G with half-life ema_kimg, ramped up.

        Buffers are copied (w_avg follows every process).
        """
        cfg = self.cfg
        half_life = cfg.ema_kimg * 1000
        if cfg.ema_rampup is not None:
            half_life = min(half_life, self.nimg * cfg.ema_rampup)
        decay = 0.5 ** (cfg.batch / max(half_life, 1e-8))
        update = get_ema_multi_avg_fn(decay)
        update(list(self.G_ema.parameters()), list(self.G.parameters()), None)
        distributed.average_(self.G.mapping.w_avg)
        for ours, theirs in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            ours.copy_(theirs)

    def weights_finite(self) -> bool:
        """Whether every weight of G and D is finite; a checkpoint is only worth saving if so."""
        totals = [p.detach().sum() for net in (self.G, self.D) for p in net.parameters()]
        return bool(torch.stack(totals).isfinite().all())

    def _report(self, name: str, values: Tensor) -> None:
        self.stats.report(name, values, step=self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, averages, counters and unfinished statistics; tensors are not copied."""
        return {
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "G_ema": self.G_ema.state_dict(),
            "G_opt": self.G_opt.state_dict(),
            "D_opt": self.D_opt.state_dict(),
            "pl_mean": self.pl_mean,
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
        self.steps = state["steps"]
        self.stats.load_state_dict(state["stats"], device=self.device)


def _adam(net: nn.Module, lr: float, cfg: TrainConfig, *, interval: int | None) -> torch.optim.Adam:
    """Adam with the lazy-regularisation correction; `interval` None means no regulariser shares it."""
    c = 1.0 if interval is None else interval / (interval + 1)
    return torch.optim.Adam(
        net.parameters(), lr=lr * c, betas=(cfg.beta1**c, cfg.beta2**c), eps=1e-8, fused=True
    )
