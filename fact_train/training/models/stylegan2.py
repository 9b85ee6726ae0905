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
        self.pools = self.class_pools() if cfg.balance else None
        self.gan = GAN(cfg, dataset, device, latents=self._latents)
        self.notes = self.gan.notes

    def condition(self, images: Tensor, index: Tensor) -> Tensor | None:
        """The labels of real images, [N, c_dim]."""
        return self._labels(index) if self.cfg.cond else None

    def classes(self) -> Tensor | None:
        """The labels, where they are class indices."""
        labels = self.dataset.labels(range(len(self.dataset)))
        return labels if labels is not None and labels.dtype == torch.int64 else None

    def phases(self, inputs: StepInputs) -> Iterator[tuple[Phase, ...]]:
        return self.gan.phases(inputs)

    def grid(self) -> SampleGrid:
        return SampleGrid(self.gan.G_ema, self.dataset, seed=self.cfg.seed, device=self.device)

    def _latents(self, work: Work, n: int) -> tuple[Tensor, Tensor | None]:
        z = self.gan.draw_z(n, work)
        c = None
        if self.cfg.cond:
            c = self._labels(self._draw_images(n, work.host_gen))
        return self.gan.map_latents(z, c, work), c

    def _draw_images(self, n: int, gen: torch.Generator) -> Tensor:
        """Indices [n] of training images whose labels G is given; of all classes alike with --balance."""
        if self.pools is None:
            return torch.randint(len(self.dataset), [n], generator=gen)
        examples = torch.stack([pool[0] for pool in self.pools])
        return examples[torch.randint(len(examples), [n], generator=gen)]

    def _labels(self, index: Tensor) -> Tensor:
        """One-hot labels or label vectors at the indices: float32 [N, c_dim]."""
        labels = self.dataset.labels(index)
        if labels.dtype == torch.int64:
            labels = nn.functional.one_hot(labels, self.dataset.num_classes).float()
        return to_device(labels, self.device)
