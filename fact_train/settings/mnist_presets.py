"""Presets on MNIST, sized for two CPU cores: StyleGAN2, its style injections, and StylEx."""

from typing import Any

from fact_train.settings.config import TrainConfig
from fact_train.settings.preset import Preset
from fact_train.settings.style_fields import EXPERIMENTS, MATRICES, matrix, vectors

_MNIST = dict(
    data="mnist",
    z_dim=128,
    w_dim=128,
    map_depth=2,
    mapping_lr_mult=0.1,
    channel_base=512,
    channel_max=64,
    mbstd_group_size=16,
    batch=16,
    g_lr=0.005,
    d_lr=0.005,
    r1_gamma=5.0,
    pl_weight=0.0,
    style_mixing_prob=0.0,
    ema_kimg=2.0,
    ema_rampup=0.1,
    kimg=150,
    kimg_per_tick=2,
    snapshot_ticks=15,
    image_ticks=15,
)
_STYLEGAN2 = {
    **_MNIST,
    **dict(g_lr=0.006, d_lr=0.006, kimg=100, kimg_per_tick=4, snapshot_ticks=5),
    **dict(g_arch="orig", d_arch="orig", noise="off"),  # half as many operations; a CPU starts each by itself
    **dict(r1_gamma_final=0.5, r1_decay_kimg=50),
}
# One change at a time: no schedule, and images enough for all ten digits. Chosen by FID and digits covered
# from 16 trials on seed 90 (docs/trials.md).
STUDY = {
    **_STYLEGAN2,
    **dict(r1_gamma=3.0, r1_gamma_final=None, g_lr=0.007, d_lr=0.007),
    **dict(kimg=48, kimg_per_tick=8, snapshot_ticks=1000, image_ticks=1000),
}
# What the StyleGAN2 paper has and STUDY leaves out.
_FULL = {
    **STUDY,
    **dict(g_arch="skip", d_arch="resnet", noise="random", style_mixing_prob=0.9, pl_weight=2.0),
}
_COND = {**_MNIST, **dict(cond=True, g_lr=0.008, d_lr=0.008, kimg=80)}
# D sees the mapping's images only.
_STYLEX = {
    **_MNIST,
    **dict(g_lr=0.006, d_lr=0.006, kimg=96, kimg_per_tick=4, snapshot_ticks=4),
    **dict(r1_gamma_final=0.5, r1_decay_kimg=50),
    **dict(model="stylex", classifier="mnist", class_repr="logits", d_cond="projection"),
    # in one step, gradients from D and the encoder dominate those of the mapping
    **dict(branches="mapping", alternation="off", rec_in_d_phase=True),
    **dict(encoder_init="standardised", encoder_lr_mult=0.1),
    **dict(w_lpips=0.0),  # on all 16 images it costs nearly as much as the rest of a step
    **dict(w_w=0.01, w_l1=0.3, w_l2=1.0),
    **dict(kl_scale=0.02),  # with a larger weight, each class collapses to one reconstruction
}
# D sees images of mapping and encoder by turns. E and G learn to reconstruct in a step after the encoder's.
# Why each line is there: docs/trials.md.
_STYLEX_ALTERNATING = {
    **_STYLEX,
    **dict(branches="both", alternation="step", rec_in_g_phase=False),
    **dict(g_arch="orig", d_arch="orig", noise="off"),
    **dict(encoder_adversarial=False),  # D's scores hinder E
    **dict(z_dim=16, w_dim=16, class_scale=0.3),  # z, E's part and the class part, each with room
    **dict(w_latent=1.0, pl_weight=2.0),  # without them, G ignores z
    **dict(kimg=64, r1_decay_kimg=40),
}
_STYLEX_STUDY = {
    **_STYLEX_ALTERNATING,
    **dict(channel_base=256, channel_max=32),
    **dict(kimg=32, r1_decay_kimg=24, snapshot_ticks=1000, image_ticks=1000),
}


def _vectors(k: int) -> dict[str, Any]:
    """The baseline with K style vectors. From 16 on gamma is constant: decay loses digits."""
    kept = {"r1_gamma_final": None} if k >= 16 else {}
    return {**_STYLEGAN2, **vectors(k), **kept}


STYLEGAN2_PRESETS = {
    "mnist-stylegan2": Preset(
        TrainConfig(**_STYLEGAN2),
        summary="The baseline: a narrowed StyleGAN2 without noise, mixing and path length, with a decaying "
        "gamma",
        source="StyleGAN2-ADA's cifar configuration, narrowed; trunks, width, learning rates and gamma "
        "chosen by legibility in about 30 short trials on seed 0",
        minutes=4,
        memory_gb=0.9,
    ),
    "mnist-stylegan2-study": Preset(
        TrainConfig(**STUDY),
        summary="The base of the ablations: mnist-stylegan2 with constant gamma and half as many images",
        source="mnist-stylegan2; gamma, rate, width chosen by FID and digits covered in 16 trials, seed 90",
    ),
    "mnist-stylegan2-full": Preset(
        TrainConfig(**_FULL),
        summary="StyleGAN2 on MNIST with noise, style mixing and path length, a skip generator, a residual "
        "discriminator and a constant gamma",
        source="config F of the StyleGAN2 paper, narrowed, with the learning rates of mnist-stylegan2",
    ),
    "mnist-cond": Preset(
        TrainConfig(**_COND),
        summary="Class-conditional StyleGAN2 on MNIST",
        source="mnist-stylegan2 with labels; projection discriminator as in StyleGAN2-ADA",
        minutes=5,
        memory_gb=0.9,
    ),
    **{
        f"mnist-vectors-{k}": Preset(
            TrainConfig(**_vectors(k)),
            summary=f"{k} style vector{'s' * (k > 1)} per layer{', one per channel,' * (k == 64)} on MNIST",
            source="mnist-stylegan2 with the style vectors of Poirier-Ginter et al. 2022, arXiv:2205.06304",
            minutes=4 if k == 1 else 7,
            memory_gb=0.9,
        )
        for k in (1, 4, 16, 64)
    },
    **{
        f"mnist-matrix{name}": Preset(
            TrainConfig(**{**_STYLEGAN2, **matrix(64, **fields)}),
            summary=f"Style matrix on MNIST, {summary}",
            source=f"mnist-stylegan2 with a style matrix from {EXPERIMENTS}",
            minutes=7,
            memory_gb=0.9,
        )
        for name, (summary, fields) in MATRICES.items()
    },
}
STYLEX_PRESETS = {
    "mnist": Preset(
        TrainConfig(**_STYLEX),
        summary="StylEx on MNIST, explains a classifier of the ten digits",
        source="StyleGAN2-ADA's cifar configuration, narrowed, with a separate training step for the "
        "encoder; loss weights chosen in ten short trials on seed 0",
        minutes=10,
        memory_gb=0.9,
    ),
    "mnist-stylex-alternating": Preset(
        TrainConfig(**_STYLEX_ALTERNATING),
        summary="StylEx on MNIST whose discriminator sees images of mapping and encoder by turns",
        source="the preset mnist; trunks, w and losses chosen in some twenty trials on seed 90",
    ),
    "mnist-stylex-study": Preset(
        TrainConfig(**_STYLEX_STUDY),
        summary="The base of StylEx studies: mnist-stylex-alternating at half the width and half as many "
        "images",
        source="mnist-stylex-alternating",
    ),
}
