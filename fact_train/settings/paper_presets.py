"""Presets of published configurations: StyleGAN2-ADA's, and those of the style experiments.

tests/test_preset_sources.py holds every field to a table of the source's values; `differs` says where ours is
another, and why.
"""

from typing import Any

from fact_train.settings.auto import auto_fields
from fact_train.settings.config import TrainConfig
from fact_train.settings.preset import Preset
from fact_train.settings.style_fields import EXPERIMENTS, MATRICES, matrix, vectors

_ADA = "train.py of NVlabs/stylegan2-ada-pytorch @d72cc7d"
_OVERPARAM = (
    "Poirier-Ginter et al. 2022, arXiv:2205.06304, with the settings of the last training scripts in "
    "yohan-pg/stylegan2-ada-pytorch @e1225b0 (not reproduced)"
)
_ADAPTIVE = dict(augment="ada", ada_target=0.6, augment_set="bgc")
# fp16 in the four highest resolutions, on a GPU; a CPU computes in fp32.
_HALF = dict(fp16_layers=4, conv_clamp=256.0)
_AUTO = dict(data="images", map_depth=2, r1_gamma="auto", ema_rampup=0.05, **_ADAPTIVE)
_PAPER = dict(data="images", ema_rampup=None, **_ADAPTIVE, **_HALF)


def _named(summary: str, **fields: Any) -> Preset:
    return Preset(TrainConfig(**fields), summary=summary, source=_ADA, needs=("data",))


# train.sh of 2021-09-13: cfg=auto on two GPUs with batch 8 and gamma 10. The settings of other days differ:
# noise came back on 09-14, fp32 on 09-17, and path length got a power of K in November.
_AFHQCAT = {
    **_AUTO,
    **auto_fields(32, gpus=2),
    **dict(resolution=32, batch=8, r1_gamma=10.0, noise="off", kimg=5000),
}


_AFHQCAT_DIFFERS = {
    "fp16_layers": "Their fp16 has no clamp, and the notes of that day call it broken; fp32 from 09-17 on.",
    "style_vectors": "The code of that day has 512 vectors or one; the notes report fewer.",
    "matrix_postnorm": "Theirs demodulates another product than it computes; ours preserves the variance.",
}


def _afhqcat(summary: str, *, differs: tuple[str, ...] = (), **fields: Any) -> Preset:
    many = "style_vectors" in fields
    return Preset(
        TrainConfig(**{**_AFHQCAT, **(dict(pl_power=0.0) if many else {}), **fields}),
        summary=summary,
        source=f"train.sh of 2021-09-13 (@ff0301c); {EXPERIMENTS}",
        needs=("data",),
        differs={name: _AFHQCAT_DIFFERS[name] for name in ("fp16_layers", *differs)},
    )


PAPER_PRESETS = {
    "auto": Preset(
        TrainConfig(**_AUTO, **_HALF, **auto_fields(256), resolution=256),
        summary="Learning rates, width and gamma by --resolution (default 256), for one GPU",
        source=_ADA,
        needs=("data",),
        at_resolution=auto_fields,
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
        f"afhqcat32-vectors-{k}": _afhqcat(
            f"{k} style vectors per layer at 32 px", differs=("style_vectors",) * (k < 512), **vectors(k)
        )
        for k in (2, 4, 8, 16, 64, 512)
    },
    **{
        f"afhqcat32-matrix{name}": _afhqcat(
            f"Style matrix at 32 px, {summary}", differs=("matrix_postnorm",), **matrix(512, **fields)
        )
        for name, (summary, fields) in MATRICES.items()
    },
    "overparam256": Preset(
        TrainConfig(
            data="images", resolution=256, map_depth=2, batch=16, r1_gamma=30.0, noise="off", ema_kimg=10.0,
            **vectors(512), latent_norm="joint", affine_lr_mult=0.01, pl_rows="all", **_ADAPTIVE,
        ),
        summary="AFHQv2 cats at 256 px, 512 style vectors per layer",
        source=_OVERPARAM,
        needs=("data",),
    ),
}  # fmt: skip
