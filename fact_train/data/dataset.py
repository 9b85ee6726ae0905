"""The one Dataset class: processed uint8 images, labels, and a content hash over both."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch

from fact_metrics.base.image_size import ImageSize, Resolution
from fact_train.data.index import DatasetIndex
from fact_train.data.parallel import for_each_image
from fact_train.data.pixels import DecodedPixels
from fact_train.data.processing import Processing

SPLITS = ("train", "test")
HASHED_BYTES = 64 * 2**20  # pixels read at a time for a hash


class Pixels(Protocol):
    """uint8 images [N, C, H, W] that are read by index."""

    shape: tuple[int, int, int, int]

    def read(self, indices: torch.Tensor) -> torch.Tensor:
        """Images at int64 indices [n]: uint8 [n, C, H, W], a copy. IndexError outside [0, N)."""


class Dataset:
    """Images and labels of one split, ready for indexing; made by `open_dataset`.

    `name`, `split`; `size` and its name, `resolution`; `num_channels` (1 or 3); `num_classes` (0: unlabelled;
    for vector labels their length); `processing`: every option, completed from the files.
    """

    def __init__(
        self,
        *,
        name: str,
        split: str,
        images: np.ndarray | Pixels,
        labels: np.ndarray | None,
        num_classes: int,
        processing: Processing,
        index: DatasetIndex | None = None,
        decode: Callable[[list[int]], None] | None = None,
        remarks: Mapping[str, object] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Takes uint8 images [N, C, H, W]; labels int64 [N], float32 [N, num_classes] or None.

        `decode(positions)` fills in images of an array that are still empty, each before its first use;
        None: no image is empty. `remarks` are entries of the description beyond the usual ones. `notes` are
        lines for the user: what was left out, and what was done to odd files.
        """
        self.name = os.fsencode(name).decode(errors="replace")  # other encodings cannot be written as JSON
        self.split = split
        self.num_classes = num_classes
        self.processing = processing
        self._pixels = DecodedPixels(images, decode) if isinstance(images, np.ndarray) else images
        self._labels = None if labels is None else torch.from_numpy(labels)
        self._index = index or DatasetIndex()
        self.notes, self._remarks = tuple(notes), dict(remarks or {})

    def __len__(self) -> int:
        return self._pixels.shape[0]

    @property
    def num_channels(self) -> int:
        return self._pixels.shape[1]

    @property
    def size(self) -> ImageSize:
        return ImageSize(*self._pixels.shape[2:])

    @property
    def resolution(self) -> Resolution:
        """The name of the size: 32, or "64x32" for HEIGHTxWIDTH."""
        return self.size.resolution

    def images(self, indices: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """Images at the indices: uint8 [N, C, H, W], a copy. IndexError outside [0, len(self))."""
        return self._pixels.read(torch.as_tensor(indices, dtype=torch.int64))

    def labels(self, indices: Sequence[int] | torch.Tensor) -> torch.Tensor | None:
        """Class indices int64 [N], or label vectors float32 [N, num_classes]; None: the set is unlabelled."""
        if self._labels is None:
            return None
        return self._labels.index_select(0, torch.as_tensor(indices, dtype=torch.int64))

    @property
    def sha256(self) -> str:
        """Content hash of every pixel, label and processing option; not of paths, formats or dates."""
        return self._index.get("sha256", self._hash)

    @property
    def repeats(self) -> int:
        """How many images repeat the pixels of an earlier one."""
        return self._index.get("repeats", self._count_repeats)

    def _hash(self) -> str:
        labels = None if self._labels is None else self._labels.numpy()
        header = {
            "format": 1,
            "images": list(self._pixels.shape),
            "labels": None if labels is None else [str(labels.dtype), *labels.shape],
            "num_classes": self.num_classes,
            **dataclasses.asdict(self.processing),
        }
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        for block in self._blocks():
            digest.update(block)
        if labels is not None:
            digest.update(labels)
        return digest.hexdigest()

    def _count_repeats(self) -> int:
        found: set[bytes] = set()
        for block in self._blocks():
            found.update(for_each_image(lambda i, block=block: hashlib.sha256(block[i]).digest(), len(block)))
        return len(self) - len(found)

    def _blocks(self) -> Iterator[np.ndarray]:
        """All pixels in order, a few images at a time."""
        count = max(1, HASHED_BYTES // (self.num_channels * self.size.height * self.size.width))
        for block in torch.arange(len(self)).split(count):
            yield self._pixels.read(block).numpy()

    def describe(self) -> dict:
        """Everything about the set that can change a number, as JSON types."""
        options = dataclasses.asdict(self.processing)
        return {
            "name": self.name,
            "split": self.split,
            "n": len(self),
            "sha256": self.sha256,
            "resolution": options.pop("resolution"),
            "channels": options.pop("channels"),
            "classes": self.num_classes,
            "labels": None if self._labels is None else "class" if self._labels.ndim == 1 else "vector",
            **options,
            **self._remarks,
        }
