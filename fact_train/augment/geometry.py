"""Geometric transformations: exact pixel blits, and one band-limited resampling for all others (Karras et al.
2020, appendix B).

A position is (x, y) in pixels from the centre of the image, y downward. A map [N, 2, 3] says where an output
position is read: the inverse of the transformation of the image. Reflection extends the image.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fact_train.augment.wavelets import downsampling, period_of, reflect, upsampling

SHIFT_MAX = 0.125  # of width and height: integer translation, uniform
SCALE_STD = 0.2  # of log2 of the factor
ASPECT_STD = 0.2  # of log2 of the factor along one axis, its inverse along the other
SHIFT_STD = 0.125  # of width and height: fractional translation

Sides = Sequence[int]  # height and width of an image


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


def draw_blits(n: int, size: Sides, p: Tensor, *, generator: torch.Generator | None) -> Blits:
    """Each with probability p: mirroring (of half of those), one of four quarter turns, a shift of up to 1/8.

    The value is uniform over the whole group, including the identity. At p = 1 all are equally likely.
    """
    u = torch.rand(n, 7, generator=generator, device=p.device)
    on = u[:, :3] < p
    shift = torch.round(_times(u[:, 5:] * 2 - 1, SHIFT_MAX, size)).long()
    mirrored = on[:, 0] & (u[:, 3] < 0.5)
    turns = torch.where(on[:, 1], (u[:, 4] * 4).long(), 0)
    return Blits(turns + 4 * mirrored, torch.where(on[:, 2:], shift, 0))


def draw_affine(
    n: int, size: Sides, p: Tensor, *, generator: torch.Generator | None, dtype: torch.dtype
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
    shift = torch.where(on[:, 4:], _times(z[:, 2:], SHIFT_STD, size), 0.0)
    before, after = _turned_back(cos[:, 0], sin[:, 0]), _turned_back(cos[:, 1], sin[:, 1])
    stretched = before * torch.stack([scale * aspect, scale / aspect], dim=1)[:, None]
    linear = _product(stretched, after)
    return torch.cat([linear, -_product(linear, shift[:, :, None])], dim=2), on.any(dim=1)


def _times(share: Tensor, factor: float, size: Sides) -> Tensor:
    """Shares [N, 2] of width and height as pixels, times a factor."""
    height, width = size
    return torch.stack([share[:, 0] * (factor * width), share[:, 1] * (factor * height)], dim=1)


def _turned_back(cos: Tensor, sin: Tensor) -> Tensor:
    """The inverse of a rotation: [N, 2, 2]."""
    return torch.stack([cos, sin, -sin, cos], dim=1).reshape(-1, 2, 2)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Batched matrix product in full precision: TF32 would round positions to 10 bits."""
    return (a[:, :, :, None] * b[:, None]).sum(dim=2)


def blit(images: Tensor, blits: Blits) -> Tensor:
    """Move [N, C, H, W] by whole pixels: every output pixel equals one input pixel, bit for bit.

    H and W are both even or both odd: a quarter turn about the centre puts pixels on pixels only then.
    """
    n, c, height, width = images.shape
    matrix, shift = blits.matrices(), blits.shift
    # Every axis of the output walks along one axis of the input: forward or back, over columns or over rows.
    index = 0
    for axis, length, expand in ((0, width, (n, 1, width)), (1, height, (n, height, 1))):
        at = torch.arange(length, device=images.device) - shift[:, axis, None]
        twice = 2 * at - (length - 1)  # positions from the centre, doubled to be whole
        for step, size, stride in (
            (matrix[:, 0, axis, None], width, 1),
            (matrix[:, 1, axis, None], height, width),
        ):
            read = reflect(torch.div(step * twice + (size - 1), 2, rounding_mode="floor"), size)
            index = index + (read * (step.abs() * stride)).reshape(expand)
    index = index.reshape(n, 1, height * width).expand(-1, c, -1)
    return images.reshape(n, c, -1).gather(2, index).reshape(images.shape)


def after_blits(matrix: Tensor, blits: Blits) -> Tensor:
    """The map of blits followed by `matrix`."""
    moved = torch.cat([matrix[:, :, :2], matrix[:, :, 2:] - blits.shift[:, :, None]], dim=2)
    return _product(blits.matrices().to(matrix.dtype), moved)


def resample(images: Tensor, matrix: Tensor) -> Tensor:
    """Sample [N, C, H, W] at the mapped positions: upsample with sym6, sample bilinearly, downsample.

    The upsampled image holds one period of the reflected image, so positions far outside are exact.
    """
    size, like = images.shape[2:], (images.dtype, images.device)
    up_rows, up_columns = (upsampling(side, *like) for side in size)
    down_rows, down_columns = (downsampling(side, *like) for side in size)
    doubled = up_rows @ images @ up_columns.t()
    read = _Bilinear.apply(doubled, _grid(matrix, size))
    return down_rows @ read @ down_columns.t()


def _grid(matrix: Tensor, size: Sides) -> Tensor:
    """Where the samples of the doubled output are read: [N, 2H + 10, 2W + 10, 2] in [-1, 1] of a period."""
    # Of an axis of H pixels, sample k lies at (k - H - 4) / 2, and position q is sample 2 q + H - 1.
    rows, columns = (
        (torch.arange(2 * side + 10, dtype=matrix.dtype, device=matrix.device) - (side + 4)) / 2
        for side in size
    )
    height, width = size
    matrix = torch.stack(
        [matrix[:, 0] * (4 / period_of(width)), matrix[:, 1] * (4 / period_of(height))], dim=1
    )
    along, across = matrix[:, :, 0, None] * columns, matrix[:, :, 1, None] * rows + matrix[:, :, 2:] - 0.5
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
