"""Adaptive convolution (Chandran et al. 2021, "Adaptive Convolutions for Structure-Aware Style Transfer").

The input is normalised per instance, convolved with a predicted grouped kernel, with a predicted grouped 1x1
kernel, and shifted by a predicted bias. The convolution of the layer follows, as in the decoder of the paper.
With a 1x1 depthwise kernel, a pointwise kernel of 1 and the bias, it equals AdaIN. (The style vectors of
`vectors.py` have also been called AdaConv; they only rescale weights.)
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fact_metrics.base.errors import UsageError
from fact_train.networks.injection.adain import StyledInput
from fact_train.networks.injection.matrix import apply_matrix, compose
from fact_train.networks.injection.options import StyleOptions
from fact_train.networks.ops import FullyConnected

DESCRIPTOR_CHANNELS = 32


class AdaptiveConv(StyledInput):
    """w [N, w_dim] -> a style descriptor [N, 32, s, s] -> the kernels, by small convolutions and linear maps.

    `style_kernel` is the side s of the grouped kernel, `adaconv_groups` the groups of both kernels. The
    predictions have unit variance and are scaled by their fan-in, which preserves the variance. Raises
    UsageError if the groups do not divide the channels.
    """

    norm_in = shifts = True

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
        self.groups, self.side, self.in_channels = style.adaconv_groups, style.style_kernel, in_channels
        if in_channels % self.groups:
            raise UsageError(
                f"--adaconv-groups {self.groups}: it does not divide the {in_channels} channels of a layer."
            )
        self.width = in_channels // self.groups
        self.affine = FullyConnected(
            w_dim, DESCRIPTOR_CHANNELS * self.side**2, activation="lrelu", lr_mult=style.affine_lr_mult
        )
        self.spatial = FullyConnected(DESCRIPTOR_CHANNELS * self.side**2, in_channels * self.width)
        self.pointwise = FullyConnected(DESCRIPTOR_CHANNELS, in_channels * self.width)
        self.shift = FullyConnected(DESCRIPTOR_CHANNELS, in_channels)

    def predict(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Grouped kernel [N, g, I/g, I/g, s, s], pointwise kernel [N, g, I/g, I/g] and shift [N, I]."""
        g, width, side = self.groups, self.width, self.side
        descriptor = self.affine(w).reshape(-1, DESCRIPTOR_CHANNELS, side, side)
        pooled = descriptor.mean(dim=[2, 3])
        patches = F.unfold(descriptor, side, padding=side // 2).transpose(1, 2)  # a convolution as a product
        spatial = self.spatial(patches.reshape(-1, DESCRIPTOR_CHANNELS * side**2)).reshape(
            -1, side, side, g, width, width
        )
        spatial = spatial.permute(0, 3, 4, 5, 1, 2)
        pointwise = self.pointwise(pooled).reshape(-1, g, width, width)
        return spatial / math.sqrt(width * side**2), pointwise / math.sqrt(width), self.shift(pooled)

    def kernels(self, w: Tensor) -> Tensor:
        m, t = self._matrices(w)
        weight = self.weight * self.weight_gain
        shift = torch.einsum("oikl,ni->nokl", weight, t)[:, :, None]
        composed = compose(weight, m, up=self.up)
        margin = (composed.shape[-1] - shift.shape[-1]) // 2
        return torch.cat([composed, F.pad(shift, (margin,) * 4)], dim=2)

    def _styled(self, x: Tensor, w: Tensor) -> Tensor:
        height, width = (int(n) for n in x.shape[2:])  # constants of exported graphs
        spatial, pointwise, t = self.predict(w)
        both = torch.einsum("ngab,ngbcst->ngacst", pointwise, spatial)
        grouped = x.contiguous().reshape(-1, self.width, height, width)
        y = apply_matrix(grouped, both.reshape(-1, *both.shape[2:]).to(x.dtype))
        return y.reshape(-1, self.in_channels, height, width) + t.to(x.dtype)[:, :, None, None]

    def _matrices(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Both predicted convolutions as one block-diagonal M [N, I, I, s, s], and the shift."""
        spatial, pointwise, t = self.predict(w)
        both = torch.einsum("ngab,ngbcst->ngacst", pointwise, spatial)
        blocks = torch.eye(self.groups, dtype=both.dtype, device=both.device)
        dense = torch.einsum("gh,ngacst->ngahcst", blocks, both)
        return dense.reshape(-1, self.in_channels, self.in_channels, self.side, self.side), t
