"""Stacked MNIST: a digit in each channel of an image, so 1,000 classes; the field's test of mode collapse.

Images are composed when they are asked for; only the digits are in memory. 128,000 training images of
training digits, as in PacGAN (Lin et al. 2018, arXiv:1712.04086), and 26,000 test images of test digits, as
many as `modes26k` scores.
"""

import dataclasses

import numpy as np
import torch

from fact_metrics.base.errors import UsageError
from fact_train.data.dataset import Dataset
from fact_train.data.idx import open_mnist
from fact_train.data.parallel import ProgressCallback
from fact_train.data.processing import Processing, Selection

COUNTS = {"train": 128_000, "test": 26_000}
SEEDS = {"train": 0, "test": 1}
CHANNELS = 3
DIGITS = 10


class StackedPixels:
    """Images whose channels are images of a gray dataset: row i of `parts` [N, 3] has their indices."""

    def __init__(self, digits: Dataset, parts: torch.Tensor) -> None:
        self.shape = (len(parts), CHANNELS, digits.size.height, digits.size.width)
        self._digits, self._parts = digits, parts

    def read(self, indices: torch.Tensor) -> torch.Tensor:
        """Images at int64 indices [n]: uint8 [n, 3, H, W]. IndexError outside [0, N)."""
        parts = self._parts.index_select(0, indices)
        return self._digits.images(parts.flatten()).view(len(indices), *self.shape[1:])


def open_stacked_mnist(
    *,
    split: str,
    processing: Processing,
    selection: Selection = Selection(),
    progress: ProgressCallback | None = None,
) -> Dataset:
    """Stacked MNIST; class 100 r + 10 g + b has the digits r, g and b. UsageError for gray images."""
    if processing.channels not in (None, CHANNELS):
        raise UsageError(
            f"--channels {processing.channels}: each channel of stacked-mnist holds a digit; leave it out"
        )
    selection.refuse_without_files("stacked-mnist")
    gray = dataclasses.replace(processing, channels=1, max_images=None)
    digits = open_mnist(split=split, processing=gray, progress=progress)
    chosen = processing.choose(COUNTS[split])
    parts = draw_parts(split, len(digits)).index_select(0, chosen)
    classes = digits.labels(parts.flatten()).view(-1, CHANNELS)
    labels = (classes * torch.tensor([DIGITS**2, DIGITS, 1])).sum(dim=1).numpy()
    labels = None if selection.labels == "none" else labels
    return Dataset(
        name="stacked-mnist",
        split=split,
        images=StackedPixels(digits, parts),
        labels=labels,
        num_classes=0 if labels is None else DIGITS**CHANNELS,
        processing=processing.resolved(
            resolution=digits.resolution, channels=CHANNELS, available=COUNTS[split]
        ),
        remarks=selection.describe(),
    )


def draw_parts(split: str, available: int) -> torch.Tensor:
    """Indices of three digits for each image of a split: int64 [N, 3], drawn uniformly with replacement."""
    # RandomState's stream is frozen (NEP 19); those of Generator and torch may change between versions.
    drawn = np.random.RandomState(SEEDS[split]).randint(available, size=(COUNTS[split], CHANNELS))
    return torch.from_numpy(drawn.astype(np.int64))
