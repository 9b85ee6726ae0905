"""`open_dataset`, by a name of fact_train/datasets.py or by path."""

import importlib
import os
from pathlib import Path

import numpy as np

from fact_metrics.base.errors import unknown_name
from fact_metrics.base.image_size import Resolution
from fact_metrics.images import to_uint8
from fact_train.data.dataset import SPLITS, Dataset
from fact_train.data.errors import MissingSplit
from fact_train.data.folder import open_folder
from fact_train.data.hugging_face import open_hugging_face
from fact_train.data.idx import is_idx_folder, open_idx
from fact_train.data.npz import open_arrays, open_npz
from fact_train.data.parallel import ProgressCallback
from fact_train.data.processing import Processing, Selection
from fact_train.datasets import DATASETS, HUGGING_FACE, dataset_names, find_data


def open_dataset(
    data: object,
    *,
    split: str = "train",
    resolution: Resolution | None = None,
    resize: str = "lanczos",
    crop: str = "none",
    channels: int | None = None,
    alpha: str = "refuse",
    max_images: int | None = None,
    seed: int = 0,
    labels: object = "auto",
    image_key: str | None = None,
    need_labels: bool = False,
    name: str = "images",
    progress: ProgressCallback | None = None,
    lazy: bool = False,
) -> Dataset:
    """Open one split ("train" or "test") of a dataset, decode all of it and hold it as uint8.

    data: a registered name ("mnist"), or the path of a folder of idx files, of an image folder, of a zip or
        tar (WebDataset) of one, of an npz or npy of uint8 images, or `hf:PATH[:SPLIT]` of a Hugging Face
        dataset on disk. A name wins over a path: "./mnist" is the path. Or images in memory, as
        `fact_metrics.compute` takes them: a tensor, an array or a list of PIL pictures; `name` names them.
    resolution: side of square images, a power of two from 4 up, or "HEIGHTxWIDTH". None: as they are, and
        they must be square (idx: padded to a power of two). ANY_SHAPE: as they are, rectangles included.
    resize, crop, alpha: a name from processing.RESIZES, CROPS, ALPHAS.
    channels: 1 gray, 3 RGB. None: 1 where all images are gray, else 3.
    max_images: keep a random subset of this size, drawn by `seed`, in its original order. None: all.
    labels: "auto": dataset.json, or the .cls or .json of WebDataset samples; "folders": the top folder of
        each image; "none": unlabelled. Of images in memory the class indices [N] themselves.
    image_key: of samples with several images each, the key of the one to read; of `hf:`, the image column.
    need_labels: refuse data without labels before anything is decoded.
    progress: called with (images done, images in all) while files are decoded.
    lazy: decode image files that were decoded before, and have not changed since, when they are asked for.

    Raises UsageError for an unknown name, path or option, MissingSplit where the data has no such split, and
    UserError, one line naming the file, for data that cannot be used.

    >>> len(open_dataset("mnist"))
    60000
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    processing = Processing(
        resolution=resolution,
        resize=resize,
        crop=crop,
        channels=channels,
        alpha=alpha,
        max_images=max_images,
        seed=seed,
    )
    if not isinstance(data, str | os.PathLike):
        return _open_memory(data, labels, name, split, processing, need_labels)
    selection = Selection(labels=labels, image_key=image_key, need_labels=need_labels)
    options = {"split": split, "processing": processing, "selection": selection, "progress": progress}
    text = os.fspath(data)
    if text in dataset_names():
        module, _, function = DATASETS[text].opener.partition(":")
        return getattr(importlib.import_module(module), function)(**options)
    if text.startswith(HUGGING_FACE):
        return open_hugging_face(text, **options)
    path = find_data(text)
    if path.is_file() and path.suffix.lower() in (".npz", ".npy"):
        return open_npz(path, **options)
    if path.is_dir() and is_idx_folder(path):
        return open_idx(path, **options)
    return open_folder(path, lazy=lazy, **options)


def _open_memory(
    images: object, labels: object, name: str, split: str, processing: Processing, need_labels: bool
) -> Dataset:
    if split != "train":
        raise MissingSplit(Path(name), split, "images in memory are a train split")
    pixels = to_uint8(images).permute(0, 2, 3, 1).cpu().contiguous().numpy()
    classes = None if isinstance(labels, str) else np.asarray(labels)
    return open_arrays(
        pixels, classes, name=name, processing=processing, selection=Selection(need_labels=need_labels)
    )
