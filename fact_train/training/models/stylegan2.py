"""StyleGAN2 (Karras et al. 2020): G from z and perhaps labels, against D."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fact_metrics.base.errors import UsageError
from fact_train.data import Dataset
from fact_train.settings.config import TrainConfig
from fact_train.training.grids import SampleGrid
from fact_train.training.models.gan import GAN
from fact_train.training.models.model import Model
from fact_train.training.real_images import to_device
from fact_train.training.step import Phase, Share, StepInputs, Work


class StyleGAN2(Model):
    """A GAN whose latents are drawn, with labels drawn from the dataset where it is conditional."""

    def __init__(self, cfg: TrainConfig, dataset: Dataset, device: torch.device, share: Share) -> None:
        if cfg.cond and not dataset.num_classes:
            raise UsageError(f"--cond: dataset {dataset.name} has no class labels.")
        self.cfg, self.dataset, self.device = cfg, dataset, device
        self.gan = GAN(cfg, dataset, device, latents=self._latents)
        self.notes = self.gan.notes

    def condition(self, images: Tensor, index: Tensor) -> Tensor | None:
        """The labels of real images, [N, c_dim]."""
        return self._labels(index) if self.cfg.cond else None

    def phases(self, inputs: StepInputs) -> Iterator[tuple[Phase, ...]]:
        return self.gan.phases(inputs)

    def grid(self) -> SampleGrid:
        return SampleGrid(self.gan.G_ema, self.dataset, seed=self.cfg.seed, device=self.device)

    def _latents(self, work: Work, n: int) -> tuple[Tensor, Tensor | None]:
        z = self.gan.draw_z(n, work)
        c = None
        if self.cfg.cond:
            c = self._labels(torch.randint(len(self.dataset), [n], generator=work.host_gen))
        return self.gan.map_latents(z, c, work), c

    def _labels(self, index: Tensor) -> Tensor:
        """One-hot labels or label vectors at the indices: float32 [N, c_dim]."""
        labels = self.dataset.labels(index)
        if labels.dtype == torch.int64:
            labels = nn.functional.one_hot(labels, self.dataset.num_classes).float()
        return to_device(labels, self.device)
