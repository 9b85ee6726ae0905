"""Baking: the style of one w folded into plain weights, which gives a network of one image (and its noise).

Every injection has its fused weights (`kernels`); a `PlainConv` takes them over. `prove` compares both in
float64: each layer on the input that it has in the network, and the image. The network is evaluated in the
order in which it was trained. A 3x3 style that was trained unbaked differs at the borders by definition
(networks/injection/matrix.py): its layers are equal in the interior, its image is not.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from fact_metrics.base.atomic import write_safetensors
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.schema import TrainingSetShape
from fact_metrics.base.tensor_files import read_metadata, read_tensors
from fact_train.networks.build import build_networks, check_sizes, check_tensors, prefixed
from fact_train.networks.generator import Generator, Synthesis
from fact_train.networks.injection import PlainConv, use_fused
from fact_train.seeds import generator_for
from fact_train.settings.config import TrainConfig
from fact_train.snapshot import Snapshot

SCHEMA = 1
TOLERANCE = 1e-10  # of the largest output, float64: sums of a few thousand terms in another order


class BakedShape(msgspec.Struct):
    """The metadata of a baked network; TrainConfig checks `config`."""

    schema: int
    config: dict[str, Any]
    dataset: TrainingSetShape
    kind: str | None = None


@dataclass(frozen=True)
class LayerProof:
    """Largest difference of a layer's outputs over the largest output.

    Of an unbaked 3x3 style `relative` covers the interior and `border` all pixels; None for all others.
    """

    layer: str
    relative: float
    border: float | None


@dataclass(frozen=True)
class Proof:
    """Float64 differences by layer, and of the images [-1, 1] in float64 and float32."""

    layers: list[LayerProof]
    image: float
    image_float32: float
    fused: bool  # whether the network was trained in the fused order

    @property
    def layers_hold(self) -> bool:
        """Whether every layer is equal, one with an unbaked 3x3 style in its interior."""
        return all(row.relative <= TOLERANCE for row in self.layers)

    @property
    def holds(self) -> bool:
        """Whether layers and images are equal."""
        return self.layers_hold and self.image <= TOLERANCE

    @property
    def borders_differ(self) -> bool:
        """Whether unbaked 3x3 styles, equal in their interior, make another image."""
        unbaked = any(row.border is not None for row in self.layers)
        return unbaked and self.layers_hold and not self.holds

    @property
    def verdict(self) -> str:
        """One line."""
        if self.holds:
            return "equal"
        if self.borders_differ:
            return f"NOT equal: at the borders of unbaked 3x3 styles; images differ by {self.image:.2g}"
        return "NOT equal"


def draw_ws(G: Generator, *, seed: int, label: int | None, truncation_psi: float) -> Tensor:
    """ws [1, rows, w_dim] of one seed. UsageError for a missing, superfluous or unknown label."""
    if (label is None) != (not G.c_dim) or (label or 0) >= max(G.c_dim, 1):
        asked = f"between 0 and {G.c_dim - 1}" if G.c_dim else "left out: this network has no classes"
        raise UsageError(f"--label {label}: it must be {asked}.")
    c = None if label is None else nn.functional.one_hot(torch.tensor([label]), G.c_dim).float()
    z = torch.randn(1, *G.z_shape, generator=generator_for("cpu", "bake", seed))
    with torch.no_grad():
        return G.mapping(z, c, truncation_psi)


def bake_synthesis(synthesis: Synthesis, ws: Tensor) -> Synthesis:
    """A copy of the synthesis network whose convolutions hold the style of ws [1, rows, w_dim]."""
    plain = copy.deepcopy(synthesis)
    for _, module, w in plain.styled_layers(ws):
        module.inject = PlainConv.of(module.inject, w)
    return plain


def prove(G: Generator, ws: Tensor) -> Proof:
    """Compare the network and its baked form, layer by layer on the same inputs, and as images.

    The network computes in the order of its training.
    """
    fused = use_fused(G.synthesis.fused_modconv, training=True)
    with torch.inference_mode():
        synthesis = copy.deepcopy(G.synthesis).double()
        noise_mode = "off" if synthesis.noise == "off" else "const"
        options = dict(noise_mode=noise_mode, fused_modconv=fused)
        plain = bake_synthesis(synthesis, ws.double())
        rows, names = [], [name for name, m in synthesis.named_modules() if hasattr(m, "inject")]
        baked_layers = dict(plain.named_modules())

        def compare(module, args, kwargs, output, name):
            got = baked_layers[name](*args, **kwargs)
            relative = (got - output).abs() / output.abs().max()
            margin = (
                0 if module.side == 1 or fused else module.up
            )  # how far the cut of the map between reaches
            inner = relative[..., margin : relative.shape[2] - margin, margin : relative.shape[3] - margin]
            border = relative.max().item() if margin else None
            rows.append(LayerProof(name.removesuffix(".inject"), inner.max().item(), border))

        hooks = []
        for name in names:
            layer = synthesis.get_submodule(f"{name}.inject")
            hooks.append(
                layer.register_forward_hook(
                    lambda m, a, k, out, n=f"{name}.inject": compare(m, a, k, out, n), with_kwargs=True
                )
            )
        with _Float64():
            images = synthesis(ws.double(), **options)
            for hook in hooks:
                hook.remove()
            baked_images = plain(ws.double(), **options)
        single = G.synthesis(ws, **options), bake_synthesis(G.synthesis, ws)(ws, **options)
    return Proof(
        rows,
        image=(images - baked_images).abs().max().item(),
        image_float32=(single[0] - single[1]).abs().max().item(),
        fused=fused,
    )


def proof_table(proof: Proof) -> str:
    """The proof as a table of plain text."""
    lines = [f"{'layer':<14} relative difference, float64"]
    for row in proof.layers:
        border = "" if row.border is None else f"   (interior; with the border {row.border:.1e})"
        lines.append(f"{row.layer:<14} {row.relative:.1e}{border}")
    lines.append(f"{'image':<14} {proof.image:.1e} in float64, {proof.image_float32:.1e} in float32")
    lines.append(f"compared in the order of training, {'fused' if proof.fused else 'unfused'}")
    if any(row.border is not None for row in proof.layers):
        lines.append("a baked 3x3 style has no map between the two convolutions to cut at the border")
    lines.append(proof.verdict)
    return "\n".join(lines)


def save_baked(path: Path, snapshot: Snapshot, ws: Tensor) -> None:
    """Write the baked network and what rebuilds it; atomic."""
    with torch.no_grad():
        plain = bake_synthesis(snapshot.G.synthesis, ws)
    tensors = {name: t.detach().contiguous() for name, t in plain.state_dict().items()}
    meta = {
        "schema": SCHEMA,
        "kind": "baked",
        "config": {k: v for k, v in snapshot.config.items()},
        "dataset": snapshot.dataset,
        "snapshot_sha256": snapshot.sha256,
    }
    text = json.dumps(meta, sort_keys=True)
    write_safetensors(path, tensors, {"fact": text})


def load_baked(path: str | Path) -> Synthesis:
    """The baked network: call it with any ws of its number of rows, which it ignores.

    UserError where the file is missing, damaged or not a baked network.
    """
    way_out = "bake it again."
    meta = read_metadata(Path(path), "fact", BakedShape, what="baked network", way_out=way_out)
    if (meta.get("kind"), meta["schema"]) != ("baked", SCHEMA):
        raise UserError(f"{path} is not a baked network of fact-train bake, schema {SCHEMA}.")
    tensors = read_tensors(Path(path), what="baked network", way_out=way_out)
    try:
        cfg = TrainConfig.from_dict(meta["config"])
        check_sizes(cfg)
        check_tensors(lambda: {"plain": _new_baked(cfg, meta)}, prefixed("plain", tensors))
    except (UserError, ValueError) as error:
        raise UserError(f"{path} cannot be rebuilt ({error}); {way_out}") from error
    plain = _new_baked(cfg, meta)
    plain.load_state_dict(tensors)
    return plain.eval().requires_grad_(False)


def _new_baked(cfg: TrainConfig, meta: dict[str, Any]) -> Synthesis:
    """The baked network that metadata describe, before its weights are read."""
    G, _ = build_networks(cfg, meta["dataset"])
    rows = G.synthesis.num_ws * G.synthesis.vectors
    return bake_synthesis(G.synthesis, torch.zeros(1, rows, G.synthesis.w_dim))


class _Float64(torch.overrides.TorchFunctionMode):
    """`x.float()` leaves float64 tensors alone; the networks have no other cast to float32."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        return func(*args, **(kwargs or {}))
