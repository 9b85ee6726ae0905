"""Features of a source for many detectors in one pass: every image is made once and shown to all of them."""

import functools
from pathlib import Path

import torch

import fact_train
import metrics.features
from fact_eval.cache import FeatureCache, code_sha256
from fact_eval.progress import Progress
from fact_eval.sources import Source
from metrics.errors import UserError
from metrics.features import get_detector


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
) -> Features:
    """`wanted` rows per detector, from the cache or one pass over the source in index order.

    Memory beside the features does not depend on the counts. A detector that fails is left out and its
    error kept; a source that fails raises.
    """
    features = Features()
    missing = {}
    for name, count in wanted.items():
        try:
            detector = get_detector(name, device=device)
            key = feature_key(source, detector.describe())
        except UserError as error:
            features.failures[name] = error
            continue
        cached = cache.load(key, count)
        if cached is None:
            missing[name] = (detector, key, count)
        else:
            features.rows[name] = cached
    if missing:
        _one_pass(source, missing, features, title=title, batch=batch, progress=progress)
        for name, (_, key, _) in missing.items():
            if name in features.rows:
                try:
                    cache.store(key, features.rows[name])
                except (
                    UserError,
                    OSError,
                ) as error:  # the number is still right; only the next run is slower
                    progress.note(f"features of {name} are not cached: {error}")
    return features


def feature_key(source: Source, detector: dict) -> dict:
    """Everything that decides the features of a source under a detector."""
    return {"images": source.describe(), "detector": detector, "code": _code()}


def _one_pass(
    source: Source, missing: dict, features: Features, *, title: str, batch: int, progress: Progress
) -> None:
    total = max(count for _, _, count in missing.values())
    rows = {name: torch.empty(count, detector.width) for name, (detector, _, count) in missing.items()}
    with progress.stage(title, total) as stage, torch.inference_mode():
        for start in range(0, total, batch):
            stop = min(start + batch, total)
            images = source.images(range(start, stop))
            for name, (detector, _, count) in missing.items():
                if start >= count or name in features.failures:
                    continue
                end = min(stop, count)
                try:
                    rows[name][start:end] = detector(images[: end - start]).cpu()
                except Exception as error:  # kept and raised for every metric that needs this detector
                    features.failures[name] = error
            stage.update(stop)
    features.rows |= {name: row for name, row in rows.items() if name not in features.failures}


@functools.cache
def _code() -> str:
    """Hash of the code that makes images and features, read once per process."""
    trainer, detectors, here = (Path(m) for m in (fact_train.__file__, metrics.features.__file__, __file__))
    sampling = [here.with_name(name) for name in ("sources.py", "sampling.py")]
    return code_sha256(
        trainer.with_name("networks"), trainer.with_name("injection.py"), detectors.parent, *sampling
    )
