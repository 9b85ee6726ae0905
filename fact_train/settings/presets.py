"""PRESETS: name -> configuration, with its source and what it costs. A preset is one entry."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fact_metrics.base.errors import unknown_name
from fact_train.settings.config import TrainConfig
from fact_train.settings.stylex_presets import DATASETS, KINDS, stylex_config


@dataclass(frozen=True)
class Preset:
    """A configuration with where it comes from and what it takes on two CPU cores.

    `at_resolution`: fields that follow from the resolution, for a heuristic configuration.
    """

    config: TrainConfig
    summary: str
    source: str
    minutes: float | None = None  # measured, 2 CPU cores; None: not measured
    memory_gb: float | None = None  # peak resident memory, measured
    needs: tuple[str, ...] = ()  # fields that the user must give
    at_resolution: Callable[[int], dict[str, Any]] | None = None

    def at(self, resolution: int | None) -> TrainConfig:
        """The configuration for images of this size (None: its own)."""
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
    **dict(g_arch="orig", d_arch="orig", noise="off"),  # half as many operations to start on a CPU
    **dict(r1_gamma_final=0.5, r1_decay_kimg=50),
}
_ADA = "NVlabs/stylegan2-ada-pytorch, train.py"
_NOTES = "style-injection notes: AFHQ cat at 32 px, cfg auto on 2 GPUs, gamma 10, fp32, noise off"
_OVERPARAM = "Poirier-Ginter et al. 2022, arXiv:2205.06304, and its last training scripts"


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
        TrainConfig(**{**shared, "kimg": 5000, **fields}), summary=summary, source=_NOTES, needs=("data",)
    )


def _mnist_vectors(k: int) -> dict[str, Any]:
    """`mnist-stylegan2` with K style vectors; many lose digits where gamma falls, so theirs stays."""
    kept = {"r1_gamma_final": None} if k >= 16 else {}
    return {**_MNIST_STYLEGAN2, **_vectors(k), **kept}


def _vectors(k: int) -> dict[str, Any]:
    """K style vectors; weights per sample in training too, the faster order from 4 vectors on."""
    return dict(injection="vectors", style_vectors=k, fused_modconv="eval" if k == 1 else "always")


def _matrix(rows: int, **fields: Any) -> dict[str, Any]:
    """A centred style matrix, demodulated as a whole, unbaked: below O k^2 pixels the cheaper order."""
    return dict(injection="matrix", style_vectors=rows, fused_modconv="never", matrix_centre=True, **fields)


# The notes' variants of the style matrix.
_MATRICES = {
    "": ("divided by sqrt I, plus the identity", dict(matrix_scale="rsqrt", matrix_identity=True)),
    "-mul": ("multiplied by sqrt I, plus the identity", dict(matrix_scale="sqrt", matrix_identity=True)),
    "-unscaled": ("plus the identity", dict(matrix_identity=True)),
    "-centred": ("without the identity, where the scale cancels", {}),
    "-rows": ("rows of length 1, without the identity", dict(matrix_normalise=True)),
}

PRESETS: dict[str, Preset] = {
    "mnist-stylegan2": Preset(
        TrainConfig(**_MNIST_STYLEGAN2),
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
    **{
        f"mnist-vectors-{k}": Preset(
            TrainConfig(**_mnist_vectors(k)),
            summary=f"{k} style vector{'s' * (k > 1)} a layer{', one per channel' * (k == 64)}, on MNIST",
            source="mnist-stylegan2 with the style of arXiv:2205.06304: the CPU twin of afhqcat32-vectors",
            minutes=4 if k == 1 else 7,
            memory_gb=0.9,
        )
        for k in (1, 4, 16, 64)
    },
    **{
        f"mnist-matrix{name}": Preset(
            TrainConfig(**{**_MNIST_STYLEGAN2, **_matrix(64, **fields)}),
            summary=f"style matrix on MNIST, {summary}",
            source="mnist-stylegan2 with the notes' convolution by a style matrix",
            minutes=7,
            memory_gb=0.9,
        )
        for name, (summary, fields) in _MATRICES.items()
    },
    "auto": Preset(
        TrainConfig(**_AUTO, **_auto(256), resolution=256),
        summary="rates, width and gamma by resolution, for one GPU; 256 px unless --resolution says so",
        source=_ADA,
        needs=("data",),
        at_resolution=_auto,
    ),
    "stylegan2": _named("config F as in the paper", **_PAPER, batch=32, r1_gamma=10.0, ema_kimg=10.0),
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
    "afhqcat32-modconv": _afhqcat("the notes' baseline: one style, noise off"),
    **{
        f"afhqcat32-vectors-{k}": _afhqcat(f"{k} style vectors a layer", **_vectors(k))
        for k in (2, 4, 8, 16, 64, 512)
    },
    **{
        f"afhqcat32-matrix{name}": _afhqcat(f"style matrix, {summary}", **_matrix(512, **fields))
        for name, (summary, fields) in _MATRICES.items()
    },
    "overparam256": Preset(
        TrainConfig(
            data="images", resolution=256, map_depth=2, batch=16, r1_gamma=30.0, noise="off", ema_kimg=10.0,
            **_vectors(512), latent_norm="joint", affine_lr_mult=0.01,
        ),
        summary="AFHQv2 cat at 256 px, 512 style vectors a layer: the notes' final recipe",
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
