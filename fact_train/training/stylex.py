"""StylEx: a GAN that explains a classifier C. w = [E(x) or mapping(z), class part of C(x)].

Lang et al. 2021, arXiv:2104.13369, with every factor that reproductions disagree about as a field of the
configuration (panel StylEx). In encoder turns G draws G([E(x), C(x)]) and is held to x: reconstruction in
pixels, in w and in a perceptual distance, and KL between what C says of both. In mapping turns w is
[mapping(z), C(x)] with the class parts of the same batch. D meets the images of both, or (`branches`) of one;
reconstruction may have a step of its own after D's (`rec_in_d_phase`), beside or instead of that in G's.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fact_metrics.base.errors import UsageError, unknown_name
from fact_metrics.features import DETECTORS, get_detector
from fact_train import distributed
from fact_train.classifiers import classifier
from fact_train.data import Dataset, batch_indices
from fact_train.networks.build import build_encoder
from fact_train.networks.classifier import class_part
from fact_train.networks.encoder import encoder_ws, reconstruct
from fact_train.seeds import generator_for
from fact_train.settings.config import TrainConfig
from fact_train.training import losses
from fact_train.training.grids import SampleGrid, grid_indices, pairs_picture, to_uint8
from fact_train.training.step import Phase, Work, adam
from fact_train.training.trainer import Trainer

SPIKE = 2.0  # a reconstruction loss above so many times its running mean is a spike
SPIKE_DECAY = 0.02  # of that mean, per encoder turn
GRID_BATCH = 50
INIT_IMAGES = 256


def new_trainer(cfg: TrainConfig, dataset: Dataset, device: torch.device, *, threads: int = 1) -> Trainer:
    """The trainer of a configuration's model."""
    kind = {"stylegan2": Trainer, "stylex": StylexTrainer}[cfg.model]
    return kind(cfg, dataset, device, threads=threads)


def encoder_turn(cfg: TrainConfig, *, turn: int, part: int, parts: int) -> bool:
    """Whether micro-batch `part` of `parts` in a turn belongs to the encoder; the mapping begins.

    Micro-batches alternate over the whole run, so that a step of one micro-batch reaches both branches.
    """
    if cfg.branches != "both":
        return cfg.branches == "encoder"
    if cfg.alternation == "step":
        return turn % 2 == 1
    if cfg.alternation == "microbatch":
        return (turn * parts + part) % 2 == 1
    draw = torch.rand([], generator=generator_for("cpu", "turn", cfg.seed, turn, part)).item()
    return draw < cfg.encoder_prob


@dataclass(frozen=True)
class Sample:
    """ws [N, num_ws, w_dim + K]; of its first `encoded` rows also E(x), [encoded, w_dim], and the images."""

    ws: Tensor
    logits: Tensor
    encoded: int
    w: Tensor | None
    x: Tensor | None


class StylexTrainer(Trainer):
    """StyleGAN2's trainer with an encoder and a frozen classifier."""

    def __init__(self, cfg: TrainConfig, dataset: Dataset, device: torch.device, *, threads: int = 1) -> None:
        if cfg.classifier is None:
            raise UsageError(
                "--model stylex needs --classifier: one of "
                f"{', '.join(classifier.bundled_names())}, or a file of `fact-train classifier`."
            )
        self.C, self.card = classifier.load_classifier(cfg.classifier, device)
        classifier.check_fits(cfg.classifier, self.card, dataset)
        balance = classifier.class_balance(self.C, dataset, seed=cfg.seed, device=device)
        classifier.check_not_degenerate(cfg.classifier, self.card, balance, dataset)
        self.notes = (classifier.describe(cfg.classifier, self.card, balance),)
        self.class_dim = self.C.num_classes
        self.mixes = cfg.branches == "both" and cfg.alternation == "off"
        self.period = 2 if cfg.branches == "both" and not self.mixes else 1
        self.perceptual = _perceptual_loss(cfg, dataset, device)
        super().__init__(cfg, dataset, device, threads=threads)
        if self.mixes and self.share.size < 2:
            raise UsageError(
                "--alternation off: a micro-batch of one image has no half for the encoder, which would "
                "never be trained; raise --batch or --batch-gpu, or take turns."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for("cpu", "encoder weights", cfg.seed).initial_seed())
            self.E = build_encoder(cfg, dataset.describe()).to(device).train()
        if cfg.encoder_init == "standardised":
            index = batch_indices(size=len(dataset), seed=cfg.seed, position=0, count=INIT_IMAGES)
            self.E.standardise_(self._to_device(dataset.images(index)).float() / 127.5 - 1)
        self.E_ema = copy.deepcopy(self.E).eval().requires_grad_(False)
        learning = [*self._g_groups(), (self.E, cfg.g_lr * cfg.encoder_lr_mult)]
        self.G_opt = adam(learning, cfg, interval=cfg.pl_interval if cfg.pl_weight else None)
        self.rec_opt = adam(learning, cfg, interval=None) if cfg.rec_in_d_phase else None
        self.rec_mean = torch.full([], torch.inf, device=device)
        share_of_turns = cfg.encoder_prob if cfg.alternation == "probability" else 0.5
        self.compensation = 1 / share_of_turns if cfg.compensation and self.period == 2 else 1.0

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {**super().networks, "E": self.E}

    @property
    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        return [*super().averages, (self.E_ema, self.E)]

    @property
    def snapshot_networks(self) -> dict[str, nn.Module]:
        return {**super().snapshot_networks, "E_ema": self.E_ema, "C": self.C}

    # Phases

    def _phases(
        self, real: Tensor, real_c: Tensor | None, *, regularise: bool | None
    ) -> Iterator[tuple[Phase, ...]]:
        self._real, self._logits = real, real_c  # of the step under way: every phase reads them
        self._forced = regularise is not None
        yield from super()._phases(real, real_c, regularise=regularise)
        rounds = range(self.share.rounds)
        always = self.mixes or self.cfg.branches == "mapping"
        if self.rec_opt is not None and (always or any(self._is_encoder_turn("D", i) for i in rounds)):
            yield (Phase("REC", self.rec_opt, self._reconstruction),)

    def _generator_main(self, work: Work) -> Tensor:
        sample = self._sample(work, work.size)
        images = self._generate(sample.ws, work)
        scores = self._discriminate(images, sample.logits, work)
        loss = losses.generator_loss(scores)
        work.report("Loss/G", loss)
        work.report("Scores/generated", scores)
        total = loss.mean()
        if sample.encoded and self.cfg.rec_in_g_phase:
            total = total + self._explanation(sample, images[: sample.encoded], work)
        if self.cfg.kl_branches == "both" and sample.encoded < work.size:
            drawn = slice(sample.encoded, None)
            divergence = losses.class_divergence(sample.logits[drawn], self.C(images[drawn]))
            work.report("Loss/kl_of_mapping", divergence)
            total = total + self.cfg.kl_scale * divergence.mean()
        return total

    def _reconstruction(self, work: Work) -> Tensor:
        """Reconstruction and classes alone, on the whole micro-batch: the step of G and E after D's."""
        x, logits = self._mine(work, self._real), self._mine(work, self._logits)
        sample = self._encode(x, logits)
        return self._explanation(sample, self._generate(sample.ws, work), work)

    def _explanation(self, sample: Sample, images: Tensor, work: Work) -> Tensor:
        """rec_scale (w_lpips lpips + w_w |E(x) - E(x')| + w_l1 |x - x'| + w_l2 (x - x')^2) + kl_scale KL."""
        cfg, x, n = self.cfg, sample.x, sample.encoded
        parts = {}
        if cfg.rec_scale and cfg.w_lpips:
            some = max(n // cfg.lpips_batch_shrink, 1)
            parts["lpips"] = cfg.w_lpips, self.perceptual(x[:some], images[:some])
        if cfg.rec_scale and cfg.w_w:
            parts["w"] = cfg.w_w, losses.mean_absolute(sample.w, self.E(images, dtype=self.dtype))
        if cfg.rec_scale and cfg.w_l1:
            parts["l1"] = cfg.w_l1, losses.mean_absolute(x, images)
        if cfg.rec_scale and cfg.w_l2:
            parts["l2"] = cfg.w_l2, (x - images).square().flatten(1).mean(dim=1)
        twice = cfg.rec_in_g_phase and cfg.branches != "mapping"
        suffix = "_in_d_phase" if work.phase == "REC" and twice else ""
        total = images.new_zeros([])
        for name, (weight, values) in parts.items():
            work.report(f"Loss/rec_{name}{suffix}", values)
            total = total + weight * values.mean()
        if parts:
            work.report(f"Loss/rec{suffix}", total)
        total = cfg.rec_scale * total
        with torch.set_grad_enabled(torch.is_grad_enabled() and cfg.kl_scale > 0):
            logits = self.C(images)
            divergence = losses.class_divergence(sample.logits[:n], logits)
        work.report(f"Loss/kl{suffix}", divergence)
        agrees = logits.argmax(dim=1) == sample.logits[:n].argmax(dim=1)
        work.report(f"Class/agreement{suffix}", agrees.float())
        return self.compensation * (total + cfg.kl_scale * divergence.mean())

    def _take_in(self, works: list[Work]) -> None:
        super()._take_in(works)
        found = [v for work in works for name, v in work.reports if name == "Loss/rec"]
        if found:
            rec = distributed.average_(torch.stack(found).mean())
            self.stats.report("Rec/spikes", (rec > SPIKE * self.rec_mean).float(), step=self.steps)
            self.rec_mean = torch.where(self.rec_mean.isinf(), rec, self.rec_mean.lerp(rec, SPIKE_DECAY))

    # Samples

    def _real_batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Real images and what C says of these very images: logits [N, K]."""
        x, _ = super()._real_batch(step)
        with torch.no_grad():
            return x, torch.cat([self.C(part) for part in x.split(self.share.size)])

    def _discriminate(self, images: Tensor, c: Tensor | None, work: Work, *, parts: int = 1) -> Tensor:
        """`c` are C's logits of the images, or of those they reconstruct; D may see their probabilities."""
        probabilities = None if self.cfg.d_cond == "off" else c.softmax(dim=1)
        return super()._discriminate(images, probabilities, work, parts=parts)

    def _sample_ws(self, work: Work, n: int) -> tuple[Tensor, Tensor]:
        sample = self._sample(work, n)
        return sample.ws, sample.logits

    def _sample(self, work: Work, n: int) -> Sample:
        """w for n of the micro-batch's images: E's, the mapping's, or half and half, by whose turn it is."""
        x, logits = self._mine(work, self._real)[:n], self._mine(work, self._logits)[:n]
        part = (work.part.start - self.share.start) // self.share.size
        if self.mixes:
            encoded = n // 2
        else:
            encoded = n if self._is_encoder_turn(work.phase, part) else 0
        if encoded == 0:
            return Sample(self._mapped(logits, work), logits, 0, None, None)
        sample = self._encode(x[:encoded], logits[:encoded])
        if encoded == n:
            return sample
        ws = torch.cat([sample.ws, self._mapped(logits[encoded:], work)])
        return Sample(ws, logits, encoded, sample.w, sample.x)

    def _encode(self, x: Tensor, logits: Tensor) -> Sample:
        w = self.E(x, dtype=self.dtype)
        ws = encoder_ws(w, class_part(logits, self.cfg.class_repr), num_ws=self.G.num_ws)
        return Sample(ws, logits, len(x), w, x)

    def _mapped(self, logits: Tensor, work: Work) -> Tensor:
        z = torch.randn(len(logits), self.cfg.z_dim, generator=work.gen, device=self.device)
        c = class_part(logits, self.cfg.class_repr)
        ws = self.G.mapping(z, c)
        work.w_means.append(ws[:, 0, : self.cfg.w_dim].detach().mean(dim=0))
        return losses.style_mixing(
            self.G.mapping,
            ws,
            c,
            prob=self.cfg.style_mixing_prob,
            generator=work.gen,
            host_generator=work.host_gen,
        )

    def _is_encoder_turn(self, phase: str, part: int) -> bool:
        """Path length has turns of its own: an even interval would always meet the same branch."""
        if self._forced and self.period == 2:
            return self.steps % 2 == 1  # probing and timing see both kinds, whatever chance would say
        turn = self.steps // self.cfg.pl_interval if phase == "PL" else self.steps
        return encoder_turn(self.cfg, turn=turn, part=part, parts=self.share.rounds)

    # Pictures

    def grid(self) -> SampleGrid:
        index = grid_indices(self.dataset, seed=self.cfg.seed)
        c = class_part(classifier.classify(self.C, self.dataset, index, self.device), self.cfg.class_repr)
        return SampleGrid(self.G_ema, self.dataset, seed=self.cfg.seed, device=self.device, c=c)

    def pictures(self, grid: SampleGrid) -> dict[str, Tensor]:
        """Also the images of reals.png over their reconstructions; nothing of w is truncated."""
        real = self.dataset.images(grid_indices(self.dataset, seed=self.cfg.seed))
        made = [reconstruct(self.G_ema, self.E_ema, part, c) for part, c in _batches(self, real, grid.c)]
        pairs = pairs_picture(real, to_uint8(torch.cat(made)).cpu(), grid.columns)
        return {**super().pictures(grid), "reconstructions": pairs}

    # State

    def state_dict(self) -> dict[str, Any]:
        state = {
            **super().state_dict(),
            "E": self.E.state_dict(),
            "E_ema": self.E_ema.state_dict(),
            "rec_mean": self.rec_mean,
            "classifier": self.card["weights_sha256"],
        }
        return state if self.rec_opt is None else {**state, "rec_opt": self.rec_opt.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["classifier"] != self.card["weights_sha256"]:
            raise UsageError(f"--classifier {self.cfg.classifier}: the saved state explains another one.")
        super().load_state_dict(state)
        self.E.load_state_dict(state["E"])
        self.E_ema.load_state_dict(state["E_ema"])
        self.rec_mean = state["rec_mean"].to(self.device)
        if self.rec_opt is not None:
            self.rec_opt.load_state_dict(state["rec_opt"])


def _batches(trainer: StylexTrainer, images: Tensor, c: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for part, own in zip(images.split(GRID_BATCH), c.split(GRID_BATCH), strict=True):
        yield part.to(trainer.device).float() / 127.5 - 1, own


def _perceptual_loss(cfg: TrainConfig, dataset: Dataset, device: torch.device):
    """The named detector's differentiable distance; None where its weight is 0. Reads the weights now."""
    if not (cfg.rec_scale and cfg.w_lpips):
        return None
    able = [name for name, kind in DETECTORS.items() if hasattr(kind, "differentiable_distance")]
    if cfg.perceptual not in able:
        raise unknown_name("perceptual", cfg.perceptual, able)
    loss = get_detector(cfg.perceptual, device).differentiable_distance
    shape = (1, dataset.num_channels, dataset.resolution, dataset.resolution)
    try:
        loss(torch.zeros(shape, device=device), torch.zeros(shape, device=device))
    except ValueError as error:
        raise UsageError(f"--perceptual {cfg.perceptual}: {error}; set --w-lpips 0.") from error
    return loss
