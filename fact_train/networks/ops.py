"""Resampling, equalised layers and activations, shared by all networks.

Layers keep their weights at unit variance and scale them at run time (equalised learning rate; Karras et al.
2018, sec. 4.1). Resampling uses the separable [1, 3, 3, 1] filter with zero extension (Karras et al. 2019,
2020).

Feature maps use the channels_last memory format, which saves CPU convolutions and depthwise filters a
reordering. They are float32 or bfloat16; weights are float32 and are cast where they are used.
docs/training-speed.md has the measurements.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LRELU_SLOPE = 0.2
SQRT2 = math.sqrt(2.0)
SMALL = 64  # pixels: up to here doubling an image by matrices is cheap
FEW_CHANNELS = 4  # up to here a 1x1 convolution is a matrix product: images, alpha included

# Each mode of the filter and its adjoint mode; the filter is symmetric.
ADJOINT = {"up": "down", "down": "up", "widen": "narrow", "narrow": "widen"}


@functools.cache
def _depthwise(channels: int, gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[1, 3, 3, 1] x [1, 3, 3, 1] with sum `gain`, one copy for every channel: [C, 1, 4, 4]."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=dtype, device=device) / 8.0
    return (torch.outer(taps, taps) * gain).expand(channels, 1, 4, 4)


class _Filter(torch.autograd.Function):
    """The [1, 3, 3, 1] filter on [N, C, H, W]: up (2H), down (H/2), widen (H+1) or narrow (H-1).

    Its derivative is the adjoint mode of the same filter, so a derivative of any order costs one filter. The
    filter itself gets no gradient; autograd would compute it channel by channel.
    """

    @staticmethod
    def forward(ctx, x: Tensor, use: str, gain: float) -> Tensor:
        ctx.use, ctx.gain = use, gain
        return _filter(x, use, gain)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Filter.apply(grad, ADJOINT[ctx.use], ctx.gain), None, None


def _filter(x: Tensor, use: str, gain: float) -> Tensor:
    """The operations of `_Filter`."""
    c = int(x.shape[1])  # a constant of exported graphs
    if use == "up":
        # bfloat16 on a CPU has no fast kernel for this one (90x slower than float32).
        dtype = torch.float32 if x.dtype == torch.bfloat16 and x.device.type == "cpu" else x.dtype
        kernel = _depthwise(c, gain, dtype, x.device)
        return F.conv_transpose2d(x.to(dtype), kernel, stride=2, padding=1, groups=c).to(x.dtype)
    kernel = _depthwise(c, gain, x.dtype, x.device)
    stride, padding = {"down": (2, 1), "widen": (1, 2), "narrow": (1, 1)}[use]
    return F.conv2d(x, kernel, stride=stride, padding=padding, groups=c)


def _filtered(x: Tensor, use: str, gain: float) -> Tensor:
    """`_Filter`, without its derivatives while a graph is exported: those are no operators of ONNX."""
    return _filter(x, use, gain) if torch.onnx.is_in_onnx_export() else _Filter.apply(x, use, gain)


def upsample2d(x: Tensor) -> Tensor:
    """Double H and W of [N, C, H, W] by zero insertion and the filter, keeping the mean level."""
    return _filtered(x, "up", 4.0)


@functools.cache
def _interpolation(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`upsample2d` along one axis, as a matrix [2 size, size]."""
    own = 3 * torch.eye(size, dtype=dtype, device=device)
    one = torch.ones(size - 1, dtype=dtype, device=device)
    return torch.stack([own + one.diag(-1), own + one.diag(1)], dim=1).flatten(0, 1) / 4


def upsample_images(x: Tensor) -> Tensor:
    """`upsample2d` of images, as two matrix products up to SMALL pixels a side.

    A CPU has no fast kernel for a transposed convolution of one channel: 64 images of 16 px take 1.4 ms by
    it. The rounding differs, so training keeps `upsample2d`.
    """
    if max(x.shape[2:]) > SMALL:
        return upsample2d(x)
    rows, columns = (_interpolation(size, x.dtype, x.device) for size in x.shape[2:])
    return rows @ (x @ columns.t())


def downsample2d(x: Tensor) -> Tensor:
    """Halve H and W (even) of [N, C, H, W] after the filter."""
    return _filtered(x, "down", 1.0)


def narrow2d(x: Tensor, *, gain: float) -> Tensor:
    """The filter with one pixel of padding: H - 1 by W - 1 pixels, multiplied by `gain`."""
    return _filtered(x, "narrow", gain)


def pointwise(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1 convolution of [N, I, H, W] with w [O, I], as one matrix product over all pixels."""
    return F.linear(x.permute(0, 2, 3, 1), w, bias).permute(0, 3, 1, 2)


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    *,
    bias: Tensor | None = None,
    up: int = 1,
    down: int = 1,
) -> Tensor:
    """Convolve [N, I, H, W] with w [O, I, k, k] ("same" size), doubling or halving H and W on the way.

    Equal to zero insertion, filter, convolution, decimation on an image extended by zeros; k is odd, 1 or 3
    under down = 2. The kernel is a correlation, except under up = 2 with k > 1 where it is a true
    convolution, as in StyleGAN2's weights.
    """
    k = w.shape[-1]
    if up == 2:
        if k == 1:
            y = upsample2d(F.conv2d(x, w))
        else:
            y = F.conv_transpose2d(x, w.transpose(0, 1), stride=2, padding=(k - 3) // 2)
            y = narrow2d(y, gain=4.0)
        return y if bias is None else y + bias.reshape(1, -1, 1, 1)
    if down == 2 and k == 1:
        return F.conv2d(downsample2d(x), w, bias)
    if down == 2:
        return F.conv2d(_filtered(x, "widen", 1.0), w, bias, stride=2)
    if k == 1 and w.shape[1] <= FEW_CHANNELS:
        return pointwise(x, w[:, :, 0, 0], bias)
    return F.conv2d(x, w, bias, padding=k // 2)


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
    """Scale every row of [N, D] to mean square 1; every sample as a whole of [N, ..., D]."""
    return x * (x.square().mean(dim=tuple(range(1, x.ndim)), keepdim=True) + eps).rsqrt()


class FullyConnected(nn.Module):
    """Equalised linear layer [N, in] -> [N, out], float32.

    `lr_mult` scales the learning rate through the scale of weights and bias; the initial output is unchanged.
    """

    def __init__(
        self, in_features: int, out_features: int, *, activation="linear", lr_mult=1.0, bias_init=0.0
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mult)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init) / lr_mult))
        self.weight_gain = lr_mult / math.sqrt(in_features)
        self.bias_gain = lr_mult

    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        """`gain` multiplies the output at no cost."""
        gain = gain * activation_gain(self.activation)
        y = torch.addmm(
            self.bias, x, self.weight.t(), beta=self.bias_gain * gain, alpha=self.weight_gain * gain
        )
        return activate(y, activation=self.activation)


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

    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        gain = gain * activation_gain(self.activation)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain / activation_gain(self.activation)
        w = (self.weight * (self.weight_gain * gain)).to(x.dtype)
        b = None if self.bias is None else (self.bias * gain).to(x.dtype)
        x = conv2d_resample(x, w, bias=b, up=self.up, down=self.down)
        return activate(x, activation=self.activation, clamp=clamp)
