"""A modulated convolution of one known input, for many styles."""

import torch
from torch import Tensor, nn

from fact_train.networks.injection.convolve import per_sample_conv
from fact_train.networks.injection.modconv import ModulatedConv

LARGEST = 64 << 20  # bytes of the responses of one layer


class KnownInput(nn.Module):
    """`ModulatedConv` for styles of one input [1, I, H, W], which is convolved once.

    The convolution is linear in the style: for style s it is the sum of the responses to each input channel
    alone, weighed by s. One product of matrices [N, I] and [I, O H' W'] takes the place of N convolutions, a
    ninth of their operations with 3x3 kernels. `fits` says for which layers and sizes.
    """

    def __init__(self, inject: ModulatedConv, x: Tensor) -> None:
        super().__init__()
        self.inject = inject
        alone = inject.weight.transpose(0, 1)[:, :, None]  # [I, O, 1, k, k]: a sample per input channel
        y = per_sample_conv(x[0][:, None], alone, bias=None, up=inject.up).permute(0, 2, 3, 1)
        self._shape = y.shape[1:]
        self._responses = y.reshape(len(y), -1)  # [I, H' W' O]

    @staticmethod
    def fits(inject: nn.Module, x: Tensor) -> bool:
        """Whether this is exactly a demodulated `ModulatedConv`, with responses that are not too large."""
        if type(inject) is not ModulatedConv or not inject.demodulate:
            return False
        o, i = inject.weight.shape[:2]
        return o * i * x[0, 0].numel() * inject.up**2 * x.element_size() <= LARGEST

    def forward(self, x: Tensor, w: Tensor, *, bias: Tensor, fused: bool, gain: float = 1.0) -> Tensor:
        """As `ModulatedConv.forward`; `x` is the known input, repeated, and is not read."""
        _, s, d = self.inject._factors(w, gain=gain, prenormalised=False)
        y = (s @ self._responses).reshape(len(s), *self._shape)
        return torch.addcmul(bias, y, d[:, None, None]).permute(0, 3, 1, 2)
