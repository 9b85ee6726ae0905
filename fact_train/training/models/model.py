"""What the trainer, the loop and the snapshots ask of a model."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fact_metrics.base.errors import UsageError
from fact_train.data import Dataset, class_pools
from fact_train.settings.config import TrainConfig
from fact_train.training.grids import SampleGrid
from fact_train.training.models.gan import GAN
from fact_train.training.step import Phase, Share, StepInputs, Work


class Model(ABC):
    """Networks, optimisers and averages of a model, the phases of its step, its pictures and its state."""

    gan: GAN
    dataset: Dataset
    pools: list[Tensor] | None = None  # the training images of each class, where --balance draws by class
    notes: tuple[str, ...] = ()  # what a run should say when it starts
    period: int = 1  # steps after which every kind of step has been seen
    classifier_card: dict[str, Any] | None = None  # of the classifier that a StylEx run explains

    @abstractmethod
    def __init__(self, cfg: TrainConfig, dataset: Dataset, device: torch.device, share: Share) -> None:
        """Build everything at its start. UsageError where a setting does not fit the dataset."""

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Every network that is trained, by its name in the state."""
        return {"G": self.gan.G, "D": self.gan.D}

    @property
    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        """(moving average, the network it follows)."""
        return [(self.gan.G_ema, self.gan.G)]

    @property
    def snapshot_networks(self) -> dict[str, nn.Module]:
        """What a snapshot holds, by its names there (fact_train.snapshot.NETWORKS)."""
        return {"G_ema": self.gan.G_ema, "D": self.gan.D}

    @abstractmethod
    def condition(self, images: Tensor, index: Tensor) -> Tensor | None:
        """What the model has to know of real images [N, C, H, W], at `index` in the dataset: [N, c_dim]."""

    @abstractmethod
    def classes(self) -> Tensor | None:
        """The class of every training image, int64 [N], by which --balance draws them; None without any."""

    def class_pools(self) -> list[Tensor]:
        """The training images of each class. UsageError where there are no two classes."""
        classes = self.classes()
        pools = [] if classes is None else class_pools(classes)
        if len(pools) < 2:
            found = "one class" if pools else "no class labels"
            raise UsageError(f"--balance: dataset {self.dataset.name} has {found}; leave it out.")
        return pools

    @abstractmethod
    def phases(self, inputs: StepInputs) -> Iterator[tuple[Phase, ...]]:
        """The phases of a step in their order; phases of one tuple start from the same weights."""

    def follow_schedules(self, nimg: int) -> dict[str, Tensor]:
        """Called before a step, after `nimg` images; returns values to report."""
        return self.gan.follow_schedules(nimg)

    def graph_key(self, work: Work) -> Hashable:
        """What the host decides in a phase of this micro-batch, for CUDA graphs: one graph per key."""
        return None

    def end_phase(self, works: Sequence[Work]) -> dict[str, Tensor]:
        """Use what the micro-batches of a phase hand back, in order; returns values to report."""
        return self.gan.end_phase(works)

    def end_step(self, steps: int) -> dict[str, Tensor]:
        """Called once the averages have moved; `steps` counts this step too. Returns values to report."""
        return self.gan.end_step(steps)

    @abstractmethod
    def grid(self) -> SampleGrid:
        """The latents that every picture of this run is drawn from."""

    def pictures(self, grid: SampleGrid) -> dict[str, Tensor]:
        """What the run shows now and then: pictures [C, H, W] uint8 by the names of their files."""
        return {"fakes": grid.draw(self.gan.G_ema)}

    def state_dict(self) -> dict[str, Any]:
        """Everything of the model that training changes; tensors are not copied."""
        return self.gan.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.gan.load_state_dict(state)
