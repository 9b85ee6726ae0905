"""A style matrix that acts as a convolution before that of the layer: y = W * (M x).

Row i of M is the affine of style vector i, so M(S) is the top-left I x I slice of the K x I style. Unbaked
(not fused), M meets the activations, pixel by pixel; baked (fused), it meets the weights:

    B_oju = sum_i sum_(a+b=u) W_oia M_ijb

A 1x1 style gives a kernel of W's size and the same function. A 3x3 style gives 5x5 (7x7 on the doubled grid
of an upsampling layer), equal in the interior only: unbaked, the map between the two ends at the border.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fact_metrics.base.errors import UsageError
from fact_train.networks.injection.adain import StyledInput
from fact_train.networks.injection.convolve import EPS
from fact_train.networks.injection.options import POSTNORMS, StyleOptions
from fact_train.networks.ops import FullyConnected, conv2d_resample

GRAM_CHANNELS = 128  # input channels up to which composite demodulation goes by Gram matrices


def apply_matrix(x: Tensor, m: Tensor) -> Tensor:
    """[N, J, H, W] convolved with m [N, I, J, s, s] of every sample, zero padded: batched products."""
    height, side = (int(n) for n in (x.shape[2], m.shape[-1]))  # constants of exported graphs
    if side == 1:
        y = x.permute(0, 2, 3, 1).flatten(1, 2) @ m[..., 0, 0].transpose(1, 2)
        return y.unflatten(1, (height, -1)).permute(0, 3, 1, 2)
    y = m.flatten(2) @ F.unfold(x, side, padding=side // 2)
    return y.unflatten(2, (height, -1)).contiguous(memory_format=torch.channels_last)


def compose(weight: Tensor, m: Tensor, *, up: int = 1) -> Tensor:
    """The kernel [N, O, J, v, v] of m [N, I, J, s, s] followed by weight [O, I, k, k].

    v = k + s - 1, and k + 2 (s - 1) where the layer doubles the size: its kernel lies on the doubled grid,
    mirrored, as a transposed convolution's does.

    Why a convolution routine needs transpositions for this: it sums over the second index of the kernel, so M
    would go in as a batch of J images with I channels, transposed from [I, J]; as it correlates, W would be
    mirrored; and the result [J, O] would be transposed back. Products of matrices need none of them.
    """
    o, i, k, j, s = (int(n) for n in (*weight.shape[:3], *m.shape[2:4]))  # constants of exported graphs
    rows = weight.permute(0, 2, 3, 1).reshape(o * k * k, i)
    reach = up * (s - 1)
    total = None
    for a in range(s):
        for b in range(s):
            part = (rows @ m[..., a, b]).reshape(-1, o, k, k, j).permute(0, 1, 4, 2, 3)
            top, left = (up * a, up * b) if up == 1 else (reach - up * a, reach - up * b)
            if s > 1:
                part = F.pad(part, (left, reach - left, top, reach - top))
            total = part if total is None else total + part
    return total


class StyleMatrix(StyledInput):
    """w [N, K, w_dim] with K >= I; M is centred, row-normalised, scaled and given an identity, in that order.

    `matrix_postnorm` selects what preserves the output variance: the gain of W, demodulation of W or of
    W M, or instance normalisation of the output. ToRGB uses the gain of W alone. Raises
    UsageError for fewer vectors than channels.
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
        style: StyleOptions,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, up=up)
        if style.style_vectors < in_channels:
            raise UsageError(
                f"--style-vectors {style.style_vectors}: a style matrix of {in_channels} channels "
                f"needs at least {in_channels} rows."
            )
        if style.matrix_postnorm not in POSTNORMS:
            raise ValueError(f"{style.matrix_postnorm!r} is none of {', '.join(POSTNORMS)}")
        self.style, self.in_channels = style, in_channels
        self.amplify = style.amplification(in_channels)
        self.postnorm = style.matrix_postnorm if demodulate else "none"
        self.norm_out = self.postnorm == "instance"
        self.side = side = style.style_kernel
        named = {"sqrt": math.sqrt(in_channels), "rsqrt": 1 / math.sqrt(in_channels)}
        self.scale = float(named.get(style.matrix_scale, style.matrix_scale))
        self.affine = FullyConnected(
            w_dim, in_channels * side**2, bias_init=style.affine_bias_init, lr_mult=style.affine_lr_mult
        )

    def matrices(self, w: Tensor) -> Tensor:
        """M [N, I, I, s, s]."""
        i, side, style = self.in_channels, self.side, self.style
        m = self.affine(w[:, :i].flatten(0, 1)).reshape(-1, i, i, side, side)
        if self.amplify != 1:
            m = 1 + self.amplify * (m - 1)
        if style.matrix_centre:
            m = m - 1
        if style.matrix_normalise:
            m = m * (m.square().sum(dim=[2, 3, 4], keepdim=True) + EPS).rsqrt()
        if self.scale != 1:
            m = m * self.scale
        if style.matrix_identity:
            one = torch.eye(i, dtype=m.dtype, device=m.device)[:, :, None, None]
            m = m + F.pad(one, (side // 2,) * 4)
        return m

    def kernels(self, w: Tensor) -> Tensor:
        composed = compose(self._weight(), self.matrices(w), up=self.up)
        return composed if self.postnorm != "composite" else composed * _demodulation(composed)

    def _unfused(self, x: Tensor, w: Tensor, bias: Tensor | None, gain: float) -> Tensor:
        weight, m = self._weight(), self.matrices(w)
        if self.postnorm != "composite":
            return conv2d_resample(
                apply_matrix(x, m.to(x.dtype)), (weight * gain).to(x.dtype), bias=bias, up=self.up
            )
        if x.dtype == torch.float16:  # a common factor of a sample's matrix, and of a channel's weights
            m = m / (m.abs().amax(dim=[1, 2, 3, 4], keepdim=True) * math.sqrt(self.in_channels))
            weight = weight / weight.abs().amax(dim=[1, 2, 3], keepdim=True) * self.weight_gain
        d = self._composite_demodulation(weight, m) * gain  # [N, O]
        y = conv2d_resample(apply_matrix(x, m.to(x.dtype)), weight.to(x.dtype), up=self.up)
        return torch.addcmul(bias.reshape(1, -1, 1, 1), y, d.to(x.dtype)[:, :, None, None])

    def _composite_demodulation(self, weight: Tensor, m: Tensor) -> Tensor:
        """1 / norm of every output channel of W M, [N, O]; of a 1x1 style without building W M.

        sum_ju B_oju^2 = <sum_u W_ou W_ou^T, M M^T>: a third of the products up to 128 channels; the I x I
        matrices of O channels take more memory than they save beyond.
        """
        o, i = weight.shape[:2]
        if m.shape[-1] > 1 or i > GRAM_CHANNELS:
            return _demodulation(compose(weight, m, up=self.up)).flatten(1)
        taps, m = weight.flatten(2), m[..., 0, 0]
        grams = (taps @ taps.transpose(1, 2)).reshape(o, i * i)
        outer = (m @ m.transpose(1, 2)).flatten(1)
        return (outer @ grams.t() + EPS).rsqrt()

    def _weight(self) -> Tensor:
        if self.postnorm == "composite":
            return self.weight
        if self.postnorm == "weight":
            return self.weight * (self.weight.square().sum(dim=[1, 2, 3], keepdim=True) + EPS).rsqrt()
        return self.weight * self.weight_gain


def _demodulation(kernels: Tensor) -> Tensor:
    """1 / norm of every output channel's kernel: [N, O, J, v, v] -> [N, O, 1, 1, 1]."""
    return (kernels.square().sum(dim=[2, 3, 4], keepdim=True) + EPS).rsqrt()
