"""Writers of foreign checkpoints: the formats of other programs, made from our networks."""

import argparse
import pickle
import sys
import types
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fact_train.imports.stylegan2_ada import FILTER, reference_names
from fact_train.networks.build import build_networks
from fact_train.settings.config import TrainConfig

SMALL = dict(
    z_dim=8, w_dim=8, map_depth=2, channel_base=128, channel_max=8, resolution=16, batch=4, mbstd_group_size=4
)


def toy_networks(
    *, classes: int = 0, channels: int = 3, **fields: Any
) -> tuple[TrainConfig, nn.Module, nn.Module]:
    """Small G and D whose biases, noise and average matter."""
    cfg = TrainConfig(**{**SMALL, **fields}, cond=classes > 0)
    torch.manual_seed(3)
    G, D = build_networks(cfg, dict(resolution=cfg.resolution, channels=channels, classes=classes))
    with torch.no_grad():
        for net in (G, D):
            for name, value in net.state_dict().items():
                if name.endswith(("bias", "noise_strength", "w_avg")):
                    value.add_(torch.randn_like(value) * 0.3)
    return cfg, G.eval(), D.eval()


class Persistent:
    """Pickles itself as a module of StyleGAN2-ADA does: a class name, source text and a state."""

    def __init__(self, class_name: str, state: dict[str, Any], source: str = "raise SystemExit"):
        self.class_name, self.state, self.source = class_name, state, source

    def __reduce__(self):
        meta = dict(type="class", version=6, module_src=self.source, class_name=self.class_name)
        return _reconstruct_persistent_obj, ({**meta, "state": self.state},), None


def _reconstruct_persistent_obj(meta: dict) -> None:
    raise AssertionError("the restricted reader never calls it")


class EasyDict(dict):
    """dnnlib's dictionary, by name."""


@contextmanager
def reference_modules():
    """The modules that a pickle of StyleGAN2-ADA names, while it is written."""
    names = {"torch_utils.persistence": _reconstruct_persistent_obj, "dnnlib.util": EasyDict}
    packages = {module.split(".")[0] for module in names}
    for module in packages:
        sys.modules[module] = types.ModuleType(module)
    for module, thing in names.items():
        sys.modules[module] = types.ModuleType(module)
        setattr(sys.modules[module], thing.__name__, thing)
        thing.__module__ = module
    try:
        yield
    finally:
        for module in (*names, *packages):
            del sys.modules[module]


def stylegan2_ada(
    cfg: TrainConfig, G: nn.Module, D: nn.Module | None, *, fork: bool = False, **changes: Any
) -> dict[str, Any]:
    """The content of a `.pkl`, by `fork` of the one with style vectors.

    `changes` are attributes of modules by name: {"synthesis.b8.conv0": {"activation": "relu"}}.
    """
    blocks = [2**i for i in range(2, G.img_resolution.bit_length())]
    fp16 = blocks[len(blocks) - cfg.fp16_layers :]
    attributes = {
        "": dict(img_channels=G.img_channels),
        "mapping": dict(z_dim=G.z_dim, w_dim=G.w_dim, c_dim=G.c_dim, num_layers=cfg.map_depth),
        "synthesis": dict(img_resolution=G.img_resolution),
    }
    for res in blocks:
        attributes[f"synthesis.b{res}"] = dict(architecture=cfg.g_arch, use_fp16=res in fp16)
        for conv in ("conv0", "conv1", "torgb"):
            attributes[f"synthesis.b{res}.{conv}"] = dict(
                conv_clamp=cfg.conv_clamp, use_noise=cfg.noise != "off"
            )
    if fork:
        attributes = _of_fork(cfg, attributes)
    content = {"training_set_kwargs": EasyDict(path="./faces.zip"), "augment_pipe": None}
    made = _tree(G, "Generator", attributes, cfg, changes)
    content |= {"G": made, "G_ema": made}
    if D is not None:
        attributes = {"": dict(img_channels=D.img_channels, img_resolution=D.img_resolution, c_dim=D.c_dim)}
        attributes |= {f"b{res}": dict(architecture=cfg.d_arch) for res in blocks}
        attributes["b4.mbstd"] = dict(group_size=cfg.mbstd_group_size, num_channels=1)
        attributes["mapping"] = dict(num_layers=8)
        content["D"] = _tree(D, "Discriminator", attributes, cfg, changes)
    return content


def _of_fork(cfg: TrainConfig, attributes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """With the attributes that tell the style-vector fork apart."""
    many = {"use_adaconv": cfg.style_vectors > 1}
    rgb = {"inject_in_torgb": cfg.torgb_style == "all"}
    made = {name: own | many for name, own in attributes.items()}
    made["mapping"] |= dict(
        num_adaconv_vectors=cfg.style_vectors,
        normalize_latent=cfg.latent_norm != "none",
        div_by_sqrt=cfg.latent_div_sqrt,
        sample_w_plus=False,
    )
    return {name: own | (rgb if name.endswith("torgb") else {}) for name, own in made.items()}


def write_pickle(path: Path, content: Any, *, protocol: int = 4) -> Path:
    with reference_modules(), open(path, "wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path


def _class_of(name: str, top: str) -> str:
    last = name.rpartition(".")[2]
    if not name:
        return top
    if name in ("mapping", "synthesis"):
        return {"mapping": "MappingNetwork", "synthesis": "SynthesisNetwork"}[name]
    if last.startswith("b") and last[1:].isdigit():
        kind = "Synthesis" if top == "Generator" else "Discriminator"
        return f"{kind}{'Epilogue' if (top, last) == ('Discriminator', 'b4') else 'Block'}"
    if last in ("conv", "conv0", "conv1", "skip", "fromrgb"):
        is_layer = top == "Generator" and last != "skip"
        return "SynthesisLayer" if is_layer else "Conv2dLayer"
    return {"torgb": "ToRGBLayer", "mbstd": "MinibatchStdLayer"}.get(last, "FullyConnectedLayer")


def _tree(net: nn.Module, top: str, attributes: dict, cfg: TrainConfig, changes: dict) -> Persistent:
    """The modules of a network with their tensors, as `torch.nn.Module` holds them."""
    states: dict[str, dict[str, Any]] = {}

    def state_of(name: str) -> dict[str, Any]:
        if name not in states:
            states[name] = dict(training=False, _parameters={}, _buffers={}, _modules={}, _hooks=set())
            if name:
                parent, _, last = name.rpartition(".")
                state_of(parent)["_modules"][last] = name
        return states[name]

    for key, value in reference_names(net.state_dict()).items():
        name, _, last = key.rpartition(".")
        kind = "_buffers" if last in ("noise_const", "w_avg") else "_parameters"
        state_of(name)[kind][last] = nn.Parameter(value.clone()) if kind == "_parameters" else value.clone()
    if top == "Discriminator":
        state_of("b4.mbstd")
    for name, state in states.items():
        class_name = _class_of(name, top)
        if class_name == "FullyConnectedLayer":
            mapped = name.startswith("mapping.fc")
            lr = cfg.mapping_lr_mult if top == "Generator" else 0.01
            linear = name.endswith(("affine", "embed", "out"))
            rest = cfg.affine_lr_mult if name.endswith("affine") else 1
            state |= dict(bias_gain=lr if mapped else rest, activation="linear" if linear else "lrelu")
        if class_name in ("Conv2dLayer", "SynthesisLayer"):
            state["activation"] = "linear" if name.endswith("skip") else "lrelu"
            state["_buffers"]["resample_filter"] = FILTER.clone()
        if class_name == "Conv2dLayer":
            state["conv_clamp"] = cfg.conv_clamp
        state |= attributes.get(name, {}) | changes.get(name, {})
    names = {name: state.pop("class_name", _class_of(name, top)) for name, state in states.items()}

    def build(name: str) -> Persistent:
        state = states[name]
        state["_modules"] = {last: build(child) for last, child in state["_modules"].items()}
        return Persistent(names[name], state)

    return build("")


def rosinality(G: nn.Module, D: nn.Module) -> dict[str, Any]:
    """The content of a `.pt` of rosinality/stylegan2-pytorch."""
    return {
        "g": {},
        "g_ema": _rosinality_generator(G),
        "d": _rosinality_discriminator(D),
        "g_optim": {"state": {}, "param_groups": [{"lr": 0.002}]},
        "args": argparse.Namespace(size=G.img_resolution, batch=16),
        "ada_aug_p": 0.0,
    }


def _rosinality_generator(G: nn.Module) -> dict[str, Tensor]:
    state, out, number = G.state_dict(), {}, 0
    for i in range(G.mapping.depth):
        for part in ("weight", "bias"):
            out[f"style.{i + 1}.{part}"] = state[f"mapping.fc{i}.{part}"]
    out["input.input"] = state["synthesis.b4.const"][None]
    for level, res in enumerate(G.synthesis.resolutions):
        for conv in ["conv1"] if res == 4 else ["conv0", "conv1"]:
            theirs = "conv1" if res == 4 else f"convs.{2 * (level - 1) + int(conv[-1])}"
            layer = f"synthesis.b{res}.{conv}"
            _styled(out, state, layer, f"{theirs}.conv")
            out[f"{theirs}.noise.weight"] = state[f"{layer}.noise_strength"].reshape(1)
            out[f"{theirs}.activate.bias"] = state[f"{layer}.bias"]
            out[f"noises.noise_{number}"] = state[f"{layer}.noise_const"][None, None]
            number += 1
            if conv == "conv0":
                out[f"{theirs}.conv.blur.kernel"] = FILTER * 4
        theirs = "to_rgb1" if res == 4 else f"to_rgbs.{level - 1}"
        _styled(out, state, f"synthesis.b{res}.torgb", f"{theirs}.conv")
        out[f"{theirs}.bias"] = state[f"synthesis.b{res}.torgb.bias"].reshape(1, -1, 1, 1)
        if res > 4:
            out[f"{theirs}.upsample.kernel"] = FILTER * 4
    return out


def _styled(out: dict[str, Tensor], state: dict[str, Tensor], layer: str, theirs: str) -> None:
    out[f"{theirs}.weight"] = state[f"{layer}.inject.weight"][None]
    for part in ("weight", "bias"):
        out[f"{theirs}.modulation.{part}"] = state[f"{layer}.inject.affine.{part}"]


def _rosinality_discriminator(D: nn.Module) -> dict[str, Tensor]:
    state, out, first = D.state_dict(), {}, D.resolutions[0]
    out["convs.0.0.weight"], out["convs.0.1.bias"] = (
        state[f"b{first}.fromrgb.{p}"] for p in ("weight", "bias")
    )
    for i, res in enumerate(D.resolutions, start=1):
        for theirs, ours, at in (("conv1", "conv0", 0), ("conv2", "conv1", 1)):
            out[f"convs.{i}.{theirs}.{at}.weight"] = state[f"b{res}.{ours}.weight"]
            out[f"convs.{i}.{theirs}.{at + 1}.bias"] = state[f"b{res}.{ours}.bias"]
        out[f"convs.{i}.conv2.0.kernel"] = out[f"convs.{i}.skip.0.kernel"] = FILTER
        out[f"convs.{i}.skip.1.weight"] = state[f"b{res}.skip.weight"]
    out["final_conv.0.weight"], out["final_conv.1.bias"] = state["b4.conv.weight"], state["b4.conv.bias"]
    for i, ours in enumerate(("fc", "out")):
        for part in ("weight", "bias"):
            out[f"final_linear.{i}.{part}"] = state[f"b4.{ours}.{part}"]
    return out
