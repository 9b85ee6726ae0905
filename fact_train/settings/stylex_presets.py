"""StylEx's presets: ours, and the settings that the two trainers of the FACT reproduction meant to have.

NoahVl/Explaining-In-Style-Reproducibility-Study @18fe8cc: R-old is `stylex_train.py`, R-new
`stylex_train_new.py`. Where their code did something else than their text, the text stands here. What this
project does not have stays different: they use a hinge loss and a one-centred gradient penalty on real images
(here the logistic loss and R1 of the same weight and interval), no minibatch statistic (here a group of one,
which is constant), and they begin path length after 5,000 steps. Their images lie in [0, 1], so that their
weight 1 on pixels is 0.5 here.
"""

from fact_train.settings.config import TrainConfig

# Channels 32 at 64 px up to 512; D twice as wide; 4 images at a time, 8 times a step.
_REFERENCE = dict(
    model="stylex",
    z_dim=512,
    w_dim=512,
    map_depth=8,
    mapping_lr_mult=0.1,
    channel_base=2048,
    channel_max=512,
    d_channel_mult=2.0,
    e_channel_mult=2.0,
    mbstd_group_size=1,
    batch=32,
    batch_gpu=4,
    g_lr=0.0002,
    d_lr=0.0002,
    ttur_mult=1.5,
    beta1=0.5,
    beta2=0.9,
    r1_gamma=5.0,
    r1_interval=4,
    pl_weight=1 / 32,
    pl_interval=32,
    pl_batch_shrink=1,
    style_mixing_prob=0.9,
    ema_kimg=44.0,
    alternation="microbatch",
    compensation=True,
    rec_scale=5.0,
    w_lpips=0.1,
    w_w=0.1,
    w_l1=0.5,
    kl_scale=1.0,
    kimg=4800,
)
REFERENCE_OLD = {**_REFERENCE, "class_repr": "logits", "d_cond": "off", "encoder_lr_mult": 1.0}
REFERENCE_NEW = {
    **_REFERENCE,
    "class_repr": "softmax",
    "d_cond": "weighted",
    "encoder_lr_mult": 0.05,
}
# The reference's networks with StyleGAN2's losses and rates, and its defects mended.
OURS = {
    **_REFERENCE,
    "class_repr": "softmax",
    "d_cond": "projection",
    "mbstd_group_size": 4,
    "g_lr": 0.002,
    "d_lr": 0.002,
    "ttur_mult": 1.0,
    "beta1": 0.0,
    "beta2": 0.99,
    "r1_gamma": 1.0,
    "r1_interval": 16,
    "pl_weight": 2.0,
    "pl_interval": 8,
    "pl_batch_shrink": 2,
    "ema_kimg": 10.0,
    "ema_rampup": 0.05,
    "alternation": "step",
    "compensation": False,
    "encoder_lr_mult": 0.3,
    "w_l1": 1.0,
}
# name -> what belongs to the data; no pixels are bundled but MNIST's
DATASETS = {
    "mnist": dict(data="mnist", classifier="mnist"),
    "plants64": dict(data="plants64", resolution=64, crop="center"),
    "ffhq64": dict(data="ffhq64", resolution=64, mirror=True),
    "afhq64": dict(data="afhq64", resolution=64, mirror=True),
}
KINDS = {
    "stylex": (OURS, "StylEx", "the reference's networks, StyleGAN2's losses and rates"),
    "stylex-reference-old": (REFERENCE_OLD, "StylEx as R-old meant it", "stylex_train.py @18fe8cc"),
    "stylex-reference-new": (REFERENCE_NEW, "StylEx as R-new meant it", "stylex_train_new.py @18fe8cc"),
}


def stylex_config(kind: str, dataset: str) -> TrainConfig:
    """The configuration of a kind of trainer (KINDS) for a dataset (DATASETS)."""
    return TrainConfig(**{**KINDS[kind][0], **DATASETS[dataset]})
