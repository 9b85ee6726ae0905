"""StylEx: a GAN that explains a classifier C. w = [E(x) or mapping(z), class part of C(x)].

Lang et al. 2021, arXiv:2104.13369, with every factor that reproductions disagree about as a field of the
configuration (panel StylEx). In encoder turns G draws G([E(x), C(x)]), which is held to x (explanation.py).
In mapping turns w is [mapping(z), C(x)] with the class parts of the same batch. Who has a turn: turns.py.
Reconstruction may have a phase of its own after D's (`rec_in_d_phase`), beside or instead of that in G's.
"""

import copy
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fact_metrics.base.errors import UsageError
from fact_metrics.base.pixels import to_signed, to_uint8
from fact_train import distributed
from fact_train.classifiers import classifier
from fact_train.data import Dataset, batch_indices
from fact_train.networks.build import build_encoder
from fact_train.networks.classifier import class_part
from fact_train.networks.encoder import Encoder, encoder_ws, reconstruct
from fact_train.seeds import generator_for
from fact_train.settings.config import TrainConfig
from fact_train.training import losses
from fact_train.training.grids import SampleGrid, grid_indices, pairs_picture
from fact_train.training.models.explanation import Encoded, Explanation, perceptual_distance
from fact_train.training.models.gan import GAN
from fact_train.training.models.model import Model
from fact_train.training.models.turns import Turns
from fact_train.training.real_images import to_device
from fact_train.training.step import Adam, Phase, Share, StepInputs, Work

SPIKE = 2.0  # a reconstruction loss above so many times its running mean is a spike
SPIKE_DECAY = 0.02  # of that mean, per encoder turn
GRID_BATCH = 50
INIT_IMAGES = 256


@dataclass(frozen=True)
class Sample:
    """ws [N, num_ws, w_dim + K] and C's logits [N, K] of the images whose class parts they have.

    `encoded` describes the first rows, those of the encoder; None where all are the mapping's.
    """

    ws: Tensor
    logits: Tensor
    encoded: Encoded | None


class StylEx(Model):
    """A GAN with an encoder E and a frozen classifier C."""

    def __init__(self, cfg: TrainConfig, dataset: Dataset, device: torch.device, share: Share) -> None:
        self.cfg, self.dataset, self.device, self.share = cfg, dataset, device, share
        if cfg.latent_space != "w" or cfg.style_vectors > 1:
            field = "latent-space w_plus" if cfg.latent_space != "w" else f"style-vectors {cfg.style_vectors}"
            raise UsageError(f"--{field}: StylEx has one w per image, from E or the mapping; leave it out.")
        self.turns = Turns(cfg)
        self.period = self.turns.period
        if self.turns.mixes and share.size < 2:
            raise UsageError(
                "--alternation off: a micro-batch of one image has no half for the encoder, which would "
                "never be trained; raise --batch or --batch-gpu, or take turns."
            )
        self.C, self.classifier_card, balance = _open_classifier(cfg, dataset, device)
        self.pools = self.class_pools() if cfg.balance else None
        self.E = _new_encoder(cfg, dataset, device)
        self.E_ema = copy.deepcopy(self.E).eval().requires_grad_(False)
        self.gan = GAN(
            cfg,
            dataset,
            device,
            latents=self._latents,
            d_condition=self._d_condition,
            class_dim=self.C.num_classes,
            trained_with_G=[(self.E, cfg.g_lr * cfg.encoder_lr_mult)],
        )
        self.explanation = Explanation(
            cfg,
            encode=self._encode,
            classify=self.C,
            perceptual=perceptual_distance(cfg, dataset, device),
        )
        self.rec_opt = (
            Adam(self.gan.g_groups, cfg, rate="g_lr", interval=None) if cfg.rec_in_d_phase else None
        )
        self.rec_mean = torch.full([], torch.inf, device=device)
        self.notes = (
            classifier.describe(cfg.classifier, self.classifier_card, balance),
            *self.gan.notes,
        )

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {**super().networks, "E": self.E}

    @property
    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        return [*super().averages, (self.E_ema, self.E)]

    @property
    def snapshot_networks(self) -> dict[str, nn.Module]:
        return {**super().snapshot_networks, "E_ema": self.E_ema, "C": self.C}

    @torch.no_grad()
    def condition(self, images: Tensor, index: Tensor) -> Tensor:
        """What C says of these very images: logits [N, K]."""
        return torch.cat([self.C(part) for part in images.split(self.share.size)])

    def classes(self) -> Tensor:
        """What C says of every training image."""
        everything = torch.arange(len(self.dataset))
        return classifier.classify(self.C, self.dataset, everything, self.device).argmax(dim=1)

    # Phases

    def phases(self, inputs: StepInputs) -> Iterator[tuple[Phase, ...]]:
        yield from self.gan.phases(inputs, generator_loss=self.generator_loss)
        if self.rec_opt is not None and self.turns.reconstructs_after_d(inputs):
            yield (Phase("REC", self.rec_opt, self.reconstruction_loss),)

    def graph_key(self, work: Work) -> Hashable:
        """Whose images the micro-batch shows to D, and which of its reconstruction losses it computes."""
        number = self.turns.reconstruction(work.inputs, turn=work.turn)
        parts = None if number is None else number % self.cfg.lpips_interval == 0
        return self.turns.encoded(work, work.size), parts

    def generator_loss(self, work: Work) -> Tensor:
        """G and E against D; encoder turns are also held to their images, mapping turns to their classes."""
        cfg = self.cfg
        sample = self._sample(work, work.size)
        encoded = 0 if sample.encoded is None else len(sample.encoded.x)
        ws = sample.ws
        if encoded and not cfg.encoder_adversarial:
            ws = torch.cat([ws[:encoded].detach(), ws[encoded:]])
        images = self.gan.generate(ws, work)
        total = self.gan.adversarial_loss(images, sample.logits, work)
        number = self.turns.reconstruction(work.inputs, turn=work.turn)
        if encoded and cfg.rec_in_g_phase and number is not None:
            own = images[:encoded]
            if not cfg.encoder_adversarial:
                own = self.gan.generate(sample.ws[:encoded], work)
            total = total + self._explanation_loss(sample.encoded, own, work)
        mapped = slice(encoded, None)
        if cfg.w_latent and encoded < work.size:
            total = total + cfg.w_latent * self._latent_distance(ws[mapped], images[mapped], work)
        if cfg.kl_branches == "both" and encoded < work.size:
            divergence = losses.class_divergence(sample.logits[mapped], self.C(images[mapped]))
            work.report("Loss/kl_of_mapping", divergence)
            total = total + cfg.kl_scale * divergence.mean()
        return total

    def reconstruction_loss(self, work: Work) -> Tensor:
        """Reconstruction and classes alone, on the whole micro-batch: the phase of G and E after D's."""
        ws, encoded = self._encoded_ws(work.real, work.c, work)
        in_both = self.cfg.rec_in_g_phase and self.cfg.branches != "mapping"
        suffix = "_in_d_phase" if in_both else ""
        return self._explanation_loss(encoded, self.gan.generate(ws, work), work, suffix=suffix)

    def _explanation_loss(self, encoded: Encoded, images: Tensor, work: Work, *, suffix: str = "") -> Tensor:
        number = self.turns.reconstruction(work.inputs, turn=work.turn)
        loss = self.explanation.loss(encoded, images, work, number=number, suffix=suffix)
        return (self.turns.compensation * self.cfg.rec_interval) * loss

    def _latent_distance(self, ws: Tensor, images: Tensor, work: Work) -> Tensor:
        """Mean of |w - E(G(w))|. The w to find is no variable; of mixed styles it is the mean."""
        w = ws[:, :, : self.cfg.w_dim].mean(dim=1).detach()
        distance = losses.mean_absolute(w, self._encode(images))
        work.report("Loss/latent", distance)
        return distance.mean()

    def follow_schedules(self, nimg: int) -> dict[str, Tensor]:
        if self.rec_opt is not None:
            self.rec_opt.follow_schedule(nimg)
        return super().follow_schedules(nimg)

    def end_phase(self, works: Sequence[Work]) -> dict[str, Tensor]:
        """Also count spikes of the reconstruction loss against its running mean."""
        reports = super().end_phase(works)
        rec_losses = [work.rec_loss for work in works if work.rec_loss is not None]
        if rec_losses:
            rec = distributed.average_(torch.stack(rec_losses).mean())
            reports["Rec/spikes"] = (rec > SPIKE * self.rec_mean).float()
            self.rec_mean = torch.where(self.rec_mean.isinf(), rec, self.rec_mean.lerp(rec, SPIKE_DECAY))
        return reports

    # Samples

    def _d_condition(self, logits: Tensor) -> Tensor | None:
        """Logits of the images, or of the images they reconstruct; D may see their probabilities."""
        return None if self.cfg.d_cond == "off" else logits.softmax(dim=1)

    def _latents(self, work: Work, n: int) -> tuple[Tensor, Tensor]:
        sample = self._sample(work, n)
        return sample.ws, sample.logits

    def _sample(self, work: Work, n: int) -> Sample:
        """w for the first n images of the micro-batch: E's, the mapping's, or half of each."""
        x, logits = work.real[:n], work.c[:n]
        count = self.turns.encoded(work, n)
        if count == 0:
            return Sample(self._mapped_ws(logits, work), logits, None)
        ws, encoded = self._encoded_ws(x[:count], logits[:count], work)
        if count < n:
            ws = torch.cat([ws, self._mapped_ws(logits[count:], work)])
        return Sample(ws, logits, encoded)

    def _encoded_ws(self, x: Tensor, logits: Tensor, work: Work) -> tuple[Tensor, Encoded]:
        w = self._encode(x)
        given = w if self.cfg.w_noise == 0 else w + self.cfg.w_noise * self._normal(w.shape, work)
        ws = encoder_ws(given, self._class_part(logits, work), num_ws=self.gan.G.num_ws)
        return ws, Encoded(x, w, logits)

    def _mapped_ws(self, logits: Tensor, work: Work) -> Tensor:
        z = self.gan.draw_z(len(logits), work)
        return self.gan.map_latents(z, self._class_part(logits, work), work)

    def _class_part(self, logits: Tensor, work: Work) -> Tensor:
        """The class part of w [N, K] that G is given in training: with noise, or dropped for some images."""
        c = self._undisturbed_class_part(logits)
        if self.cfg.class_noise:
            c = c + self.cfg.class_noise * self._normal(c.shape, work)
        if self.cfg.class_dropout:
            drawn = torch.rand([len(c), 1], generator=work.gen, device=self.device)
            c = c * (drawn >= self.cfg.class_dropout)
        return c

    def _undisturbed_class_part(self, logits: Tensor) -> Tensor:
        return class_part(logits, self.cfg.class_repr, self.cfg.class_scale)

    def _normal(self, shape: torch.Size, work: Work) -> Tensor:
        return torch.randn(shape, generator=work.gen, device=self.device)

    def _encode(self, images: Tensor) -> Tensor:
        return self.E(images, **self.gan.feature_maps)

    # Pictures

    def grid(self) -> SampleGrid:
        """Row by row, the class parts of the images of reals.png."""
        index = grid_indices(self.dataset, seed=self.cfg.seed)
        c = self._undisturbed_class_part(classifier.classify(self.C, self.dataset, index, self.device))
        return SampleGrid(self.gan.G_ema, self.dataset, seed=self.cfg.seed, device=self.device, c=c)

    def pictures(self, grid: SampleGrid) -> dict[str, Tensor]:
        """Also the images of reals.png over their reconstructions; nothing of w is truncated."""
        real = self.dataset.images(grid_indices(self.dataset, seed=self.cfg.seed))
        parts = zip(real.split(GRID_BATCH), grid.c.split(GRID_BATCH), strict=True)
        reconstructions = [
            reconstruct(self.gan.G_ema, self.E_ema, to_signed(x.to(self.device)), c) for x, c in parts
        ]
        pairs = pairs_picture(real, to_uint8(torch.cat(reconstructions)).cpu(), grid.columns)
        return {**super().pictures(grid), "reconstructions": pairs}

    # State

    def state_dict(self) -> dict[str, Any]:
        state = {
            **super().state_dict(),
            "E": self.E.state_dict(),
            "E_ema": self.E_ema.state_dict(),
            "rec_mean": self.rec_mean,
            "classifier": self.classifier_card["weights_sha256"],
        }
        return state if self.rec_opt is None else {**state, "rec_opt": self.rec_opt.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """UsageError where the state belongs to a run that explains another classifier."""
        if state["classifier"] != self.classifier_card["weights_sha256"]:
            raise UsageError(f"--classifier {self.cfg.classifier}: the saved state explains another one.")
        super().load_state_dict(state)
        self.E.load_state_dict(state["E"])
        self.E_ema.load_state_dict(state["E_ema"])
        self.rec_mean = state["rec_mean"].to(self.device)
        if self.rec_opt is not None:
            self.rec_opt.load_state_dict(state["rec_opt"])


def _open_classifier(
    cfg: TrainConfig, dataset: Dataset, device: torch.device
) -> tuple[nn.Module, classifier.Card, list[float]]:
    """C, its card, and the share of each class in what C says of the training images.

    UsageError without --classifier; UserError where C does not fit the dataset or knows one class only.
    """
    if cfg.classifier is None:
        raise UsageError(
            "--model stylex needs --classifier: one of "
            f"{', '.join(classifier.bundled_names())}, or a file of `fact-train classifier`."
        )
    C, card = classifier.load_classifier(cfg.classifier, device)
    classifier.check_fits(cfg.classifier, card, dataset)
    balance = classifier.class_balance(C, dataset, seed=cfg.seed, device=device)
    classifier.check_not_degenerate(cfg.classifier, card, balance, dataset)
    return C, card, balance


def _new_encoder(cfg: TrainConfig, dataset: Dataset, device: torch.device) -> Encoder:
    """E at its start, as --encoder-init says."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for("cpu", "encoder weights", cfg.seed).initial_seed())
        E = build_encoder(cfg, dataset.describe()).to(device).train()
    if cfg.encoder_init == "standardised":
        index = batch_indices(size=len(dataset), seed=cfg.seed, position=0, count=INIT_IMAGES)
        E.standardise_(to_signed(to_device(dataset.images(index), device)))
    return E
