"""Presets on Stacked MNIST, three digits in the channels of one image: a test of mode collapse."""

from fact_train.settings.config import TrainConfig
from fact_train.settings.mnist_presets import STUDY
from fact_train.settings.preset import Preset
from fact_train.settings.style_fields import vectors

_KIMG = 600  # as many as two cores take in about 25 minutes, by the speed of mnist-stylegan2
_STYLEGAN2 = {
    **STUDY,
    **dict(data="stacked-mnist", g_lr=0.006, d_lr=0.006),
    **dict(kimg=_KIMG, kimg_per_tick=10, snapshot_ticks=15, image_ticks=15),
}

# R3GAN's loss and penalties, with its schedules of Stacked MNIST over the same shares of a run: 20 % to the
# end values, an EMA of 5 %, penalties to a tenth. Not its batch, networks and rate. The penalties are lazy
# and ten times as strong: with its own, D wins from the start (docs/trials.md).
_END, _EMA = _KIMG // 5, _KIMG // 20
_RELATIVISTIC = {
    **_STYLEGAN2,
    **dict(loss="relativistic", r1_gamma=10.0, r2_gamma=10.0),
    **dict(beta2=0.9, ema_kimg=0.0, ema_rampup=None),
    **dict(
        schedule=f"beta2=cosine:0.99:{_END},ema_kimg=cosine:{_EMA}:{_END},"
        f"r1_gamma=cosine:1:{_END},r2_gamma=cosine:1:{_END}"
    ),
}

STACKED_PRESETS = {
    "stacked-mnist-stylegan2": Preset(
        TrainConfig(**_STYLEGAN2),
        summary="A narrowed StyleGAN2 on Stacked MNIST, without noise, mixing and path length",
        source="mnist-stylegan2-study, with twelve times its images and a rate of 0.006",
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
