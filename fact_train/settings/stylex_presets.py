"""Presets of StylEx at 64 px: our own, and the settings of both trainers of the FACT reproduction.

The reproduction is NoahVl/Explaining-In-Style-Reproducibility-Study @18fe8cc; `old` is `stylex_train.py` and
`new` is `stylex_train_new.py`. If their code and text differ, these presets follow the text. `_DIFFERS` says
what remains. Their images lie in [0, 1], so that pixel weight 1 is 0.5 here.
"""

from fact_train.settings.config import TrainConfig
from fact_train.settings.preset import Preset

# Channels 32 at 64 px up to 512; D and E twice as wide, up to 512 too; 4 images at a time, 8 times a step.
_REFERENCE = dict(
    model="stylex",
    z_dim=512,
    w_dim=512,
    map_depth=8,
    mapping_lr_mult=0.1,
    channel_base=2048,
    channel_max=512,
    d_channel_mult=2.0,
    d_channel_max=512,
    e_channel_mult=2.0,
    e_channel_max=512,
    mbstd_group_size=1,
    batch=32,
    batch_gpu=4,
    g_lr=0.0002,
    d_lr=0.0002,
    ttur_mult=1.5,
    beta1=0.5,
    beta2=0.9,
    loss="hinge",
    gp="one",
    r1_phase="d",
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
    lpips_stretch=True,
    w_w=0.1,
    w_l1=0.5,
    kl_scale=1.0,
    kimg=4800,
)
REFERENCE_OLD = {
    **_REFERENCE,
    "class_repr": "logits",
    "mapping_class": "predicted",
    "d_cond": "off",
    "encoder_lr_mult": 1.0,
}
REFERENCE_NEW = {
    **_REFERENCE,
    "class_repr": "softmax",
    "d_cond": "weighted",
    "encoder_lr_mult": 0.05,
}
# The networks of the reproduction with StyleGAN2's losses and learning rates.
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
    "loss": "logistic",
    "gp": "zero",
    "r1_phase": "own",
    "lpips_stretch": False,
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
# Dataset -> its fields. Only MNIST's images are bundled.
DATASETS = {
    "mnist": dict(data="mnist", classifier="mnist"),
    "plants64": dict(data="plants64", resolution=64, crop="center"),
    "ffhq64": dict(data="ffhq64", resolution=64, crop="center"),
    "afhq64": dict(data="afhq64", resolution=64, crop="center"),
}
MIRRORED = ("ffhq64", "afhq64")  # in our own configuration: faces, which the reproduction does not mirror
# Field, or part of the source -> where a reference preset is not its source, and why.
_DIFFERS = {
    "gp": "Same formula, but their images span 1 and ours 2: their gradients are twice ours at the same D.",
    "w_l1": "Their images span 1 and ours 2.",
    "rec_scale": "Their default is 1; they report 5 to 10.",
    "perceptual": "The weights of their LPIPS are no part of this package; lpips_alex takes them.",
    "mbstd_group_size": "They have no minibatch statistic; a group of one is constant.",
    "ema_kimg": "Their average moves every tenth step, from step 20,000 on; the half-life is the same.",
    "path length": "Theirs starts after 5,000 steps.",
    "generator": "Theirs has two more 3x3 convolutions at 4x4, bilinear upsampling and uniform noise: 11.2 "
    "million weights, ours 6.2.",
    "discriminator, encoder": "Same widths; theirs have a third convolution in each block, and a block "
    "without halving: 22.7 and 23.7 million weights, ours 14.0 and 14.3.",
}
_OF_MNIST = {
    "classifier": "Theirs tells the digit 8 from all others; take --classifier mnist-8 --balance for that.",
    "channels": "Theirs repeats gray images to three channels.",
    "balance": "Theirs draws both classes equally often.",
}
_STUDY = "NoahVl/Explaining-In-Style-Reproducibility-Study @18fe8cc"
# Kind -> its fields, summary and source.
KINDS = {
    "stylex": (OURS, "StylEx", f"networks of {_STUDY}; losses and learning rates of StyleGAN2"),
    "stylex-reference-old": (
        REFERENCE_OLD,
        "StylEx as stylex_train.py intends",
        f"{_STUDY}, stylex_train.py",
    ),
    "stylex-reference-new": (
        REFERENCE_NEW,
        "StylEx as stylex_train_new.py intends",
        f"{_STUDY}, stylex_train_new.py",
    ),
}


def stylex_config(kind: str, dataset: str) -> TrainConfig:
    """The configuration of a kind (a key of KINDS) for a dataset (a key of DATASETS)."""
    mirror = kind == "stylex" and dataset in MIRRORED
    return TrainConfig(**{**KINDS[kind][0], **DATASETS[dataset], "mirror": mirror})


def stylex_differs(kind: str, dataset: str) -> dict[str, str]:
    """Where a reference preset is not its source; nothing of our own configuration."""
    if kind == "stylex":
        return {}
    return {**_DIFFERS, **(_OF_MNIST if dataset == "mnist" else {})}


REPRODUCTION_PRESETS = {
    f"{kind}-{dataset}": Preset(
        stylex_config(kind, dataset),
        summary=f"{summary}, {dataset}",
        source=source,
        needs=() if "classifier" in fields else ("data", "classifier"),
        differs=stylex_differs(kind, dataset),
    )
    for kind, (_, summary, source) in KINDS.items()
    for dataset, fields in DATASETS.items()
    if (kind, dataset) != ("stylex", "mnist")  # the preset mnist, sized for two cores
}
