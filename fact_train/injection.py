"""How a style enters a convolution. One class per way, one interface, one table: STYLE_INJECTIONS.

`ModulatedConv` is StyleGAN2's modulated convolution (Karras et al. 2020, sec. 2.2). Its two evaluation orders
are the same mathematics: `fused` scales the weights of every sample and runs one grouped convolution,
`unfused` scales the activations around one shared convolution. They differ by rounding only, and both carry
full gradients.
"""

import math

import torch
from torch import Tensor, nn

from fact_train.networks.ops import FEW_CHANNELS, FullyConnected, conv2d_resample

FUSED_MODES = ("train", "eval", "never", "always")


def use_fused(setting: str, *, training: bool) -> bool:
    """Whether `fused_modconv` = train | eval | never | always asks for the fused order in this mode."""
    return {"train": training, "eval": not training, "never": False, "always": True}[setting]


class ModulatedConv(nn.Module):
    """Modulated convolution [N, I, H, W], [N, w_dim] -> [N, O, H', W'] plus a per-channel bias, before the
    activation.

    `demodulate` normalises every output channel to unit expected variance (eps 1e-8); without it (ToRGB) the
    style is scaled by 1 / sqrt(I k k) instead. `affine` starts at a style of 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        w_dim: int,
        up: int = 1,
        demodulate: bool,
    ) -> None:
        super().__init__()
        self.up, self.demodulate = up, demodulate
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.style_gain = 1.0 if demodulate else 1.0 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: Tensor, w: Tensor, *, bias: Tensor, fused: bool, gain: float = 1.0) -> Tensor:
        """`gain` multiplies the convolution (not the bias [O]).

        It rides on the demodulation or the style at no cost.
        """
        s = self.affine(w, gain=self.style_gain if self.demodulate else self.style_gain * gain)
        d = self._demodulation(s, gain=gain) if self.demodulate else None
        bias = bias.to(x.dtype)
        if d is None and self.up == 1 and self.weight.shape[2] == 1 and len(self.weight) <= FEW_CHANNELS:
            return self._pointwise(x, s, bias)
        return self._fused(x, s, d, bias) if fused else self._unfused(x, s, d, bias)

    def _demodulation(self, s: Tensor, *, gain: float) -> Tensor:
        """[N, I] styles -> [N, O]: gain / sqrt(sum over i, k of (s_i W_oik)^2 + eps), s W never built."""
        energy = self.weight.square().sum(dim=[2, 3])
        eps = s.new_tensor(1e-8)
        return torch.addmm(eps, s.square(), energy.t(), beta=gain**-2, alpha=gain**-2).rsqrt()

    def _unfused(self, x: Tensor, s: Tensor, d: Tensor | None, bias: Tensor) -> Tensor:
        x = x * s.to(x.dtype)[:, :, None, None]
        inner = bias if d is None else None
        x = conv2d_resample(x, self.weight.to(x.dtype), bias=inner, up=self.up)
        if d is None:
            return x
        return torch.addcmul(bias.reshape(1, -1, 1, 1), x, d.to(x.dtype)[:, :, None, None])

    def _pointwise(self, x: Tensor, s: Tensor, bias: Tensor) -> Tensor:
        """A 1x1 kernel to a few channels is a small matrix for every sample, in either order."""
        n, i, h, width = x.shape
        w = (self.weight[:, :, 0, 0] * s[:, None, :]).to(x.dtype)  # [N, O, I]
        pixels = x.permute(0, 2, 3, 1).reshape(n, h * width, i)
        y = torch.baddbmm(bias, pixels, w.transpose(1, 2))
        return y.reshape(n, h, width, -1).permute(0, 3, 1, 2)

    def _fused(self, x: Tensor, s: Tensor, d: Tensor | None, bias: Tensor) -> Tensor:
        n, i, h, width = x.shape
        w = self.weight[None] * s[:, None, :, None, None]
        if d is not None:
            w = w * d[:, :, None, None, None]
        w = w.reshape(-1, *w.shape[2:]).to(x.dtype)
        x = x.contiguous().reshape(1, n * i, h, width)
        y = conv2d_resample(x, w, bias=bias.repeat(n), up=self.up, groups=n)
        return y.reshape(n, -1, *y.shape[2:]).contiguous(memory_format=torch.channels_last)


STYLE_INJECTIONS = {"modconv": ModulatedConv}
