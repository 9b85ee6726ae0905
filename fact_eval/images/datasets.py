"""Opens datasets for scoring: files that the dataset index knows are decoded on demand."""

import os

from fact_metrics.base.errors import NeedsOption
from fact_metrics.base.progress import Progress
from fact_train.data import Dataset, open_dataset
from fact_train.data.processing import ANY_SHAPE

_said: set[str] = set()  # notes of this process: the data of many runs is described once


def open_images(
    data: str | os.PathLike, *, split: str = "train", progress: Progress | None = None, **options
) -> Dataset:
    """One split, with progress of its decoding, and a line for whatever is left out or odd.

    Takes the options and raises the errors of `open_dataset`.
    """
    progress = progress or Progress(quiet=True)
    with progress.decoding(f"{data} {split}") as decoding:
        dataset = open_dataset(data, split=split, lazy=True, progress=decoding, **options)
    for line in (f"{data}: {note}" for note in dataset.notes):
        if line not in _said:
            _said.add(line)
            progress.remark(line)
    return dataset


def open_reference_images(
    data: str | os.PathLike, *, split: str = "train", progress: Progress | None = None
) -> Dataset:
    """One split as its files are, rectangles included.

    Squares are opened as training opens them, so that both share what the dataset index holds.
    """
    try:
        return open_images(data, split=split, progress=progress)
    except NeedsOption:
        return open_images(data, split=split, progress=progress, resolution=ANY_SHAPE)
