"""Features of a source for many detectors in one pass: every image is made once and shown to all of them.

Where the detectors run on a GPU, images are made in a thread of their own while they look at the batch before
(ahead.py).

The unit of work is a chunk of the store: what is there is read, what is missing is dealt to the processes and
stored as it is made. A chunk is cut into batches from its own start, so that its rows have the same bits
whoever makes them.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch

from fact_eval.features.prefetch import made_ahead
from fact_eval.features.processes import Processes, describe
from fact_eval.features.store import FeatureCache, features_code
from fact_eval.images.sources import Source
from fact_metrics.base.errors import UserError
from fact_metrics.base.progress import Progress
from fact_metrics.features import get_detector


class Features:
    """Rows [count, D] per detector, and why a detector has none; made by `extract_features`."""

    def __init__(self):
        self.rows: dict[str, torch.Tensor] = {}
        self.failures: dict[str, Exception] = {}

    def get(self, detector: str, count: int) -> torch.Tensor:
        """The first `count` rows. Raises what kept the detector from making them."""
        if detector in self.failures:
            raise self.failures[detector]
        return self.rows[detector][:count]

    def held(self, detector: str) -> int:
        """How many rows there are of a detector."""
        return len(self.rows.get(detector, ()))

    def update(self, other: "Features") -> None:
        """Take over the rows and failures of another pass."""
        self.failures |= other.failures
        self.rows |= other.rows


def extract_features(
    source: Source,
    wanted: dict[str, int],
    *,
    title: str,
    cache: FeatureCache,
    device: str,
    batch: int,
    progress: Progress,
    processes: Processes | None = None,
) -> Features:
    """`wanted` rows per detector, from the store and one pass over the chunks it lacks.

    Of several processes the first one gets the rows, the others what they made. Memory beside the features
    does not depend on the counts. A detector that fails is left out and its error kept; a source that fails
    raises in all processes.
    """
    processes = processes or Processes()
    work = _Pass(source, wanted, cache=cache, device=device, batch=batch, note=progress.note)
    lead = processes.rank == 0
    if lead:
        work.read()
    with cache.locked(work.keys.values()) if lead and work.missing() else contextlib.nullcontext():
        if lead:
            work.read()  # what another process made while this one waited for the lock
        agreed, missing = processes.first((title, work.missing()))
        if agreed != title:
            raise RuntimeError(f"this process makes {title!r} while the first one makes {agreed!r}")
        if missing:
            if lead and (spared := work.spared(missing)):
                total = max(work.counts.values())
                progress.note(f"{title}: {spared:,} of {total:,} are in the store and not made again")
            _make(work, processes.share(missing), title=title, progress=progress, processes=processes)
        elif lead and work.counts:
            progress.remark(f"{title}: all {max(work.counts.values()):,} are in the store")
    return work.features


def feature_key(source: Source, detector: dict) -> dict:
    """Everything that decides the features of a source under a detector."""
    return {"images": source.describe(), "detector": detector, "code": features_code()}


def _make(work: "_Pass", chunks: Sequence, *, title: str, progress: Progress, processes: Processes) -> None:
    """Make this process' chunks and bring all rows together in the first process."""
    share = f", {processes.size} processes, share of one" if processes.size > 1 else ""

    def make_mine() -> None:
        done, total = 0, sum(len(work.span(number, names)) for number, names in chunks)
        with progress.stage(title + share, total) as stage, torch.inference_mode():
            for made in work.make(chunks):
                done += made
                stage.update(done)

    processes.together(make_mine)
    for failures in processes.gather({name: describe(e) for name, e in work.features.failures.items()}):
        for name, error in failures.items():
            work.features.failures.setdefault(name, UserError(error))
    for name in work.counts:
        if name in work.features.failures:
            work.features.rows.pop(name, None)
        else:
            processes.add_up(work.features.rows[name])


def batches_ahead(device: torch.device | str) -> int:
    """How many batches of images are made while the detectors look at one.

    None on a CPU, where either side has all threads already: both at once took 15 % longer.
    """
    return 0 if torch.device(device).type == "cpu" else 1


class _Pass:
    """What one call needs to know of every detector: its rows so far, its key, how many rows it wants."""

    def __init__(self, source: Source, wanted: dict[str, int], *, cache, device: str, batch: int, note):
        self.features = Features()
        self.counts: dict[str, int] = {}
        self.keys: dict[str, dict] = {}
        self._source, self._cache, self._batch, self._note = source, cache, batch, note
        self._detectors, self._there, self._unstored = {}, {}, set()
        self._ahead = batches_ahead(device)
        for name, count in wanted.items():
            try:
                detector = get_detector(name, device=device)
                self.keys[name] = feature_key(source, detector.describe())
            except UserError as error:
                self.features.failures[name] = error
                continue
            self._detectors[name], self.counts[name] = detector, count
            self.features.rows[name] = torch.zeros(count, detector.width)
            self._there[name] = set()

    def read(self) -> None:
        """Take over what the store holds and this does not."""
        for name, count in self.counts.items():
            for number, rows in self._cache.load(self.keys[name], count, skip=self._there[name]).items():
                start = number * self._cache.chunk
                self.features.rows[name][start : start + len(rows)] = rows
                self._there[name].add(number)

    def missing(self) -> list[tuple[int, list[str]]]:
        """Chunk numbers that are not there, each with the detectors that lack it."""
        lacking: dict[int, list[str]] = {}
        for name, count in self.counts.items():
            for number in set(range(-(-count // self._cache.chunk))) - self._there[name]:
                lacking.setdefault(number, []).append(name)
        return sorted(lacking.items())

    def spared(self, missing: Sequence[tuple[int, list[str]]]) -> int:
        """How many images need not be made, of all that the detectors want."""
        made = sum(len(self.span(number, names)) for number, names in missing)
        return max(self.counts.values()) - made

    def span(self, number: int, names: Sequence[str]) -> range:
        """Indices of the images of a chunk that some of the detectors want."""
        start = number * self._cache.chunk
        return range(start, min(start + self._cache.chunk, max(self.counts[name] for name in names)))

    def make(self, chunks: Sequence[tuple[int, list[str]]]) -> Iterator[int]:
        """Make the rows of chunks and store each; yields how many images every batch had.

        While the detectors look at a batch, the source makes the next one.
        """
        batches = [(number, names, part) for number, names in chunks for part in self._parts(number, names)]
        with contextlib.closing(made_ahead(self._images, batches, ahead=self._ahead)) as made:
            for (number, names, indices), images in zip(batches, made, strict=True):
                self._detect(names, indices, images)
                if indices.stop == self.span(number, names).stop:
                    self._store(number, names)
                yield len(indices)

    def _parts(self, number: int, names: Sequence[str]) -> list[range]:
        span = self.span(number, names)
        starts = range(span.start, span.stop, self._batch)
        return [range(start, min(start + self._batch, span.stop)) for start in starts]

    def _active(self, names: Sequence[str], indices: range) -> list[str]:
        failed = self.features.failures
        return [name for name in names if name not in failed and indices.start < self.counts[name]]

    def _images(self, batch: tuple[int, list[str], range]) -> torch.Tensor | None:
        _, names, indices = batch
        with torch.inference_mode():  # of this thread alone
            return self._source.images(indices) if self._active(names, indices) else None

    def _detect(self, names: Sequence[str], indices: range, images: torch.Tensor | None) -> None:
        for name in self._active(names, indices):
            stop = min(indices.stop, self.counts[name])
            try:
                made = self._detectors[name](images[: stop - indices.start])
                self.features.rows[name][indices.start : stop] = made.cpu()
            except Exception as error:  # kept and raised for every metric that needs this detector
                self.features.failures[name] = error

    def _store(self, number: int, names: Sequence[str]) -> None:
        span = self.span(number, names)
        for name in names:
            if name not in self.features.failures:
                rows = self.features.rows[name][span.start : min(span.stop, self.counts[name])]
                self._store_rows(name, number, rows)

    def _store_rows(self, name: str, number: int, rows: torch.Tensor) -> None:
        try:
            self._cache.store(self.keys[name], number, rows)
        except (UserError, OSError) as error:  # the number is still right; only the next run is slower
            if name not in self._unstored:
                self._note(f"features of {name} are not cached: {error}")
            self._unstored.add(name)
