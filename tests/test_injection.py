"""Style injections: equal to their definitions, one function in both orders of evaluation, float64.

Where nothing else is said, the tolerance is 1e-12 of the largest value: sums of a few hundred terms.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from fact_metrics.base.errors import UsageError
from fact_train.networks.injection import STYLE_INJECTIONS, AdaIN, ModulatedConv, StyleOptions, StyleVectors
from fact_train.networks.injection.convolve import instance_norm
from fact_train.networks.injection.matrix import apply_matrix, compose
from fact_train.networks.injection.modconv import prenormalise
from fact_train.networks.ops import conv2d_resample, normalize_2nd_moment

C = 8
FULL = {"style_vectors": C, "matrix_centre": True}
CASES = {
    "modconv": ("modconv", {}),
    "adain": ("adain", {}),
    "vectors-1": ("vectors", {}),
    **{f"vectors-{k}": ("vectors", {"style_vectors": k}) for k in (2, 4, 8, 11)},
    **{f"matrix-{n}": ("matrix", {**FULL, "matrix_postnorm": n}) for n in ("none", "weight", "instance")},
    "matrix-composite": ("matrix", FULL),
    "matrix-all": (
        "matrix",
        {**FULL, "matrix_normalise": True, "matrix_scale": 3.0, "matrix_identity": True},
    ),
    "adaconv": ("adaconv", {}),
}
CASES_3X3 = {
    **{
        f"matrix-{n}": ("matrix", {**FULL, "matrix_postnorm": n, "style_kernel": 3})
        for n in ("none", "weight")
    },
    "adaconv": ("adaconv", {"style_kernel": 3}),
}


def layer_of(case, *, up=1, out=C, k=3, demodulate=True, seed=0):
    name, options = case
    torch.manual_seed(seed)
    style = StyleOptions(**options)
    return STYLE_INJECTIONS[name](C, out, k, w_dim=5, up=up, demodulate=demodulate, style=style).double()


def inputs(case, *, n=3, side=6, seed=1):
    gen = torch.Generator().manual_seed(seed)
    rows = case[1].get("style_vectors", 1)
    shape = (n, rows, 5) if rows > 1 else (n, 5)
    x = torch.randn(n, C, side, side, generator=gen, dtype=torch.float64)
    return x, torch.randn(shape, generator=gen, dtype=torch.float64)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1.0, float(b.detach().abs().max())))


def bias_of(out=C):
    return torch.linspace(-1, 1, out, dtype=torch.float64)


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_fused_and_unfused_are_one_function_with_its_derivatives(case, up) -> None:
    layer = layer_of(case, up=up)
    x, w = (v.requires_grad_() for v in inputs(case))
    results = []
    for fused in (False, True):
        y = layer(x, w, bias=bias_of(), fused=fused, gain=1.3)
        grads = torch.autograd.grad(y.square().sum(), [x, w, *layer.parameters()], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in grads[:2]), [w, layer.weight])
        results.append([y, *grads, *second])
    assert results[0][0].shape == (3, C, 6 * up, 6 * up)
    close(results[1][0], results[0][0])
    for a, b in zip(*results, strict=True):
        close(a, b, 1e-10)  # derivatives of squares: larger sums


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("out", [1, 3])
def test_torgb_is_one_function_in_both_orders(case, out) -> None:
    layer = layer_of(case, out=out, k=1, demodulate=False)
    x, w = inputs(case)
    y = [layer(x, w, bias=bias_of(out), fused=fused) for fused in (False, True)]
    close(y[0], y[1])
    assert (y[0] - layer(x, w + 1, bias=bias_of(out), fused=False)).abs().max() > 1e-3


@pytest.mark.parametrize("case", [CASES[k] for k in ("adain", "vectors-4", "matrix-composite", "adaconv")])
def test_second_derivatives_are_those_of_finite_differences(case) -> None:
    layer = layer_of(case)
    x, w = (v.requires_grad_() for v in inputs(case, n=2, side=3))
    weight = layer.weight.detach().requires_grad_()

    def f(x, w, weight):
        layer_weights = {**dict(layer.named_parameters()), "weight": weight}
        options = dict(bias=bias_of(), fused=False)
        return torch.func.functional_call(layer, layer_weights, (x, w), options)[:, ::3, 1]

    assert torch.autograd.gradgradcheck(f, (x, w, weight), fast_mode=True)


def test_one_vector_and_equal_vectors_are_stylegan2s_convolution() -> None:
    plain = layer_of(CASES["modconv"])
    for k in (1, 4, 8, 11):
        layer = layer_of(("vectors", {"style_vectors": k}))
        layer.load_state_dict(plain.state_dict())
        x, w = inputs(CASES["modconv"])
        rows = w[:, None].expand(-1, k, -1) if k > 1 else w
        for fused in (False, True):
            expected = plain(x, w, bias=bias_of(), fused=fused)
            close(layer(x, rows, bias=bias_of(), fused=fused), expected)


@pytest.mark.parametrize("k", [2, 4, 8, 11])
def test_output_channel_o_takes_style_o_mod_k(k) -> None:
    """Equation by equation: w'_oik = W_oik S_(o mod K)i, demodulated over i and k."""
    layer = layer_of(("vectors", {"style_vectors": k}))
    x, w = inputs(("vectors", {"style_vectors": k}))
    s = w @ layer.affine.weight.T / math.sqrt(5) + layer.affine.bias  # [N, K, I]
    expected = torch.zeros(3, C, 6, 6, dtype=torch.float64)
    for n in range(3):
        for o in range(C):
            kernel = layer.weight[o] * s[n, o % k][:, None, None]
            kernel = kernel / (kernel.square().sum() + 1e-8).sqrt()
            expected[n, o] = F.conv2d(x[n : n + 1], kernel[None], padding=1)[0, 0]
    close(layer(x, w, bias=torch.zeros(C).double(), fused=False), expected)


@pytest.mark.parametrize(("k", "at_least"), [(2, 0.3), (4, 0.3), (8, 0.3)])
def test_scaling_by_one_vector_cannot_say_several_and_is_refused(k, at_least) -> None:
    case = ("vectors", {"style_vectors": k})
    layer, plain = layer_of(case), layer_of(CASES["modconv"])
    plain.load_state_dict(layer.state_dict())
    x, w = inputs(case)
    right = layer(x, w, bias=bias_of(), fused=False)
    wrong = plain(x, w[:, 0], bias=bias_of(), fused=False)
    assert (wrong - right).norm() / right.norm() > at_least
    with pytest.raises(ValueError, match=f"1 style vectors for a layer of {k}"):
        layer(x, w[:, 0], bias=bias_of(), fused=False)


def test_vectors_that_fit_no_layer_are_refused() -> None:
    with pytest.raises(UsageError, match="--style-vectors 3: a layer of 8 channels"):
        layer_of(("vectors", {"style_vectors": 3}))
    with pytest.raises(UsageError, match="--style-vectors 4: a style matrix of 8 channels"):
        layer_of(("matrix", {"style_vectors": 4}))
    with pytest.raises(UsageError, match="--adaconv-groups 3"):
        layer_of(("adaconv", {"adaconv_groups": 3}))


def test_adain_equals_torchs_instance_norm_scaled_and_shifted() -> None:
    layer = layer_of(CASES["adain"])
    x, w = inputs(CASES["adain"])
    s, t = (w @ layer.affine.weight.T / math.sqrt(5) + layer.affine.bias).chunk(2, dim=1)
    styled = F.instance_norm(x, eps=1e-8) * s[..., None, None] + t[..., None, None]
    expected = F.conv2d(styled, layer.weight / math.sqrt(C * 9), bias_of(), padding=1)
    for fused in (False, True):
        close(layer(x, w, bias=bias_of(), fused=fused), expected)
    start = AdaIN(C, C, 3, w_dim=5, demodulate=True).affine.bias
    assert torch.equal(start, torch.cat([torch.ones(C), torch.zeros(C)]))


def test_adaconv_equals_its_convolutions_one_after_the_other() -> None:
    for side in (1, 3):
        layer = layer_of(("adaconv", {"style_kernel": side}))
        x, w = inputs(CASES["adaconv"])
        spatial, pointwise, shift = layer.predict(w)
        expected = []
        for n in range(3):
            y = F.instance_norm(x[n : n + 1], eps=1e-8)
            y = F.conv2d(y, spatial[n].flatten(0, 1), padding=side // 2, groups=4)
            y = F.conv2d(y, pointwise[n].flatten(0, 1)[..., None, None], shift[n], groups=4)
            expected.append(F.conv2d(y, layer.weight / math.sqrt(C * 9), bias_of(), padding=1))
        close(layer(x, w, bias=bias_of(), fused=False), torch.cat(expected))


def test_adaconv_with_depthwise_1x1_and_unit_pointwise_kernels_is_adain(monkeypatch) -> None:
    adain, layer = layer_of(CASES["adain"]), layer_of(("adaconv", {"adaconv_groups": C}))
    layer.weight.data.copy_(adain.weight)
    x, w = inputs(CASES["adain"])
    s, t = adain._scale_and_shift(w)
    ones = torch.ones(3, C, 1, 1, dtype=torch.float64)
    monkeypatch.setattr(layer, "predict", lambda w: (s.reshape(3, C, 1, 1, 1, 1), ones, t))
    for fused in (False, True):
        expected = adain(x, w, bias=bias_of(), fused=fused)
        close(layer(x, w, bias=bias_of(), fused=fused), expected)


def test_adaconvs_grouped_kernel_is_a_convolution_of_the_descriptor() -> None:
    layer = layer_of(("adaconv", {"style_kernel": 3}))
    w = inputs(CASES["adaconv"])[1]
    descriptor = layer.affine(w).reshape(3, 32, 3, 3)
    kernel = layer.spatial.weight.reshape(-1, 32, 3, 3) / math.sqrt(32 * 9)
    expected = F.conv2d(descriptor, kernel, layer.spatial.bias, padding=1)  # [N, I * I/g, 3, 3]
    close(layer.predict(w)[0] * math.sqrt(2 * 9), expected.reshape(3, 4, 2, 2, 3, 3))


def test_a_style_matrix_takes_centre_rows_scale_identity_in_this_order() -> None:
    x, w = inputs(CASES["matrix-all"])
    layer = layer_of(CASES["matrix-all"])
    s = w @ layer.affine.weight.T / math.sqrt(5) + layer.affine.bias
    m = s - 1
    m = m / (m.square().sum(dim=2, keepdim=True) + 1e-8).sqrt() * 3 + torch.eye(C).double()
    close(layer.matrices(w)[..., 0, 0], m)
    styled = torch.einsum("nij,njhw->nihw", m, x)
    kernel = torch.einsum("oikl,nij->nojkl", layer.weight, m)
    d = (kernel.square().sum(dim=[2, 3, 4]) + 1e-8).rsqrt()
    expected = F.conv2d(styled, layer.weight, padding=1) * d[..., None, None] + bias_of().reshape(-1, 1, 1)
    close(layer(x, w, bias=bias_of(), fused=False), expected)


@pytest.mark.parametrize(("scale", "factor"), [(2.0, 2.0), ("sqrt", C**0.5), ("rsqrt", C**-0.5)])
def test_the_scales_of_a_style_matrix(scale, factor) -> None:
    w = inputs(("matrix", FULL))[1]
    plain, scaled = layer_of(("matrix", FULL)), layer_of(("matrix", {**FULL, "matrix_scale": scale}))
    close(scaled.matrices(w), plain.matrices(w) * factor)


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("case", CASES_3X3.values(), ids=CASES_3X3)
def test_a_baked_3x3_style_is_5x5_and_equal_in_the_interior_only(case, up) -> None:
    layer = layer_of(case, up=up)
    x, w = inputs(case, side=8)
    assert layer.kernels(w).shape[3:] == ((5, 5) if up == 1 else (7, 7))  # 7 on the doubled grid
    unbaked, baked = (layer(x, w, bias=bias_of(), fused=fused) for fused in (False, True))
    close(baked[..., up:-up, up:-up], unbaked[..., up:-up, up:-up])
    assert (baked - unbaked).abs().max() > 1e-3


@pytest.mark.parametrize("up", [1, 2])
def test_composition_is_one_convolution_after_the_other(up) -> None:
    """Against torch alone, on an image that is zero near the border, where nothing is cut."""
    gen = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=gen, dtype=torch.float64)  # noqa: E731
    weight, m, x = draw(4, 3, 3, 3), draw(2, 3, 5, 3, 3), F.pad(draw(2, 5, 4, 4), (3, 3, 3, 3))
    both = compose(weight, m, up=up)
    for n in range(2):
        styled = F.conv2d(x[n : n + 1], m[n], padding=1)
        close(apply_matrix(x[n : n + 1], m[n : n + 1]), styled)
        expected = conv2d_resample(styled, weight, up=up)
        close(conv2d_resample(x[n : n + 1], both[n], up=up), expected)


def test_composite_demodulation_ignores_the_scale_of_the_matrix_but_not_its_rows_or_identity() -> None:
    x, w = inputs(("matrix", FULL))

    def out(**options):
        return layer_of(("matrix", {**FULL, **options}))(x, w, bias=torch.zeros(C).double(), fused=False)

    base = out()
    close(out(matrix_scale=7.0), base, 1e-8)  # but for the eps in the root
    for options in ({"matrix_normalise": True}, {"matrix_identity": True, "matrix_scale": "rsqrt"}):
        assert (out(**options) - base).norm() / base.norm() > 0.05


def test_composite_demodulation_gives_unit_variance_for_white_input() -> None:
    layer = layer_of(("matrix", FULL))
    gen = torch.Generator().manual_seed(3)
    x = torch.randn(4, C, 64, 64, generator=gen, dtype=torch.float64)
    w = torch.randn(4, C, 5, generator=gen, dtype=torch.float64)
    y = layer(x, w, bias=torch.zeros(C).double(), fused=False)[..., 1:-1, 1:-1]
    assert y.var().item() == pytest.approx(1.0, abs=0.05)  # 120,000 values, neighbours correlated


def test_the_initial_matrices_have_the_spectra_of_the_notes() -> None:
    """512 rows through a mapping of depth 2 (the notes, section 2.6): largest and second singular value."""
    from fact_train.networks.mapping import Mapping

    torch.manual_seed(0)
    mapping = Mapping(z_dim=512, c_dim=0, w_dim=512, num_ws=1, depth=2, vectors=512)
    with torch.no_grad():
        w = mapping(torch.randn(1, 512, 512))
        found = {}
        for name, options in {
            "S": {},
            "S - 1": {"matrix_centre": True},
            "/ sqrt D": {"matrix_centre": True, "matrix_scale": "rsqrt"},
            "+ I": {"matrix_centre": True, "matrix_scale": "rsqrt", "matrix_identity": True},
        }.items():
            torch.manual_seed(1)
            style = StyleOptions(style_vectors=512, **options)
            layer = STYLE_INJECTIONS["matrix"](512, 1, 1, w_dim=512, demodulate=True, style=style)
            found[name] = torch.linalg.svdvals(layer.matrices(w)[0, ..., 0, 0])[:2].tolist()
    expected = {"S": (575, 64), "S - 1": (274, 64), "/ sqrt D": (12.1, 2.8), "+ I": (12.2, 3.2)}
    for name, values in expected.items():  # one draw there, one here
        assert found[name] == pytest.approx(values, rel=0.1), name


def test_amplification_moves_styles_away_from_one() -> None:
    for name, options in (
        ("modconv", {}),
        ("vectors", {"style_vectors": 4}),
        ("matrix", {"style_vectors": C}),
    ):
        w = inputs((name, options))[1]
        layers = [layer_of((name, {**options, "style_amplify": c})) for c in (1.0, 3.0)]
        if name == "matrix":
            plain, amplified = (layer.matrices(w) for layer in layers)
        else:
            plain, amplified = (layer._styles(w, gain=1.0) for layer in layers)
        close(amplified, 1 + 3 * (plain - 1))
    _, w = inputs(CASES["adain"])
    a, b = (layer_of(("adain", {"style_amplify": c}))._scale_and_shift(w) for c in (1.0, 3.0))
    close(b[0], 1 + 3 * (a[0] - 1))
    close(b[1], 3 * a[1])


@pytest.mark.parametrize("name", ["modconv", "adain"])
def test_a_slower_affine_starts_from_the_same_styles_and_moves_less(name) -> None:
    _, w = inputs((name, {}))
    moved = []
    for lr_mult in (1.0, 0.01):
        layer = layer_of((name, {"affine_lr_mult": lr_mult}))
        before = layer.affine(w)
        (grad,) = torch.autograd.grad(before.sum(), [layer.affine.weight])
        with torch.no_grad():
            layer.affine.weight -= 0.1 * grad.sign()
        moved.append((before, (layer.affine(w) - before).abs().max()))
    close(moved[0][0], moved[1][0], 1e-5)  # weights are drawn, and divided by the factor, in float32
    assert float(moved[1][1]) == pytest.approx(
        0.01 * float(moved[0][1]), rel=1e-5
    )  # a step of Adam, in styles


def test_the_initial_style_is_the_affine_bias() -> None:
    for name, options in (("modconv", {}), ("vectors", {"style_vectors": 4})):
        layer = layer_of((name, {**options, "affine_bias_init": 0.25, "affine_lr_mult": 0.1}))
        w = torch.zeros_like(inputs((name, options))[1])
        close(layer._styles(w, gain=1.0), torch.tensor(0.25).double().expand_as(layer._styles(w, gain=1.0)))


def test_prenormalisation_cancels_along_input_channels_and_not_along_vectors() -> None:
    case = ("vectors", {"style_vectors": 4})
    layer = layer_of(case)
    w = inputs(case)[1]
    s = layer._styles(w, gain=1.0)

    def kernels(weight, s):
        return layer._scaled(s, layer._demodulation(s, weight, gain=1.0), weight)

    expected = kernels(layer.weight, s)
    weight, normalised = prenormalise(layer.weight, s)
    assert float(normalised.detach().abs().max()) == 1.0
    # the eps 1e-8 of demodulation stands beside squares of 1/72 each
    close(kernels(weight, normalised), expected, 1e-6)
    wrong = s / s.abs().amax(dim=1, keepdim=True)
    assert (kernels(layer.weight, wrong) - expected).norm() / expected.norm() > 0.01


def test_prenormalised_half_precision_survives_styles_that_overflow_float16() -> None:
    """Activations of 300 times styles of 1,000 are beyond 65,504; demodulation brings them back."""
    if not _has_half_convolution():
        pytest.skip("no float16 convolution on this device")
    for name, options in (("modconv", {}), ("vectors", {"style_vectors": 4})):
        layer = layer_of((name, options)).float()
        layer.affine.bias.data.fill_(1000.0)
        x, w = inputs((name, options))
        x, w = x.float() * 300, w.float()
        expected = layer(x, w, bias=torch.zeros(C), fused=False)
        for fused in (False, True):
            y = layer(x.half(), w, bias=torch.zeros(C), fused=fused)
            assert y.dtype == torch.float16
            scale = float(expected.abs().max())
            torch.testing.assert_close(y.float(), expected, rtol=0, atol=5e-3 * scale)  # 11 bits, 72 terms


def test_instance_norm_is_torchs() -> None:
    x = torch.randn(3, 5, 4, 4, dtype=torch.float64) * 3 + 2
    close(instance_norm(x), F.instance_norm(x, eps=1e-8))


def test_modconv_is_untouched_by_the_options_of_others() -> None:
    plain = ModulatedConv(C, C, 3, w_dim=5, demodulate=True)
    vectors = StyleVectors(C, C, 3, w_dim=5, demodulate=True, style=StyleOptions())
    vectors.load_state_dict(plain.state_dict())
    x, w = (v.float() for v in inputs(CASES["modconv"]))
    for fused in (False, True):
        a, b = (layer(x, w, bias=torch.zeros(C), fused=fused) for layer in (plain, vectors))
        assert torch.equal(a, b)


def test_a_row_of_unit_length_is_normalised_jointly_or_by_row() -> None:
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    joint = normalize_2nd_moment(x)
    close(joint.square().mean(dim=(1, 2)), torch.ones(3).double(), 1e-6)
    assert joint.square().mean(dim=2).std() > 0.01


def _has_half_convolution() -> bool:
    try:
        F.conv2d(torch.ones(1, 2, 4, 4).half(), torch.ones(2, 2, 3, 3).half())
        F.conv_transpose2d(torch.ones(1, 2, 4, 4).half(), torch.ones(2, 2, 3, 3).half())
    except RuntimeError:
        return False
    return True
