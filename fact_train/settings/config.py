"""TrainConfig: one field = one flag = one --help line = one recorded value.

`scope` says what a field may change: `science` fields define the experiment (hashed, never changed on
resume); `schedule` fields say how far and how often (a run can be continued with other values); `machine`
fields say where.
"""

import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass
from typing import Any, Literal

from fact_metrics.base.errors import UsageError
from fact_train.settings.checks import find_problem

SCOPES = ("science", "schedule", "machine")

# The fields of the first published runs. A later one counts in the hash where it is not at its default, so
# that adding a field renames no earlier run; the default of such a field can never change.
_FIRST_FIELDS = frozenset(
    """data resolution resize crop channels alpha max_images mirror cond z_dim w_dim map_depth mapping_lr_mult
    injection g_arch noise fused_modconv d_arch mbstd_group_size channel_base channel_max d_channel_mult
    conv_clamp r1_gamma r1_gamma_final r1_decay_kimg r1_interval pl_weight pl_interval pl_batch_shrink
    pl_decay style_mixing_prob updates batch batch_gpu precision g_lr d_lr beta1 beta2 ema_kimg
    ema_rampup""".split()
)


def _field(default: Any, help: str, *, scope: str = "science", panel: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "scope": scope, "panel": panel})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run. Defaults are StyleGAN2's published ones where there are any."""

    # Data
    data: str = _field("mnist", "dataset name, image folder, zip or idx folder", panel="Data")
    resolution: int | None = _field(None, "image size; None keeps the dataset's own", panel="Data")
    resize: str = _field("lanczos", "resize filter for images of another size", panel="Data")
    crop: str = _field("none", "how a non-square image becomes square", panel="Data")
    channels: Literal[1, 3] | None = _field(None, "1 gray, 3 RGB; None keeps the dataset's own", panel="Data")
    alpha: Literal["refuse", "white", "black"] = _field(
        "refuse", "background behind transparent images", panel="Data"
    )
    max_images: int | None = _field(None, "train on a seeded subset of this many images", panel="Data")
    mirror: bool = _field(False, "flip every image left-right with probability 1/2", panel="Data")
    cond: bool = _field(False, "condition G and D on the dataset's labels", panel="Data")

    # Generator
    z_dim: int = _field(512, "latent z dimensions", panel="Generator")
    w_dim: int = _field(512, "intermediate latent w dimensions", panel="Generator")
    map_depth: int = _field(8, "mapping network layers", panel="Generator")
    mapping_lr_mult: float = _field(0.01, "learning-rate multiplier of the mapping", panel="Generator")
    train_mapping: bool = _field(True, "learn the mapping network; off leaves it as drawn", panel="Generator")
    latent_space: Literal["w", "w_plus"] = _field(
        "w", "w_plus draws a latent for every layer, in training and evaluation", panel="Generator"
    )
    g_arch: Literal["skip", "resnet", "orig"] = _field("skip", "generator trunk", panel="Generator")
    noise: Literal["off", "const", "random"] = _field("random", "per-pixel noise inputs", panel="Generator")
    fused_modconv: Literal["train", "eval", "never", "always"] = _field(
        "eval",
        "when the style enters the weights (a matrix is then baked) and not the activations",
        panel="Generator",
    )
    noise_learned: bool = _field(True, "learn each layer's noise strength", panel="Generator")
    noise_strength_init: float = _field(0.0, "noise strength at the start", panel="Generator")

    # Style
    injection: Literal["modconv", "adain", "vectors", "matrix", "adaconv"] = _field(
        "modconv",
        "how styles enter: StyleGAN2's modulation, true AdaIN, K style vectors, a style matrix, or Chandran's"
        " adaptive convolution",
        panel="Style",
    )
    style_vectors: int = _field(1, "K: rows of w per layer, each from its own z", panel="Style")
    style_amplify: float = _field(1.0, "c in S <- 1 + c (S - 1)", panel="Style")
    affine_lr_mult: float = _field(1.0, "learning-rate multiplier of the affines, w to style", panel="Style")
    affine_bias_init: float = _field(1.0, "style at w = 0 at the start", panel="Style")
    latent_norm: Literal["row", "joint"] = _field(
        "row", "normalise each of K rows of z, or all as one vector", panel="Style"
    )
    latent_div_sqrt: bool = _field(False, "divide z, once normalised, by sqrt K", panel="Style")
    torgb_style: Literal["all", "final", "none", "first"] = _field(
        "all", "ToRGB layers with a style: all, the last, none; first: the first of K vectors", panel="Style"
    )
    style_kernel: Literal[1, 3] = _field(
        1, "side of the kernel that a style matrix or adaconv predicts", panel="Style"
    )
    matrix_centre: bool = _field(False, "style matrix: M <- M - 1", panel="Style")
    matrix_normalise: bool = _field(False, "style matrix: rows to length 1, after centring", panel="Style")
    matrix_scale: float | Literal["sqrt", "rsqrt"] = _field(
        1.0, "style matrix: factor after that; sqrt I or 1 / sqrt I of I channels", panel="Style"
    )
    matrix_identity: bool = _field(False, "style matrix: add the identity at last", panel="Style")
    matrix_postnorm: Literal["none", "weight", "composite", "instance"] = _field(
        "composite",
        "style matrix: demodulate the layer's weights, or their product with M, or normalise the output",
        panel="Style",
    )
    adaconv_groups: int = _field(4, "groups of adaconv's kernels", panel="Style")

    # Discriminator and width
    d_arch: Literal["resnet", "skip", "orig"] = _field(
        "resnet", "discriminator trunk", panel="Discriminator and width"
    )
    mbstd_group_size: int = _field(4, "minibatch-std group", panel="Discriminator and width")
    channel_base: int = _field(
        32768, "feature maps: min(channel_base / resolution, channel_max)", panel="Discriminator and width"
    )
    channel_max: int = _field(512, "most feature maps of a layer", panel="Discriminator and width")
    d_channel_mult: float = _field(
        1.0, "discriminator width relative to the generator's", panel="Discriminator and width"
    )
    conv_clamp: float | None = _field(
        None, "clamp activations to +-this; None is off", panel="Discriminator and width"
    )

    # Losses
    r1_gamma: float | Literal["auto"] = _field(
        10.0, "R1 penalty weight; 0 is off; auto: 0.0002 resolution^2 / batch", panel="Losses"
    )
    r1_gamma_final: float | None = _field(
        None, "R1 weight that r1_gamma moves to, geometrically; None keeps r1_gamma", panel="Losses"
    )
    r1_decay_kimg: float = _field(50.0, "kimg in which it gets there", panel="Losses")
    r1_interval: int = _field(16, "apply R1 every this many steps, times this", panel="Losses")
    pl_weight: float = _field(2.0, "path-length penalty weight; 0 is off", panel="Losses")
    pl_power: float = _field(
        0.5, "path lengths of K style vectors are multiplied by K to this power", panel="Losses"
    )
    pl_interval: int = _field(4, "apply path length every this many steps, times this", panel="Losses")
    pl_batch_shrink: int = _field(2, "path length sees batch / this", panel="Losses")
    pl_decay: float = _field(0.01, "decay of the path-length average", panel="Losses")
    style_mixing_prob: float = _field(0.9, "probability of mixing two latents", panel="Losses")
    d_loss_scale: float = _field(
        1.0, "factor of the discriminator's loss on real and generated images, not of R1", panel="Losses"
    )

    # Augmentation
    augment: Literal["none", "ada", "fixed", "diffaugment"] = _field(
        "none", "of all images D sees: adaptive p, fixed p, or DiffAugment", panel="Augmentation"
    )
    augment_set: Literal[
        "blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"
    ] = _field("bgc", "transformations of ada and fixed, by initials", panel="Augmentation")
    augment_p: float = _field(
        0.0, "probability of each transformation: of fixed, or where ada starts", panel="Augmentation"
    )
    ada_target: float = _field(0.6, "mean sign of D(real) that ada keeps", panel="Augmentation")
    ada_interval: int = _field(4, "ada moves p every this many steps", panel="Augmentation")
    ada_kimg: float = _field(500.0, "kimg in which ada may move p by 1", panel="Augmentation")
    ada_ceiling: float | None = _field(None, "highest p of ada; None is no bound", panel="Augmentation")
    diffaugment_policy: str = _field(
        "color,translation,cutout", "some of these three, in this order", panel="Augmentation"
    )

    # Optimisation
    updates: Literal["alternating", "simultaneous"] = _field(
        "alternating",
        "D trains against the G just updated, or both from one state, side by side on a CPU",
        panel="Optimisation",
    )
    batch: int = _field(32, "images per step, over all processes", panel="Optimisation")
    batch_gpu: int | None = _field(
        None,
        "images of a micro-batch: fewer than a process' share accumulates gradients, side by side on a CPU",
        panel="Optimisation",
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = _field(
        "fp32", "of feature maps in training; weights, styles and images stay fp32", panel="Optimisation"
    )
    g_lr: float = _field(0.002, "generator learning rate", panel="Optimisation")
    d_lr: float = _field(0.002, "discriminator learning rate", panel="Optimisation")
    ttur_mult: float = _field(1.0, "factor of the discriminator's learning rate", panel="Optimisation")
    beta1: float = _field(0.0, "Adam beta1", panel="Optimisation")
    beta2: float = _field(0.99, "Adam beta2", panel="Optimisation")
    ema_kimg: float = _field(10.0, "half-life of the generator average, kimg", panel="Optimisation")
    ema_rampup: float | None = _field(
        None, "half-life at most this share of the images so far; None is off", panel="Optimisation"
    )
    seed: int = _field(0, "training seed: weights, data order, latents", panel="Optimisation")

    # StylEx: refused where model is stylegan2, unless left as they are
    model: Literal["stylegan2", "stylex"] = _field(
        "stylegan2", "stylex trains an encoder and explains a classifier", panel="StylEx"
    )
    classifier: str | None = _field(
        None, "the explained classifier: mnist, or a file of `fact-train classifier`", panel="StylEx"
    )
    class_repr: Literal["softmax", "logits"] = _field(
        "softmax", "the class part of w: probabilities or logits", panel="StylEx"
    )
    d_cond: Literal["off", "projection", "weighted"] = _field(
        "off",
        "D sees the image's class probabilities: by projection, or weighting a score per class",
        panel="StylEx",
    )
    branches: Literal["both", "encoder", "mapping"] = _field(
        "both", "whose images meet D: the encoder's, the mapping's or both", panel="StylEx"
    )
    alternation: Literal["off", "step", "microbatch", "probability"] = _field(
        "step",
        "how the branches take turns: off gives each half of every micro-batch; probability draws",
        panel="StylEx",
    )
    encoder_prob: float | None = _field(
        None, "share of encoder turns under --alternation probability", panel="StylEx"
    )
    compensation: bool = _field(
        False, "divide reconstruction and KL by the share of encoder turns (x2 for 1/2)", panel="StylEx"
    )
    rec_in_d_phase: bool = _field(
        False, "reconstruct and compare classes after D, in a step of G and E of its own", panel="StylEx"
    )
    rec_in_g_phase: bool = _field(
        True, "reconstruct and compare classes in G's own step, beside the adversarial loss", panel="StylEx"
    )
    encoder_lr_mult: float = _field(1.0, "encoder's learning rate relative to --g-lr", panel="StylEx")
    encoder_init: Literal["random", "standardised"] = _field(
        "random", "standardised: the first w of real images have mean 0 and deviation 1", panel="StylEx"
    )
    e_channel_mult: float = _field(1.0, "encoder width relative to the generator's", panel="StylEx")
    rec_scale: float = _field(1.0, "weight of all reconstruction losses; 0 is off", panel="StylEx")
    w_lpips: float = _field(0.1, "weight of the perceptual distance; 0 is off", panel="StylEx")
    w_w: float = _field(0.1, "weight of |E(x) - E(G(w))|; 0 is off", panel="StylEx")
    w_l1: float = _field(1.0, "weight of |x - G(w)|, images in [-1, 1]; 0 is off", panel="StylEx")
    w_l2: float = _field(0.0, "weight of (x - G(w))^2, images in [-1, 1]; 0 is off", panel="StylEx")
    perceptual: str = _field("stlpips_alex", "detector of the perceptual distance", panel="StylEx")
    lpips_batch_shrink: int = _field(
        1, "the perceptual distance sees a micro-batch's images / this", panel="StylEx"
    )
    kl_scale: float = _field(1.0, "weight of KL(C(x) || C(G(w))); 0 is off", panel="StylEx")

    kl_branches: Literal["encoder", "both"] = _field(
        "encoder", "also hold mapping's images to the class they were drawn for: both", panel="StylEx"
    )

    # Schedule
    kimg: float = _field(
        25000,
        "train for this many thousand images; 0 writes the untrained network",
        scope="schedule",
        panel="Schedule",
    )
    kimg_per_tick: float = _field(4, "progress line every this many kimg", scope="schedule", panel="Schedule")
    snapshot_ticks: int = _field(
        50, "snapshot and checkpoint every this many ticks", scope="schedule", panel="Schedule"
    )
    image_ticks: int = _field(50, "sample grid every this many ticks", scope="schedule", panel="Schedule")

    # Machine
    device: str = _field("auto", "auto, cpu, cuda or cuda:N", scope="machine", panel="Machine")
    threads: int | None = _field(
        None, "CPU threads of this process; None: all cores it may use", scope="machine", panel="Machine"
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _checked(f, getattr(self, f.name)))
        problem = find_problem(self, changed=_changed(self))
        if problem is not None:
            raise _refuse(problem[0], getattr(self, problem[0]), problem[1])

    @classmethod
    def panel(cls, name: str) -> list[str]:
        """Names of the fields of one panel."""
        return [f.name for f in dataclasses.fields(cls) if f.metadata["panel"] == name]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        known = {f.name for f in dataclasses.fields(cls)}
        extra = sorted(set(values) - known)
        if extra:
            raise UsageError(f"configuration field {extra[0]!r} is not known to this version")
        return cls(**values)

    def science(self) -> dict[str, Any]:
        """The fields that define the experiment, seed included."""
        return {f.name: getattr(self, f.name) for f in fields_of("science")}

    def sha256(self) -> str:
        """Hash of the science fields without the seed: equal for the training seeds of one configuration.

        Later fields count where they are not at their default.
        """
        counts = _FIRST_FIELDS | set(_changed(self))
        values = {k: v for k, v in self.science().items() if k != "seed" and k in counts}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def fields_of(*scopes: str) -> list[dataclasses.Field]:
    """The fields of TrainConfig in these scopes (all without any), in order."""
    return [f for f in dataclasses.fields(TrainConfig) if not scopes or f.metadata["scope"] in scopes]


def flag(name: str) -> str:
    """The command-line flag of a field: r1_gamma -> --r1-gamma."""
    return "--" + name.replace("_", "-")


def differing_fields(a: TrainConfig, b: TrainConfig) -> list[str]:
    """Names of the science fields in which two configurations differ."""
    return [f.name for f in fields_of("science") if getattr(a, f.name) != getattr(b, f.name)]


def _changed(cfg: TrainConfig) -> list[str]:
    """Names of the fields that are not at their default."""
    return [f.name for f in fields_of() if getattr(cfg, f.name) != f.default]


def _refuse(name: str, value: Any, why: str) -> UsageError:
    return UsageError(f"{flag(name)} {value}: {why}.")


def _checked(f: dataclasses.Field, value: Any) -> Any:
    """The value in the field's own type; UsageError where it does not fit."""
    options = typing.get_args(f.type) if typing.get_origin(f.type) is not None else (f.type,)
    literals: list[Any] = []
    types: list[type] = []
    for option in options if typing.get_origin(f.type) is not Literal else (f.type,):
        if typing.get_origin(option) is Literal:
            literals += typing.get_args(option)
        else:
            types.append(option)
    if value is None and type(None) in types:
        return None
    if value in literals:
        return value
    if literals and not set(types) - {type(None)}:
        raise _refuse(f.name, value, f"it is one of {', '.join(map(str, literals))}")
    if bool in types:
        if isinstance(value, bool):
            return value
    elif float in types and isinstance(value, int | float) and not isinstance(value, bool):
        if value == value and abs(value) != float("inf"):
            return float(value)
    elif int in types and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif str in types and isinstance(value, str) and value:
        return value
    wanted = " or ".join([*(t.__name__ for t in types if t is not type(None)), *map(str, literals)])
    raise _refuse(f.name, value, f"it must be {wanted}")
