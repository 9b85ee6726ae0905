"""Building blocks of the injections: convolution with weights per sample, and instance normalisation."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fact_train.networks.ops import narrow2d, upsample2d

EPS = 1e-8


class _PerSample(torch.autograd.Function):
    """Partial derivatives of the trilinear form sum_n <w_n * x_n, y_n>.

    With respect to y: the convolutions w_n * x_n; to x: the transposed convolutions; to w: the weight
    gradients. Each is a derivative of the others, so a derivative of any order is one grouped convolution;
    the second derivative of autograd processes the groups one by one. x [N, I, H, W], w [N, O, I, k, k],
    y [N, O, H', W'].
    """

    @staticmethod
    def forward(ctx, along: str, a: Tensor, b: Tensor, shape: Sequence[int], stride: int) -> Tensor:
        """`a` and `b` are the other two tensors in the order x, w, y; `shape` is that of the result."""
        ctx.along, ctx.stride = along, stride
        ctx.save_for_backward(a, b)
        n, k = shape[0], {"x": a, "y": b}[along].shape[-1] if along != "w" else shape[-1]
        padding = k // 2 if stride == 1 else (k - 3) // 2
        if along == "y":
            options = dict(stride=stride, padding=padding, groups=n)
            return _apart(F.conv2d(_side_by_side(a), b.flatten(0, 1), **options), n)
        like = dict(dtype=a.dtype, device=a.device, memory_format=torch.channels_last)
        joined = (1, n * shape[1], *shape[2:]) if along == "x" else (n * shape[1], *shape[2:])
        empty = torch.empty(joined, **like)  # its shape alone is read
        x, w = (empty, a.flatten(0, 1)) if along == "x" else (_side_by_side(a), empty)
        options = [None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], n]
        wanted = [along == "x", along == "w", False]
        found = torch.ops.aten.convolution_backward(_side_by_side(b), x, w, *options, wanted)
        return _apart(found[0], n) if along == "x" else found[1].unflatten(0, (n, -1))

    @staticmethod
    def backward(ctx, grad: Tensor):
        others = "xwy".replace(ctx.along, "")
        given = {ctx.along: grad, **dict(zip(others, ctx.saved_tensors, strict=True))}
        found = [None, None]
        for i, along in enumerate(others):
            if ctx.needs_input_grad[1 + i]:
                a, b = (given[name] for name in "xwy" if name != along)
                found[i] = _PerSample.apply(along, a, b, given[along].shape, ctx.stride)
        return None, *found, None, None


def per_sample_conv(x: Tensor, w: Tensor, *, bias: Tensor | None, up: int = 1) -> Tensor:
    """Convolve every sample of [N, I, H, W] with its own [O, I, k, k] out of w [N, O, I, k, k], plus bias
    [O].

    One grouped convolution, the fastest of the variants measured, on a CPU too (docs/injection-figures.md).
    Weights stored as [N, O, k, k, I], or as [N, I, k, k, O] if `up` is 2, are used without a copy.
    """
    w = w.to(x.dtype)
    if up == 2 and w.shape[-1] == 1:
        x, up = upsample2d(x), 1  # a 1x1 kernel commutes with the filter
    n, o, height, width = len(x), w.shape[1], *x.shape[2:]
    if up == 1:
        y = _PerSample.apply("y", x, w, (n, o, height, width), 1)
    else:  # the adjoint of a convolution of stride 2 from O to I channels
        y = _PerSample.apply("x", w.transpose(1, 2), x, (n, o, 2 * height + 1, 2 * width + 1), 2)
        y = narrow2d(y, gain=4.0)
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def _side_by_side(x: Tensor) -> Tensor:
    """[N, I, H, W] -> [1, N I, H, W], channels last."""
    return x.permute(2, 3, 0, 1).flatten(2)[None].permute(0, 3, 1, 2)


def _apart(x: Tensor, n: int) -> Tensor:
    """[1, N I, H, W] -> [N, I, H, W], channels last."""
    return x[0].unflatten(0, (n, -1)).contiguous(memory_format=torch.channels_last)


def instance_norm(x: Tensor) -> Tensor:
    """Give each map of [N, C, H, W] mean 0 and variance 1 over its pixels; statistics at least in float32."""
    wide = x if x.dtype == torch.float64 else x.float()
    centred = wide - wide.mean(dim=[2, 3], keepdim=True)
    return (centred * (centred.square().mean(dim=[2, 3], keepdim=True) + EPS).rsqrt()).to(x.dtype)


def with_ones(x: Tensor) -> Tensor:
    """[N, I + 1, H, W] with a last channel of ones; its weights add a constant inside the zero padding."""
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
