"""Losses of a StylEx reconstruction: distances in pixels, in w and perceptual, and between C's answers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fact_metrics.base.errors import UsageError, unknown_name
from fact_metrics.features import DETECTORS, get_detector
from fact_train.data import Dataset
from fact_train.settings.config import TrainConfig
from fact_train.training import losses
from fact_train.training.step import Work


@dataclass(frozen=True)
class Encoded:
    """Images x [N, C, H, W] and the w [N, w_dim] that E gives them, with C's logits of x [N, K]."""

    x: Tensor
    w: Tensor
    logits: Tensor


class Explanation:
    """Distances of images x and their reconstructions x', and how they add up.

    rec_scale (w_lpips lpips + w_w |E(x) - E(x')| + w_l1 |x - x'| + w_l2 (x - x')^2)
    + kl_scale KL(C(x) || C(x'))

    `encode` is E, `classify` is C; a distance of weight 0 is not computed. The perceptual one is computed
    every lpips_interval reconstructions, and counts so many times as much.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        *,
        encode: Callable[[Tensor], Tensor],
        classify: nn.Module,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None,
    ) -> None:
        self.cfg, self.encode, self.classify, self.perceptual = cfg, encode, classify, perceptual

    def distances(self, encoded: Encoded, images: Tensor, *, number: int) -> dict[str, tuple[float, Tensor]]:
        """{name: (weight, one value per image)} of all distances that count in reconstruction `number`."""
        cfg, x = self.cfg, encoded.x
        if not cfg.rec_scale:
            return {}
        parts = {}
        if cfg.w_lpips and number % cfg.lpips_interval == 0:
            pair = [batch[: max(len(x) // cfg.lpips_batch_shrink, 1)] for batch in (x, images)]
            if cfg.lpips_stretch:
                pair = [losses.stretched(batch) for batch in pair]
            parts["lpips"] = cfg.w_lpips * cfg.lpips_interval, self.perceptual(*pair)
        if cfg.w_w:
            parts["w"] = cfg.w_w, losses.mean_absolute(encoded.w, self.encode(images))
        if cfg.w_l1:
            parts["l1"] = cfg.w_l1, losses.mean_absolute(x, images)
        if cfg.w_l2:
            parts["l2"] = cfg.w_l2, (x - images).square().flatten(1).mean(dim=1)
        return parts

    def loss(self, encoded: Encoded, images: Tensor, work: Work, *, number: int, suffix: str = "") -> Tensor:
        """The weighted sum, a mean over images [N, C, H, W]; reports every term under its name + `suffix`.

        Without a suffix the reconstruction part is also `work.rec_loss`, without what is not in every turn.
        """
        cfg = self.cfg
        parts = self.distances(encoded, images, number=number)
        rec, now_and_then = images.new_zeros([]), 0.0
        for name, (weight, values) in parts.items():
            work.report(f"Loss/rec_{name}{suffix}", values)
            term = weight * values.mean()
            rec = rec + term
            if name == "lpips" and cfg.lpips_interval > 1:
                now_and_then = term.detach()
        if parts:
            work.report(f"Loss/rec{suffix}", rec)
            work.rec_loss = None if suffix else rec.detach() - now_and_then
        with torch.set_grad_enabled(torch.is_grad_enabled() and cfg.kl_scale > 0):
            logits = self.classify(images)
            divergence = losses.class_divergence(encoded.logits, logits)
        work.report(f"Loss/kl{suffix}", divergence)
        agrees = logits.argmax(dim=1) == encoded.logits.argmax(dim=1)
        work.report(f"Class/agreement{suffix}", agrees.float())
        return cfg.rec_scale * rec + cfg.kl_scale * divergence.mean()


def perceptual_distance(
    cfg: TrainConfig, dataset: Dataset, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The differentiable distance of the detector --perceptual; None where its weight is 0.

    Reads the detector's weights now. UsageError for a detector without such a distance, or images that are
    too small for it.
    """
    if not (cfg.rec_scale and cfg.w_lpips):
        return None
    able = [name for name, kind in DETECTORS.items() if hasattr(kind, "differentiable_distance")]
    if cfg.perceptual not in able:
        raise unknown_name("perceptual", cfg.perceptual, able)
    distance = get_detector(cfg.perceptual, device).differentiable_distance
    shape = (1, dataset.num_channels, dataset.size.height, dataset.size.width)
    try:
        distance(torch.zeros(shape, device=device), torch.zeros(shape, device=device))
    except ValueError as error:
        raise UsageError(f"--perceptual {cfg.perceptual}: {error}; set --w-lpips 0.") from error
    return distance
