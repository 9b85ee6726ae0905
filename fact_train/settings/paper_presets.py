"""Presets of published configurations: StyleGAN2-ADA's, and those of the style experiments."""

from typing import Any

from fact_train.settings.config import TrainConfig
from fact_train.settings.preset import Preset
from fact_train.settings.style_fields import EXPERIMENTS, MATRICES, matrix, vectors

_ADA = "train.py of NVlabs/stylegan2-ada-pytorch @d72cc7d"
_OVERPARAM = (
    "Poirier-Ginter et al. 2022, arXiv:2205.06304, with the settings of the last training scripts in "
    "yohan-pg/stylegan2-ada-pytorch (not reproduced)"
)


def _auto(resolution: int) -> dict[str, Any]:
    """StyleGAN2-ADA's cfg=auto on one GPU."""
    batch = max(min(4096 // resolution, 32), 1)
    return dict(
        batch=batch,
        mbstd_group_size=min(batch, 4),
        channel_base=32768 if resolution >= 512 else 16384,
        g_lr=0.002 if resolution >= 1024 else 0.0025,
        d_lr=0.002 if resolution >= 1024 else 0.0025,
        ema_kimg=batch * 10 / 32,
    )


_AUTO = dict(data="images", map_depth=2, r1_gamma="auto", ema_rampup=0.05)
_PAPER = dict(data="images", ema_rampup=None)


def _named(summary: str, **fields: Any) -> Preset:
    return Preset(TrainConfig(**fields), summary=summary, source=_ADA, needs=("data",))


def _afhqcat(summary: str, **fields: Any) -> Preset:
    shared = dict(
        _AUTO, **{**_auto(32), "batch": 8, "ema_kimg": 2.5}, resolution=32, r1_gamma=10.0, noise="off"
    )
    return Preset(
        TrainConfig(**{**shared, "kimg": 5000, **fields}),
        summary=summary,
        source=EXPERIMENTS,
        needs=("data",),
    )


PAPER_PRESETS = {
    "auto": Preset(
        TrainConfig(**_AUTO, **_auto(256), resolution=256),
        summary="Learning rates, width and gamma by --resolution (default 256), for one GPU",
        source=_ADA,
        needs=("data",),
        at_resolution=_auto,
    ),
    "stylegan2": _named("Config F of the StyleGAN2 paper", **_PAPER, batch=32, r1_gamma=10.0, ema_kimg=10.0),
    "paper256": _named(
        "FFHQ and LSUN at 256 px", **_PAPER, resolution=256, batch=64, mbstd_group_size=8, channel_base=16384,
        g_lr=0.0025, d_lr=0.0025, r1_gamma=1.0, ema_kimg=20.0,
    ),
    "paper512": _named(
        "BreCaHAD and AFHQ at 512 px", **_PAPER, resolution=512, batch=64, mbstd_group_size=8,
        g_lr=0.0025, d_lr=0.0025, r1_gamma=0.5, ema_kimg=20.0,
    ),
    "paper1024": _named(
        "MetFaces at 1024 px", **_PAPER, resolution=1024, batch=32, r1_gamma=2.0, ema_kimg=10.0,
    ),
    "cifar": _named(
        "CIFAR-10, 32 px", **_PAPER | {"ema_rampup": 0.05}, resolution=32, map_depth=2, d_arch="orig",
        batch=64, mbstd_group_size=32, g_lr=0.0025, d_lr=0.0025, r1_gamma=0.01, ema_kimg=500.0, pl_weight=0.0,
        style_mixing_prob=0.0, kimg=100000,
    ),
    "afhqcat32-modconv": _afhqcat("StyleGAN2 without noise at 32 px"),
    **{
        f"afhqcat32-vectors-{k}": _afhqcat(f"{k} style vectors per layer at 32 px", **vectors(k))
        for k in (2, 4, 8, 16, 64, 512)
    },
    **{
        f"afhqcat32-matrix{name}": _afhqcat(f"Style matrix at 32 px, {summary}", **matrix(512, **fields))
        for name, (summary, fields) in MATRICES.items()
    },
    "overparam256": Preset(
        TrainConfig(
            data="images", resolution=256, map_depth=2, batch=16, r1_gamma=30.0, noise="off", ema_kimg=10.0,
            **vectors(512), latent_norm="joint", affine_lr_mult=0.01,
        ),
        summary="AFHQv2 cats at 256 px, 512 style vectors per layer",
        source=_OVERPARAM,
        needs=("data",),
    ),
}  # fmt: skip
