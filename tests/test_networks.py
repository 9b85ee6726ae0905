"""Generator and discriminator: equal to the reference on its weights, one path of mathematics, shapes and
refusals.
"""

import json
import zlib
from pathlib import Path

import pytest
import torch

from fact_train.imports.stylegan2_ada import rename
from fact_train.networks.discriminator import Discriminator, minibatch_std
from fact_train.networks.generator import Generator, channels_at
from fact_train.networks.injection import STYLE_INJECTIONS, ModulatedConv, StyleOptions, use_fused
from fact_train.networks.mapping import Mapping

GOLDEN = json.loads((Path(__file__).parent / "golden" / "stylegan2_ada.json").read_text())
SMALL = dict(
    z_dim=8, w_dim=8, img_resolution=16, img_channels=3, map_depth=2, channel_base=128, channel_max=8
)


def wave(*shape: int, step: float, shift: float) -> torch.Tensor:
    """sqrt(2) sin(step i + shift): closed-form values of unit variance, the same on every machine."""
    count = torch.Size(shape).numel()
    return (
        (torch.sin(torch.arange(count, dtype=torch.float64) * step + shift) * 2**0.5).reshape(shape).float()
    )


def fill_by_reference_name(net: torch.nn.Module, ours_from_reference: dict[str, str]) -> None:
    state = net.state_dict()
    for reference, ours in ours_from_reference.items():
        scale = 1.0
        if reference.startswith("mapping.fc") and reference.endswith("weight"):
            scale = 100.0
        elif reference.endswith(("bias", "noise_strength", "w_avg")):
            scale = 0.3
        offset = 1.0 if "affine.bias" in reference else 0.0
        shift = zlib.crc32(reference.encode()) % 1000
        state[ours] = wave(*state[ours].shape, step=1.7, shift=shift) * scale + offset
    net.load_state_dict(state)


def reference_names(net: torch.nn.Module) -> dict[str, str]:
    """{reference name: our name}; checked against the importer so that both say the same."""
    names = {name.replace(".inject.", "."): name for name in net.state_dict()}
    renamed = rename({name: torch.zeros(0) for name in names})
    assert set(renamed) == set(net.state_dict())
    return names


@pytest.mark.parametrize(
    "case", GOLDEN["cases"], ids=lambda c: f"{c['architecture']}-labels{c['c_dim']}-clamp{c['conv_clamp']}"
)
@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
def test_outputs_equal_the_reference_networks_on_the_same_weights(case: dict, fused: bool) -> None:
    # float32 on both sides, sums of a few hundred terms in another order: 1e-4 of the largest covers it 10x
    shape = GOLDEN["networks"]
    arch = case["architecture"]
    G = Generator(**shape, c_dim=case["c_dim"], architecture=arch, conv_clamp=case["conv_clamp"]).eval()
    d_shape = {k: shape[k] for k in ("img_resolution", "img_channels", "channel_base", "channel_max")}
    D = Discriminator(**d_shape, c_dim=case["c_dim"], architecture=arch, conv_clamp=case["conv_clamp"]).eval()
    for net in (G, D):
        fill_by_reference_name(net, reference_names(net))
    c = torch.eye(3)[torch.arange(4) % 3] if case["c_dim"] else None
    with torch.no_grad():
        for psi, expected in case["images"].items():
            z = wave(4, shape["z_dim"], step=0.9, shift=1.0)
            images = G(z, c, float(psi), noise_mode="const", fused_modconv=fused)[:, :, ::3, ::3].flatten()
            expected = torch.tensor(expected)
            assert expected.std() > 0.1
            torch.testing.assert_close(images, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
        scores = D(wave(4, 3, 16, 16, step=0.9, shift=2.0), c).flatten()
        expected = torch.tensor(case["scores"])
        torch.testing.assert_close(
            scores, expected, rtol=0, atol=1e-4 * max(1.0, float(expected.abs().max()))
        )


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("demodulate", [True, False])
def test_fused_and_unfused_are_one_mathematical_path(up: int, demodulate: bool) -> None:
    torch.manual_seed(0)
    conv = ModulatedConv(5, 7, 3 if demodulate else 1, w_dim=4, up=up, demodulate=demodulate).double()
    x = torch.randn(3, 5, 6, 6, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(7, dtype=torch.float64)
    results = []
    for fused in (False, True):
        y = conv(x, w, bias=bias, fused=fused, gain=1.3)
        grads = torch.autograd.grad(y.square().sum(), [x, w, *conv.parameters()], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in grads[:2]), [w, conv.weight])
        results.append([y, *grads, *second])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * float(a.abs().max()))  # float64 rounding


def test_modulated_convolution_equals_its_definition() -> None:
    """StyleGAN2 eq. 1-3 written out per sample and output channel."""
    torch.manual_seed(1)
    conv = ModulatedConv(4, 6, 3, w_dim=5, demodulate=True).double()
    x, w = torch.randn(2, 4, 5, 5).double(), torch.randn(2, 5).double()
    s = w @ conv.affine.weight.T / 5**0.5 + conv.affine.bias
    expected = torch.zeros(2, 6, 5, 5).double()
    for n in range(2):
        for o in range(6):
            kernel = conv.weight[o] * s[n][:, None, None]
            kernel = kernel / (kernel.square().sum() + 1e-8).sqrt()
            expected[n, o] = torch.nn.functional.conv2d(x[n : n + 1], kernel[None], padding=1)[0, 0]
    got = conv(x, w, bias=torch.zeros(6).double(), fused=False)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_fused_setting_picks_the_path_by_mode() -> None:
    table = {
        s: (use_fused(s, training=True), use_fused(s, training=False))
        for s in ("train", "eval", "never", "always")
    }
    assert table == {
        "train": (True, False),
        "eval": (False, True),
        "never": (False, False),
        "always": (True, True),
    }


@pytest.mark.parametrize("setting", ["train", "eval", "never", "always"])
def test_generator_runs_the_path_its_setting_names(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    for name in ("_fused", "_unfused"):
        original = getattr(ModulatedConv, name)
        monkeypatch.setattr(
            ModulatedConv, name, lambda self, *a, _o=original, _n=name: (ran.append(_n), _o(self, *a))[1]
        )
    G = Generator(**SMALL, c_dim=0, fused_modconv=setting)
    for training in (True, False):
        ran.clear()
        G.train(training)(torch.zeros(2, 8))
        assert set(ran) == {"_fused" if use_fused(setting, training=training) else "_unfused"}
    ran.clear()
    G(torch.zeros(2, 8), fused_modconv=True)
    assert set(ran) == {"_fused"}


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_shapes_and_number_of_ws(architecture: str) -> None:
    G = Generator(**SMALL, c_dim=0, architecture=architecture)
    assert G.num_ws == 2 * 4 - 2  # 2 log2(16) - 2
    assert G.synthesis.noise_shapes == [(4, 4), (8, 8), (8, 8), (16, 16), (16, 16)]
    assert G(torch.randn(1, 8)).shape == (1, 3, 16, 16)


def test_one_sample_equals_itself_inside_a_batch() -> None:
    # float32, the same sums in another blocking
    G = Generator(**SMALL, c_dim=0).eval()
    z = torch.randn(5, 8)
    torch.testing.assert_close(
        G(z, noise_mode="const")[2:3], G(z[2:3], noise_mode="const"), rtol=1e-4, atol=1e-5
    )


def test_noise_modes_have_their_effect() -> None:
    G = Generator(**SMALL, c_dim=0).eval()
    with torch.no_grad():
        for layer in G.synthesis.layers:
            layer.noise_strength.fill_(0.5)
    z = torch.randn(2, 8)
    gen = torch.Generator().manual_seed(0)
    first, second = G(z, noise_mode="random", generator=gen), G(z, noise_mode="random", generator=gen)
    assert (first - second).abs().max() > 1e-3
    assert torch.equal(G(z, noise_mode="const"), G(z, noise_mode="const"))
    assert (G(z, noise_mode="const") - G(z, noise_mode="off")).abs().max() > 1e-3
    given = G.synthesis.draw_noise(2, torch.Generator().manual_seed(0))
    gen = torch.Generator().manual_seed(0)
    assert torch.equal(G(z, noise_inputs=given), G(z, noise_mode="random", generator=gen))
    without = Generator(**SMALL, c_dim=0, noise="off")
    assert without.synthesis.noise_shapes == []
    assert not any("noise" in name for name in without.state_dict())
    with pytest.raises(ValueError, match="loud"):
        G(z, noise_mode="loud")


def test_truncation_pulls_every_w_to_the_average() -> None:
    G = Generator(**SMALL, c_dim=0).eval()
    G.mapping.w_avg.copy_(torch.arange(8.0))
    z = torch.randn(3, 8)
    full, half, none = (G.mapping(z, None, psi) for psi in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half, (full + G.mapping.w_avg) / 2)
    torch.testing.assert_close(none, G.mapping.w_avg.expand_as(none))


def test_labels_change_generator_and_discriminator() -> None:
    G = Generator(**SMALL, c_dim=3).eval()
    shape = {k: SMALL[k] for k in ("img_resolution", "img_channels", "channel_base", "channel_max")}
    D = Discriminator(**shape, c_dim=3).eval()
    z, (a, b) = torch.randn(1, 8), torch.eye(3)[:2, None]
    assert (G(z, a, noise_mode="const") - G(z, b, noise_mode="const")).abs().max() > 1e-3
    x = torch.randn(1, 3, 16, 16)
    assert (D(x, a) - D(x, b)).abs().max() > 1e-6


def test_minibatch_std_is_the_deviation_over_each_group() -> None:
    x = torch.randn(6, 4, 3, 3)
    y = minibatch_std(x, group_size=3)
    assert torch.equal(y[:, :4], x)
    for g in range(2):  # groups take every second sample
        std = (x[g::2].var(dim=0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(y[g::2, 4], std.expand(3, 3, 3))
    with pytest.raises(ValueError, match="mbstd_group_size"):
        minibatch_std(x, group_size=4)
    assert minibatch_std(x[:1], group_size=4).shape == (1, 5, 3, 3)


def test_channels_follow_base_and_max() -> None:
    assert [channels_at(r, channel_base=1024, channel_max=64) for r in (4, 8, 16, 32)] == [64, 64, 64, 32]


def test_every_injection_has_the_one_interface() -> None:
    for name, injection in STYLE_INJECTIONS.items():
        vectors = 6 if name in ("vectors", "matrix") else 1
        style = StyleOptions(style_vectors=vectors)
        layer = injection(4, 6, 3, w_dim=5, up=2, demodulate=True, style=style)
        w = torch.randn(2, 5) if vectors == 1 else torch.randn(2, vectors, 5)
        y = layer(torch.randn(2, 4, 8, 8), w, bias=torch.zeros(6), fused=False)
        assert y.shape == (2, 6, 16, 16), name


def test_two_batches_in_one_pass_are_judged_as_if_each_had_come_alone() -> None:
    torch.manual_seed(1)
    D = Discriminator(c_dim=3, img_resolution=16, img_channels=1, channel_base=128, channel_max=8)
    images = wave(8, 1, 16, 16, step=0.7, shift=0.1)
    c = torch.eye(3)[torch.arange(8) % 3]
    alone = torch.cat([D(images[:4], c[:4]), D(images[4:], c[4:])])
    together = D(images, c, parts=2)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)  # float32 rounding
    assert not torch.allclose(D(images, c), alone, rtol=1e-2)  # groups across both batches are another thing


def test_bf16_feature_maps_give_float32_images_and_scores_close_to_float32() -> None:
    """bfloat16 keeps 8 bits: 2^-8 a layer; some per cent of the output's size over a dozen layers."""
    G = Generator(c_dim=0, **SMALL).eval()
    D = Discriminator(c_dim=0, img_resolution=16, img_channels=3, channel_base=128, channel_max=8)
    z = wave(4, 8, step=1.1, shift=0.3)
    ws = G.mapping(z)
    full = G.synthesis(ws, noise_mode="const")
    half = G.synthesis(ws, noise_mode="const", dtype=torch.bfloat16)
    assert half.dtype == torch.float32 and not torch.equal(half, full)
    assert float((half - full).square().mean().sqrt()) < 0.03 * float(full.std())
    scores = D(full), D(full, dtype=torch.bfloat16)
    assert scores[1].dtype == torch.float32 and not torch.equal(*scores)
    torch.testing.assert_close(scores[1], scores[0], rtol=0.05, atol=0.05)


def test_joint_normalisation_keeps_the_proportions_of_the_rows_of_a_layer() -> None:
    mapping = Mapping(z_dim=6, c_dim=0, w_dim=5, num_ws=2, depth=1, vectors=3, space="w_plus", norm="joint")
    z = torch.randn(2, 6, 6)
    z[:, 0] *= 10
    normalised = mapping._normalised(z).reshape(2, 2, 3, 6)
    torch.testing.assert_close(normalised.square().mean(dim=(2, 3)), torch.ones(2, 2))
    ratio = normalised[:, 0, 0] / normalised[:, 0, 1]
    torch.testing.assert_close(ratio, z[:, 0] / z[:, 1])


def test_latents_are_divided_by_sqrt_k_after_they_are_normalised() -> None:
    torch.manual_seed(0)
    shape = dict(z_dim=6, c_dim=0, w_dim=5, num_ws=2, depth=2, vectors=4, norm="joint")
    plain, divided = Mapping(**shape), Mapping(**shape, div_sqrt=True)
    divided.load_state_dict(plain.state_dict())
    z = torch.randn(2, 4, 6)
    torch.testing.assert_close(divided(z), plain(z) / 2)  # without biases the mapping is homogeneous
    torch.testing.assert_close(divided(3 * z), divided(z))
