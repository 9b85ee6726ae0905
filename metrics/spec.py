"""What a metric is, as plain data: a spec fixes a whole protocol, its direction and its source. No torch.

The list, the plan, the records' protocol and the documentation read specs. `family.py` says how a name
becomes one; `registry.py` looks names up and computes values.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from fact_metrics.base.canonical import canonical_json, canonical_sha256
from fact_metrics.features import DETECTORS, detector_spec

Side = Literal["generated", "real", "reconstructed"]
Split = Literal["train", "test"]
Scale = Literal["difference", "ratio", "odds"]

# Joins every protocol: how `fact-eval` draws what a metric sees (fact_eval/images/sampling.py does it).
# Change a word only together with the code it describes.
SAMPLING = {
    "latents": "N(0, 1) per image from a CPU torch.Generator seeded with seed * 10000000 + index",
    "streams": "other random numbers: that seed XOR the first 4 bytes of SHA-256 of the stream's name",
    "labels": "those of training images drawn uniformly",
    "noise": "as trained; where it is random, fresh per image",
    "truncation_psi": 1.0,
    "uint8": "(x * 127.5 + 128).clamp(0, 255), truncated",
    "subsets": "first of torch.randperm(len); seed 0 for the reference, the evaluation seed for the scored",
}


@dataclass(frozen=True)
class FeatureNeed:
    """Features that a metric reads: of generated images, of a split of the reals, or of reconstructions.

    `count` None: all images. Generated images have no split and need a count. Reconstructions are the images
    of a split through the encoder and the generator, and need a count.
    """

    detector: str
    side: Side
    split: Split | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if (self.side == "generated") != (self.split is None):
            raise ValueError(f"generated features have no split and real ones need one: {self}")
        if self.side != "real" and self.count is None:
            raise ValueError(f"{self.side} features need a count: {self}")


@dataclass(frozen=True)
class MetricSpec:
    """A metric: everything about it but its code.

    `count` is the N of its name. `settings` holds what changes the number beyond the needs (k, epsilon,
    ...). `needs_trait`: the trait that a dataset must have for the metric to mean something (fact_train/
    datasets.py); None: any dataset. `from_statistics`: mean and covariance of the real features are enough.
    `paired`: runs can be compared image by image on shared latents. `needs_training`: it reads how the run
    was trained. `needs_explanation`: it judges attributes that `fact-eval explain` has found. `step`: the
    distance of neighbouring values of a metric that counts something, 1 for whole numbers; None: any value.
    `scale`: how values vary over training seeds, and so what studies compare: ratios of distances, odds of
    shares, or differences. `dealt`: all processes share its own work, beyond features. None of the three
    changes a value.
    """

    name: str
    family: str
    version: int
    higher_is_better: bool
    summary: str
    citation: str
    reference: str
    unit: str
    count: int
    needs: tuple[FeatureNeed, ...]
    needs_generator: bool
    needs_encoder: bool
    detectors: tuple[str, ...]
    settings: Mapping[str, object]
    needs_trait: str | None
    from_statistics: bool
    paired: bool
    needs_training: bool = False
    step: float | None = None
    needs_explanation: bool = False
    scale: Scale = "difference"
    dealt: bool = False

    @property
    def protocol(self) -> dict:
        """Everything that changes the number, as JSON; values are compared only if this is equal."""
        protocol = {
            "metric": self.name,
            "version": self.version,
            "needs": [asdict(need) for need in self.needs],
            "detectors": {name: detector_spec(name).fingerprint for name in self.detectors},
            "settings": dict(self.settings),
            "sampling": SAMPLING,
        }
        return json.loads(canonical_json(protocol))

    @property
    def protocol_sha256(self) -> str:
        """Hash of the protocol."""
        return canonical_sha256(self.protocol)

    @property
    def weights(self) -> tuple[str, ...]:
        """Weight files that its detectors read (features/weight_store.py); empty: nothing to download."""
        return tuple(sorted({file for name in self.detectors for file in DETECTORS[name].weights}))

    @property
    def n_generated(self) -> int | None:
        """Images that the protocol scores; None for a metric that draws its own from the generator."""
        counts = [need.count for need in self.needs if need.side != "real" and need.count]
        return max(counts, default=None)

    @property
    def reference_split(self) -> Split:
        """The split of the real images it compares with; train if it compares with none."""
        return next((need.split for need in self.needs if need.side == "real"), "train")

    def fits(self, traits: Collection[str]) -> bool:
        """Whether the metric means something on a dataset with these traits."""
        return self.needs_trait is None or self.needs_trait in traits


@dataclass(frozen=True)
class MetricValue:
    """A result: value None if it is undefined, never NaN. `ci` is {level, low, high, method, n}."""

    value: float | None
    stderr: float | None = None
    ci: dict | None = None
    n_generated: int | None = None
    n_real: int | None = None
    extras: dict = field(default_factory=dict)

    @property
    def degenerate(self) -> str | None:
        """Why the value means nothing (`extras["degenerate"]`); None if nothing is wrong."""
        return self.extras.get("degenerate")
