"""What a metric computes from: `MetricInputs` of metrics/inputs.py, for one source and evaluation seed."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch

from fact_eval.features.chunks import FeatureRequest, Features
from fact_eval.images.open import OpenedImages
from fact_eval.jobs.history import read_history
from fact_eval.scoring.reals import RealSide, RealStatistics
from fact_metrics.base.processes import Processes
from fact_metrics.engines.frechet import FeatureStatistics
from fact_metrics.inputs import EncoderInputs, TrainingHistory
from fact_metrics.spec import FeatureNeed

T = TypeVar("T")
TITLES = {"generated": "images", "reconstructed": "reconstructions"}


class Inputs:
    """Features by side (`generated`, `reconstructed`), the real side, and the images behind them."""

    def __init__(
        self,
        images: OpenedImages,
        features: Mapping[str, Features],
        reals: RealSide | RealStatistics,
        *,
        seed: int,
        device: str,
        run: tuple[Path, float | None] | None = None,
        processes: Processes | None = None,
    ):
        """`run`: folder and kimg of the scored snapshot, for metrics of the training."""
        self.seed, self.device = seed, torch.device(device)
        self.processes = processes or Processes()
        self.generator = images.generator
        self._images, self._features, self._reals, self._run = images, features, reals, run

    @property
    def encoder(self) -> EncoderInputs | None:
        """Of a StylEx run. Raises MissingSplit if the dataset has no held-out images to encode."""
        return self._images.encoder

    @property
    def training(self) -> TrainingHistory:
        """How the run was trained up to the snapshot. Raises UserError if its files cannot be read."""
        folder, kimg = self._run
        return read_history(folder, kimg=kimg, seed=self.seed)

    def features(self, need: FeatureNeed) -> torch.Tensor:
        """[N, D] float32 on the CPU, in index order. UserError if there are too few images."""
        if need.side == "real":
            return self._reals.features(need, self._images.real)
        source = self.encoder.source if need.side == "reconstructed" else self._images.source
        return self._features[need.side].get(need.detector, available_count(need.count, source.size))

    def cached_real(self, need: FeatureNeed, name: str, function: Callable[[torch.Tensor], T]) -> T:
        """function(features of a need's reals, on `device`); cached with the features."""
        key = (need.detector, need.split, need.count, name)
        return self._reals.cached(key, lambda: function(self.features(need).to(self.device)))

    def statistics(self, need: FeatureNeed, *, correction: int) -> FeatureStatistics | None:
        """Statistics of a need's reals if the reference is a file of them; None if it has images."""
        return self._reals.statistics(need.detector, correction=correction)


def request_features(
    needs: Iterable[FeatureNeed], images: OpenedImages, *, title: str
) -> dict[str, FeatureRequest]:
    """What to extract of the scored sources, by side."""
    counts: dict[str, dict[str, int]] = {side: {} for side in images.scored}
    for need in needs:
        if need.side in counts:
            count = available_count(need.count, images.scored[need.side].size)
            counts[need.side][need.detector] = max(count, counts[need.side].get(need.detector, 0))
    return {
        side: FeatureRequest(source, counts[side], f"{title}, {TITLES[side]}")
        for side, source in images.scored.items()
    }


def available_count(count: int | None, size: int | None) -> int:
    """How many images a need gets: `count` (None: all), but at most `size` (None: unlimited)."""
    if size is None:
        if count is None:
            raise ValueError("a metric needs all images of an unlimited source")
        return count
    return size if count is None else min(count, size)
