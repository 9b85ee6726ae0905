"""Sizes of a vision transformer, without torch: detectors state them in their specs."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ViTConfig:
    """Square patches of `patch` pixels on a `grid` x `grid`; `output` is the width of the projection, if any.

    `norm_embedding`: layer norm of the tokens before the first block too.
    """

    patch: int
    grid: int
    width: int
    depth: int
    activation: Literal["gelu", "quick_gelu"]
    norm_epsilon: float
    norm_embedding: bool = False
    patch_bias: bool = True
    output: int | None = None

    @property
    def size(self) -> int:
        """Side of the images, in pixels."""
        return self.patch * self.grid
