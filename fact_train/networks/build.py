"""Networks from a configuration: G, D, E of a run, with random weights, for a dataset of known shape.

A dataset is given by its description (`Dataset.describe()`): a snapshot holds one, so that its networks can
be built again without the data.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fact_metrics.base.limits import LAYER_WIDTH, LAYERS
from fact_train.networks.discriminator import Discriminator
from fact_train.networks.encoder import Encoder
from fact_train.networks.generator import Generator
from fact_train.networks.injection import StyleOptions
from fact_train.settings.config import TrainConfig


def build_networks(
    cfg: TrainConfig, dataset: dict[str, Any], *, class_dim: int = 0
) -> tuple[Generator, Discriminator]:
    """G and D of a configuration, randomly initialised from torch's global generator.

    `dataset` needs resolution, channels and classes. `class_dim` is the number of classes of the classifier
    that StylEx explains; 0 without one.
    """
    shape = dict(
        img_resolution=dataset["resolution"],
        img_channels=dataset["channels"],
    )
    labels = dataset["classes"] if cfg.cond else 0
    G = Generator(
        **shape,
        c_dim=labels,
        class_dim=class_dim,
        mapping_class=cfg.mapping_class,
        z_dim=cfg.z_dim,
        w_dim=cfg.w_dim,
        map_depth=cfg.map_depth,
        mapping_lr_mult=cfg.mapping_lr_mult,
        channel_base=cfg.channel_base,
        channel_max=cfg.channel_max,
        latent_space=cfg.latent_space,
        latent_norm=cfg.latent_norm,
        latent_div_sqrt=cfg.latent_div_sqrt,
        architecture=cfg.g_arch,
        injection=cfg.injection,
        style=StyleOptions.of(cfg),
        torgb_style=cfg.torgb_style,
        noise=cfg.noise,
        noise_learned=cfg.noise_learned,
        noise_strength_init=cfg.noise_strength_init,
        conv_clamp=cfg.conv_clamp,
        fused_modconv=cfg.fused_modconv,
    )
    D = Discriminator(
        **shape,
        c_dim=labels if cfg.d_cond == "off" else class_dim,
        conditioning="projection" if cfg.d_cond == "off" else cfg.d_cond,
        channel_base=round(cfg.channel_base * cfg.d_channel_mult),
        channel_max=cfg.d_channel_max or round(cfg.channel_max * cfg.d_channel_mult),
        architecture=cfg.d_arch,
        mbstd_group_size=cfg.mbstd_group_size,
        conv_clamp=cfg.conv_clamp,
    )
    return G, D


def build_encoder(cfg: TrainConfig, dataset: dict[str, Any]) -> Encoder:
    """StylEx's E of a configuration, randomly initialised: D's trunk in a width of its own.

    `dataset` needs resolution and channels.
    """
    return Encoder(
        w_dim=cfg.w_dim,
        img_resolution=dataset["resolution"],
        img_channels=dataset["channels"],
        channel_base=round(cfg.channel_base * cfg.e_channel_mult),
        channel_max=cfg.e_channel_max or round(cfg.channel_max * cfg.e_channel_mult),
        architecture=cfg.d_arch,
        conv_clamp=cfg.conv_clamp,
    )


def check_sizes(cfg: TrainConfig) -> None:
    """UserError for a configuration of a stranger whose networks would be implausibly large."""
    LAYERS.check(cfg.map_depth, "map_depth", "restore the file")
    for name in ("z_dim", "w_dim", "style_vectors", "channel_max", "mbstd_group_size"):
        LAYER_WIDTH.check(getattr(cfg, name), name, "restore the file")
    for name in ("d_channel_mult", "e_channel_mult"):
        LAYER_WIDTH.check(round(cfg.channel_max * getattr(cfg, name)), name, "restore the file")


def check_tensors(build: Callable[[], Mapping[str, nn.Module]], tensors: Mapping[str, Tensor]) -> None:
    """ValueError unless the named networks that `build` makes have exactly these tensors.

    They are built without memory, so that a file cannot ask for networks larger than itself.
    """
    with torch.device("meta"):
        networks = build()
    expected = {}
    for name, net in networks.items():
        expected |= {key: value.shape for key, value in prefixed(name, net.state_dict()).items()}
    if missing := sorted(expected.keys() ^ tensors.keys()):
        raise ValueError(f"its configuration and its tensors differ in {missing[0][:80]}")
    for key, shape in expected.items():
        if tensors[key].shape != shape:
            raise ValueError(f"{key} has shape {list(tensors[key].shape)}, not {list(shape)}")


def prefixed(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the name of their network."""
    return {f"{name}.{key}": value for key, value in tensors.items()}
