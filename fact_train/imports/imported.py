"""What an importer makes of a foreign checkpoint: the metadata and tensors of one of our snapshots."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fact_metrics.base.tensors import weights_sha256
from fact_train.networks.mapping import Mapping as MappingNetwork
from fact_train.settings.config import TrainConfig
from fact_train.snapshot import SCHEMA

W_AVG_LATENTS = 4096


class Unrepresentable(Exception):
    """A network that our layers cannot represent; the message names the layer or setting, and why."""


@dataclass
class Imported:
    """G, and D where it can be represented, under our names, with the settings that rebuild them."""

    fields: dict[str, Any]  # of TrainConfig
    resolution: int
    channels: int
    classes: int
    G: dict[str, Tensor]
    D: dict[str, Tensor] | None = None
    kimg: float = 0.0
    notes: list[str] = field(default_factory=list)

    def tensors(self) -> dict[str, Tensor]:
        """float32 tensors of a snapshot, each with memory of its own."""
        named = {f"G_ema.{name}": value for name, value in self.G.items()}
        named |= {f"D.{name}": value for name, value in (self.D or {}).items()}
        return {name: value.float().contiguous().clone() for name, value in named.items()}

    def metadata(self, tensors: dict[str, Tensor], *, format: str, file: str, file_sha256: str) -> dict:
        """The metadata of the snapshot that holds these tensors. UserError for settings out of range."""
        cfg = TrainConfig(data="imported", **self.fields)
        dataset = {
            **dict(name="imported", split="train", sha256="unknown", n=0),
            **dict(resolution=self.resolution, channels=self.channels, classes=self.classes),
        }
        hashes = {name: _sha256(value) for name, value in tensors.items()}
        return {
            "schema": SCHEMA,
            "run_id": f"imported-{file_sha256[:8]}",
            "config": cfg.science(),
            "dataset": dataset,
            "nimg": round(self.kimg * 1000),
            "weights_sha256": weights_sha256(tensors),
            "left_out": [] if self.D is not None else ["D"],
            "origin": dict(
                format=format, file=file, file_sha256=file_sha256, tensors=hashes, notes=self.notes
            ),
        }


def width_fields(widths: Mapping[int, int]) -> tuple[int, int]:
    """channel_base and channel_max of the feature maps at every resolution.

    Raises Unrepresentable unless width = min(channel_base // resolution, channel_max).
    """
    most = max(widths.values())
    narrow = [res * width for res, width in widths.items() if width < most]
    base = max(narrow) if narrow else max(widths) * most
    for res, width in widths.items():
        if min(base // res, most) != width:
            raise Unrepresentable(f"{width} feature maps at {res} px: widths here halve from {most}")
    return base, most


def one_value(values: Iterable[Any], what: str) -> Any:
    """The value that all layers share. Raises Unrepresentable if they differ."""
    found = list(values)
    if any(type(value) not in (str, int, float, bool, type(None)) for value in found):
        raise Unrepresentable(f"{what} is no plain value")  # comparing tuples of tuples can take forever
    if not found or any(value != found[0] for value in found):
        raise Unrepresentable(f"{what} differs between layers")
    return found[0]


def estimate_w_avg(G: Mapping[str, Tensor], fields: Mapping[str, Any]) -> tuple[Tensor, str]:
    """The mean w of latents of a fixed seed, for formats without one, and the note that says so."""
    mapping = MappingNetwork(
        z_dim=fields["z_dim"],
        c_dim=0,
        w_dim=fields["w_dim"],
        num_ws=1,
        depth=fields["map_depth"],
        lr_mult=fields["mapping_lr_mult"],
    )
    own = {k.removeprefix("mapping."): v.float() for k, v in G.items() if k.startswith("mapping.")}
    mapping.load_state_dict({**own, "w_avg": torch.zeros(fields["w_dim"])})
    z = torch.randn(W_AVG_LATENTS, fields["z_dim"], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        w_avg = mapping(z)[:, 0].double().mean(dim=0).float()
    return w_avg.clone(), f"w_avg is the mean w of {W_AVG_LATENTS:,} latents: the file has none"


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy()).hexdigest()
