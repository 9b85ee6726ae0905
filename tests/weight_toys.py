"""Stand-ins for published weight files: a network of a few values, and folders of nobody's."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fact_metrics.features import weight_store
from fact_metrics.features.weight_store import WEIGHTS, WeightFile


class ToyNet(nn.Module):
    """A convolution, a norm and a linear layer."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))


def toy_state(seed: int = 0, width: int = 4) -> dict[str, torch.Tensor]:
    """Weights of a ToyNet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ToyNet(width).state_dict()


def save_state(path: Path, seed: int = 0, width: int = 4) -> Path:
    """A state dict in torch's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(toy_state(seed, width), path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def use_empty_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nobody's weights are in sight; returns the weights folder, which does not exist yet."""
    monkeypatch.setenv(weight_store.FOLDER, str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(weight_store.SHARED, raising=False)
    monkeypatch.delenv(weight_store.RANDOM, raising=False)
    return tmp_path / "weights"


def publish(monkeypatch: pytest.MonkeyPatch, name: str, path: Path, **changes) -> WeightFile:
    """Make a file's content the published one of a name, as long as the test runs."""
    file = WeightFile(
        name=name,
        filename=path.name,
        sha256=sha256(path),
        sha256_prefix=None,
        bytes=path.stat().st_size,
        url=f"http://127.0.0.1:9/{path.name}",
        origin="a test",
        format="state_dict",
    )
    file = replace(file, **changes)
    monkeypatch.setitem(WEIGHTS, name, file)
    return file
