"""A style folded into the weights: what every injection becomes at one fixed w."""

from torch import Tensor, nn

from fact_train.networks.injection.convolve import instance_norm, with_ones
from fact_train.networks.ops import conv2d_resample


class PlainConv(nn.Module):
    """A style-injected convolution whose style is fixed: weight [O, I (+ 1), k, k]; w is ignored."""

    def __init__(self, weight: Tensor, *, up: int, norm_in: bool, norm_out: bool, shifts: bool) -> None:
        super().__init__()
        self.up, self.norm_in, self.norm_out, self.shifts = up, norm_in, norm_out, shifts
        self.weight = nn.Parameter(weight)

    @classmethod
    def of(cls, layer: nn.Module, w: Tensor) -> "PlainConv":
        """The convolution that an injection is at the style of w [1, w_dim] or [1, K, w_dim]."""
        flags = {name: getattr(layer, name) for name in ("norm_in", "norm_out", "shifts")}
        return cls(layer.kernels(w)[0].detach().contiguous(), up=layer.up, **flags)

    def forward(self, x: Tensor, w: Tensor, *, bias: Tensor, fused: bool, gain: float = 1.0) -> Tensor:
        x = instance_norm(x) if self.norm_in else x
        x = with_ones(x) if self.shifts else x
        inner, outer = (1.0, gain) if self.norm_out else (gain, 1.0)
        bias = bias.to(x.dtype)
        added = None if self.norm_out else bias
        y = conv2d_resample(x, (self.weight * inner).to(x.dtype), bias=added, up=self.up)
        return instance_norm(y) * outer + bias.reshape(1, -1, 1, 1) if self.norm_out else y
