"""rosinality/stylegan2-pytorch: `.pt` with state dicts g, d, g_ema; the original StyleGAN2 under other names.

A state dict has no settings: they follow from shapes, and from the defaults of its code (lr_mlp 0.01, filter
[1, 3, 3, 1], groups of 4). Its noise buffers are our noise constants. Training keeps no average of w.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fact_train.imports.imported import Imported, Unrepresentable, estimate_w_avg, width_fields
from fact_train.imports.state_dicts import AVERAGES, DISCRIMINATORS, find_state
from fact_train.imports.stylegan2_ada import FILTER

FORMAT = "rosinality/stylegan2-pytorch"
LR_MLP = 0.01
# What follows the name of a layer -> the name of ours.
_STYLED = {
    "conv.weight": "inject.weight",
    "conv.modulation.weight": "inject.affine.weight",
    "conv.modulation.bias": "inject.affine.bias",
    "noise.weight": "noise_strength",
    "activate.bias": "bias",
    "bias": "bias",  # of ToRGB
}
_G_KEY = re.compile(
    r"(style|convs|to_rgbs|noises)\.(?:noise_)?(\d{1,3})(?:\.(.+))?|(input|conv1|to_rgb1)\.(.+)"
)
_D_KEY = re.compile(r"convs\.(\d{1,3})\.(?:(conv1|conv2|skip)\.)?\d\.(weight|bias)")
_D_END = {"final_conv.0.weight": "b4.conv.weight", "final_conv.1.bias": "b4.conv.bias"} | {
    f"final_linear.{i}.{part}": f"b4.{ours}.{part}"
    for i, ours in enumerate(("fc", "out"))
    for part in ("weight", "bias")
}
_D_BLOCK = {None: "fromrgb", "conv1": "conv0", "conv2": "conv1", "skip": "skip"}


def recognises(content: Any) -> bool:
    return _average(content) is not None


def convert(content: dict[str, Any]) -> Imported:
    """Raises Unrepresentable for names that the original network does not have."""
    state = _average(content)
    G = _generator(state)
    widths = {
        int(m[1]): len(v) for k, v in G.items() if (m := re.fullmatch(r"synthesis\.b(\d+)\.conv1\.bias", k))
    }
    resolution = max(widths)
    base, most = width_fields(widths)
    depth = sum(re.fullmatch(r"mapping\.fc\d+\.weight", name) is not None for name in G)
    if not depth:
        raise Unrepresentable("no mapping network (style.1.weight)")
    w_dim, z_dim = G["mapping.fc0.weight"].shape
    fields = dict(
        resolution=resolution,
        z_dim=z_dim,
        w_dim=w_dim,
        map_depth=depth,
        mapping_lr_mult=LR_MLP,
        channel_base=base,
        channel_max=most,
    )
    channels = len(G[f"synthesis.b{resolution}.torgb.bias"])
    imported = Imported(fields, resolution, channels, 0, G)
    imported.notes.append(f"lr_mlp is taken as {LR_MLP}, the default: the file does not say")
    _complete(imported, content)
    D = find_state(content, DISCRIMINATORS, has="final_linear.0.weight")
    try:
        if D is None:
            raise Unrepresentable("the file has none")
        imported.D = _discriminator(D, resolution)
    except Unrepresentable as error:
        imported.notes.append(f"D is left out: {error}")
    return imported


def _average(content: Any) -> dict[str, Tensor] | None:
    return find_state(content, AVERAGES, has="conv1.conv.modulation.weight")


def _complete(imported: Imported, content: dict[str, Any]) -> None:
    """Add w_avg, and the noise constants that early files do not have."""
    G = imported.G
    average = content.get("latent_avg")
    if isinstance(average, Tensor):
        G["mapping.w_avg"] = average.reshape(-1)
    else:
        G["mapping.w_avg"], note = estimate_w_avg(G, imported.fields)
        imported.notes.append(note)
    strengths = [name for name in G if name.endswith("noise_strength")]
    missing = [name for name in strengths if name.replace("strength", "const") not in G]
    for i, name in enumerate(missing):
        side = int(re.search(r"\.b(\d+)\.", name)[1])
        G[name.replace("strength", "const")] = torch.randn(
            side, side, generator=torch.Generator().manual_seed(i)
        )
    if missing:
        imported.notes.append("noise constants are drawn anew: the file has none")


def _generator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        if name.endswith("kernel"):
            _check_filter(name, value, gain=4)
            continue
        ours = _g_name(name)
        if ours is None:
            raise Unrepresentable(f"{name[:80]} has no counterpart here")
        if value.ndim and len(value) == 1 and value.ndim != 2:  # [1, O, I, k, k], [1, C, 1, 1], [1]
            value = value[0]
        if ours.endswith(("bias", "noise_const")):
            value = value.squeeze() if ours.endswith("noise_const") else value.reshape(-1)
        found[ours] = value
    return found


def _g_name(name: str) -> str | None:
    match = _G_KEY.fullmatch(name)
    if match is None:
        return None
    kind, number, part, single, rest = match.groups()
    if single:
        layer, inner = {"input": "const", "conv1": "conv1", "to_rgb1": "torgb"}[single], _STYLED.get(rest)
        if single == "input":
            return "synthesis.b4.const" if rest == "input" else None
        return inner and f"synthesis.b4.{layer}.{inner}"
    i = int(number)
    if kind == "style":
        return f"mapping.fc{i - 1}.{part}" if i and part in ("weight", "bias") else None
    if kind == "noises":
        layer = f"b{2 ** ((i + 5) // 2)}.conv{(i - 1) % 2}"
        return None if part else f"synthesis.{layer}.noise_const"
    inner = _STYLED.get(part)
    layer = f"b{8 << i}.torgb" if kind == "to_rgbs" else f"b{8 << i // 2}.conv{i % 2}"
    return inner and f"synthesis.{layer}.{inner}"


def _discriminator(state: Mapping[str, Tensor], resolution: int) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        if name.endswith("kernel"):
            _check_filter(name, value, gain=1)
        elif name in _D_END:
            found[_D_END[name]] = value
        elif match := _D_KEY.fullmatch(name):
            number, layer, part = match.groups()
            side = resolution >> max(int(number) - 1, 0)
            if (layer is None) != (int(number) == 0):
                raise Unrepresentable(f"{name[:80]} has no counterpart here")
            found[f"b{side}.{_D_BLOCK[layer]}.{part}"] = value
        else:
            raise Unrepresentable(f"{name[:80]} has no counterpart here")
    return found


def _check_filter(name: str, kernel: Tensor, *, gain: float) -> None:
    if kernel.shape != FILTER.shape or not torch.allclose(kernel.float(), FILTER * gain, rtol=0, atol=1e-6):
        raise Unrepresentable(f"{name[:80]} is another resampling filter than [1, 3, 3, 1]")
