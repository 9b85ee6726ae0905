"""The difference of two runs image by image: image i of both comes from one latent, features from the store.

Variation that images of one latent share cancels, so the difference has a smaller error than either value.
Nothing is computed again: if features are not in the store or a metric has no paired difference, a reason is
returned.
"""

from fact_eval.features.code_key import features_code
from fact_eval.features.store import FeatureCache
from fact_leaderboard.intervals import DifferenceEstimate, difference_of_pairs
from fact_leaderboard.records import Record
from fact_metrics.base.progress import Progress
from fact_metrics.registry import compute_difference, find_spec
from fact_metrics.spec import SAMPLING


class PairedImages:
    """Differences of records, from the features that were stored when they were scored."""

    def __init__(self, cache: FeatureCache | None = None, *, progress: Progress | None = None):
        self._progress = progress or Progress()
        self._cache = cache or FeatureCache(report=self._progress.note)
        self._keys: list[dict] | None = None

    def difference(self, a: Record, b: Record) -> DifferenceEstimate | str:
        """B - A of records of one metric, protocol and evaluation seed, or why there is none."""
        if (a.source, b.source) != ("run", "run"):
            return "only runs share latents"
        spec = find_spec(a.metric)
        if spec is None or not spec.paired:
            return ""
        if spec.protocol_sha256 != a.protocol_sha256:
            return "scored by another version of the metric"
        if a.n_effective != b.n_effective:
            return "not as many images on both sides"
        generated, reals = spec.needs
        sides = [self._generated(record, generated.detector) for record in (a, b)]
        sides.append(self._reals(a, reals.detector, reals.count))
        if any(rows is None for rows in sides):
            return "features are not in the store"
        with self._progress.stage(f"{a.metric}: {a.n_effective:,} pairs of images", 1):
            value, stderr = compute_difference(spec, *sides)
        return difference_of_pairs(value, stderr, n=a.n_effective)

    def _generated(self, record: Record, detector: str):
        source = {"source": "generator", "snapshot": record.snapshot_sha256, "seed": record.seed}
        return self._rows(record, detector, {**source, "sampling": SAMPLING}, record.n_effective)

    def _reals(self, record: Record, detector: str, count: int | None):
        source = {"source": "pictures", "dataset": record.dataset["sha256"], "seed": 0}
        return self._rows(record, detector, source, count or record.n_real)

    def _rows(self, record: Record, detector: str, images: dict, count: int | None):
        """Features [count, D] of the images under the record's detector; None unless all are stored."""
        import torch

        from fact_metrics.base.devices import resolve_device

        if count is None:
            return None
        for key in self._stored():
            same = key["detector"] == record.protocol["detectors"][detector]
            if same and images.items() <= key["images"].items():
                width = record.protocol["detectors"][detector]["width"]
                parts = self._cache.load(key, count, width=width)
                if sum(len(rows) for rows in parts.values()) == count:
                    rows = torch.cat([parts[number] for number in sorted(parts)])
                    return rows.to(resolve_device("auto"))
        return None

    def _stored(self) -> list[dict]:
        """Keys of the entries that the current code computed."""
        if self._keys is None:
            code = features_code()
            keys = (entry.key for entry in self._cache.entries())
            self._keys = [key for key in keys if key is not None and key.get("code") == code]
        return self._keys
