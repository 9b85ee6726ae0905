"""PRESETS: name -> configuration, with its source and cost. A preset is one entry."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fact_metrics.base.errors import UsageError, unknown_name
from fact_train.settings.config import TrainConfig, flag
from fact_train.settings.stylex_presets import DATASETS, KINDS, stylex_config


@dataclass(frozen=True)
class Preset:
    """A configuration, its source, and its cost on two CPU cores.

    `at_resolution` gives the fields that depend on the resolution.
    """

    config: TrainConfig
    summary: str
    source: str
    minutes: float | None = None  # 2 CPU cores with AVX-512, python -m benchmarks presets; None: not measured
    memory_gb: float | None = None  # peak resident memory in the same run
    needs: tuple[str, ...] = ()  # fields that the user must give
    at_resolution: Callable[[int], dict[str, Any]] | None = None

    def at(self, resolution: int | None) -> TrainConfig:
        """The configuration for images of this resolution; None keeps the preset's own."""
        if resolution is None or self.at_resolution is None:
            return self.config
        return dataclasses.replace(self.config, resolution=resolution, **self.at_resolution(resolution))


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
_MNIST_STYLEGAN2 = {
    **_MNIST,
    **dict(g_lr=0.006, d_lr=0.006, kimg=100, kimg_per_tick=4, snapshot_ticks=5),
    **dict(
        g_arch="orig", d_arch="orig", noise="off"
    ),  # half as many operations, which a CPU starts one by one
    **dict(r1_gamma_final=0.5, r1_decay_kimg=50),
}
# One change at a time, on two cores: no schedule, and images enough to rank settings.
_MNIST_STUDY = {
    **_MNIST_STYLEGAN2,
    **dict(r1_gamma_final=None, kimg=24, kimg_per_tick=4, snapshot_ticks=6, image_ticks=6),
}
# What the StyleGAN2 paper has and _MNIST_STUDY leaves out.
_MNIST_FULL = {
    **_MNIST_STUDY,
    **dict(g_arch="skip", d_arch="resnet", noise="random", style_mixing_prob=0.9, pl_weight=2.0),
}
_ADA = "train.py of NVlabs/stylegan2-ada-pytorch @d72cc7d"
_EXPERIMENTS = (
    "unpublished experiments at 32 px on AFHQ cats (not reproduced), yohan-pg/stylegan2-ada-pytorch @366721a"
)
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
        source=_EXPERIMENTS,
        needs=("data",),
    )


def _mnist_vectors(k: int) -> dict[str, Any]:
    """`mnist-stylegan2` with K style vectors. From 16 on gamma is constant: decay loses digits."""
    kept = {"r1_gamma_final": None} if k >= 16 else {}
    return {**_MNIST_STYLEGAN2, **_vectors(k), **kept}


def _vectors(k: int) -> dict[str, Any]:
    """K style vectors. From 2 on, training uses fused weights too, which is faster from 4 on."""
    return dict(injection="vectors", style_vectors=k, fused_modconv="eval" if k == 1 else "always")


def _matrix(rows: int, **fields: Any) -> dict[str, Any]:
    """A centred style matrix with composite demodulation, unbaked: cheaper below O k^2 pixels."""
    return dict(injection="matrix", style_vectors=rows, fused_modconv="never", matrix_centre=True, **fields)


# The style matrices of the unpublished experiments.
_MATRICES = {
    "": ("divided by sqrt(I), plus the identity", dict(matrix_scale="rsqrt", matrix_identity=True)),
    "-mul": ("multiplied by sqrt(I), plus the identity", dict(matrix_scale="sqrt", matrix_identity=True)),
    "-unscaled": ("plus the identity", dict(matrix_identity=True)),
    "-centred": ("without the identity, so that its scale cancels", {}),
    "-rows": ("rows of length 1, without the identity", dict(matrix_normalise=True)),
}

PRESETS: dict[str, Preset] = {
    "mnist-stylegan2": Preset(
        TrainConfig(**_MNIST_STYLEGAN2),
        summary="StyleGAN2 on MNIST, unconditional, the baseline of the board",
        source="StyleGAN2-ADA's cifar configuration, narrowed; trunks, width, learning rates and gamma "
        "chosen by legibility in about 30 short trials on seed 0",
        minutes=4,
        memory_gb=0.9,
    ),
    "mnist-stylegan2-study": Preset(
        TrainConfig(**_MNIST_STUDY),
        summary="The base of the ablations: mnist-stylegan2 with constant gamma and a quarter of the images",
        source="mnist-stylegan2",
    ),
    "mnist-stylegan2-full": Preset(
        TrainConfig(**_MNIST_FULL),
        summary="StyleGAN2 on MNIST with noise, style mixing and path length, a skip generator, a residual "
        "discriminator and a constant gamma",
        source="config F of the StyleGAN2 paper, narrowed, with the learning rates of mnist-stylegan2",
    ),
    "mnist-cond": Preset(
        TrainConfig(**{**_MNIST, "g_lr": 0.008, "d_lr": 0.008, "kimg": 80}, cond=True),
        summary="Class-conditional StyleGAN2 on MNIST",
        source="mnist-stylegan2 with labels; projection discriminator as in StyleGAN2-ADA",
        minutes=5,
        memory_gb=0.9,
    ),
    **{
        f"mnist-vectors-{k}": Preset(
            TrainConfig(**_mnist_vectors(k)),
            summary=f"{k} style vector{'s' * (k > 1)} per layer{', one per channel,' * (k == 64)} on MNIST",
            source="mnist-stylegan2 with the style vectors of Poirier-Ginter et al. 2022, arXiv:2205.06304",
            minutes=4 if k == 1 else 7,
            memory_gb=0.9,
        )
        for k in (1, 4, 16, 64)
    },
    **{
        f"mnist-matrix{name}": Preset(
            TrainConfig(**{**_MNIST_STYLEGAN2, **_matrix(64, **fields)}),
            summary=f"Style matrix on MNIST, {summary}",
            source=f"mnist-stylegan2 with a style matrix from {_EXPERIMENTS}",
            minutes=7,
            memory_gb=0.9,
        )
        for name, (summary, fields) in _MATRICES.items()
    },
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
        f"afhqcat32-vectors-{k}": _afhqcat(f"{k} style vectors per layer at 32 px", **_vectors(k))
        for k in (2, 4, 8, 16, 64, 512)
    },
    **{
        f"afhqcat32-matrix{name}": _afhqcat(f"Style matrix at 32 px, {summary}", **_matrix(512, **fields))
        for name, (summary, fields) in _MATRICES.items()
    },
    "overparam256": Preset(
        TrainConfig(
            data="images", resolution=256, map_depth=2, batch=16, r1_gamma=30.0, noise="off", ema_kimg=10.0,
            **_vectors(512), latent_norm="joint", affine_lr_mult=0.01,
        ),
        summary="AFHQv2 cats at 256 px, 512 style vectors per layer",
        source=_OVERPARAM,
        needs=("data",),
    ),
}  # fmt: skip

PRESETS["mnist"] = Preset(
    TrainConfig(
        **{**_MNIST, "g_lr": 0.006, "d_lr": 0.006, "kimg": 96, "kimg_per_tick": 4, "snapshot_ticks": 4},
        r1_gamma_final=0.5,
        r1_decay_kimg=50,
        model="stylex",
        classifier="mnist",
        class_repr="logits",
        d_cond="projection",
        branches="mapping",  # in one step, gradients from D and the encoder dominate those of the mapping
        alternation="off",
        rec_in_d_phase=True,
        encoder_init="standardised",
        encoder_lr_mult=0.1,
        w_lpips=0.0,  # on all 16 images it costs nearly as much as the rest of a step
        w_w=0.01,
        w_l1=0.3,
        w_l2=1.0,
        kl_scale=0.02,  # with a larger weight, each class collapses to one reconstruction
    ),
    summary="StylEx on MNIST, explains a classifier of the ten digits",
    source="StyleGAN2-ADA's cifar configuration, narrowed, with a separate training step for the encoder; "
    "loss weights chosen in ten short trials on seed 0",
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


def configure(name: str, changes: dict[str, Any]) -> tuple[TrainConfig, TrainConfig]:
    """A preset with changed fields, and the configuration that its label is compared with.

    UsageError for an unknown preset, a missing field that it needs, and values that contradict each other.
    """
    preset = get_preset(name)
    missing = [field for field in preset.needs if field not in changes]
    if missing:
        raise UsageError(f"--preset {name} needs {' and '.join(map(flag, missing))}.")
    base = preset.at(changes.get("resolution"))
    return dataclasses.replace(base, **changes), dataclasses.replace(
        base, resolution=preset.config.resolution
    )
