"""Orthogonal wavelet filters as matrices over one axis of an image that is extended by reflection.

Taps are the low-pass decomposition filters sym2 and sym6 of PyWavelets' published table (MIT licence). The
tests check what defines them: orthonormality to their own even shifts, and 2 and 6 vanishing moments.
"""

import functools
import math

import torch
from torch import Tensor

SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
BANDS = 4


def reflect(index: Tensor, size: int) -> Tensor:
    """Map integer positions at any distance to [0, size) by reflection about the first and last pixel."""
    period = 2 * (size - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def period_of(size: int) -> int:
    """Period of the upsampled, reflected axis in samples."""
    return 4 * (size - 1)


@functools.cache
def upsampling(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix that upsamples one axis by 2 over one period, first sample repeated: [period + 1, size].

    Sample m lies at pixel m / 2: tap 5 is the centre of mass of the filter, to 0.1 samples. One period of the
    reflected axis determines it everywhere outside the image.
    """
    m = torch.arange(period_of(size) + 1)[:, None]
    k = torch.arange(len(SYM6))[None]
    pixel = torch.div(m + 5 - k, 2, rounding_mode="floor")
    taps = torch.tensor(SYM6, dtype=torch.float64) * math.sqrt(2.0)
    hits = torch.where((m + 5 - k) % 2 == 0, taps, 0.0)
    matrix = torch.zeros(len(m), size, dtype=torch.float64)
    return matrix.scatter_add_(1, reflect(pixel, size), hits).to(device, dtype)


@functools.cache
def downsampling(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix from samples -5 ... 2 size + 4 of the upsampled axis to `size` pixels: [size, 2 size + 10].

    The transpose of upsampling up to its gain, and its inverse: the filter is orthogonal to its even shifts.
    """
    matrix = torch.zeros(size, 2 * size + 10, dtype=torch.float64)
    taps = torch.tensor(SYM6, dtype=torch.float64) / math.sqrt(2.0)
    for pixel in range(size):
        matrix[pixel, 2 * pixel : 2 * pixel + len(SYM6)] = taps
    return matrix.to(device, dtype)


@functools.cache
def band_filters(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zero-phase filters [4, size, size] for [0, 1/8], [1/8, 1/4], [1/4, 1/2], [1/2, 1] of the frequencies.

    Made of the half-band filter P(z) = H(z) H(1/z) / 2 and its mirror Q(z) = P(-z), P + Q = 1, H being sym2:
    P(z) P(z^2) P(z^4), P(z) P(z^2) Q(z^4), P(z) Q(z^2), Q(z). Their sum is the identity.
    """
    kernels = _band_kernels()
    width = kernels.shape[1]
    pixel = torch.arange(size)[:, None] + torch.arange(width)[None] - width // 2
    pixel = reflect(pixel, size).expand(BANDS, -1, -1)
    matrix = torch.zeros(BANDS, size, size, dtype=torch.float64)
    return matrix.scatter_add_(2, pixel, kernels[:, None].expand(-1, size, -1)).to(device, dtype)


def _band_kernels() -> Tensor:
    """The taps of the four bands, centred: [4, 43] float64."""
    taps = torch.tensor(SYM2, dtype=torch.float64)
    low = _convolve(taps, taps.flip(0)) / 2
    signs = torch.tensor([(-1.0) ** abs(k) for k in range(-3, 4)], dtype=torch.float64)
    high = low * signs
    kernels, passed = [], torch.ones(1, dtype=torch.float64)
    for level in range(BANDS - 1):
        step = 2**level
        kernels.append(_convolve(passed, _dilate(high, step)))
        passed = _convolve(passed, _dilate(low, step))
    kernels.append(passed)
    width = len(passed)
    padded = [torch.nn.functional.pad(k, [(width - len(k)) // 2] * 2) for k in kernels]
    return torch.stack(padded[::-1])


def _dilate(taps: Tensor, step: int) -> Tensor:
    """H(z^step)."""
    out = taps.new_zeros((len(taps) - 1) * step + 1)
    out[::step] = taps
    return out


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(a, [len(b) - 1] * 2)
    return padded.unfold(0, len(b), 1) @ b.flip(0)
