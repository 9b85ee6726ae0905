"""Opens datasets for scoring: image files that are known are decoded when they are asked for."""

import os

from fact_metrics.base.progress import Progress
from fact_train.data import Dataset, open_dataset


def open_images(
    data: str | os.PathLike, *, split: str = "train", progress: Progress | None = None, **options
) -> Dataset:
    """One split; says how far decoding is. Options and errors are those of `open_dataset`."""
    with (progress or Progress(quiet=True)).decoding(f"{data} {split}") as decoding:
        return open_dataset(data, split=split, lazy=True, progress=decoding, **options)
