"""The registry of metrics: one registered name fixes a whole protocol, its direction and its source.

A metric file holds pure functions (`compute_fid`) and its protocols: one decorated function each. The
function takes `MetricInputs`, which fact_eval implements, and returns a `MetricValue`; nothing here knows
about runs or files. Every module of `families/` is read at the first look-up: a new metric is one new
file.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import torch

import fact_metrics.families
from fact_metrics.base.errors import unknown_name
from fact_metrics.engines.frechet import FeatureStatistics
from fact_metrics.features import get_detector

# Data sets of handwritten digits, where the digit classifier is at home.
DIGIT_DATASETS = ("mnist",)

METRICS: dict[str, "Metric"] = {}

T = TypeVar("T")


@dataclass(frozen=True)
class FeatureNeed:
    """Features a metric reads: of generated images (no split), or of a split of the reals (None: all).

    `reconstructed` images are those of a split, through the encoder and the generator.
    """

    detector: str
    side: Literal["generated", "real", "reconstructed"]
    split: Literal["train", "test"] | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if (self.side == "generated") != (self.split is None):
            raise ValueError(f"generated features have no split and real ones need one: {self}")
        if self.side == "generated" and self.count is None:
            raise ValueError(f"generated features need a count: {self}")
        if self.side == "reconstructed" and self.count is None:
            raise ValueError(f"reconstructed features need a count: {self}")


def against_reals(
    detector: str, *, split: Literal["train", "test"], count: int = 10_000
) -> tuple[FeatureNeed, ...]:
    """Needs of a metric that compares `count` generated images with all reals of a split, in that order."""
    return FeatureNeed(detector, "generated", count=count), FeatureNeed(detector, "real", split=split)


def published_needs(detector: str) -> tuple[FeatureNeed, ...]:
    """What the names of the field mean by `50k_full`: 50,000 generated, all training images, not mirrored."""
    return against_reals(detector, split="train", count=50_000)


@dataclass(frozen=True)
class MetricValue:
    """A result: value None where it is undefined; never NaN. `ci` is {level, low, high, method, n}."""

    value: float | None
    stderr: float | None = None
    ci: dict | None = None
    n_generated: int | None = None
    n_real: int | None = None
    extras: dict = field(default_factory=dict)


class GeneratorInputs(Protocol):
    """A generator with its random inputs: image i of a stream has its own seed, whatever the batch."""

    z_dim: int
    num_ws: int
    resolution: int
    num_channels: int

    def latents(self, indices: Sequence[int], *, stream: str = "image") -> torch.Tensor:
        """z [N, z_dim], or [N, K, z_dim] with K style vectors; another stream gives independent latents."""

    def labels(self, indices: Sequence[int]) -> torch.Tensor | None:
        """c [N, c_dim], or None for an unconditional generator."""

    def mapping(self, z: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        """ws [N, num_ws * K, w_dim], truncation_psi 1."""

    def noise(self, indices: Sequence[int], *, stream: str = "image") -> list[torch.Tensor]:
        """Noise inputs of the synthesis network, [N, 1, r, r] each."""

    def synthesis(
        self, ws: torch.Tensor, noise: list[torch.Tensor], *, fused_modconv: bool | None = None
    ) -> torch.Tensor:
        """float32 images [N, C, H, W] in about [-1, 1], not clamped."""

    def progress(self, done: int, total: int) -> None:
        """May be called between batches."""


@dataclass(frozen=True)
class EncodedPairs:
    """Held-out images and what an explaining GAN makes of them, N of each, on the CPU.

    Images uint8 [N, C, H, W]; `w` [N, w_dim] of the encoder; logits [N, K] of the classifier.
    """

    originals: torch.Tensor
    reconstructions: torch.Tensor
    w: torch.Tensor
    logits_original: torch.Tensor
    logits_reconstruction: torch.Tensor


class EncoderInputs(Protocol):
    """The encoder and the classifier of a StylEx run."""

    def pairs(self, count: int) -> EncodedPairs:
        """The first `count` held-out images (all where there are fewer) and their reconstructions."""

    def mapping_w(self, count: int) -> torch.Tensor:
        """w [N, w_dim] of the mapping network, without the class part."""


class MetricInputs(Protocol):
    """What a metric reads; implemented by fact_eval. `encoder` is None but for StylEx runs."""

    seed: int
    device: torch.device
    generator: GeneratorInputs | None
    encoder: EncoderInputs | None

    def features(self, need: FeatureNeed) -> torch.Tensor:
        """[N, D] float32 on the CPU."""

    def of_reals(self, need: FeatureNeed, name: str, function: Callable[[torch.Tensor], T]) -> T:
        """function(features of a need's reals, on `device`), made once for all that is scored against them.

        `name` says what it is, with everything that changes it but the features.
        """

    def statistics(self, need: FeatureNeed, *, correction: int) -> FeatureStatistics | None:
        """Given statistics of a need's reals, n = 0 where unknown; None where there are features."""


@dataclass(frozen=True)
class Metric:
    """A registered protocol. `settings` holds what changes the number beyond the needs (k, epsilon, ...).

    `from_statistics`: mean and covariance of the reals do for their features. `difference`: paired, or None.
    """

    name: str
    family: str
    version: int
    higher_is_better: bool
    summary: str
    citation: str
    reference: str
    unit: str
    needs: tuple[FeatureNeed, ...]
    needs_generator: bool
    needs_encoder: bool
    detectors: tuple[str, ...]
    settings: Mapping[str, object]
    datasets: frozenset[str] | None
    from_statistics: bool
    compute: Callable[[MetricInputs], MetricValue]
    difference: "Difference | None"

    @property
    def protocol(self) -> dict:
        """Everything that changes the number, as JSON; two values are compared only where this is equal."""
        return {
            "metric": self.name,
            "version": self.version,
            "needs": [vars(need) for need in self.needs],
            "detectors": {name: get_detector(name).describe() for name in self.detectors},
            "settings": dict(self.settings),
        }

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weight files its detectors read (features/weight_store.py); none: no download."""
        return tuple(sorted({name for detector in self.detectors for name in get_detector(detector).weights}))

    def fits(self, dataset: str | None) -> bool:
        """Whether the metric means something on the dataset of that name; None is any dataset."""
        return self.datasets is None or dataset is None or dataset in self.datasets


Compute = Callable[[MetricInputs], MetricValue]
# Of generated features of A and of B [N, D], row i of both from one latent, and features of the reals: the
# value of B less the value of A, and its standard error (None where there are too few images).
Difference = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[float, float | None]]
Register = Callable[[Compute], Compute]


def register_metric(
    *,
    family: str,
    higher_is_better: bool,
    citation: str,
    reference: str,
    needs: Sequence[FeatureNeed] = (),
    needs_generator: bool = False,
    needs_encoder: bool = False,
    detectors: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
    datasets: Sequence[str] | None = None,
    from_statistics: bool = False,
    unit: str = "",
    version: int = 1,
    difference: Difference | None = None,
) -> Register:
    """Register the decorated function under its own name; the first line of its docstring is the summary.

    `detectors` are those it calls itself, beside its needs; `datasets` names those it is confined to;
    `from_statistics` says that it asks `inputs.statistics` before the features of the reals; `difference`
    compares two runs on shared latents, where the needs are generated features and reals.
    Raises ValueError where the name is taken or the docstring missing, and UsageError on an unknown detector.
    """

    def register(compute: Compute) -> Compute:
        name = compute.__name__
        if name in METRICS:
            raise ValueError(f"metric {name!r} is registered twice")
        if not compute.__doc__:
            raise ValueError(f"metric {name!r} has no docstring; its first line is what readers are shown")
        used = tuple(sorted({need.detector for need in needs} | set(detectors)))
        for detector in used:
            get_detector(detector)
        METRICS[name] = Metric(
            name=name,
            family=family,
            version=version,
            higher_is_better=higher_is_better,
            summary=compute.__doc__.strip().splitlines()[0],
            citation=citation,
            reference=reference,
            unit=unit,
            needs=tuple(needs),
            needs_generator=needs_generator,
            needs_encoder=needs_encoder or any(need.side == "reconstructed" for need in needs),
            detectors=used,
            settings=settings or {},
            datasets=None if datasets is None else frozenset(datasets),
            from_statistics=from_statistics,
            compute=compute,
            difference=difference,
        )
        return compute

    return register


def get_metric(name: str) -> Metric:
    """The metric of that name. Raises UsageError (with "did you mean") on an unknown one."""
    _read_metric_files()
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]


def list_metrics(dataset: str | None = None) -> list[str]:
    """Names of all metrics, or of those that mean something on that dataset; by family, then name."""
    _read_metric_files()
    chosen = [metric for metric in METRICS.values() if metric.fits(dataset)]
    return [metric.name for metric in sorted(chosen, key=lambda metric: (metric.family, metric.name))]


@functools.cache
def _read_metric_files() -> None:
    for module in pkgutil.iter_modules(fact_metrics.families.__path__):
        importlib.import_module(f"fact_metrics.families.{module.name}")
