"""Datasets as uint8 images: bundled MNIST, idx files, image folders and zips, all behind `open_dataset`.

>>> dataset = open_dataset("mnist", split="test")
>>> dataset.images([0, 1]).shape, dataset.labels([0, 1]).tolist()
(torch.Size([2, 1, 32, 32]), [7, 2])
"""

from fact_train.data.dataset import Dataset
from fact_train.data.processing import Processing
from fact_train.data.registry import open_dataset
from fact_train.data.sampler import balanced_indices, batch_indices, class_pools
from fact_train.datasets import dataset_names

__all__ = [
    "Dataset",
    "Processing",
    "balanced_indices",
    "batch_indices",
    "class_pools",
    "dataset_names",
    "open_dataset",
]
