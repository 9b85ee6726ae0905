"""Opens datasets for scoring: files that the dataset index knows are decoded on demand."""

import os

from fact_metrics.base.progress import Progress
from fact_train.data import Dataset, open_dataset


def open_images(
    data: str | os.PathLike, *, split: str = "train", progress: Progress | None = None, **options
) -> Dataset:
    """One split, with progress of its decoding. Takes the options and raises the errors of `open_dataset`."""
    with (progress or Progress(quiet=True)).decoding(f"{data} {split}") as decoding:
        return open_dataset(data, split=split, lazy=True, progress=decoding, **options)
