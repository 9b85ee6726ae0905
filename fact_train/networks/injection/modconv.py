"""StyleGAN2's modulated convolution (Karras et al. 2020, sec. 2.2): one style, one factor per input channel.

`fused` scales the weights of every sample and runs one grouped convolution, the other order scales the
activations around one shared convolution. They differ by rounding only.
"""

import math

import torch
from torch import Tensor, nn

from fact_train.networks.injection.convolve import per_sample_conv
from fact_train.networks.injection.options import StyleOptions
from fact_train.networks.ops import FEW_CHANNELS, FullyConnected, conv2d_resample


def prenormalise(weight: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [O, I, k, k] and styles [..., I] scaled so that their products stay in the range of float16.

    The weights of each output channel are divided by their maximum and sqrt(I k k), each style vector by its
    maximum. Demodulation cancels both. A factor across the vectors of one channel would not cancel.
    """
    largest = weight.abs().amax(dim=[1, 2, 3], keepdim=True)
    weight = weight / (largest * math.sqrt(weight[0].numel()))
    return weight, s / s.abs().amax(dim=-1, keepdim=True)


class ModulatedConv(nn.Module):
    """Modulated convolution [N, I, H, W], [N, w_dim] -> [N, O, H', W'] plus a per-channel bias, before the
    activation.

    `demodulate` normalises every output channel to unit expected variance (eps 1e-8); without it (ToRGB) the
    style is scaled by 1 / sqrt(I k k) instead. `affine` starts at a style of 1.
    """

    norm_in = norm_out = shifts = False
    per_channel = True
    side = 1  # of the style's own kernel

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
        super().__init__()
        self.up, self.demodulate, self.amplify = up, demodulate, style.amplification(in_channels)
        self.affine = FullyConnected(
            w_dim, in_channels, bias_init=style.affine_bias_init, lr_mult=style.affine_lr_mult
        )
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.style_gain = 1.0 if demodulate else 1.0 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: Tensor, w: Tensor, *, bias: Tensor, fused: bool, gain: float = 1.0) -> Tensor:
        """`gain` multiplies the convolution (not the bias [O]).

        It is folded into the demodulation or the style at no cost.
        """
        weight, s, d = self._factors(w, gain=gain, prenormalised=x.dtype == torch.float16)
        bias = bias.to(x.dtype)
        if d is None and self.up == 1 and weight.shape[2] == 1 and len(weight) <= FEW_CHANNELS:
            return self._pointwise(x, s, bias)
        return self._fused(x, s, d, bias, weight) if fused else self._unfused(x, s, d, bias, weight)

    def kernels(self, w: Tensor) -> Tensor:
        """The modulated weights [N, O, I, k, k]."""
        weight, s, d = self._factors(w, gain=1.0, prenormalised=False)
        return self._scaled(s, d, weight)

    def _factors(
        self, w: Tensor, *, gain: float, prenormalised: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Weights, styles and demodulation (None without), `gain` included in one of the latter two."""
        weight, s = self.weight, self._styles(w, gain=self.style_gain * (1.0 if self.demodulate else gain))
        if not self.demodulate:
            return weight, s, None
        if prenormalised:
            weight, s = prenormalise(weight, s)
        return weight, s, self._demodulation(s, weight, gain=gain)

    def _styles(self, w: Tensor, *, gain: float) -> Tensor:
        s = self.affine(w, gain=gain)
        return s if self.amplify == 1 else gain + self.amplify * (s - gain)

    def _demodulation(self, s: Tensor, weight: Tensor, *, gain: float) -> Tensor:
        """[N, I] styles -> [N, O]: gain / sqrt(sum over i, k of (s_i W_oik)^2 + eps), not building s W."""
        energy = weight.square().sum(dim=[2, 3])
        eps = s.new_full([], 1e-8)  # new_tensor would copy from the host, and wait
        return torch.addmm(eps, s.square(), energy.t(), beta=gain**-2, alpha=gain**-2).rsqrt()

    def _per_output(self, s: Tensor) -> Tensor:
        """Styles for every output channel of every sample, [N, O or 1, I]."""
        return s[:, None]

    def _scaled(self, s: Tensor, d: Tensor | None, weight: Tensor) -> Tensor:
        """[N, O, I, k, k], in the memory order that the grouped convolution reads: I last, or O under up = 2.

        Channels last also let the products and sums over styles run along contiguous memory.
        """
        s = self._per_output(s)
        s = s if d is None else s * d[:, :, None]  # [N, O, I]: small beside the weights
        if self.up == 1:
            w = weight.permute(0, 2, 3, 1).contiguous() * s[:, :, None, None]
            return w.permute(0, 1, 4, 2, 3)
        w = weight.permute(1, 2, 3, 0).contiguous() * s.transpose(1, 2).contiguous()[:, :, None, None]
        return w.permute(0, 4, 1, 2, 3)

    def _unfused(self, x: Tensor, s: Tensor, d: Tensor | None, bias: Tensor, weight: Tensor) -> Tensor:
        x = x * s.to(x.dtype)[:, :, None, None]
        inner = bias if d is None else None
        x = conv2d_resample(x, weight.to(x.dtype), bias=inner, up=self.up)
        if d is None:
            return x
        return torch.addcmul(bias.reshape(1, -1, 1, 1), x, d.to(x.dtype)[:, :, None, None])

    def _pointwise(self, x: Tensor, s: Tensor, bias: Tensor) -> Tensor:
        """A 1x1 kernel to a few channels is a small matrix for every sample, in either order."""
        n, i, h, width = x.shape
        w = (self.weight[:, :, 0, 0] * self._per_output(s)).to(x.dtype)  # [N, O, I]
        pixels = x.permute(0, 2, 3, 1).reshape(n, h * width, i)
        y = torch.baddbmm(bias, pixels, w.transpose(1, 2))
        return y.reshape(n, h, width, -1).permute(0, 3, 1, 2)

    def _fused(self, x: Tensor, s: Tensor, d: Tensor | None, bias: Tensor, weight: Tensor) -> Tensor:
        return per_sample_conv(x, self._scaled(s, d, weight), bias=bias, up=self.up)
