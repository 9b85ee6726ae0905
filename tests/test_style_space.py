"""StyleSpace equals the synthesis network, for every injection and architecture; edits equal full renders."""

import pytest
import torch

from fact_metrics.base.errors import UserError
from fact_train.networks.generator import G_ARCHITECTURES, Generator
from fact_train.networks.injection import StyleOptions
from fact_train.networks.style_space import StyleSpace

EXACT = 1e-5  # images of about 1, sums of a few hundred float32 terms in another order
CASES = {
    "modconv": {},
    "amplified": {"style": StyleOptions(style_amplify=2.0)},
    "clamped": {"conv_clamp": 0.5},
    "adain": {"injection": "adain"},
    "vectors": {"injection": "vectors", "style": StyleOptions(style_vectors=4)},
    "vectors-first": {
        "injection": "vectors",
        "style": StyleOptions(style_vectors=4),
        "torgb_style": "first",
    },
    "torgb-final": {"torgb_style": "final"},
    "torgb-none": {"torgb_style": "none"},
    "without-noise": {"noise": "off"},
    **{arch: {"architecture": arch} for arch in G_ARCHITECTURES},
}


def generator_of(*, seed=0, **options) -> Generator:
    torch.manual_seed(seed)
    shape = dict(z_dim=6, c_dim=0, w_dim=6, img_resolution=16, img_channels=3, channel_base=128)
    G = Generator(**shape, channel_max=8, map_depth=2, **options).eval().requires_grad_(False)
    for layer in G.synthesis.layers:
        if layer.use_noise:
            layer.noise_strength.fill_(0.3)
    for name, parameter in G.synthesis.named_parameters():
        if name.endswith("bias"):  # 0 or 1 at the start: a path that drops them would not be seen
            parameter.add_(0.3 * torch.randn_like(parameter))
    return G


def latents(G, n=3):
    z = torch.randn(n, *G.z_shape, generator=torch.Generator().manual_seed(1))
    return G.mapping(z)


def maps(G, n=3):
    return G.synthesis.draw_noise(n, torch.Generator().manual_seed(2)) or None


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_rendered_styles_are_the_images_of_the_synthesis_network(options) -> None:
    G = generator_of(**options)
    space, ws, noise = StyleSpace(G), latents(G), maps(G)
    styles = space.read(ws)
    assert styles.shape == (3, space.size) and len(space.names) == space.size
    torch.testing.assert_close(
        space.render(styles, noise), G.synthesis(ws, noise_inputs=noise), atol=EXACT, rtol=0
    )
    constant = G.synthesis(ws, noise_mode="off" if G.synthesis.noise == "off" else "const")
    torch.testing.assert_close(space.render(styles), constant, atol=EXACT, rtol=0)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_edits_of_one_layer_are_the_full_images(options) -> None:
    G = generator_of(**options)
    space, noise = StyleSpace(G), maps(G, 1)
    styles = space.read(latents(G))[1]
    edits = space.edits(styles, noise)
    torch.testing.assert_close(edits.image, space.render(styles[None], noise), atol=EXACT, rtol=0)
    for layer in space.layers:
        edited = styles.repeat(5, 1)
        edited[:, layer.start : layer.stop] += torch.randn(5, layer.size)
        full = space.render(edited, noise)
        assert (full - edits.image).abs().max() > 1e-3, layer.name  # the edit shows
        fast = edits.render(layer, edited[:, layer.start : layer.stop])
        torch.testing.assert_close(fast, full, atol=EXACT * 3, rtol=0, msg=layer.name)


def test_layers_and_coordinates_have_names() -> None:
    space = StyleSpace(generator_of())
    assert [layer.name for layer in space.layers] == [
        *("b4.conv1", "b4.torgb", "b8.conv0", "b8.conv1", "b8.torgb", "b16.conv0", "b16.conv1", "b16.torgb")
    ]
    assert space.size == 8 * 8 and space.names[17] == "b8.conv0.1"
    assert space.coordinate("b8.conv0", 1) == 17 and space.layer_of(17).name == "b8.conv0"
    assert len(space.coordinates()) == 8 * 5 and len(space.coordinates(torgb=True)) == space.size
    with pytest.raises(KeyError):
        space.coordinate("b8.conv0", 8)
    with pytest.raises(IndexError):
        space.layer_of(64)
    plain = StyleSpace(generator_of(torgb_style="none"))
    assert plain.unstyled == ("b4.torgb", "b8.torgb", "b16.torgb") and plain.size == 40
    assert StyleSpace(generator_of(injection="adain")).layers[0].size == 16  # scales and shifts


def test_styles_are_the_outputs_of_the_affines() -> None:
    G = generator_of()
    space, ws = StyleSpace(G), latents(G)
    layer = space.layers[2]
    affine = G.synthesis.b8.conv0.inject.affine
    by_hand = ws[:, 1] @ affine.weight.t() * affine.weight_gain + affine.bias
    torch.testing.assert_close(space.read(ws)[:, layer.start : layer.stop], by_hand)


def test_weights_are_shared_with_the_generator() -> None:
    G = generator_of()
    space, ws = StyleSpace(G), latents(G)
    before = space.render(space.read(ws))
    G.synthesis.b4.const.mul_(2)
    assert not torch.allclose(before, space.render(space.read(ws)))
    assert hasattr(G.synthesis.b4.conv1.inject.affine, "weight")  # its own affine is in place


def test_images_are_differentiable_in_the_styles() -> None:
    """Against central differences: float32 sums of 768 pixels, and leaky ReLU, leave a few percent."""
    G = generator_of(noise="off")
    space = StyleSpace(G)
    styles = space.read(latents(G)).requires_grad_()
    (gradient,) = torch.autograd.grad(space.render(styles).sum(), styles)
    for coordinate in (0, 20, 60):
        step = torch.zeros(space.size)
        step[coordinate] = 0.01
        with torch.no_grad():
            change = (space.render(styles + step) - space.render(styles - step)).double().flatten(1).sum(1)
        assert gradient[:, coordinate] == pytest.approx(change / 0.02, rel=0.05, abs=0.05)


@pytest.mark.parametrize("injection", ["matrix", "adaconv"])
def test_an_injection_without_channel_styles_is_named(injection) -> None:
    style = StyleOptions(style_vectors=8) if injection == "matrix" else StyleOptions()
    G = generator_of(injection=injection, style=style)
    with pytest.raises(UserError, match=f"b4.conv1 has the injection {injection}.*modconv, adain, vectors"):
        StyleSpace(G)
