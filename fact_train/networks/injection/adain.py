"""Adaptive instance normalisation (Huang & Belongie 2017; in StyleGAN, Karras et al. 2019, eq. 1).

    y = W * (s_i (x_i - mu_i) / sigma_i + t_i)

with mu and sigma over the pixels of each map of a sample. It precedes the convolution that uses it; in
StyleGAN1 it follows the previous one. `StyledInput` is the base of all injections that apply a linear map,
predicted from w, to the (normalised) input, followed by a convolution with shared weights.
"""

import math

import torch
from torch import Tensor, nn

from fact_train.networks.injection.convolve import instance_norm, per_sample_conv, with_ones
from fact_train.networks.injection.options import StyleOptions
from fact_train.networks.ops import FullyConnected, conv2d_resample


class StyledInput(nn.Module):
    """y = W * A(x, w) + bias with an equalised kernel W and a map A of x that subclasses predict from w.

    `norm_in`: x is normalised per instance first. `norm_out`: the result is normalised, before gain and bias.
    `shifts`: A adds constants; the fused order applies them as weights of a channel of ones, so that both
    orders agree at the border.
    """

    norm_in = norm_out = shifts = False
    per_channel = False
    side = 1  # of the style's own kernel

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, up: int) -> None:
        super().__init__()
        self.up = up
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: Tensor, w: Tensor, *, bias: Tensor, fused: bool, gain: float = 1.0) -> Tensor:
        """`gain` multiplies the convolution (not the bias [O])."""
        inner, outer = (1.0, gain) if self.norm_out else (gain, 1.0)
        bias = bias.to(x.dtype)
        if self.norm_in:
            x = instance_norm(x)
        if fused:
            x = with_ones(x) if self.shifts else x
            added = None if self.norm_out else bias
            y = per_sample_conv(x, self.kernels(w) * inner, bias=added, up=self.up)
        else:
            y = self._unfused(x, w, None if self.norm_out else bias, inner)
        return instance_norm(y) * outer + bias.reshape(1, -1, 1, 1) if self.norm_out else y

    def kernels(self, w: Tensor) -> Tensor:
        """The weights [N, O, I (+ 1 where it shifts), k', k'] of W * A."""
        raise NotImplementedError

    def _unfused(self, x: Tensor, w: Tensor, bias: Tensor | None, gain: float) -> Tensor:
        weight = (self.weight * (self.weight_gain * gain)).to(x.dtype)
        return conv2d_resample(self._styled(x, w), weight, bias=bias, up=self.up)

    def _styled(self, x: Tensor, w: Tensor) -> Tensor:
        """A(x, w), with the shape of x."""
        raise NotImplementedError


class AdaIN(StyledInput):
    """True AdaIN; w [N, w_dim] gives scales that start at 1 (`affine_bias_init`) and shifts that start at 0.

    ToRGB is the same with a 1x1 kernel.
    """

    norm_in = shifts = per_channel = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        w_dim: int,
        up: int = 1,
        demodulate: bool,
        style: StyleOptions = StyleOptions(),
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, up=up)
        self.amplify, self.in_channels = style.amplification(in_channels), in_channels
        self.affine = FullyConnected(w_dim, 2 * in_channels, lr_mult=style.affine_lr_mult)
        with torch.no_grad():
            self.affine.bias[:in_channels] = style.affine_bias_init / style.affine_lr_mult

    def kernels(self, w: Tensor) -> Tensor:
        s, t = self._scale_and_shift(w)
        weight = self.weight * self.weight_gain
        scaled = weight * s[:, None, :, None, None]
        shift = torch.einsum("oikl,ni->nokl", weight, t)
        return torch.cat([scaled, shift[:, :, None]], dim=2)

    def _styled(self, x: Tensor, w: Tensor) -> Tensor:
        s, t = (v.to(x.dtype)[:, :, None, None] for v in self._scale_and_shift(w))
        return torch.addcmul(t, x, s)

    def _scale_and_shift(self, w: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.affine(w).split(self.in_channels, dim=1)
        return (s, t) if self.amplify == 1 else (1 + self.amplify * (s - 1), self.amplify * t)
