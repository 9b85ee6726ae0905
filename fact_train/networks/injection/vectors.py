"""K style vectors: output channel o of a modulated convolution takes style o mod K.

Poirier-Ginter et al. 2022, arXiv:2205.06304 ("Overparameterization Improves StyleGAN Inversion"), where K is
the number of channels. With K = 1, or equal vectors, it is StyleGAN2's convolution.

The unfused form of StyleGAN2, one style per sample around a shared convolution, does not exist for K > 1. The
unfused form here runs K convolutions, one for each set of output channels that share a style.
"""

import math

import torch
from torch import Tensor

from fact_metrics.base.errors import UsageError
from fact_train.networks.injection.modconv import ModulatedConv
from fact_train.networks.injection.options import StyleOptions
from fact_train.networks.ops import conv2d_resample


class StyleVectors(ModulatedConv):
    """[N, I, H, W], [N, K, w_dim] (or [N, w_dim] where K is 1) -> [N, O, H', W']; S has the rows A(w_j).

    K divides O, or the first O of more rows are used. ToRGB takes rows 0, 1, 2 (o mod K where K is less).
    Raises UsageError for another K.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, style: StyleOptions, **options
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, style=style, **options)
        k = style.style_vectors
        if self.demodulate and k < out_channels and out_channels % k:
            raise UsageError(
                f"--style-vectors {k}: a layer of {out_channels} channels needs a divisor of {out_channels}, "
                "or at least that many."
            )
        self.vectors, self.rows, self.out_channels = k, min(k, out_channels), out_channels

    def forward(self, x: Tensor, w: Tensor, *, bias: Tensor, fused: bool, gain: float = 1.0) -> Tensor:
        given = w.shape[1] if w.ndim == 3 else 1
        if given != self.vectors or (w.ndim == 3 and given == 1):
            raise ValueError(f"{given} style vectors for a layer of {self.vectors}")
        return super().forward(x, w, bias=bias, fused=fused, gain=gain)

    def _styles(self, w: Tensor, *, gain: float) -> Tensor:
        """[N, rows, I], of the rows that this layer has outputs for; StyleGAN2's [N, I] where K is 1."""
        if self.vectors == 1:
            return super()._styles(w, gain=gain)
        s = super()._styles(w[:, : self.rows].flatten(0, 1), gain=gain)
        return s.unflatten(0, (-1, self.rows))

    def _per_output(self, s: Tensor) -> Tensor:
        if s.ndim == 2:
            return super()._per_output(s)
        repeats = math.ceil(self.out_channels / self.rows)
        return s.repeat(1, repeats, 1)[:, : self.out_channels]

    def _demodulation(self, s: Tensor, weight: Tensor, *, gain: float) -> Tensor:
        """gain / sqrt(sum over i, k of (S_(o mod K)i W_oik)^2 + eps), [N, O]."""
        if s.ndim == 2:
            return super()._demodulation(s, weight, gain=gain)
        energy = weight.square().sum(dim=[2, 3])  # [O, I]
        total = (self._per_output(s).square() * energy).sum(dim=2)  # element-wise: products of one row each
        return (total + 1e-8).rsqrt() * gain

    def _unfused(self, x: Tensor, s: Tensor, d: Tensor | None, bias: Tensor, weight: Tensor) -> Tensor:
        if s.ndim == 2:
            return super()._unfused(x, s, d, bias, weight)
        s = s.to(x.dtype)[..., None, None]
        parts = [
            conv2d_resample(x * s[:, j], weight[j :: self.rows].to(x.dtype), up=self.up)
            for j in range(self.rows)
        ]
        if len({p.shape[1] for p in parts}) == 1:
            y = torch.stack(parts, dim=2).flatten(1, 2)  # class j holds channels j, j + K, ...
        else:  # a ToRGB of more channels than K divides
            y = torch.stack(
                [parts[o % self.rows][:, o // self.rows] for o in range(self.out_channels)], dim=1
            )
        y = y if d is None else y * d.to(x.dtype)[:, :, None, None]
        return (y + bias.reshape(1, -1, 1, 1)).contiguous(memory_format=torch.channels_last)
