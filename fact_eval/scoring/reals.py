"""The real side: splits of one dataset, checked to be what the run was trained on, and their features.

Or nothing but statistics of features that somebody else kept in a file (reference_stats.py).
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch

from fact_eval.features.extract import Features
from fact_eval.images.datasets import open_images
from fact_eval.images.sources import PicturesSource
from fact_eval.jobs.catalog import Need
from fact_eval.jobs.plan import Reference
from fact_metrics.base.errors import UserError
from fact_metrics.base.progress import Progress
from fact_metrics.engines.frechet import FeatureStatistics
from fact_metrics.features import get_detector
from fact_train.data import Dataset

T = TypeVar("T")
NEEDS_IMAGES = "holds statistics, and this metric takes features: give the real images as the reference"


class NoSplit(UserError):
    """The dataset has no such split."""


class References:
    """Opened splits and features of one reference; `extract(source, wanted, title=)` makes the features."""

    def __init__(self, reference: Reference, extract: Callable[..., Features], progress: Progress):
        self._reference, self._extract, self._progress = reference, extract, progress
        self._datasets: dict[str, Dataset] = {}
        self._features: dict[str, Features] = {}
        self._kept: dict[Hashable, object] = {}

    def dataset(self, split: str) -> Dataset:
        """One split. NoSplit where there is none; UserError where train is not what the run saw."""
        if split not in self._datasets:
            reference = self._reference
            if split == "train" and reference.opened is not None:
                return self._datasets.setdefault(split, reference.opened)
            try:
                dataset = open_images(
                    reference.data, split=split, progress=self._progress, **reference.options
                )
            except UserError as error:
                raise NoSplit(str(error)) if f"no {split} split" in str(error) else error from None
            whole = reference.train.get("max_images") is None
            if split == "train" and whole and dataset.sha256 != reference.train["sha256"]:
                raise UserError(
                    f"{reference.data} is not the data of the run: sha256 {dataset.sha256[:12]} here, "
                    f"{reference.train['sha256'][:12]} there; give the right one with --data"
                )
            self._datasets[split] = dataset
        return self._datasets[split]

    def prepare(self, needs: Iterable[Need]) -> None:
        """Make the features of all real-side needs: one pass over each split for all its detectors."""
        wanted: dict[str, dict[str, int]] = defaultdict(dict)
        for need in needs:
            try:
                count = self._count(need.split, need.count)
            except UserError:  # raised again by `features`, for the metric that asks
                continue
            held = self._held(need.split, need.detector)
            if held < count:
                wanted[need.split][need.detector] = max(count, wanted[need.split].get(need.detector, 0))
        for split, detectors in wanted.items():
            dataset = self.dataset(split)
            made = self._extract(
                PicturesSource(dataset), detectors, title=f"{dataset.name} {split}, real images"
            )
            self._features.setdefault(split, Features()).update(made)

    def features(self, detector: str, split: str, count: int | None) -> torch.Tensor:
        """Features [N, D] of `count` real images in the order of permutation 0; of all of them for None.

        They must have been prepared: several processes make them, and one of them computes metrics.
        """
        count = self._count(split, count)
        return self._features[split].get(detector, count)

    def statistics(self, detector: str, *, correction: int) -> None:
        """None: there are images, and so features."""

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives the first time: something small that follows from the features."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def forget_features(self) -> None:
        """Give back their memory, and what was kept; they are prepared again where they are needed."""
        self._features.clear()
        self._kept.clear()

    def _count(self, split: str, count: int | None) -> int:
        dataset = self.dataset(split)
        if count is not None and count > len(dataset):
            raise UserError(f"{dataset.name} {split} has {len(dataset):,} images; the metric needs {count:,}")
        return len(dataset) if count is None else count

    def _held(self, split: str, detector: str) -> int:
        return self._features[split].held(detector) if split in self._features else 0


@dataclass(frozen=True)
class Described:
    """What stands for a dataset that is known by a file of statistics alone."""

    description: dict

    def describe(self) -> dict:
        return self.description


class StatisticsOnly:
    """A reference without images: statistics of their features, enough for Fréchet distances alone."""

    def __init__(self, reference: Reference, extract: Callable[..., Features], progress: Progress):
        self._reference = reference

    def dataset(self, split: str) -> Described:
        """What is known of the images."""
        return Described(self._reference.train)

    def prepare(self, needs: Iterable[Need]) -> None:
        """Nothing can be made."""

    def features(self, detector: str, split: str, count: int | None) -> torch.Tensor:
        """Raises UserError: there are none."""
        raise UserError(f"{self._reference.data} {NEEDS_IMAGES}")

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """Never kept: without features there is nothing to make."""
        return make()

    def forget_features(self) -> None:
        """Nothing is kept but the statistics."""

    def statistics(self, detector: str, *, correction: int) -> FeatureStatistics:
        """Those of the file. UserError where they are of features of another width."""
        width = get_detector(detector).width
        return self._reference.statistics.statistics(width, correction=correction)
