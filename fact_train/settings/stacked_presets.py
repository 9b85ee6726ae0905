"""Presets on Stacked MNIST, three digits in the channels of one image: a test of mode collapse."""

from fact_train.settings.config import TrainConfig
from fact_train.settings.preset import Preset
from fact_train.settings.style_fields import vectors

_STYLEGAN2 = dict(
    data="stacked-mnist",
    z_dim=128,
    w_dim=128,
    map_depth=2,
    mapping_lr_mult=0.1,
    channel_base=512,
    channel_max=64,
    g_arch="orig",
    d_arch="orig",
    noise="off",
    mbstd_group_size=16,
    batch=16,
    g_lr=0.006,
    d_lr=0.006,
    r1_gamma=3.0,
    pl_weight=0.0,
    style_mixing_prob=0.0,
    ema_kimg=2.0,
    ema_rampup=0.1,
    kimg=300,
    kimg_per_tick=10,
    snapshot_ticks=5,
    image_ticks=5,
)

# R3GAN's loss and penalties, with its schedules of Stacked MNIST over the same shares of a run: 20 % to the
# end values, an EMA of 5 %. Not its batch, networks and rate; and the penalties are lazy.
_RELATIVISTIC = {
    **_STYLEGAN2,
    **dict(loss="relativistic", r1_gamma=1.0, r2_gamma=1.0),
    **dict(beta2=0.9, ema_kimg=0.0, ema_rampup=None),
    **dict(
        schedule="beta2=cosine:0.99:60,ema_kimg=cosine:15:60,r1_gamma=cosine:0.1:60,r2_gamma=cosine:0.1:60"
    ),
}

STACKED_PRESETS = {
    "stacked-mnist-stylegan2": Preset(
        TrainConfig(**_STYLEGAN2),
        summary="A narrowed StyleGAN2 on Stacked MNIST, without noise, mixing and path length",
        source="mnist-stylegan2-study, with three times its images",
    ),
    "stacked-mnist-relativistic": Preset(
        TrainConfig(**_RELATIVISTIC),
        summary="stacked-mnist-stylegan2 with a relativistic loss, R1 and R2, and falling penalties",
        source="stacked-mnist-stylegan2; loss, penalties and schedules of R3GAN, Huang et al. 2024, "
        "arXiv:2501.05441, table 9",
    ),
    "stacked-mnist-vectors-64": Preset(
        TrainConfig(**{**_STYLEGAN2, **vectors(64)}),
        summary="64 style vectors per layer on Stacked MNIST",
        source="stacked-mnist-stylegan2; style vectors of Poirier-Ginter et al. 2022, arXiv:2205.06304",
    ),
}
