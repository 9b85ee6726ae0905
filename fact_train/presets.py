"""PRESETS: name -> configuration, with its source and what it costs. A preset is one entry."""

from dataclasses import dataclass

from fact_train.config import TrainConfig
from fact_train.stylex_presets import DATASETS, KINDS, stylex_config
from metrics.errors import unknown_name


@dataclass(frozen=True)
class Preset:
    """A configuration with where it comes from and what it takes on two CPU cores."""

    config: TrainConfig
    summary: str
    source: str
    minutes: float | None = None  # measured, 2 CPU cores; None: not measured
    memory_gb: float | None = None  # peak resident memory, measured
    needs: tuple[str, ...] = ()  # fields that the user must give


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

PRESETS: dict[str, Preset] = {
    "mnist-stylegan2": Preset(
        TrainConfig(
            **{**_MNIST, "g_lr": 0.006, "d_lr": 0.006, "kimg": 100, "kimg_per_tick": 4, "snapshot_ticks": 5},
            g_arch="orig",  # plain trunks and no noise: half as many operations to start on a CPU
            d_arch="orig",
            noise="off",
            r1_gamma_final=0.5,
            r1_decay_kimg=50,
        ),
        summary="StyleGAN2 on MNIST, unconditional: the measured baseline",
        source="StyleGAN2-ADA's cifar configuration, narrowed; trunks, width, rates and gamma by search",
        minutes=4,
        memory_gb=0.9,
    ),
    "mnist-cond": Preset(
        TrainConfig(**{**_MNIST, "g_lr": 0.008, "d_lr": 0.008, "kimg": 80}, cond=True),
        summary="class-conditional StyleGAN2 on MNIST",
        source="mnist-stylegan2 with labels (Miyato & Koyama 2018 projection, as StyleGAN2-ADA)",
        minutes=5,
        memory_gb=0.9,
    ),
}

PRESETS["mnist"] = Preset(
    TrainConfig(
        **{**_MNIST, "g_lr": 0.006, "d_lr": 0.006, "kimg": 96, "kimg_per_tick": 4, "snapshot_ticks": 4},
        r1_gamma_final=0.5,
        r1_decay_kimg=50,
        model="stylex",
        classifier="mnist",
        class_repr="logits",
        d_cond="projection",
        branches="mapping",  # D's and the encoder's gradients in one step drown the mapping's images
        alternation="off",
        rec_in_d_phase=True,
        encoder_init="standardised",
        encoder_lr_mult=0.1,
        w_lpips=0.0,  # on all 16 images it costs nearly as much as the rest of a step
        w_w=0.01,
        w_l1=0.3,
        w_l2=1.0,
        kl_scale=0.02,  # more, and the encoder's image of a class is all that is learnt
    ),
    summary="StylEx on MNIST: explains a classifier of the ten digits",
    source="StyleGAN2-ADA's cifar configuration, narrowed, with an encoder that learns in a step of its own",
    minutes=10,
    memory_gb=0.9,
)
for _kind, (_, _summary, _source) in KINDS.items():
    for _dataset, _fields in DATASETS.items():
        if (_kind, _dataset) == ("stylex", "mnist"):
            continue  # the preset mnist, sized for two cores
        PRESETS[f"{_kind}-{_dataset}"] = Preset(
            stylex_config(_kind, _dataset),
            summary=f"{_summary}, {_dataset}",
            source=_source,
            needs=() if "classifier" in _fields else ("data", "classifier"),
        )


def get_preset(name: str) -> Preset:
    """The preset of this name; UsageError with the closest names otherwise."""
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]
