"""Resampling, equalised layers and activations: the small mathematics every network shares.

Layers keep their weights at unit variance and scale them at run time (equalised learning rate; Karras et al.
2018, sec. 4.1). Resampling uses the separable [1, 3, 3, 1] filter with zero extension (Karras et al. 2019,
2020).

Feature maps travel in the channels_last memory format: on a CPU the convolutions and the depthwise filters
then run without reordering, 1.5-3x faster than contiguous maps (one measurement, benchmarks/README.md).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LRELU_SLOPE = 0.2
SQRT2 = math.sqrt(2.0)


def resample_filter() -> Tensor:
    """The [1, 3, 3, 1] filter as a [4, 4] outer product that sums to 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8.0
    return torch.outer(taps, taps)


def _depthwise(fir: Tensor, x: Tensor, *, gain: float = 1.0) -> Tensor:
    return (fir.to(x.dtype) * gain).expand(x.shape[1], 1, 4, 4)


def upsample2d(x: Tensor, fir: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """Double H and W of [N, C, H, W] by zero insertion and the filter, keeping the mean level."""
    return F.conv_transpose2d(x, _depthwise(fir, x, gain=4.0), bias, stride=2, padding=1, groups=x.shape[1])


def downsample2d(x: Tensor, fir: Tensor) -> Tensor:
    """Halve H and W of [N, C, H, W] after the filter."""
    return F.conv2d(x, _depthwise(fir, x), stride=2, padding=1, groups=x.shape[1])


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    fir: Tensor,
    *,
    bias: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve [N, I, H, W] with w [O, I/groups, k, k] ("same" size), doubling or halving H and W on the way.

    Equal to zero insertion, filter, convolution, decimation on an image extended by zeros; k is 1 or 3. The
    kernel is a correlation, except under up = 2 with k = 3 where it is a true convolution, as in StyleGAN2's
    weights.
    """
    k = w.shape[-1]
    if up == 2 and k == 1:
        return upsample2d(F.conv2d(x, w, groups=groups), fir, bias=bias)
    if up == 2:
        i = w.shape[1]
        wt = w.reshape(groups, -1, i, k, k).transpose(1, 2).reshape(groups * i, -1, k, k)
        y = F.conv_transpose2d(x, wt, stride=2, groups=groups)
        return F.conv2d(y, _depthwise(fir, y, gain=4.0), bias, padding=1, groups=y.shape[1])
    if down == 2 and k == 1:
        return F.conv2d(downsample2d(x, fir), w, bias, groups=groups)
    if down == 2:
        blurred = F.conv2d(x, _depthwise(fir, x), padding=2, groups=x.shape[1])
        return F.conv2d(blurred, w, bias, stride=2, groups=groups)
    if (
        k == 1 and w.shape[1] == groups == 1
    ):  # one input channel: an outer product, 5x quicker than a convolution
        y = (x * w[:, :, 0]).contiguous(memory_format=torch.channels_last)
        return y if bias is None else y + bias.reshape(1, -1, 1, 1)
    return F.conv2d(x, w, bias, padding=k // 2, groups=groups)


def activate(x: Tensor, *, activation: str, clamp: float | None = None) -> Tensor:
    """Leaky ReLU (slope 0.2) or identity, then an optional clamp to [-clamp, clamp].

    The gain sqrt(2) that keeps the variance is not applied here: it commutes with leaky ReLU, so callers fold
    it into weights and biases, which costs nothing.
    """
    if activation == "lrelu":
        x = F.leaky_relu_(x, LRELU_SLOPE)  # in place: callers pass a fresh tensor
    return x if clamp is None else x.clamp(-clamp, clamp)


def activation_gain(activation: str) -> float:
    """The factor that keeps unit variance through the activation: sqrt(2) for lrelu, 1 for linear."""
    return {"lrelu": SQRT2, "linear": 1.0}[activation]


def normalize_2nd_moment(x: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Scale every row of [N, D] to mean square 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


class FullyConnected(nn.Module):
    """Equalised linear layer [N, in] -> [N, out].

    `lr_mult` scales its learning rate by scaling weights and bias.
    """

    def __init__(
        self, in_features: int, out_features: int, *, activation="linear", lr_mult=1.0, bias_init=0.0
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mult)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init)))
        self.weight_gain = lr_mult / math.sqrt(in_features)
        self.bias_gain = lr_mult

    def forward(self, x: Tensor) -> Tensor:
        gain = activation_gain(self.activation)
        w = self.weight.to(x.dtype) * (self.weight_gain * gain)
        b = self.bias.to(x.dtype) * (self.bias_gain * gain)
        return activate(torch.addmm(b, x, w.t()), activation=self.activation)


class Conv2d(nn.Module):
    """Equalised convolution [N, in, H, W] -> [N, out, H', W'] with optional filtered up- or downsampling."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias=True,
        activation="linear",
        up=1,
        down=1,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation, self.up, self.down, self.conv_clamp = activation, up, down, conv_clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel_size**2)
        self.register_buffer("resample_filter", resample_filter(), persistent=False)

    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        gain = gain * activation_gain(self.activation)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain / activation_gain(self.activation)
        w = self.weight.to(x.dtype) * (self.weight_gain * gain)
        b = None if self.bias is None else self.bias.to(x.dtype) * gain
        x = conv2d_resample(x, w, self.resample_filter, bias=b, up=self.up, down=self.down)
        return activate(x, activation=self.activation, clamp=clamp)
