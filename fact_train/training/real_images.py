"""Real images of a step, as the networks see them."""

import torch
from torch import Tensor

from fact_metrics.base.pixels import to_signed
from fact_train.data import Dataset, balanced_indices, batch_indices
from fact_train.seeds import generator_for
from fact_train.settings.config import TrainConfig
from fact_train.training.step import Share


def real_images(
    cfg: TrainConfig,
    dataset: Dataset,
    share: Share,
    device: torch.device,
    *,
    step: int,
    pools: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """This process' real images of a step, [N, C, H, W] float32 in [-1, 1] on the device, and their indices.

    `pools` are the images of each class, which then come equally often.
    A pure function of the step: a resumed run sees what the uninterrupted run would have seen.
    """
    place = dict(seed=cfg.seed, position=step * cfg.batch + share.start, count=share.count)
    index = balanced_indices(pools, **place) if pools else batch_indices(size=len(dataset), **place)
    images = to_signed(to_device(dataset.images(index), device))
    if cfg.mirror:
        gen = generator_for("cpu", "mirror", cfg.seed, step, share.start)
        flip = torch.rand(share.count, generator=gen) < 0.5
        images = torch.where(to_device(flip, device)[:, None, None, None], images.flip(3), images)
    return images, index


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device, from pinned memory: the host does not wait for a GPU to copy it."""
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)
