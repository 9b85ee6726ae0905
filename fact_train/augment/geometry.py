"""Geometric transformations: exact pixel blits, and one band-limited resampling for all others (Karras et al.
2020, appendix B).

A position is (x, y) in pixels from the centre of the image, y downward. A map [N, 2, 3] says where an output
position is read: the inverse of the transformation of the image. Reflection extends the image.
"""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fact_train.augment.wavelets import downsampling, period_of, reflect, upsampling

SHIFT_MAX = 0.125  # of the width: integer translation, uniform
SCALE_STD = 0.2  # of log2 of the factor
ASPECT_STD = 0.2  # of log2 of the factor along one axis, its inverse along the other
SHIFT_STD = 0.125  # of the width: fractional translation


@dataclass(frozen=True)
class Blits:
    """Per sample: an element of SYMMETRIES, then a shift (x, y) in whole pixels."""

    symmetry: Tensor  # [N] int64 in 0..7: quarter turns, + 4 where mirrored before them
    shift: Tensor  # [N, 2] int64

    def matrices(self) -> Tensor:
        """Where an output position is read once the shift is undone: integers [N, 2, 2]."""
        return symmetries(self.symmetry.device)[self.symmetry]


@functools.cache
def symmetries(device: torch.device) -> Tensor:
    """The inverses of mirroring or not, then 0 to 3 quarter turns: [8, 2, 2] int64."""
    turns = [[[1, 0], [0, 1]], [[0, 1], [-1, 0]], [[-1, 0], [0, -1]], [[0, -1], [1, 0]]]
    mirrored = [[[-a, -b], row] for (a, b), row in turns]
    return torch.tensor(turns + mirrored, device=device)


def draw_blits(n: int, size: int, p: Tensor, *, generator: torch.Generator | None) -> Blits:
    """Each with probability p: mirroring (of half of those), one of four quarter turns, a shift of up to 1/8.

    The value is uniform over the whole group, including the identity. At p = 1 all are equally likely.
    """
    u = torch.rand(n, 7, generator=generator, device=p.device)
    on = u[:, :3] < p
    shift = torch.round((u[:, 5:] * 2 - 1) * (SHIFT_MAX * size)).long()
    mirrored = on[:, 0] & (u[:, 3] < 0.5)
    turns = torch.where(on[:, 1], (u[:, 4] * 4).long(), 0)
    return Blits(turns + 4 * mirrored, torch.where(on[:, 2:], shift, 0))


def draw_affine(
    n: int, size: int, p: Tensor, *, generator: torch.Generator | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Maps [n, 2, 3], and [n] bool: whether each differs from the identity.

    In this order, each with probability p: isotropic scaling, rotation, anisotropic scaling, rotation again,
    fractional translation. The two rotations share p: at least one occurs with probability p.
    """
    device = p.device
    on = torch.rand(n, 5, generator=generator, device=device, dtype=dtype)
    rotating = 1 - (1 - p).clamp(0, 1).sqrt()
    on = on < torch.stack([p, rotating, p, rotating, p])
    z = torch.randn(n, 4, generator=generator, device=device, dtype=dtype)
    angles = (torch.rand(n, 2, generator=generator, device=device, dtype=dtype) * 2 - 1) * math.pi
    angles = torch.where(on[:, 1:4:2], angles, 0.0)
    cos, sin = angles.cos(), angles.sin()
    scale = torch.exp2(torch.where(on[:, 0], z[:, 0] * -SCALE_STD, 0.0))
    aspect = torch.exp2(torch.where(on[:, 2], z[:, 1] * -ASPECT_STD, 0.0))
    shift = torch.where(on[:, 4:], z[:, 2:] * (SHIFT_STD * size), 0.0)
    before, after = _turned_back(cos[:, 0], sin[:, 0]), _turned_back(cos[:, 1], sin[:, 1])
    stretched = before * torch.stack([scale * aspect, scale / aspect], dim=1)[:, None]
    linear = _product(stretched, after)
    return torch.cat([linear, -_product(linear, shift[:, :, None])], dim=2), on.any(dim=1)


def _turned_back(cos: Tensor, sin: Tensor) -> Tensor:
    """The inverse of a rotation: [N, 2, 2]."""
    return torch.stack([cos, sin, -sin, cos], dim=1).reshape(-1, 2, 2)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Batched matrix product in full precision: TF32 would round positions to 10 bits."""
    return (a[:, :, :, None] * b[:, None]).sum(dim=2)


def blit(images: Tensor, blits: Blits) -> Tensor:
    """Move [N, C, H, H] by whole pixels: every output pixel equals one input pixel, bit for bit."""
    n, c, size, _ = images.shape
    matrix, shift = blits.matrices(), blits.shift
    at = torch.arange(size, device=images.device)
    # Every axis of the output walks along one axis of the input: forward or back, over columns or over rows.
    index = 0
    for axis, expand in ((0, (n, 1, size)), (1, (n, size, 1))):
        moved = reflect(at - shift[:, axis, None], size)
        over_column, over_row = matrix[:, 0, axis, None], matrix[:, 1, axis, None]
        walked = torch.where(over_column + over_row > 0, moved, size - 1 - moved)
        index = index + (walked * (over_column.abs() + over_row.abs() * size)).reshape(expand)
    index = index.reshape(n, 1, size * size).expand(-1, c, -1)
    return images.reshape(n, c, -1).gather(2, index).reshape(images.shape)


def after_blits(matrix: Tensor, blits: Blits) -> Tensor:
    """The map of blits followed by `matrix`."""
    moved = torch.cat([matrix[:, :, :2], matrix[:, :, 2:] - blits.shift[:, :, None]], dim=2)
    return _product(blits.matrices().to(matrix.dtype), moved)


def resample(images: Tensor, matrix: Tensor) -> Tensor:
    """Sample [N, C, H, H] at the mapped positions: upsample with sym6, sample bilinearly, downsample.

    The upsampled image holds one period of the reflected image, so positions far outside are exact.
    """
    size = images.shape[2]
    up = upsampling(size, images.dtype, images.device)
    down = downsampling(size, images.dtype, images.device)
    doubled = up @ images @ up.t()
    read = _Bilinear.apply(doubled, _grid(matrix, size))
    return down @ read @ down.t()


def _grid(matrix: Tensor, size: int) -> Tensor:
    """Where the samples of the doubled output are read: [N, 2H + 10, 2H + 10, 2] in [-1, 1] of a period."""
    period = period_of(size)
    # Sample k of the output lies at (k - H - 4) / 2; what is read at position q is sample 2 q + H - 1.
    at = (torch.arange(2 * size + 10, dtype=matrix.dtype, device=matrix.device) - (size + 4)) / 2
    matrix = matrix * (4 / period)
    along, across = matrix[:, :, 0, None] * at, matrix[:, :, 1, None] * at + matrix[:, :, 2:] - 0.5
    grid = across.transpose(1, 2)[:, :, None] + along.transpose(1, 2)[:, None]
    return grid.sub_((grid * 0.5).round_(), alpha=2)  # remainder() takes five times as long


class _Bilinear(torch.autograd.Function):
    """Bilinear samples of [N, C, H, W] at a grid that needs no gradient; its derivative is the adjoint.

    Both are linear in the image, so a derivative of any order costs one of the two, in every torch version.
    """

    @staticmethod
    def forward(ctx, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (grid,) = ctx.saved_tensors
        return _BilinearAdjoint.apply(grad, grid, ctx.shape), None


class _BilinearAdjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        like = grad.new_empty(shape)  # its values matter to the gradient of the grid only
        x, _ = torch.ops.aten.grid_sampler_2d_backward(grad, like, grid, 0, 0, True, [True, False])
        return x

    @staticmethod
    def backward(ctx, grad: Tensor):
        (grid,) = ctx.saved_tensors
        return _Bilinear.apply(grad, grid), None, None
