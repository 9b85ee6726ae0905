"""The real side of jobs with one reference: features of its images and what follows from them, cached.

A file of statistics stands in for images that are not here (features/reference_stats.py).
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

import torch

from fact_eval.features.chunks import FeatureRequest, Features
from fact_eval.features.reference_stats import NEEDS_IMAGES
from fact_eval.images.reals import DescribedImages, RealImages, RealSplit
from fact_eval.jobs.plan import ReferenceData
from fact_metrics.base.errors import UserError
from fact_metrics.base.progress import Progress
from fact_metrics.engines.frechet import FeatureStatistics
from fact_metrics.features import get_detector
from fact_metrics.spec import FeatureNeed

T = TypeVar("T")
# A split by its name; raises the UserError that kept it from being opened.
OpenSplit = Callable[[str], RealSplit]


class RealSide:
    """Real images with their features; shared by all jobs of a reference."""

    def __init__(self, reference: ReferenceData, progress: Progress):
        self.images = RealImages(
            reference.data, train=reference.train, opened=reference.opened, progress=progress
        )
        self._features: dict[str, Features] = defaultdict(Features)
        self._cached: dict[Hashable, object] = {}

    def requests(self, needs: Iterable[FeatureNeed], open_split: OpenSplit) -> dict[str, FeatureRequest]:
        """What to extract for needs of the real side, by split; features of earlier jobs are reused."""
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        for need in needs:
            try:
                count = real_count(open_split(need.split), need.count)
            except UserError:  # raised again for the metric that needs it
                continue
            if self._features[need.split].count(need.detector) < count:
                counts[need.split][need.detector] = max(count, counts[need.split].get(need.detector, 0))
        return {split: _request(open_split(split), counts[split]) for split in counts}

    def add(self, features: Mapping[str, Features]) -> None:
        """Add the features of splits, as `requests` asked for them."""
        for split, added in features.items():
            self._features[split].update(added)

    def features(self, need: FeatureNeed, open_split: OpenSplit) -> torch.Tensor:
        """Features [count, D] of the first images in the order of permutation 0. They must have been added.

        Raises UserError if the split cannot be opened or has too few images.
        """
        return self._features[need.split].get(need.detector, real_count(open_split(need.split), need.count))

    def statistics(self, detector: str, *, correction: int) -> None:
        """None: the statistics follow from the features."""

    def cached(self, key: Hashable, compute: Callable[[], T]) -> T:
        """compute() of the first call with this key: a small value that follows from the features."""
        if key not in self._cached:
            self._cached[key] = compute()
        return self._cached[key]

    def clear(self) -> None:
        """Free the features and all cached values; opened datasets stay."""
        self._features.clear()
        self._cached.clear()


class RealStatistics:
    """A reference without images: statistics of their features, sufficient for Fréchet distances only."""

    def __init__(self, reference: ReferenceData):
        self.images = DescribedImages(reference.train)
        self._reference = reference

    def requests(self, needs: Iterable[FeatureNeed], open_split: OpenSplit) -> dict[str, FeatureRequest]:
        """Empty: there are no images."""
        return {}

    def add(self, features: Mapping[str, Features]) -> None:
        """Nothing to add."""

    def features(self, need: FeatureNeed, open_split: OpenSplit) -> torch.Tensor:
        """Raises UserError: there are no features."""
        raise UserError(f"{self._reference.data} {NEEDS_IMAGES}")

    def statistics(self, detector: str, *, correction: int) -> FeatureStatistics:
        """The statistics of the file. UserError if their features have another width than the detector's."""
        width = get_detector(detector).width
        return self._reference.statistics.statistics(width, correction=correction)

    def cached(self, key: Hashable, compute: Callable[[], T]) -> T:
        """compute(), which raises: it needs features."""
        return compute()

    def clear(self) -> None:
        """Nothing to free."""


def real_count(split: RealSplit, count: int | None) -> int:
    """`count`, or all images for None. UserError if the split has fewer."""
    size = split.source.size
    if count is not None and count > size:
        raise UserError(f"{_title(split)} has {size:,} images; the metric needs {count:,}")
    return size if count is None else count


def _request(split: RealSplit, counts: Mapping[str, int]) -> FeatureRequest:
    return FeatureRequest(split.source, counts, f"{_title(split)}, real images")


def _title(split: RealSplit) -> str:
    return f"{split.description['name']} {split.description['split']}"
