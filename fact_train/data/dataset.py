"""The one Dataset class: processed uint8 images, labels, and a content hash over both."""

import dataclasses
import hashlib
import json
import math
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from fact_metrics.base.errors import UserError
from fact_train.data.index import DatasetIndex
from fact_train.data.parallel import for_each_image
from fact_train.data.processing import Processing

SPLITS = ("train", "test")
IN_MEMORY_BYTES = 4 * 2**30  # above it, pixels lie in a temporary file that the system pages in


class Dataset:
    """Images and labels of one split, ready for indexing; made by `open_dataset`.

    `name`, `split`; `resolution`; `num_channels` (1 or 3); `num_classes` (0: unlabelled; for vector labels
    their length); `processing`: every option, completed from the files.
    """

    def __init__(
        self,
        *,
        name: str,
        split: str,
        images: np.ndarray,
        labels: np.ndarray | None,
        num_classes: int,
        processing: Processing,
        index: DatasetIndex | None = None,
        decode: Callable[[list[int]], None] | None = None,
        remarks: Mapping[str, object] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Takes uint8 images [N, C, R, R]; labels int64 [N], float32 [N, num_classes] or None.

        `decode(positions)` fills in images that are still empty, each before its first use; None: no image
        is empty. `remarks` are entries of the description beyond the usual ones. `notes` are lines for the
        user: what was left out, and what was done to odd files.
        """
        self.name = os.fsencode(name).decode(errors="replace")  # other encodings cannot be written as JSON
        self.split = split
        self.num_classes = num_classes
        self.processing = processing
        self._images = torch.from_numpy(images)
        self._labels = None if labels is None else torch.from_numpy(labels)
        self._index = index or DatasetIndex()
        self.notes, self._remarks = tuple(notes), dict(remarks or {})
        self._decode, self._decode_lock = decode, threading.Lock()
        self._is_decoded = np.full(len(images), decode is None)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def num_channels(self) -> int:
        return self._images.shape[1]

    @property
    def resolution(self) -> int:
        return self._images.shape[2]

    def images(self, indices: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """Images at the indices: uint8 [N, C, R, R], a copy. IndexError outside [0, len(self))."""
        indices = torch.as_tensor(indices, dtype=torch.int64)
        self._decode_missing(indices.numpy())
        return self._images.index_select(0, indices)

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
        self._decode_missing(np.arange(len(self)))
        labels = None if self._labels is None else self._labels.numpy()
        header = {
            "format": 1,
            "images": list(self._images.shape),
            "labels": None if labels is None else [str(labels.dtype), *labels.shape],
            "num_classes": self.num_classes,
            **dataclasses.asdict(self.processing),
        }
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        digest.update(self._images.numpy())
        if labels is not None:
            digest.update(labels)
        return digest.hexdigest()

    def _count_repeats(self) -> int:
        self._decode_missing(np.arange(len(self)))
        images = self._images.numpy()
        hashes = for_each_image(lambda index: hashlib.sha256(images[index]).digest(), len(self))
        return len(hashes) - len(set(hashes))

    def _decode_missing(self, indices: np.ndarray) -> None:
        """Decode those of these images that are still empty."""
        with self._decode_lock:
            if missing := np.unique(indices[~self._is_decoded[indices]]).tolist():
                self._decode(missing)
                self._is_decoded[missing] = True

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


def allocate_images(shape: tuple[int, int, int, int]) -> np.ndarray:
    """Zeroed uint8 array: in memory, or beyond IN_MEMORY_BYTES in a nameless file that ends with the process.

    Raises UserError where the temporary folder has no room for it.
    """
    size = math.prod(shape)
    if size <= IN_MEMORY_BYTES:
        return np.zeros(shape, np.uint8)
    with tempfile.TemporaryFile(prefix="fact-train-") as file:
        try:
            os.posix_fallocate(
                file.fileno(), 0, size
            )  # now: a disk that fills under a mapping kills the process
        except OSError as error:
            raise UserError(
                f"{tempfile.gettempdir()}: no room for {size / 2**30:.1f} GiB of pixels ({error.strerror}); "
                "set TMPDIR to a folder on a larger disk, or lower --resolution or --max-images"
            ) from error
        return np.memmap(file, np.uint8, "r+", shape=shape)
