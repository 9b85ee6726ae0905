"""Features of image sources for many detectors: one pass over the images feeds all of them, on all ranks.

The unit of work is a chunk of the store (chunks.py): rank 0 reads the cached chunks, all ranks share the
missing ones.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch

from fact_eval.features.chunks import Chunk, Extraction, FeatureRequest, Features
from fact_eval.features.store import FeatureCache
from fact_metrics.base.errors import UserError
from fact_metrics.base.processes import Processes, describe_error
from fact_metrics.base.progress import Progress
from fact_metrics.base.tf32 import tf32

K = TypeVar("K")


class FeatureExtractor:
    """Extracts features on `device`, in batches of `batch` images, through the store `cache`."""

    def __init__(
        self,
        *,
        device: str = "cpu",
        batch: int = 64,
        cache: FeatureCache | None = None,
        progress: Progress | None = None,
        processes: Processes | None = None,
    ):
        self.device, self.batch = device, batch
        self.progress = progress or Progress(quiet=True)
        self.cache = cache or FeatureCache(report=self.progress.note)
        self.processes = processes or Processes()

    def extract_all(self, requests: Mapping[K, FeatureRequest]) -> dict[K, Features]:
        """The features of several sources, one pass each, in order."""
        return {key: self.extract(request) for key, request in requests.items()}

    def extract(self, request: FeatureRequest) -> Features:
        """The requested rows, from the store and one pass over the missing chunks.

        Rank 0 gets all rows, the other ranks only those they computed. Memory beyond the features does not
        depend on the counts. A detector that fails is left out and its error stored; a source that fails
        raises on all ranks.
        """
        extraction = Extraction(
            request, cache=self.cache, device=self.device, batch=self.batch, note=self.progress.note
        )
        is_rank_zero = self.processes.rank == 0
        if is_rank_zero:
            extraction.read_cached()
        lock = is_rank_zero and extraction.missing_chunks()
        with self.cache.locked(extraction.keys.values()) if lock else contextlib.nullcontext():
            if is_rank_zero:
                extraction.read_cached()  # again: another process may have written chunks before the lock
            title, missing = self.processes.broadcast((request.title, extraction.missing_chunks()))
            if title != request.title:
                raise RuntimeError(f"rank {self.processes.rank} extracts {request.title!r}, rank 0 {title!r}")
            if missing:
                with tf32(False):  # float32 means float32
                    self._compute(extraction, missing)
            elif is_rank_zero and extraction.counts:
                total = max(extraction.counts.values())
                self.progress.remark(f"{title}: all {total:,} cached")
        return extraction.features

    def _compute(self, extraction: Extraction, missing: Sequence[Chunk]) -> None:
        """Compute this rank's share of the missing chunks; collect all rows on rank 0."""
        processes, title = self.processes, extraction.title
        if processes.rank == 0:
            total = max(extraction.counts.values())
            if cached := total - extraction.count_images(missing):
                self.progress.note(f"{title}: {cached:,} of {total:,} cached")
        share = processes.share(missing)
        suffix = f", {processes.size} processes, share of one" if processes.size > 1 else ""

        def compute_share() -> None:
            done = 0
            with (
                self.progress.stage(title + suffix, extraction.count_images(share)) as stage,
                torch.inference_mode(),
            ):
                for batch_size in extraction.compute(share):
                    done += batch_size
                    stage.update(done)

        processes.run_on_all(compute_share)
        features = extraction.features
        failures = {name: describe_error(error) for name, error in features.failures.items()}
        for failures_of_rank in processes.gather(failures):
            for name, error in failures_of_rank.items():
                features.failures.setdefault(name, UserError(error))
        for name in features.failures:
            features.rows.pop(name, None)
        for position, chunk in enumerate(missing):
            for rows in extraction.rows_of(chunk):
                processes.send_to_rank_zero(rows, owner=processes.owner(position))
