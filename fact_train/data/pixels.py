"""Pixels of a dataset: decoded into one array, or on demand into its place in the array."""

import math
import os
import tempfile
import threading
from collections.abc import Callable

import numpy as np
import torch

from fact_metrics.base.errors import UserError

IN_MEMORY_BYTES = 4 * 2**30  # above it, pixels lie in a temporary file that the system pages in


class DecodedPixels:
    """An array of uint8 images [N, C, H, W]; `decode(positions)` fills in those that are still empty.

    Each is decoded before its first use; `decode` None: no image is empty.
    """

    def __init__(self, images: np.ndarray, decode: Callable[[list[int]], None] | None = None) -> None:
        self.shape = images.shape
        self._images = torch.from_numpy(images)
        self._decode, self._lock = decode, threading.Lock()
        self._is_decoded = np.full(len(images), decode is None)

    def read(self, indices: torch.Tensor) -> torch.Tensor:
        """Images at int64 indices [n]: uint8 [n, C, H, W], a copy. IndexError outside [0, N)."""
        positions = indices.numpy()
        with self._lock:
            if missing := np.unique(positions[~self._is_decoded[positions]]).tolist():
                self._decode(missing)
                self._is_decoded[missing] = True
        return self._images.index_select(0, indices)


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
