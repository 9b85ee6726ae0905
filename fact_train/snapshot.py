"""Snapshots: networks for inference in one safetensors file that rebuilds itself. No pickle anywhere.

The file's metadata holds one JSON text under the key "fact": the full configuration, the dataset description,
nimg, and a hash of the weights that is checked on load. Equal training states give bitwise equal files.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor, nn

from fact_metrics.base.atomic import write_safetensors
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.pixels import to_signed
from fact_metrics.base.plain_text import check_file_name
from fact_metrics.base.schema import TrainingSetShape
from fact_metrics.base.tensor_files import read_metadata, read_tensors
from fact_metrics.base.tensors import weights_sha256
from fact_train.classifiers.classifier import Card, CardShape, new_classifier
from fact_train.networks.build import build_encoder, build_networks, check_sizes, check_tensors
from fact_train.networks.classifier import Classifier, class_part
from fact_train.networks.discriminator import Discriminator
from fact_train.networks.encoder import Encoder, encoder_ws
from fact_train.networks.generator import Generator
from fact_train.settings.config import TrainConfig

SCHEMA = 1
WAY_OUT = "train again or restore it."
# model -> names of the networks in its snapshots
NETWORKS = {"stylegan2": ("G_ema", "D"), "stylex": ("G_ema", "D", "E_ema", "C")}


class OriginShape(msgspec.Struct):
    """Where the weights of an imported snapshot come from."""

    format: str
    file: str
    file_sha256: str
    tensors: dict[str, str]  # SHA-256 of the bytes of every tensor, by its name here
    notes: list[str] = []  # what the format does not say, and how it was filled in

    def __post_init__(self) -> None:
        check_file_name(self.file, "file")


class SnapshotShape(msgspec.Struct):
    """The metadata of a snapshot; TrainConfig checks `config`."""

    schema: int
    run_id: str
    config: dict[str, Any]
    dataset: TrainingSetShape
    nimg: int
    weights_sha256: str
    classifier: CardShape | None = None
    left_out: list[Literal["D"]] = []  # networks that a published snapshot does without
    origin: OriginShape | None = None  # of imported weights


@dataclass(frozen=True)
class Snapshot:
    """A loaded snapshot: G is the EMA generator; all networks are in eval mode without gradients.

    Of a StylEx run also E, the EMA encoder, and C, the classifier it explains, with its card. Published
    snapshots have no D: nothing that is scored needs it.
    """

    path: Path
    G: Generator
    D: Discriminator | None
    config: dict[str, Any]
    dataset: dict[str, Any]
    run_id: str
    nimg: int
    sha256: str
    E: Encoder | None = None
    C: Classifier | None = None
    classifier: Card | None = None
    origin: dict[str, Any] | None = None  # of imported weights, as OriginShape

    @property
    def kimg(self) -> float:
        return self.nimg / 1000

    @torch.inference_mode()
    def class_logits(self, images: Tensor) -> Tensor:
        """C's logits [N, K] of uint8 images [N, C, H, W]. StylEx only."""
        return self.C(_to_signed(images, self.C))

    def class_parts(self, images: Tensor) -> Tensor:
        """The class part of w of uint8 images, [N, K]. StylEx only."""
        cfg = self.config
        return class_part(self.class_logits(images), cfg["class_repr"], cfg["class_scale"])

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """E's part of w of uint8 images, [N, w_dim]. StylEx only."""
        return self.E(_to_signed(images, self.E))

    def reconstruction_ws(self, images: Tensor) -> Tensor:
        """ws [N, num_ws, w_dim + K] of uint8 images: E's part and C's, nothing truncated. StylEx only."""
        return encoder_ws(self.encode(images), self.class_parts(images), num_ws=self.G.num_ws)


def save_snapshot(
    path: Path,
    networks: Mapping[str, nn.Module],
    *,
    cfg: TrainConfig,
    dataset: dict[str, Any],
    nimg: int,
    run_id: str,
    classifier: Card | None = None,
) -> None:
    """Write networks, by the names of NETWORKS, with everything needed to rebuild them; atomic.

    `dataset` is the description of the training data. `classifier` is the card of the classifier that a
    StylEx run explains. Raises ValueError unless the networks are exactly those of the model, UserError
    where the disk has no room.
    """
    if set(networks) != set(NETWORKS[cfg.model]):
        raise ValueError(f"a {cfg.model} snapshot holds {NETWORKS[cfg.model]}, not {tuple(networks)}")
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, net in networks.items()
        for key, value in net.state_dict().items()
    }
    meta = {
        "schema": SCHEMA,
        "run_id": run_id,
        "config": cfg.science(),
        "dataset": dataset,
        "nimg": nimg,
        "weights_sha256": weights_sha256(tensors),
    }
    if classifier is not None:
        meta["classifier"] = classifier
    write_snapshot(path, meta, tensors)


def save_without_discriminator(path: Path, out: Path) -> None:
    """Write a snapshot again without D, for publication: all other tensors and the description are equal."""
    meta = read_metadata(path, "fact", SnapshotShape, what="snapshot", way_out=WAY_OUT)
    tensors = read_tensors(path, what="snapshot", way_out=WAY_OUT)
    tensors = {name: value for name, value in tensors.items() if not name.startswith("D.")}
    whole = _file_sha256(Path(path))
    meta |= {"left_out": ["D"], "left_out_of": whole, "weights_sha256": weights_sha256(tensors)}
    write_snapshot(out, meta, tensors)


def load_snapshot(path: str | Path, device: str | torch.device = "cpu") -> Snapshot:
    """Rebuild the networks of a snapshot on a device.

    UsageError where the file is missing; UserError where it is truncated, altered, or not a snapshot.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"snapshot {path} does not exist.")
    meta = read_metadata(path, "fact", SnapshotShape, what="snapshot", way_out=WAY_OUT)
    if meta["schema"] > SCHEMA:
        raise UserError(
            f"snapshot {path} was written by a newer version (schema {meta['schema']}); update fact-stylegan."
        )
    tensors = read_tensors(path, what="snapshot", way_out=WAY_OUT)
    if weights_sha256(tensors) != meta["weights_sha256"]:
        raise UserError(
            f"snapshot {path} has been altered: its weights do not have the hash it was saved with."
        )
    return rebuild(path, meta, tensors, file_sha256=_file_sha256(path), device=device)


def rebuild(
    path: Path,
    meta: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    file_sha256: str,
    device: str | torch.device = "cpu",
) -> Snapshot:
    """The networks that the metadata of a snapshot describes, with these weights.

    UserError where the two do not fit each other.
    """
    try:
        cfg = TrainConfig.from_dict(meta["config"])
        if cfg.model == "stylex" and meta.get("classifier") is None:
            raise UserError("it names no classifier")
        check_sizes(cfg)
        check_tensors(lambda: _build(cfg, meta), tensors)
    except (UserError, ValueError) as error:
        raise UserError(f"snapshot {path} cannot be rebuilt ({error}); {WAY_OUT}") from error
    networks = _build(cfg, meta)
    for prefix, net in networks.items():
        own = {k.removeprefix(prefix + "."): v for k, v in tensors.items() if k.startswith(prefix + ".")}
        net.load_state_dict(own)
        net.eval().requires_grad_(False).to(device)
    return Snapshot(
        path=path,
        G=networks["G_ema"],
        D=networks.get("D"),
        E=networks.get("E_ema"),
        C=networks.get("C"),
        classifier=meta.get("classifier"),
        config=cfg.to_dict(),
        dataset=meta["dataset"],
        run_id=meta["run_id"],
        nimg=meta["nimg"],
        sha256=file_sha256,
        origin=meta.get("origin"),
    )


def write_snapshot(path: Path, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a snapshot from its metadata and tensors; atomic. UserError where the disk has no room."""
    text = json.dumps(meta, sort_keys=True)  # one key: safetensors does not order several
    write_safetensors(path, tensors, {"fact": text})


def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _to_signed(images: Tensor, net: nn.Module) -> Tensor:
    """uint8 images as float32 in [-1, 1], on the network's device."""
    return to_signed(images.to(next(net.parameters()).device))


def _build(cfg: TrainConfig, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The networks that a snapshot's metadata describe, by name, before their weights are read."""
    if cfg.model == "stylegan2":
        networks = build_networks(cfg, meta["dataset"])
    else:
        C = new_classifier(meta["classifier"])
        G, D = build_networks(cfg, meta["dataset"], class_dim=C.num_classes)
        networks = G, D, build_encoder(cfg, meta["dataset"]), C
    named = dict(zip(NETWORKS[cfg.model], networks, strict=True))
    return {name: net for name, net in named.items() if name not in meta.get("left_out", [])}
