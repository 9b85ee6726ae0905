"""The features of one request, chunk by chunk: which chunks are cached, which are missing, their computation.

Missing chunks are stored as soon as they are complete. Batches start at the first image of a chunk, so a row
has the same bits whichever rank computes it. On a GPU the next batch of images is prefetched.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from fact_eval.features.code_key import features_code
from fact_eval.features.prefetch import prefetch
from fact_eval.features.store import FeatureCache
from fact_eval.images.sources import ImageSource
from fact_metrics.base.errors import UserError
from fact_metrics.features import Detector, get_detector

# A chunk number and the detectors that miss the chunk.
Chunk = tuple[int, list[str]]


class Features:
    """Rows [count, D] per detector, or the error of a detector that failed."""

    def __init__(self):
        self.rows: dict[str, torch.Tensor] = {}
        self.failures: dict[str, Exception] = {}

    def get(self, detector: str, count: int) -> torch.Tensor:
        """The first `count` rows. Raises the detector's error if it failed."""
        if detector in self.failures:
            raise self.failures[detector]
        return self.rows[detector][:count]

    def count(self, detector: str) -> int:
        """How many rows a detector has."""
        return len(self.rows.get(detector, ()))

    def update(self, other: "Features") -> None:
        """Add the rows and failures of another pass; they replace those of the same detector."""
        self.failures |= other.failures
        self.rows |= other.rows


@dataclass(frozen=True)
class FeatureRequest:
    """The first `counts[detector]` images of a source under each detector; `title` for progress."""

    source: ImageSource
    counts: Mapping[str, int]
    title: str


class Extraction:
    """The state of one request: per detector its key, its count, its rows and the chunks that it has."""

    def __init__(
        self,
        request: FeatureRequest,
        *,
        cache: FeatureCache,
        device: str,
        batch: int,
        note: Callable[[str], None],
    ):
        self.title, self.features = request.title, Features()
        self.counts: dict[str, int] = {}
        self.keys: dict[str, dict] = {}
        self._source, self._cache, self._batch, self._note = request.source, cache, batch, note
        self._prefetch_depth = prefetch_depth(device)
        self._detectors: dict[str, Detector] = {}
        self._cached: dict[str, set[int]] = {}
        self._not_stored: set[str] = set()
        for name, count in request.counts.items():
            try:
                detector = get_detector(name, device=device)
                self.keys[name] = feature_key(request.source, detector.describe(), device=device)
            except UserError as error:
                self.features.failures[name] = error
                continue
            self._detectors[name], self.counts[name] = detector, count
            self.features.rows[name] = torch.zeros(count, detector.width)
            self._cached[name] = set()

    def read_cached(self) -> None:
        """Read the chunks that the store has, except those read before."""
        for name, count in self.counts.items():
            width = self._detectors[name].width
            chunks = self._cache.load(self.keys[name], count, skip=self._cached[name], width=width)
            for number, rows in chunks.items():
                start = number * self._cache.chunk
                self.features.rows[name][start : start + len(rows)] = rows
                self._cached[name].add(number)

    def missing_chunks(self) -> list[Chunk]:
        """Chunks that were not read, each with the detectors that miss it, in order."""
        missing: dict[int, list[str]] = {}
        for name, count in self.counts.items():
            for number in set(range(-(-count // self._cache.chunk))) - self._cached[name]:
                missing.setdefault(number, []).append(name)
        return sorted(missing.items())

    def count_images(self, chunks: Sequence[Chunk]) -> int:
        """How many images the chunks have."""
        return sum(len(self._indices(*chunk)) for chunk in chunks)

    def rows_of(self, chunk: Chunk) -> Iterator[torch.Tensor]:
        """The rows of a chunk, of each detector that missed it and has not failed."""
        indices = self._indices(*chunk)
        for name in self._active(chunk[1], indices):
            yield self.features.rows[name][indices.start : min(indices.stop, self.counts[name])]

    def compute(self, chunks: Sequence[Chunk]) -> Iterator[int]:
        """Compute and store the rows of chunks; yields the size of every batch."""
        batches = [(*chunk, indices) for chunk in chunks for indices in self._batches(*chunk)]
        images = prefetch(self._images, batches, depth=self._prefetch_depth)
        with contextlib.closing(images):
            for (number, names, indices), batch in zip(batches, images, strict=True):
                self._detect(names, indices, batch)
                if indices.stop == self._indices(number, names).stop:
                    self._store(number, names)
                yield len(indices)

    def _indices(self, number: int, names: Sequence[str]) -> range:
        """Indices of the images of a chunk that at least one of the detectors needs."""
        start = number * self._cache.chunk
        return range(start, min(start + self._cache.chunk, max(self.counts[name] for name in names)))

    def _batches(self, number: int, names: Sequence[str]) -> list[range]:
        chunk = self._indices(number, names)
        starts = range(chunk.start, chunk.stop, self._batch)
        return [range(start, min(start + self._batch, chunk.stop)) for start in starts]

    def _active(self, names: Sequence[str], indices: range) -> list[str]:
        """The detectors that need these images and have not failed."""
        failed = self.features.failures
        return [name for name in names if name not in failed and indices.start < self.counts[name]]

    def _images(self, batch: tuple[int, list[str], range]) -> torch.Tensor | None:
        _, names, indices = batch
        with torch.inference_mode():  # it holds per thread
            return self._source.images(indices) if self._active(names, indices) else None

    def _detect(self, names: Sequence[str], indices: range, images: torch.Tensor | None) -> None:
        for name in self._active(names, indices):
            stop = min(indices.stop, self.counts[name])
            try:
                rows = self._detectors[name](images[: stop - indices.start])
                self.features.rows[name][indices.start : stop] = rows.cpu()
            except Exception as error:  # raised again for every metric that needs this detector
                self.features.failures[name] = error

    def _store(self, number: int, names: Sequence[str]) -> None:
        active = self._active(names, self._indices(number, names))
        for name, rows in zip(active, self.rows_of((number, names)), strict=True):
            self._store_rows(name, number, rows)

    def _store_rows(self, name: str, number: int, rows: torch.Tensor) -> None:
        try:
            self._cache.store(self.keys[name], number, rows)
        except (UserError, OSError) as error:  # the value is still right; only the next run is slower
            if name not in self._not_stored:
                self._note(f"features of {name} are not cached: {error}")
            self._not_stored.add(name)


def feature_key(source: ImageSource, detector: dict, *, device: str) -> dict:
    """Everything that determines the features of a source under a detector with that fingerprint.

    Devices of one kind differ by rounding; a CPU and a GPU differ by other convolution algorithms too, and a
    rounded difference becomes a whole step where images are quantised to 8 bits.
    """
    key = {"images": source.describe(), "detector": detector, "code": features_code()}
    return {**key, "device": torch.device(device).type}


def prefetch_depth(device: torch.device | str) -> int:
    """How many batches of images to prefetch while the detectors run.

    0 on a CPU: generator and detectors use all threads already, and overlapping them took 15 % longer.
    """
    return 0 if torch.device(device).type == "cpu" else 1
