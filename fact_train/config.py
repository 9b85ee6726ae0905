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

from metrics.errors import UsageError

SCOPES = ("science", "schedule", "machine")

# Fields of some values of --augment only; with the others, anything but the default would be without effect.
_AUGMENTATION_USERS = {
    "augment_set": ("ada", "fixed"),
    "augment_p": ("ada", "fixed"),
    **dict.fromkeys(("ada_target", "ada_interval", "ada_kimg", "ada_ceiling"), ("ada",)),
    "diffaugment_policy": ("diffaugment",),
}
_POLICIES = ("color", "translation", "cutout")


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
    injection: Literal["modconv"] = _field("modconv", "how styles enter the convolutions", panel="Generator")
    g_arch: Literal["skip", "resnet", "orig"] = _field("skip", "generator trunk", panel="Generator")
    noise: Literal["off", "const", "random"] = _field("random", "per-pixel noise inputs", panel="Generator")
    fused_modconv: Literal["train", "eval", "never", "always"] = _field(
        "eval", "when modulated convolutions scale weights instead of activations", panel="Generator"
    )

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
    r1_gamma: float = _field(10.0, "R1 penalty weight; 0 is off", panel="Losses")
    r1_gamma_final: float | None = _field(
        None, "R1 weight that r1_gamma moves to, geometrically; None keeps r1_gamma", panel="Losses"
    )
    r1_decay_kimg: float = _field(50.0, "kimg in which it gets there", panel="Losses")
    r1_interval: int = _field(16, "apply R1 every this many steps, times this", panel="Losses")
    pl_weight: float = _field(2.0, "path-length penalty weight; 0 is off", panel="Losses")
    pl_interval: int = _field(4, "apply path length every this many steps, times this", panel="Losses")
    pl_batch_shrink: int = _field(2, "path length sees batch / this", panel="Losses")
    pl_decay: float = _field(0.01, "decay of the path-length average", panel="Losses")
    style_mixing_prob: float = _field(0.9, "probability of mixing two latents", panel="Losses")

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
        "color,translation,cutout", "which of the three, in this order", panel="Augmentation"
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
    precision: Literal["fp32", "tf32", "bf16"] = _field(
        "fp32", "of feature maps in training; weights, styles and images stay fp32", panel="Optimisation"
    )
    g_lr: float = _field(0.002, "generator learning rate", panel="Optimisation")
    d_lr: float = _field(0.002, "discriminator learning rate", panel="Optimisation")
    beta1: float = _field(0.0, "Adam beta1", panel="Optimisation")
    beta2: float = _field(0.99, "Adam beta2", panel="Optimisation")
    ema_kimg: float = _field(10.0, "half-life of the generator average, kimg", panel="Optimisation")
    ema_rampup: float | None = _field(
        None, "half-life at most this share of the images so far; None is off", panel="Optimisation"
    )
    seed: int = _field(0, "training seed: weights, data order, latents", panel="Optimisation")

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
        self._check_ranges()

    def _check_ranges(self) -> None:
        positive = (
            "z_dim w_dim mbstd_group_size channel_base channel_max d_channel_mult r1_interval pl_interval "
            "pl_batch_shrink batch g_lr d_lr kimg_per_tick snapshot_ticks image_ticks map_depth "
            "mapping_lr_mult r1_decay_kimg"
        ).split()
        for name in positive:
            if getattr(self, name) <= 0:
                raise _refuse(name, getattr(self, name), "it must be positive")
        for name in ("r1_gamma", "pl_weight", "ema_kimg", "seed", "kimg"):
            if getattr(self, name) < 0:
                raise _refuse(name, getattr(self, name), "it must not be negative")
        for name in ("style_mixing_prob", "pl_decay", "beta1", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise _refuse(name, getattr(self, name), "it must lie in [0, 1]")
        for name in ("batch_gpu", "threads", "max_images", "conv_clamp", "r1_gamma_final"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise _refuse(name, getattr(self, name), "it must be positive, or left out")
        if self.r1_gamma_final is not None and self.r1_gamma == 0:
            raise _refuse("r1_gamma_final", self.r1_gamma_final, "R1 is off, as --r1-gamma is 0")
        group = min(self.mbstd_group_size, self.batch)
        if self.batch % group:
            raise _refuse("mbstd_group_size", self.mbstd_group_size, f"it must divide --batch {self.batch}")
        self._check_augmentation()

    def _check_augmentation(self) -> None:
        for f in fields_of():
            users = _AUGMENTATION_USERS.get(f.name, (self.augment,))
            if self.augment not in users and getattr(self, f.name) != f.default:
                why = f"only --augment {' or '.join(users)} reads it, and --augment is {self.augment}"
                raise _refuse(f.name, getattr(self, f.name), why)
        for name in ("ada_interval", "ada_kimg"):
            if getattr(self, name) <= 0:
                raise _refuse(name, getattr(self, name), "it must be positive")
        if not 0 <= self.augment_p <= 1:
            raise _refuse("augment_p", self.augment_p, "it must lie in [0, 1]")
        if self.augment == "fixed" and self.augment_p == 0:
            raise _refuse("augment_p", self.augment_p, "--augment fixed needs a probability above 0")
        if not -1 < self.ada_target < 1:
            raise _refuse("ada_target", self.ada_target, "a mean of signs lies between -1 and 1")
        if self.ada_ceiling is not None and not max(self.augment_p, 1e-9) <= self.ada_ceiling <= 1:
            raise _refuse("ada_ceiling", self.ada_ceiling, "it must lie in (0, 1], at --augment-p or above")
        policy = self.diffaugment_policy.split(",")
        if not set(policy) <= set(_POLICIES) or len(set(policy)) < len(policy):
            why = f"it is some of {','.join(_POLICIES)}, each once, with commas between"
            raise _refuse("diffaugment_policy", self.diffaugment_policy, why)
        object.__setattr__(self, "diffaugment_policy", ",".join(n for n in _POLICIES if n in policy))

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
        """Hash of the science fields without the seed: equal for the training seeds of one configuration."""
        values = {k: v for k, v in self.science().items() if k != "seed"}
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
    if literals:
        if value in literals:
            return value
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
    wanted = " or ".join(t.__name__ for t in types if t is not type(None))
    raise _refuse(f.name, value, f"it must be {wanted}")
