"""The values of --augment: how the images that D sees are changed, and how strongly over training."""

from typing import Any

import torch
from torch import Tensor

from fact_train.augment.adaptive import AdaptiveP
from fact_train.augment.diffaugment import DiffAugment
from fact_train.augment.pipe import AugmentPipe
from fact_train.settings.config import TrainConfig
from fact_train.settings.schedules import value_at


class Augmentation:
    """No augmentation, and the interface of the others."""

    def __init__(self, cfg: TrainConfig, device: torch.device) -> None:
        pass

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The images [N, C, H, W] that D sees; every sample draws its own transformation."""
        return images

    def follow_schedule(self, nimg: int) -> None:
        """Called before a step, after `nimg` images."""

    def observe(self, signs: Tensor) -> None:
        """The signs of D's scores of the real images of one micro-batch."""

    def update(self, steps: int) -> dict[str, Tensor]:
        """Update after a step; `steps` is their number so far. Returns values to report."""
        return {}

    def share(self) -> None:
        """Called in all processes before one of them saves the state."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class FixedAugmentation(Augmentation):
    """The pipe with a p that is constant, or follows --schedule."""

    def __init__(self, cfg: TrainConfig, device: torch.device) -> None:
        self.cfg, self.device = cfg, device
        self.pipe = AugmentPipe(cfg.augment_set, fixed_shapes=device.type != "cpu")
        self.follow_schedule(nimg=0)

    def follow_schedule(self, nimg: int) -> None:
        p = value_at(self.cfg, "augment_p", nimg=nimg)
        self.p = torch.tensor(p, dtype=torch.float64, device=self.device)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.pipe(images, self.p, generator=generator)


class AdaptiveAugmentation(Augmentation):
    """The pipe with a p that follows how far D overfits."""

    def __init__(self, cfg: TrainConfig, device: torch.device) -> None:
        self.pipe = AugmentPipe(cfg.augment_set, fixed_shapes=device.type != "cpu")
        self.controller = AdaptiveP(
            cfg.augment_p,
            target=cfg.ada_target,
            interval=cfg.ada_interval,
            kimg=cfg.ada_kimg,
            batch=cfg.batch,
            ceiling=cfg.ada_ceiling,
            device=device,
        )
        self.observe = self.controller.observe
        self.share = self.controller.share
        self.state_dict = self.controller.state_dict
        self.load_state_dict = self.controller.load_state_dict

    @property
    def p(self) -> Tensor:
        return self.controller.p

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.pipe(images, self.p, generator=generator)

    def update(self, steps: int) -> dict[str, Tensor]:
        used, r_t = self.p, self.controller.update(steps)
        return {"Augment/p": used} | ({} if r_t is None else {"Augment/r_t": r_t})


class DiffAugmentation(Augmentation):
    """DiffAugment's policy on every image."""

    def __init__(self, cfg: TrainConfig, device: torch.device) -> None:
        self.transform = DiffAugment(cfg.diffaugment_policy)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.transform(images, generator=generator)


AUGMENTATIONS: dict[str, type[Augmentation]] = {
    "none": Augmentation,
    "ada": AdaptiveAugmentation,
    "fixed": FixedAugmentation,
    "diffaugment": DiffAugmentation,
}


def build_augmentation(cfg: TrainConfig, device: torch.device) -> Augmentation:
    """The augmentation of a configuration, at its start."""
    return AUGMENTATIONS[cfg.augment](cfg, device)
