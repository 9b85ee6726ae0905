"""Opens datasets for scoring: image files that are known are decoded when they are asked for."""

import os

from fact_eval.progress import Progress
from fact_train.data import Dataset, open_dataset

PATIENCE = 2.0  # seconds: what is opened sooner is not worth a line


def open_images(
    data: str | os.PathLike, *, split: str = "train", progress: Progress | None = None, **options
) -> Dataset:
    """One split; says how far decoding is. Options and errors are those of `open_dataset`."""
    progress = progress or Progress(quiet=True)
    with progress.stage(f"{data} {split}, decoding", 1, patience=PATIENCE) as stage:
        return open_dataset(data, split=split, lazy=True, progress=stage.update, **options)
