"""Convolution by weights of every sample, with its derivatives: against sample after sample, float64."""

import pytest
import torch

from fact_train.networks.injection import STYLE_INJECTIONS, StyleOptions
from fact_train.networks.injection.convolve import per_sample_conv
from fact_train.networks.injection.matrix import GRAM_CHANNELS, compose
from fact_train.networks.ops import conv2d_resample


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_close(a: torch.Tensor, b: torch.Tensor) -> None:
    """1e-12 of the largest value: sums of some hundred terms."""
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * float(b.detach().abs().max()))


@pytest.mark.parametrize(("up", "k"), [(1, 1), (1, 3), (1, 5), (2, 1), (2, 3), (2, 7)])
def test_each_sample_meets_its_own_weights_to_the_second_derivative(up: int, k: int) -> None:
    x, w, bias = draw(3, 5, 6, 4).requires_grad_(), draw(3, 4, 5, k, k, seed=1).requires_grad_(), draw(4)
    alone = [conv2d_resample(x[i : i + 1], w[i], bias=bias, up=up) for i in range(3)]
    results = []
    for y in (torch.cat(alone), per_sample_conv(x, w, bias=bias, up=up)):
        first = torch.autograd.grad(y.square().sum(), [x, w], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [x, w])
        results.append([y, *first, *second])
    assert results[1][0].shape == (3, 4, 6 * up, 4 * up)
    for one_by_one, together in zip(*results, strict=True):
        assert_close(together, one_by_one)


@pytest.mark.parametrize("up", [1, 2])
def test_derivatives_are_those_of_finite_differences(up: int) -> None:
    x, w = draw(2, 2, 3, 3).requires_grad_(), draw(2, 3, 2, 3, 3, seed=1).requires_grad_()

    def squared(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return per_sample_conv(x, w, bias=None, up=up).square()

    assert torch.autograd.gradcheck(squared, (x, w), fast_mode=True)
    assert torch.autograd.gradgradcheck(squared, (x, w), fast_mode=True)


@pytest.mark.parametrize("wanted", [0, 1])
def test_a_factor_that_needs_no_gradient_is_not_differentiated(wanted: int) -> None:
    factors = [draw(2, 2, 3, 3), draw(2, 3, 2, 3, 3, seed=1)]
    factors[wanted].requires_grad_()
    y = per_sample_conv(*factors, bias=None)
    (grad,) = torch.autograd.grad(y.square().sum(), [factors[wanted]])
    assert float(grad.abs().min()) > 0


@pytest.mark.parametrize("up", [1, 2])
def test_the_weights_of_style_vectors_lie_as_the_convolution_reads_them(up: int) -> None:
    """A copy into another order took as long as the convolution."""
    style = StyleOptions(style_vectors=4)
    layer = STYLE_INJECTIONS["vectors"](6, 8, 3, w_dim=5, up=up, demodulate=True, style=style)
    w = layer.kernels(torch.randn(3, 4, 5))
    assert w.shape == (3, 8, 6, 3, 3)
    order = (0, 1, 3, 4, 2) if up == 1 else (0, 2, 3, 4, 1)
    assert w.permute(order).is_contiguous()


@pytest.mark.parametrize("channels", [8, GRAM_CHANNELS + 1])
def test_composite_demodulation_is_the_norm_of_the_composed_kernel(channels: int) -> None:
    """By Gram matrices up to GRAM_CHANNELS, directly beyond."""
    torch.manual_seed(0)
    style = StyleOptions(style_vectors=channels, matrix_centre=True)
    layer = STYLE_INJECTIONS["matrix"](channels, 3, 3, w_dim=5, demodulate=True, style=style).double()
    m = layer.matrices(draw(2, channels, 5))
    expected = compose(layer.weight, m).square().sum(dim=[2, 3, 4]).add(1e-8).rsqrt()
    assert_close(layer._composite_demodulation(layer.weight, m), expected)
