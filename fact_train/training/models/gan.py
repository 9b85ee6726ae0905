"""Generator and discriminator in training: networks, optimisers, augmentation, losses.

The order of phases is StyleGAN2-ADA's: generator, path length (every pl_interval steps), discriminator, R1
and R2 (every r1_interval steps), each with its own optimiser step. R1 and R2 share one, or join D's. With
simultaneous updates, generator and discriminator start from one state, and the regularisers follow.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fact_metrics.base.errors import UsageError
from fact_train import distributed
from fact_train.augment import build_augmentation
from fact_train.data import Dataset
from fact_train.networks.build import build_networks
from fact_train.networks.mapping import W_AVG_DECAY
from fact_train.seeds import generator_for
from fact_train.settings.auto import auto_batch
from fact_train.settings.config import TrainConfig
from fact_train.settings.schedules import schedules_of, value_at
from fact_train.training import losses
from fact_train.training.precision import feature_maps, precision_notes
from fact_train.training.step import Adam, LossOf, Phase, StepInputs, Work

# (work, n) -> ws [n, num_ws * K, w_dim] and what the model knows of these latents, [n, c_dim] or None
Latents = Callable[[Work, int], tuple[Tensor, Tensor | None]]
Condition = Callable[[Tensor | None], Tensor | None]


class GAN:
    """G, D, G_ema, their optimisers, and their losses, each of one micro-batch and a mean over its samples.

    `latents` gives the ws that G draws; `d_condition` turns what the model knows of images (labels, logits)
    into what D is told. G's optimiser also trains the networks of `trained_with_G`, (network, learning rate).
    `class_dim` is the number of classes of the classifier that StylEx explains.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        dataset: Dataset,
        device: torch.device,
        *,
        latents: Latents,
        d_condition: Condition = lambda c: c,
        class_dim: int = 0,
        trained_with_G: Iterable[tuple[nn.Module, float]] = (),
    ) -> None:
        self.cfg, self.device = cfg, device
        self._latents, self._d_condition = latents, d_condition
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for("cpu", "weights", cfg.seed).initial_seed())
            G, D = build_networks(cfg, dataset.describe(), class_dim=class_dim)
        self.G, self.D = G.to(device).train(), D.to(device).train()
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        # what G's optimiser trains, with the learning rates
        g_trained = self.G if cfg.train_mapping else self.G.synthesis
        nets = [(g_trained, cfg.g_lr), *trained_with_G]
        self.g_groups = [(list(net.parameters()), rate) for net, rate in nets]
        self.penalties = [
            loss for weight, loss in ((cfg.r1_gamma, "r1_loss"), (cfg.r2_gamma, "r2_loss")) if weight
        ]
        lazy = cfg.r1_interval if self.penalties and cfg.r1_phase == "own" else None
        self.G_opt = Adam(
            self.g_groups, cfg, rate="g_lr", interval=cfg.pl_interval if cfg.pl_weight else None
        )
        self.D_opt = Adam(
            [(_trained_of_D(self.D, cfg), cfg.d_lr * cfg.ttur_mult)], cfg, rate="d_lr", interval=lazy
        )
        self.loss = losses.LOSSES[cfg.loss]
        batch = cfg.r1_auto_batch or auto_batch(dataset.resolution)
        self.r1_gamma = losses.resolve_r1_gamma(cfg.r1_gamma, resolution=dataset.resolution, batch=batch)
        self.notes = (
            *losses.r1_notes(cfg.r1_gamma, self.r1_gamma, resolution=dataset.resolution, batch=batch),
            *precision_notes(cfg, device),
        )
        # Weights of the penalties by their names. They stay in place and are set before every step, so that
        # a CUDA graph reads the present ones.
        self.penalty_weights = {f"{name}_gamma": torch.zeros([], device=device) for name in ("r1", "r2")}
        self._set_penalty_weights(0)
        self.pl_mean = torch.zeros([], device=device)
        self.augment = build_augmentation(cfg, device)
        self.feature_maps = feature_maps(cfg, device, resolution=dataset.resolution)

    @property
    def lazy_intervals(self) -> list[int]:
        """Intervals of the lazy regularisers that are on."""
        cfg = self.cfg
        lazy = ((cfg.pl_interval, cfg.pl_weight), (cfg.r1_interval, self.penalties))
        return [interval for interval, on in lazy if on]

    # Phases

    def phases(
        self, inputs: StepInputs, *, generator_loss: LossOf | None = None
    ) -> Iterator[tuple[Phase, ...]]:
        """The phases of a step; those of one tuple start from the same weights.

        `generator_loss` takes the place of this class's own, where a model adds to it.
        """
        cfg = self.cfg
        g_main = Phase("G", self.G_opt, generator_loss or self.generator_loss)
        penalised = self.penalties and inputs.is_due(interval=cfg.r1_interval)
        joined = penalised and cfg.r1_phase == "d"
        d_main = Phase("D", self.D_opt, self.discriminator_loss)
        if joined:
            d_main = Phase("D with R1", self.D_opt, self.penalised_discriminator_loss)
        path_length, r1 = [], []
        if cfg.pl_weight and inputs.is_due(interval=cfg.pl_interval):
            path_length = [(Phase("PL", self.G_opt, self.path_length_loss, interval=cfg.pl_interval),)]
        if penalised and not joined:
            r1 = [(Phase("R1", self.D_opt, self.penalty_loss, interval=cfg.r1_interval),)]
        if cfg.updates == "simultaneous":
            yield from [(g_main, d_main), *path_length, *r1]
        else:
            yield from [(g_main,), *path_length, (d_main,), *r1]

    def generator_loss(self, work: Work) -> Tensor:
        """G against D, on images of new latents."""
        ws, c = self._latents(work, work.size)
        return self.adversarial_loss(self.generate(ws, work), c, work)

    def adversarial_loss(self, images: Tensor, c: Tensor | None, work: Work) -> Tensor:
        """What G loses by the scores of generated images [N, C, H, W], one for each real one."""
        scores, real = self.discriminate(images, c, work), None
        work.report("Scores/generated", scores)
        if self.loss.pairs:
            with torch.no_grad():
                real = self.discriminate(work.real, work.c, work)
        share = value_at(self.cfg, "top_k", nimg=work.inputs.nimg)
        if share < 1:
            best = losses.best_scores(scores, share=share)
            scores, real = scores[best], None if real is None else real[best]
        loss = self.loss.generator(scores, real)
        work.report("Loss/G", loss)
        return loss.mean()

    def path_length_loss(self, work: Work) -> Tensor:
        """Path-length penalty of G on a part of the micro-batch."""
        cfg = self.cfg
        ws, _ = self._latents(work, max(work.size // cfg.pl_batch_shrink, 1))
        if not ws.requires_grad:  # a mapping that does not learn
            ws.requires_grad_(True)
        images = self.generate(ws, work)
        rows = {"layer": cfg.style_vectors, "all": ws.shape[1]}[cfg.pl_rows]
        lengths = losses.path_lengths(images, ws, generator=work.gen) * rows**cfg.pl_power
        penalty, work.pl_mean = losses.path_length_penalty(lengths, self.pl_mean, decay=cfg.pl_decay)
        work.report("Loss/path_length_penalty", penalty)
        work.report("Path_length", lengths)
        return penalty.mean() * (cfg.pl_weight * cfg.pl_interval)

    def discriminator_loss(self, work: Work) -> Tensor:
        """D on generated and real images."""
        with torch.no_grad():
            ws, c = self._latents(work, work.size)
            generated = self.generate(ws, work)
        images = torch.cat([generated, work.real])  # one pass over both: half as many operations to start
        c = None if c is None else torch.cat([c, work.c])
        scores_generated, scores_real = self.discriminate(images, c, work, parts=2).chunk(2)
        loss = self.loss.discriminator(scores_real, scores_generated)
        work.real_signs = scores_real.detach().sign()
        work.report("Loss/D", loss)
        work.report("Scores/real", scores_real)
        work.report("Signs/real", work.real_signs)
        return loss.mean() * self.cfg.d_loss_scale

    def penalised_discriminator_loss(self, work: Work) -> Tensor:
        """The loss of D and the penalties on its gradient."""
        return self.discriminator_loss(work) + self.penalty_loss(work)

    def penalty_loss(self, work: Work) -> Tensor:
        """All penalties on the gradient of D: R1, R2 or both."""
        first, *others = (getattr(self, name)(work) for name in self.penalties)
        return sum(others, start=first)

    def r1_loss(self, work: Work) -> Tensor:
        """Penalty of D on real images."""
        penalty = self._gradient_penalty(work.real, work.c, work, centre=self.cfg.gp)
        work.report("Loss/r1_penalty", penalty)
        return penalty.mean() * self.penalty_weights["r1_gamma"]

    def r2_loss(self, work: Work) -> Tensor:
        """Zero-centred penalty of D on generated images."""
        with torch.no_grad():
            ws, c = self._latents(work, work.size)
            generated = self.generate(ws, work)
        penalty = self._gradient_penalty(generated, c, work, centre="zero")
        work.report("Loss/r2_penalty", penalty)
        return penalty.mean() * self.penalty_weights["r2_gamma"]

    def _gradient_penalty(self, images: Tensor, c: Tensor | None, work: Work, *, centre: str) -> Tensor:
        x = images.detach().requires_grad_(True)
        return losses.GRADIENT_PENALTIES[centre](self.discriminate(x, c, work), x)

    # Networks

    def draw_z(self, n: int, work: Work) -> Tensor:
        """Fresh latents z [n, *z_shape]."""
        return torch.randn(n, *self.G.z_shape, generator=work.gen, device=self.device)

    def map_latents(self, z: Tensor, c: Tensor | None, work: Work) -> Tensor:
        """ws [N, num_ws * K, w_dim] of latents and labels or class parts, with style mixing."""
        ws = self.G.mapping(z, c)
        work.w_means.append(self.G.mapping.mean_w(ws))
        return losses.style_mixing(
            self.G.mapping,
            ws,
            c,
            prob=self.cfg.style_mixing_prob,
            generator=work.gen,
            host_generator=work.host_gen,
        )

    def generate(self, ws: Tensor, work: Work) -> Tensor:
        """Images [N, C, H, W] of ws."""
        return self.G.synthesis(ws, generator=work.gen, **self.feature_maps)

    def discriminate(self, images: Tensor, c: Tensor | None, work: Work, *, parts: int = 1) -> Tensor:
        """Scores [N, 1] of images, `parts` batches of them: the one place where D sees any, augmented.

        `c` is what the model knows of the images, before `d_condition`.
        """
        images = self.augment(images, work.gen)
        return self.D(images, self._d_condition(c), parts=parts, **self.feature_maps)

    # State

    def follow_schedules(self, nimg: int) -> dict[str, Tensor]:
        """Put settings that optimisers, augmentation and penalties keep where they are after `nimg` images.

        Other losses ask for theirs. Returns all that change, to report.
        """
        self.G_opt.follow_schedule(nimg)
        self.D_opt.follow_schedule(nimg)
        self.augment.follow_schedule(nimg)
        self._set_penalty_weights(nimg)
        values = {name: self._value_at(name, nimg) for name in schedules_of(self.cfg)}
        return {f"Schedule/{name}": torch.tensor(value, device=self.device) for name, value in values.items()}

    def _value_at(self, name: str, nimg: int) -> float:
        return value_at(self.cfg, name, nimg=nimg, start=self.r1_gamma if name == "r1_gamma" else None)

    def _set_penalty_weights(self, nimg: int) -> None:
        for name, weight in self.penalty_weights.items():
            weight.fill_(self._value_at(name, nimg) / 2 * self.cfg.r1_interval)

    def end_phase(self, works: Sequence[Work]) -> dict[str, Tensor]:
        """Move w_avg, the average of path lengths and the counts of the augmentation."""
        for work in works:
            if work.real_signs is not None:
                self.augment.observe(work.real_signs)
            for mean in work.w_means:
                self.G.mapping.w_avg.lerp_(mean, W_AVG_DECAY)
        pl_means = [work.pl_mean for work in works if work.pl_mean is not None]
        if pl_means:
            self.pl_mean.copy_(distributed.average_(torch.stack(pl_means).mean()))
        return {}

    @torch.no_grad()
    def end_step(self, steps: int) -> dict[str, Tensor]:
        """Average w_avg over processes, copy it to G_ema, move the augmentation's p; returns its values."""
        distributed.average_(self.G.mapping.w_avg)
        self.G_ema.mapping.w_avg.copy_(self.G.mapping.w_avg)  # the other buffers, noise maps, never change
        return self.augment.update(steps)

    def state_dict(self) -> dict[str, Any]:
        return {
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "G_ema": self.G_ema.state_dict(),
            "G_opt": self.G_opt.state_dict(),
            "D_opt": self.D_opt.state_dict(),
            "pl_mean": self.pl_mean,
            "augment": self.augment.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.G.load_state_dict(state["G"])
        self.D.load_state_dict(state["D"])
        self.G_ema.load_state_dict(state["G_ema"])
        self.G_opt.load_state_dict(state["G_opt"])
        self.D_opt.load_state_dict(state["D_opt"])
        self.pl_mean.copy_(state["pl_mean"])
        self.augment.load_state_dict(state.get("augment", {}))  # states of the first version have none


def _trained_of_D(D: nn.Module, cfg: TrainConfig) -> list[nn.Parameter]:
    try:
        return D.parameters_after(cfg.freeze_d)
    except ValueError as error:
        raise UsageError(f"--freeze-d {cfg.freeze_d}: {error}; freeze fewer.") from error
