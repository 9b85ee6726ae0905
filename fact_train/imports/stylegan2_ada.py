"""NVlabs/stylegan2-ada-pytorch, and the stylegan2 configurations of NVlabs/stylegan3: `.pkl` of G, D, G_ema.

Only names differ: a style-injected convolution keeps its weight and affine under `inject`, and the resampling
filter is a constant here. Settings are read from the attributes of the modules, which hold what their code
defaulted to; values are taken over as they are.

yohan-pg's fork of it (arXiv:2205.06304) keeps the class names and gives every layer K style vectors. Only the
attribute `use_adaconv` tells it apart, so it is read here too: `_fork_settings`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fact_metrics.base.checkpoints import Record
from fact_train.imports.imported import Imported, Unrepresentable, estimate_w_avg, one_value, width_fields
from fact_train.settings.config import TrainConfig
from fact_train.settings.style_fields import vectors

FORMAT = "stylegan2-ada-pytorch"
_INJECTED = re.compile(r"^(synthesis\.b\d+\.(?:conv[01]|torgb))\.(weight|affine\..*)$")
_OURS = re.compile(r"^(synthesis\.b\d+\.(?:conv[01]|torgb))\.(?:inject|conv)\.")
_PLAIN_RGB = re.compile(r"^(synthesis\.b\d+\.torgb)\.(weight|bias)$")  # of a ToRGB without a style
FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0]).outer(torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64
DEEPEST, MOST_MODULES = 8, 2_000
# Class of a module -> the activation that our layer of this kind has; None for modules without one.
CLASSES = {
    **dict.fromkeys(
        ("Generator", "SynthesisNetwork", "SynthesisBlock", "MappingNetwork", "Discriminator"), None
    ),
    **dict.fromkeys(("DiscriminatorBlock", "DiscriminatorEpilogue", "MinibatchStdLayer", "ToRGBLayer"), None),
    "SynthesisLayer": "lrelu",
    "Conv2dLayer": "lrelu",
    "FullyConnectedLayer": "lrelu",
}
LINEAR = re.compile(r"(^|\.)(affine|embed|skip|b4\.out)$")
ALIAS_FREE = ("SynthesisInput", "FreqLayer")


def recognises(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("G_ema"), Record)


def convert(content: dict[str, Any]) -> Imported:
    """Raises Unrepresentable for a G that our layers cannot represent; D is left out if it cannot be."""
    modules = _modules(content["G_ema"])
    fields, shape = _generator_settings(modules)
    imported = Imported(fields, **shape, G=rename(_tensors(modules)))
    if "torgb_style" in fields:
        imported.notes.append("it is of yohan-pg's style-vector fork")
    if "mapping.w_avg" not in imported.G:
        if shape["classes"]:
            raise Unrepresentable("a conditional mapping without w_avg: truncation has no centre")
        imported.G["mapping.w_avg"], note = estimate_w_avg(imported.G, fields)
        imported.notes.append(note)
    try:
        if not isinstance(content.get("D"), Record):
            raise Unrepresentable("the file has none")
        modules = _modules(content["D"])
        imported.fields |= _discriminator_settings(modules, imported)
        imported.D = rename(_tensors(modules))
    except Unrepresentable as error:
        imported.notes.append(f"D is left out: {error}")
    return imported


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a reference generator or discriminator under the names of ours."""

    def ours(name: str) -> str:
        plain = _PLAIN_RGB.fullmatch(name)
        if plain and f"{plain[1]}.affine.weight" not in state:
            return f"{plain[1]}.conv.{plain[2]}"
        return _INJECTED.sub(r"\1.inject.\2", name)

    return {ours(name): value for name, value in state.items() if not name.endswith("resample_filter")}


def reference_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `rename`, without resampling filters."""
    return {_OURS.sub(r"\1.", name): value for name, value in state.items()}


def _modules(top: Record) -> dict[str, Record]:
    """Every module of a network by its dotted name, the network itself as ''."""
    found: dict[str, Record] = {}

    def walk(record: Record, name: str, depth: int) -> Iterator[tuple[str, Record]]:
        if depth > DEEPEST:
            raise Unrepresentable("modules nested too deeply")
        yield name, record
        children = record.state.get("_modules")
        for key, child in (children if isinstance(children, dict) else {}).items():
            if isinstance(child, Record):
                yield from walk(child, f"{name}.{key}" if name else str(key), depth + 1)

    for name, record in walk(top, "", 0):
        found[name] = record
        if len(found) > MOST_MODULES:
            raise Unrepresentable("too many modules")
    for name, record in found.items():
        _check_module(name, record)
    return found


def _check_module(name: str, record: Record) -> None:
    where = f"{name[:60] or 'the network'} is a {record.name[:60]}"
    if record.name in ALIAS_FREE or "magnitude_ema" in _own(record, "_buffers"):
        raise Unrepresentable(f"{where}, an alias-free layer of StyleGAN3")
    if record.name not in CLASSES:
        raise Unrepresentable(f"{where}, which has no counterpart here")
    expected = "linear" if LINEAR.search(name) else CLASSES[record.name]
    given = record.state.get("activation", expected)
    if expected is not None and given != expected:
        raise Unrepresentable(f"{where} with activation {_shown(given)}; here it is {expected}")
    taps = _own(record, "_buffers").get("resample_filter")
    if isinstance(taps, Tensor) and not _is_our_filter(taps):
        raise Unrepresentable(f"{where} with another resampling filter than [1, 3, 3, 1]")


def _is_our_filter(taps: Tensor) -> bool:
    return taps.shape == FILTER.shape and torch.allclose(taps.float(), FILTER, rtol=0, atol=1e-6)


def _generator_settings(modules: Mapping[str, Record]) -> tuple[dict[str, Any], dict[str, int]]:
    """Fields of TrainConfig, and resolution, channels, classes."""
    top, mapping, synthesis = (_module(modules, name) for name in ("", "mapping", "synthesis"))
    resolution = _number(synthesis, "img_resolution")
    blocks = _blocks(modules, "synthesis.", resolution)
    layers = [r for name, r in modules.items() if r.name in ("SynthesisLayer", "ToRGBLayer")]
    convs = [r for r in layers if r.name == "SynthesisLayer"]
    widths = {res: _weight(modules, f"synthesis.b{res}.conv1").shape[0] for res in blocks}
    depth = _number(mapping, "num_layers")
    base, most = width_fields(widths)
    fields = dict(
        resolution=resolution,
        z_dim=_number(mapping, "z_dim"),
        w_dim=_number(mapping, "w_dim"),
        map_depth=depth,
        mapping_lr_mult=float(
            one_value((_gain(modules, f"mapping.fc{i}") for i in range(depth)), "lr_multiplier")
        ),
        cond=_number(mapping, "c_dim") > 0,
        g_arch=_text(one_value((b.state.get("architecture") for b in blocks.values()), "architecture")),
        noise="random" if one_value((r.state.get("use_noise") for r in convs), "use_noise") else "off",
        conv_clamp=one_value((r.state.get("conv_clamp") for r in layers), "conv_clamp"),
        fp16_layers=sum(b.state.get("use_fp16") is True for b in blocks.values()),
        channel_base=base,
        channel_max=most,
    )
    fields |= _fork_settings(modules, layers)
    return fields, dict(
        resolution=resolution, channels=_number(top, "img_channels"), classes=_number(mapping, "c_dim")
    )


def _fork_settings(modules: Mapping[str, Record], layers: list[Record]) -> dict[str, Any]:
    """Fields of a generator of yohan-pg's fork; none for StyleGAN2-ADA's own."""
    mapping = _module(modules, "mapping")
    of_fork = {"use_adaconv", "sample_for_adaconv", "num_adaconv_vectors"}
    if not any(of_fork & record.state.keys() for record in (mapping, *layers)):
        return {}
    if missing := {"use_adaconv", "normalize_latent", "div_by_sqrt"} - mapping.state.keys():
        raise Unrepresentable(f"a style-vector fork of another day: its mapping has no {min(missing)}")
    if mapping.state.get("sample_w_plus"):
        raise Unrepresentable("sample_w_plus: its mapping repeats the latents of all layers for every layer")
    many = one_value((r.state.get("use_adaconv") for r in (mapping, *layers)), "use_adaconv") is True
    if many and _number(mapping, "c_dim"):
        raise Unrepresentable("labels beside style vectors, which its mapping cannot join")
    rgb = (r.state.get("inject_in_torgb") for r in layers if r.name == "ToRGBLayer")
    rates = (_gain(modules, name) for name in modules if name.endswith(".affine"))
    fields = dict(
        affine_lr_mult=float(one_value(rates, "affine_slowdown")),
        latent_norm="none" if mapping.state["normalize_latent"] is not True else "joint" if many else "row",
        torgb_style="all" if one_value(rgb, "inject_in_torgb") is True else "none",
    )
    if many:
        fields |= vectors(_number(mapping, "num_adaconv_vectors"))
        fields["latent_div_sqrt"] = mapping.state["div_by_sqrt"] is True
    return fields


def _discriminator_settings(modules: Mapping[str, Record], imported: Imported) -> dict[str, Any]:
    """Fields of TrainConfig. Raises Unrepresentable where D does not go with G."""
    top, epilogue = _module(modules, ""), _module(modules, "b4")
    fields, resolution = imported.fields, imported.resolution
    for name, value in dict(
        img_resolution=resolution, img_channels=imported.channels, c_dim=imported.classes
    ).items():
        if _number(top, name) != value:
            raise Unrepresentable(f"{name} {_number(top, name)}, that of G is {value}")
    blocks = _blocks(modules, "", resolution)
    convs = [r for name, r in modules.items() if r.name == "Conv2dLayer" and not name.endswith("skip")]
    clamp = one_value(
        (r.state.get("conv_clamp") for r in convs if r is not modules.get("b4.fromrgb")), "conv_clamp"
    )
    if clamp != fields["conv_clamp"]:
        raise Unrepresentable(f"conv_clamp {_shown(clamp)}, that of G is {fields['conv_clamp']}")
    mbstd = modules.get("b4.mbstd")
    if mbstd is None or mbstd.state.get("num_channels") != 1:
        raise Unrepresentable("another minibatch standard deviation than one channel")
    if type(mbstd.state.get("group_size")) is not int:
        raise Unrepresentable("minibatch standard deviation over the whole batch")
    if imported.classes:
        _check_label_mapping(modules)
    widths = {res: _weight(modules, f"b{res}.conv0").shape[0] for res in blocks if res > 4}
    widths[4] = _weight(modules, "b4.conv").shape[0]
    base, most = width_fields(widths)
    group = _number(mbstd, "group_size")
    batch = TrainConfig.batch
    return dict(
        d_arch=_text(
            one_value((b.state.get("architecture") for b in [*blocks.values(), epilogue]), "architecture")
        ),
        mbstd_group_size=group,
        **({} if batch % min(group, batch) == 0 else {"batch": group}),
        **_relative_width(base, most, fields, widths),
    )


def _relative_width(
    base: int, most: int, fields: Mapping[str, Any], widths: Mapping[int, int]
) -> dict[str, Any]:
    """d_channel_mult and d_channel_max; nothing where D is as wide as G."""
    g_base, g_most = fields["channel_base"], fields["channel_max"]
    if all(min(g_base // res, g_most) == width for res, width in widths.items()):
        return {}
    return dict(d_channel_mult=base / g_base, d_channel_max=most)


def _check_label_mapping(modules: Mapping[str, Record]) -> None:
    mapping = _module(modules, "mapping")
    gains = [_gain(modules, f"mapping.fc{i}") for i in range(_number(mapping, "num_layers"))]
    if len(gains) != 8 or set(gains) != {0.01}:
        raise Unrepresentable("another mapping of labels than 8 layers at a learning rate of 0.01")


def _tensors(modules: Mapping[str, Record]) -> dict[str, Tensor]:
    """The state dict; layers that Freeze-D holds fixed keep their weights in buffers."""
    return {
        f"{name}.{key}" if name else key: value
        for name, record in modules.items()
        for kind in ("_parameters", "_buffers")
        for key, value in _own(record, kind).items()
        if isinstance(value, Tensor)
    }


def _blocks(modules: Mapping[str, Record], prefix: str, resolution: int) -> dict[int, Record]:
    """The blocks of a network by resolution, from 4 up."""
    if resolution < 4 or resolution & (resolution - 1) or resolution > 2**14:
        raise Unrepresentable(f"{resolution} px; here a side is a power of two")
    return {2**i: _module(modules, f"{prefix}b{2**i}") for i in range(2, resolution.bit_length())}


def _module(modules: Mapping[str, Record], name: str) -> Record:
    if name not in modules:
        raise Unrepresentable(f"no module {name}")
    return modules[name]


def _own(record: Record, kind: str) -> dict[str, Any]:
    found = record.state.get(kind)
    return found if isinstance(found, dict) else {}


def _weight(modules: Mapping[str, Record], name: str) -> Tensor:
    record = _module(modules, name)
    weight = (_own(record, "_buffers") | _own(record, "_parameters")).get("weight")
    if not isinstance(weight, Tensor) or weight.ndim != 4:
        raise Unrepresentable(f"{name} has no weight of a convolution")
    return weight


def _gain(modules: Mapping[str, Record], name: str) -> float:
    gain = _module(modules, name).state.get("bias_gain")
    if type(gain) not in (int, float):
        raise Unrepresentable(f"{name} has no learning rate")
    return float(gain)


def _number(record: Record, name: str) -> int:
    value = record.state.get(name)
    if type(value) is not int:
        raise Unrepresentable(f"a {record.name[:60]} without {name}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unrepresentable(f"an architecture {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
