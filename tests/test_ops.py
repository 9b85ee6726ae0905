"""Resampling and equalised layers against their definitions and against scipy."""

import numpy as np
import pytest
import scipy.signal
import torch

from fact_train.networks import ops

FIR = ops._depthwise(1, 1.0, torch.float64, torch.device("cpu"))[0, 0]


def zero_insert(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    out = torch.zeros(n, c, 2 * h, 2 * w, dtype=x.dtype)
    out[:, :, ::2, ::2] = x
    return out


def full_convolution(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return scipy.signal.convolve2d(image, kernel, mode="full")


def test_filter_is_normalised_and_separable() -> None:
    assert FIR.sum() == 1
    assert torch.linalg.matrix_rank(FIR) == 1
    assert torch.equal(FIR, FIR.flip(0, 1))


def test_upsampling_equals_zero_insertion_and_convolution() -> None:
    x = torch.randn(1, 1, 5, 6, dtype=torch.float64)
    expected = full_convolution(zero_insert(x)[0, 0].numpy(), FIR.numpy() * 4)[1 : 1 + 10, 1 : 1 + 12]
    np.testing.assert_allclose(ops.upsample2d(x)[0, 0].numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("size", [(5, 6), (1, 3), (64, 65)])
def test_doubling_an_image_by_matrices_is_the_filter(size) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(ops.upsample_images(x), ops.upsample2d(x), atol=1e-14, rtol=0)


def test_downsampling_equals_convolution_and_decimation() -> None:
    x = torch.randn(1, 1, 8, 6, dtype=torch.float64)
    expected = full_convolution(x[0, 0].numpy(), FIR.numpy())[2 : 2 + 8 : 2, 2 : 2 + 6 : 2]
    np.testing.assert_allclose(ops.downsample2d(x)[0, 0].numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("resample", [ops.upsample2d, ops.downsample2d])
def test_resampling_keeps_a_constant_away_from_the_border(resample) -> None:
    x = torch.ones(1, 2, 16, 16, dtype=torch.float64)
    inner = resample(x)[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.ones_like(inner), rtol=0, atol=1e-14)


def test_convolution_up_equals_insertion_convolution_filter() -> None:
    x, w = torch.randn(1, 1, 4, 4, dtype=torch.float64), torch.randn(1, 1, 3, 3, dtype=torch.float64)
    y = full_convolution(full_convolution(zero_insert(x)[0, 0].numpy(), w[0, 0].numpy()), FIR.numpy() * 4)
    got = ops.conv2d_resample(x, w, up=2)[0, 0].numpy()
    np.testing.assert_allclose(got, y[2 : 2 + 8, 2 : 2 + 8], atol=1e-13)


def test_convolution_down_equals_filter_correlation_decimation() -> None:
    x, w = torch.randn(1, 1, 8, 8, dtype=torch.float64), torch.randn(1, 1, 3, 3, dtype=torch.float64)
    blurred = full_convolution(x[0, 0].numpy(), FIR.numpy())
    y = full_convolution(blurred, w[0, 0].flip(0, 1).numpy())
    got = ops.conv2d_resample(x, w, down=2)[0, 0].numpy()
    np.testing.assert_allclose(got, y[3 : 3 + 8 : 2, 3 : 3 + 8 : 2], atol=1e-13)


@pytest.mark.parametrize("use", list(ops.ADJOINT))
def test_every_use_of_the_filter_has_its_adjoint_as_derivative(use: str) -> None:
    """<F x, y> = <x, F' y>, and the derivative of the derivative is the first one again."""
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    y = ops._Filter.apply(x, use, 1.7)
    g = torch.randn_like(y, requires_grad=True)
    (grad,) = torch.autograd.grad(y, x, g, create_graph=True)
    torch.testing.assert_close((y * g).sum(), (x * grad).sum(), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda t: ops._Filter.apply(t, use, 1.7), [x])
    assert torch.autograd.gradgradcheck(lambda t: ops._Filter.apply(t, use, 1.7), [x])


@pytest.mark.parametrize("use", list(ops.ADJOINT))
def test_the_filter_keeps_bfloat16(use: str) -> None:
    x = torch.randn(2, 3, 6, 6)
    y = ops._Filter.apply(x.bfloat16(), use, 1.0)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), ops._Filter.apply(x, use, 1.0), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("in_channels", [1, 2])
def test_convolutions_are_twice_differentiable(in_channels: int) -> None:
    torch.manual_seed(0)
    layer = ops.Conv2d(in_channels, 3, 1, activation="lrelu").double()
    down = ops.Conv2d(3, 2, 3, activation="lrelu", down=2).double()
    x = torch.randn(1, in_channels, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: down(layer(t)), [x])
    assert torch.autograd.gradgradcheck(lambda t: down(layer(t)), [x])


def test_equalised_layers_keep_unit_variance() -> None:
    # 4096 x 64 samples: the standard error of the mean square is about 0.3 %, of a random layer about 5 %
    torch.manual_seed(0)
    x = torch.randn(4096, 256)
    for lr_mult in (1.0, 0.01):
        y = ops.FullyConnected(256, 256, lr_mult=lr_mult)(x)
        assert 0.9 < float(y.detach().square().mean()) < 1.1
    y = ops.FullyConnected(256, 256, activation="lrelu")(x)  # E[lrelu(x)^2] = 0.52, times 2
    assert 0.9 < float(y.detach().square().mean()) < 1.2


def test_lr_mult_scales_the_step_of_the_effective_weight() -> None:
    steps = []
    for lr_mult in (1.0, 0.01):
        torch.manual_seed(0)
        layer = ops.FullyConnected(8, 8, lr_mult=lr_mult)
        effective = layer.weight.detach() * layer.weight_gain
        opt = torch.optim.Adam(layer.parameters(), lr=0.1, betas=(0.0, 0.99))
        layer(torch.ones(1, 8)).sum().backward()
        opt.step()
        steps.append(float((layer.weight.detach() * layer.weight_gain - effective).abs().mean()))
    assert steps[1] == pytest.approx(steps[0] * 0.01, rel=1e-3)


def test_second_moment_is_one_after_normalisation() -> None:
    y = ops.normalize_2nd_moment(torch.randn(5, 64) * 7)
    torch.testing.assert_close(y.square().mean(dim=1), torch.ones(5), rtol=1e-5, atol=1e-5)


def test_clamp_limits_activations() -> None:
    layer = ops.Conv2d(4, 4, 3, activation="lrelu", conv_clamp=0.25)
    x = torch.randn(2, 4, 8, 8) * 50
    assert float(layer(x).detach().abs().max()) == 0.25
    assert float(layer(x, gain=0.5).detach().abs().max()) == 0.125
