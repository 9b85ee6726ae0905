"""Options of the style injections, under the names of the TrainConfig fields."""

import dataclasses
import math
from typing import Any

FUSED_MODES = ("train", "eval", "never", "always")
POSTNORMS = ("none", "weight", "composite", "instance")


def use_fused(setting: str, *, training: bool) -> bool:
    """Whether `fused_modconv` = train | eval | never | always asks for the fused order in this mode."""
    return {"train": training, "eval": not training, "never": False, "always": True}[setting]


@dataclasses.dataclass(frozen=True)
class StyleOptions:
    """The defaults are those of StyleGAN2; each class reads the options that it supports."""

    style_vectors: int = 1  # K, rows of the style
    style_amplify: float | str = 1.0  # c: S <- 1 + c (S - 1); a number, or sqrt or k: see `amplification`
    style_kernel: int = 1  # side of the style's own kernel, 1 or 3
    affine_lr_mult: float = 1.0
    affine_bias_init: float = 1.0
    matrix_centre: bool = False
    matrix_normalise: bool = False
    matrix_scale: float | str = 1.0
    matrix_identity: bool = False
    matrix_postnorm: str = "composite"
    adaconv_groups: int = 4

    def amplification(self, in_channels: int) -> float:
        """style_amplify as a number, for a layer of I input channels: sqrt is sqrt(I), k is K."""
        named = {"sqrt": math.sqrt(in_channels), "k": float(self.style_vectors)}
        return float(named.get(self.style_amplify, self.style_amplify))

    @classmethod
    def of(cls, settings: Any) -> "StyleOptions":
        """The options among a configuration's fields."""
        return cls(**{f.name: getattr(settings, f.name) for f in dataclasses.fields(cls)})
