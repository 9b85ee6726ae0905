"""What the injections are made of: convolution by weights of every sample, and instance normalisation."""

import torch
from torch import Tensor

from fact_train.networks.ops import conv2d_resample

EPS = 1e-8


def per_sample_conv(x: Tensor, w: Tensor, *, bias: Tensor | None, up: int = 1) -> Tensor:
    """Convolve every sample of [N, I, H, W] with its own [O, I, k, k] out of w [N, O, I, k, k], plus bias
    [O].

    One grouped convolution: on a CPU too, the fastest of the ways tried (benchmarks/README.md).
    """
    n, i, h, width = x.shape
    w = w.reshape(-1, *w.shape[2:]).to(x.dtype)
    x = x.contiguous().reshape(1, n * i, h, width)
    y = conv2d_resample(x, w, bias=None if bias is None else bias.repeat(n), up=up, groups=n)
    return y.reshape(n, -1, *y.shape[2:]).contiguous(memory_format=torch.channels_last)


def instance_norm(x: Tensor) -> Tensor:
    """Every map of [N, C, H, W] to mean 0 and variance 1 over its pixels; statistics at least in float32."""
    wide = x if x.dtype == torch.float64 else x.float()
    centred = wide - wide.mean(dim=[2, 3], keepdim=True)
    return (centred * (centred.square().mean(dim=[2, 3], keepdim=True) + EPS).rsqrt()).to(x.dtype)


def with_ones(x: Tensor) -> Tensor:
    """[N, I + 1, H, W]: a last channel of ones, whose weights add a constant before the zero padding."""
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
