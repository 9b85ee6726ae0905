"""The two conversions between stored pixels and network values. One definition: a record depends on it."""

from torch import Tensor, uint8


def to_uint8(images: Tensor) -> Tensor:
    """uint8 of float images in [-1, 1] of any shape by StyleGAN rounding: clamp(127.5 x + 128), truncated."""
    return (images * 127.5 + 128).clamp(0, 255).to(uint8)


def to_signed(images: Tensor) -> Tensor:
    """float32 in [-1, 1] of uint8 images of any shape: 0 becomes -1, 255 becomes 1."""
    return images.float() / 127.5 - 1
