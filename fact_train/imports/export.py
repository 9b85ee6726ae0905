"""Our snapshots under the names of StyleGAN2-ADA, for tools that load its networks.

The file is safetensors: tensors `G_ema.*` and `D.*` that `load_state_dict` of its classes takes as they are,
and under the key `stylegan2-ada` of the metadata the arguments that build these classes.
"""

import json
from typing import Any

import torch
from torch import Tensor

from fact_metrics.base.errors import UserError
from fact_train.imports.stylegan2_ada import FILTER, reference_names
from fact_train.snapshot import Snapshot

# Fields of TrainConfig that StyleGAN2-ADA has no counterpart for, and the only value that exports.
PLAIN = {
    "model": "stylegan2",
    "injection": "modconv",
    "style_vectors": 1,
    "style_amplify": 1.0,
    "affine_lr_mult": 1.0,
    "latent_space": "w",
    "latent_norm": "row",
    "torgb_style": "all",
    "d_cond": "off",
}


def to_stylegan2_ada(snapshot: Snapshot) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of the file. UserError for a network that StyleGAN2-ADA cannot represent."""
    for name, value in PLAIN.items():
        if snapshot.config[name] != value:
            raise UserError(
                f"{snapshot.path} cannot be exported: StyleGAN2-ADA has no --{name.replace('_', '-')} "
                f"{snapshot.config[name]}"
            )
    if isinstance(snapshot.G.img_resolution, str):
        raise UserError(
            f"{snapshot.path} cannot be exported: StyleGAN2-ADA has square images, this is "
            f"--resolution {snapshot.G.img_resolution}"
        )
    arguments = {"G_ema": _generator_arguments(snapshot)}
    tensors = _named("G_ema", snapshot.G)
    if snapshot.D is not None:
        arguments["D"] = _discriminator_arguments(snapshot)
        tensors |= _named("D", snapshot.D)
    return tensors, {"stylegan2-ada": json.dumps(arguments, sort_keys=True)}


def _generator_arguments(snapshot: Snapshot) -> dict[str, Any]:
    cfg = snapshot.config
    return {
        **{name: cfg[name] for name in ("z_dim", "w_dim")},
        **_shape(snapshot),
        "mapping_kwargs": {"num_layers": cfg["map_depth"], "lr_multiplier": cfg["mapping_lr_mult"]},
        "synthesis_kwargs": {
            **{name: cfg[name] for name in ("channel_base", "channel_max", "conv_clamp")},
            "architecture": cfg["g_arch"],
            "num_fp16_res": cfg["fp16_layers"],
            "use_noise": cfg["noise"] != "off",
        },
    }


def _discriminator_arguments(snapshot: Snapshot) -> dict[str, Any]:
    cfg = snapshot.config
    return {
        **_shape(snapshot),
        "architecture": cfg["d_arch"],
        "channel_base": round(cfg["channel_base"] * cfg["d_channel_mult"]),
        "channel_max": cfg["d_channel_max"] or round(cfg["channel_max"] * cfg["d_channel_mult"]),
        "num_fp16_res": cfg["fp16_layers"],
        "conv_clamp": cfg["conv_clamp"],
        "epilogue_kwargs": {"mbstd_group_size": cfg["mbstd_group_size"]},
    }


def _shape(snapshot: Snapshot) -> dict[str, int]:
    G = snapshot.G
    return dict(c_dim=G.c_dim, img_resolution=G.img_resolution, img_channels=G.img_channels)


def _named(name: str, net: torch.nn.Module) -> dict[str, Tensor]:
    """The state dict under the names of the reference, with the filters that its layers hold as buffers."""
    state = reference_names({key: value.cpu().contiguous() for key, value in net.state_dict().items()})
    filtered = {
        key.removesuffix(".weight")
        for key, value in state.items()
        if key.endswith(".weight") and value.ndim == 4 and ".torgb." not in key
    }
    filtered |= {key.rpartition(".")[0] for key in filtered if not (name == "D" and key.startswith("b4."))}
    filters = {f"{layer}.resample_filter": FILTER.clone() for layer in filtered}
    return {f"{name}.{key}": value for key, value in (state | filters).items()}
