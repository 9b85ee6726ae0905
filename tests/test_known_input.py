"""Many styles of one input, by one product, against a convolution of every style."""

import pytest
import torch

from fact_train.networks.injection import STYLE_INJECTIONS, KnownInput, StyleOptions, known_input


def layer(kind: str = "modconv", **options) -> torch.nn.Module:
    given = dict(w_dim=5, up=1, demodulate=True, style=StyleOptions(style_amplify=3.0))
    return STYLE_INJECTIONS[kind](6, 4, 3, **{**given, **options}).double()


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("fused", [True, False])
def test_every_style_gives_its_convolution(up, fused) -> None:
    """In float64 both orders of summation agree to 1e-13 of values near 1."""
    conv = layer(up=up)
    x, w = torch.randn(1, 6, 5, 7, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)
    options = dict(bias=torch.randn(4, dtype=torch.float64), fused=fused, gain=1.4)
    fast = KnownInput(conv, x)(x.expand(9, -1, -1, -1), w, **options)
    slow = conv(x.expand(9, -1, -1, -1), w, **options)
    torch.testing.assert_close(fast, slow, atol=1e-13, rtol=0)
    assert fast.is_contiguous(memory_format=torch.channels_last)  # as the next layer wants it


def test_only_convolutions_that_are_linear_in_the_style_fit() -> None:
    x = torch.randn(1, 6, 5, 7, dtype=torch.float64)
    assert KnownInput.fits(layer(), x)
    assert not KnownInput.fits(layer("adain"), x)  # its input is normalised first
    assert not KnownInput.fits(layer("vectors", style=StyleOptions(style_vectors=2)), x)
    assert not KnownInput.fits(layer(demodulate=False), x)


def test_large_responses_do_not_fit(monkeypatch) -> None:
    """6 input channels, 4 output channels, 35 pixels, 8 bytes; four times as many where the size doubles."""
    x = torch.randn(1, 6, 5, 7, dtype=torch.float64)
    monkeypatch.setattr(known_input, "LARGEST", 6 * 4 * 35 * 8)
    assert KnownInput.fits(layer(), x) and not KnownInput.fits(layer(up=2), x)
    monkeypatch.setattr(known_input, "LARGEST", 6 * 4 * 35 * 8 - 1)
    assert not KnownInput.fits(layer(), x)
