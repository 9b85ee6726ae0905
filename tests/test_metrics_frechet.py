"""FID against closed forms, torch-fidelity and clean-fid, and where those break: singular, few, alike."""

import numpy as np
import pytest
import torch
from cleanfid.fid import frechet_distance
from metric_toys import ToyInputs
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from fact_metrics.engines import frechet
from fact_metrics.engines.fid_error import compute_fid_stderr
from fact_metrics.engines.frechet import (
    FeatureStatistics,
    compute_fid,
    compute_fid_from_statistics,
    compute_statistics,
    flatten_spatial,
)
from fact_metrics.registry import compute_metric, get_spec


def gaussian(n, width, *, seed, scale=1.0, shift=0.0):
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99)) / width**0.5
    return (torch.randn(n, width, generator=rng) @ mixing) * scale + shift


def statistics(mean, cov):
    return FeatureStatistics(100, mean, cov)


def random_covariance(width, *, seed):
    rng = torch.Generator().manual_seed(seed)
    factor = torch.randn(width, 2 * width, generator=rng, dtype=torch.float64)
    return factor @ factor.T / (2 * width)


def exact_fid(gen, real):
    """By QR of the centred images and numpy's singular values: no covariance is ever formed."""
    sets = [rows.double().numpy() for rows in (gen, real)]
    factors = [np.linalg.qr(x - x.mean(axis=0), mode="r") / (len(x) - 1) ** 0.5 for x in sets]
    root = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    shift = ((sets[0].mean(axis=0) - sets[1].mean(axis=0)) ** 2).sum()
    return shift + sum((factor**2).sum() for factor in factors) - 2 * root


def peer_fid(gen, real):
    fitted = [fid_features_to_statistics(features) for features in (gen, real)]
    return fid_statistics_to_metric(*fitted, verbose=False)["frechet_inception_distance"]


def relative(value, expected):
    return abs(value - expected) / abs(expected)


def test_fid_of_gaussians_that_differ_in_mean_alone_is_the_squared_shift():
    cov = random_covariance(24, seed=0)
    mean = torch.zeros(24, dtype=torch.float64)
    shifted = statistics(mean + 0.5, cov)
    # Rounding of two traces near 24 that cancel: 24 * 2**-52 * a few hundred operations.
    assert relative(compute_fid_from_statistics(statistics(mean, cov), shifted), 24 * 0.25) < 1e-12


def test_fid_of_commuting_covariances_is_the_squared_distance_of_their_roots():
    rng = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=rng, dtype=torch.float64)).Q
    a, b = (torch.rand(16, generator=rng, dtype=torch.float64) + 0.1 for _ in range(2))
    mean = torch.zeros(16, dtype=torch.float64)
    first, second = (statistics(mean, (basis * v) @ basis.T) for v in (a, b))
    expected = (a.sqrt() - b.sqrt()).square().sum().item()
    assert relative(compute_fid_from_statistics(first, second), expected) < 1e-12


def test_fid_of_a_scaled_sample_is_its_closed_form():
    features = gaussian(500, 20, seed=2).double()
    fitted = compute_statistics(features)
    expected = (fitted.mean.square().sum() + fitted.cov.trace()).item()  # S2 = 4 S1 and m2 = 2 m1
    assert relative(compute_fid(features, 2 * features), expected) < 1e-11


@pytest.mark.parametrize(("n_gen", "n_real"), [(400, 300), (30, 40), (30, 300), (300, 30), (2, 2), (2, 300)])
def test_fid_equals_torch_fidelity_on_the_same_features(n_gen, n_real):
    gen = gaussian(n_gen, 64, seed=3, shift=0.3).double()
    real = gaussian(n_real, 64, seed=4, scale=1.3).double()
    # With fewer images than features the peer takes roots of eigenvalues that are rounding noise (1e-16)**0.5
    # each.
    assert relative(compute_fid(gen, real), peer_fid(gen, real)) < (
        1e-11 if min(n_gen, n_real) > 64 else 1e-6
    )
    assert relative(compute_fid(gen, real), exact_fid(gen, real)) < 1e-11


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fid_equals_clean_fid_on_the_same_features():
    gen, real = gaussian(400, 48, seed=5).double(), gaussian(350, 48, seed=6, scale=0.8, shift=0.1).double()
    a, b = (fid_features_to_statistics(features) for features in (gen, real))
    peer = frechet_distance(a["mu"], a["sigma"], b["mu"], b["sigma"])
    # The root of a nonsymmetric product loses digits with its condition number: 3e-11 here, torch-fidelity
    # 1e-14.
    assert relative(compute_fid(gen, real), peer) < 1e-9


def test_fid_of_singular_covariances_equals_that_of_the_images_themselves():
    gen, real = (gaussian(300, 20, seed=seed).double() for seed in (7, 8))
    # Twenty directions of 64, so that both covariances are singular though there are 300 images.
    spread = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(25)).double()).Q[:20]
    # A root of S1 S2 would add 44 roots of rounding noise, 1e-8 each; singular values of factors do not.
    assert relative(compute_fid(gen @ spread, 1.2 * real @ spread), compute_fid(gen, 1.2 * real)) < 1e-12


def test_fid_of_few_images_in_orthogonal_subspaces_is_exact():
    basis = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(22)).double()).Q
    gen, real = (
        gaussian(30, 20, seed=23).double() @ basis[:20],
        gaussian(25, 20, seed=24).double() @ basis[20:40],
    )
    moments = [features.mean(dim=0).square().sum() + features.var(dim=0).sum() for features in (gen, real)]
    # Nothing overlaps, so the root is 0; from covariances it would be 40 roots of rounding noise, 1e-8 each.
    assert relative(compute_fid(gen, real), sum(moments).item()) < 1e-12


def test_fid_of_two_images_each_is_the_closed_form_of_two_lines():
    gen, real = torch.eye(5)[:2], 2 * torch.eye(5)[2:4]
    # Means (.5,.5,0,0,0) and (0,0,1,1,0); variance 1 along one line and 4 along an orthogonal one.
    assert compute_fid(gen, real) == pytest.approx(2.5 + 1 + 4, rel=1e-12)


def test_fid_of_a_sample_with_itself_is_zero():
    for features in (gaussian(300, 32, seed=9), gaussian(20, 32, seed=9), torch.ones(10, 4)):
        assert compute_fid(features, features) < 1e-9


def test_fid_survives_dead_features_and_constant_sets():
    gen, real = gaussian(200, 16, seed=10), gaussian(200, 16, seed=11)
    gen[:, :4] = 0
    real[:, 2:6] = 3
    value = compute_fid(gen, real)
    dead = torch.zeros(16, dtype=torch.bool)
    dead[:6] = True
    assert value > 0
    # Where one side is constant its term is |shift|^2 + variance of the other; the rest is an ordinary FID
    # only if the other features were independent, so the bound is one-sided: adding features never lowers the
    # distance.
    assert value >= compute_fid(gen[:, ~dead], real[:, ~dead]) - 1e-9
    assert compute_fid(torch.zeros(50, 16), real) == pytest.approx(
        (real.double().mean(dim=0).square().sum() + real.double().var(dim=0).sum()).item(), rel=1e-9
    )


def test_statistics_of_reals_stand_for_their_features():
    gen, real = gaussian(200, 16, seed=12), gaussian(300, 16, seed=13)
    assert compute_fid(gen, compute_statistics(real)) == compute_fid(gen, real)


def test_statistics_equal_numpy_cov_over_more_than_one_chunk():
    features = gaussian(9000, 8, seed=14, shift=100.0)
    expected = torch.from_numpy(fid_features_to_statistics(features.double())["sigma"])
    torch.testing.assert_close(compute_statistics(features).cov, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "features",
    [
        torch.zeros(1, 4),
        torch.zeros(4),
        torch.full((5, 3), torch.nan),
        torch.tensor([[torch.inf], [-torch.inf], [0]]),
    ],
)
def test_fid_refuses_one_image_wrong_shapes_and_non_finite_values(features):
    with pytest.raises(ValueError, match=r"N >= 2|not finite"):
        compute_fid(features, torch.zeros(5, 4))


def test_fid_refuses_features_of_two_detectors():
    with pytest.raises(ValueError, match="not from one detector"):
        compute_fid(torch.rand(9, 4), torch.rand(9, 5))


def test_ill_conditioned_covariances_are_left_to_singular_values():
    scales = torch.logspace(0, -7, 40).double()
    gen, real = (gaussian(300, 40, seed=seed).double() * scales for seed in (31, 32))
    a, b = compute_statistics(gen), compute_statistics(real)
    apart = ((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace()).item()
    # Roots of eigenvalues near 1e-28 of the largest, which is known to 1e-16 of it.
    assert frechet._distance_by_eigenvalues(a, b, apart) is None
    assert relative(compute_fid(gen, real), exact_fid(gen, real)) < 1e-10


def test_both_routes_agree_on_well_conditioned_covariances(monkeypatch):
    gen, real = gaussian(400, 40, seed=33).double(), gaussian(400, 40, seed=34, scale=1.1).double()
    fast = frechet._distance_by_eigenvalues(compute_statistics(gen), compute_statistics(real), 100.0)
    assert fast is not None
    fast = compute_fid(gen, real)
    monkeypatch.setattr(frechet, "_distance_by_eigenvalues", lambda *args: None)
    assert relative(compute_fid(gen, real), fast) < 1e-10


@pytest.mark.parametrize("spectrum", ["power", "cliff", "last", "one"])
@pytest.mark.parametrize("strength", [0.75, 1.5, 3.0, 4.0, 5.0])
@pytest.mark.parametrize("turned", [True, False])
def test_the_rounding_of_roots_is_not_underestimated(spectrum, strength, turned):
    k = torch.arange(150).double()
    low = torch.full_like(k, 10.0**-strength)
    scales = {
        "power": (k + 1) ** -strength,
        "cliff": torch.where(k < 75, 1, low),
        "last": torch.where(k < 147, 1, low),
        "one": torch.where(k < 1, 1, low),
    }[spectrum]
    sets = [scale * gaussian(400, 150, seed=seed).double() * scales for seed, scale in ((61, 1.1), (62, 1.0))]
    if turned:  # so that small directions are no axes, along which products lose nothing
        basis = torch.linalg.qr(torch.randn(150, 150, generator=torch.Generator().manual_seed(63)).double()).Q
        sets = [rows @ basis for rows in sets]
    a, b = (compute_statistics(rows) for rows in sets)
    apart = ((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace()).item()
    values = torch.linalg.eigvalsh(a.factor.T @ b.cov @ a.factor).clamp(min=0)
    wrong = abs(apart - 2 * values.sqrt().sum().item() - exact_fid(*sets))
    estimate = 2 * frechet.rounding_of_roots(values)
    assert wrong < estimate + 20 * 2**-52 * apart  # and the sums of traces and roots themselves
    assert frechet.rounding_of_roots(100 * values) == pytest.approx(5 * estimate, rel=1e-12)
    # What is returned is within the promise, whichever route it took.
    assert relative(compute_fid(*sets), exact_fid(*sets)) < frechet.PRECISION


def test_a_product_of_blocks_is_the_product(monkeypatch):
    monkeypatch.setattr(frechet, "BLOCK", 7)
    cov, other = random_covariance(24, seed=51), random_covariance(24, seed=52)
    for factor in (torch.linalg.cholesky(cov), cov):  # triangular, and not
        expected = factor.T @ other @ factor
        found = frechet._congruence(factor, other)
        torch.testing.assert_close(found.tril(), expected.tril(), rtol=1e-12, atol=1e-14)


def test_nvidias_protocol_divides_by_n():
    gen, real = gaussian(60, 8, seed=35, shift=0.2).double(), gaussian(90, 8, seed=36).double()
    cov = compute_statistics(gen, correction=0).cov.numpy()
    np.testing.assert_allclose(cov, np.cov(gen.numpy(), rowvar=False, ddof=0), rtol=1e-12)
    fitted = [fid_features_to_statistics(features) for features in (gen, real)]
    for statistics, features in zip(fitted, (gen, real), strict=True):
        statistics["sigma"] = np.cov(features.numpy(), rowvar=False, ddof=0)
    peer = fid_statistics_to_metric(*fitted, verbose=False)["frechet_inception_distance"]
    assert relative(compute_fid(gen, real, correction=0), peer) < 1e-11
    assert relative(compute_fid(gen, real), peer) > 1e-4


def test_statistics_of_two_protocols_are_not_mixed():
    features = gaussian(60, 8, seed=37)
    with pytest.raises(ValueError, match="N - 1 and by N - 0"):
        compute_fid(features, compute_statistics(features, correction=0))


def test_fid_grows_with_the_square_of_a_common_scale():
    gen, real = gaussian(100, 12, seed=38, shift=0.3).double(), gaussian(100, 12, seed=39).double()
    assert compute_fid(3 * gen, 3 * real) == pytest.approx(9 * compute_fid(gen, real), rel=1e-11)


@pytest.mark.parametrize("n", [40, 9])
def test_statistics_do_not_depend_on_how_they_are_cut_into_blocks(monkeypatch, n):
    features = gaussian(n, 10, seed=40).double()
    whole = compute_statistics(features)
    monkeypatch.setattr(frechet, "ROWS", 7)
    monkeypatch.setattr(frechet, "BLOCK", 3)
    cut = compute_statistics(features)
    torch.testing.assert_close(cut.cov, whole.cov, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(whole.cov, features.T.cov(), rtol=1e-12, atol=1e-15)
    assert (cut.rows is None) == (n > 10)


def test_features_that_one_set_never_varies_cost_no_digits():
    gen, real = gaussian(200, 12, seed=41).double(), gaussian(200, 12, seed=42, scale=1.2).double()
    gen[:, 3] = real[:, 3] = 0  # dead in both
    gen[:, 5] = 0  # dead in one
    assert relative(compute_fid(gen, real), exact_fid(gen, real)) < 1e-12


def test_sfid_takes_the_first_channels_of_spatial_features():
    features = torch.rand(6, 9, 2, 3)
    flat = flatten_spatial(features)
    assert flat.shape == (6, 42)
    assert torch.equal(flat[2].reshape(7, 2, 3), features[2, :7])
    with pytest.raises(ValueError, match="C >= 7"):
        flatten_spatial(features[:, :6])


# What breaks in peers on this stack; the first half of each test shows that it does.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_few_images_have_no_imaginary_component():
    mixing = torch.randn(108, 108, generator=torch.Generator().manual_seed(0)) / torch.arange(1, 109)
    gen, real = (255 * gaussian(96, 108, seed=s).double() @ mixing.double().T for s in (43, 44))
    (a, b), expected = (
        (fid_features_to_statistics(features) for features in (gen, real)),
        exact_fid(gen, real),
    )
    with pytest.raises(ValueError, match="Imaginary component"):
        frechet_distance(a["mu"], a["sigma"], b["mu"], b["sigma"])
    assert relative(peer_fid(gen, real), expected) > 1e-8  # roots of rounding noise
    assert relative(compute_fid(gen, real), expected) < 1e-12


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_equal_sets_are_not_negative_and_the_raw_value_is_kept():
    features = gaussian(96, 108, seed=45).double()
    fitted = fid_features_to_statistics(features)
    assert frechet_distance(*[fitted["mu"], fitted["sigma"]] * 2) < 0
    assert peer_fid(features, features) < 0
    own = compute_statistics(features)
    raw = compute_fid_from_statistics(own, own, clamp=False)
    # Rounding of traces near 108 that cancel; the peers' is 1e-8.
    assert abs(raw) < 1e-12
    assert compute_fid(features, features) == max(raw, 0.0)


def test_the_clamp_hides_rounding_alone():
    cov = random_covariance(24, seed=46)
    zero = torch.zeros(24, dtype=torch.float64)
    values = [
        compute_fid_from_statistics(statistics(zero, c * cov), statistics(zero, c * cov), clamp=False)
        for c in torch.linspace(1, 2, 40)
    ]
    assert min(values) < 0 and max(map(abs, values)) < 1e-12


@pytest.mark.parametrize("count", [2, 3, 17])
def test_a_handful_of_images_has_the_exact_value(count):
    gen, real = gaussian(count, 30, seed=47, shift=0.4).double(), gaussian(count, 30, seed=48).double()
    assert relative(compute_fid(gen, real), exact_fid(gen, real)) < 1e-12


def test_protocols_keep_the_raw_value_and_say_what_the_reals_are():
    real, test = gaussian(300, 64, seed=49), gaussian(400, 64, seed=50, shift=0.1)
    full, held_out = get_spec("fid10k_full_digits"), get_spec("fid10k_test_efficientnet_lite0")
    assert (full.settings["reals"], held_out.settings["reals"]) == ("population", "sample")
    inputs = ToyInputs(lambda need: test if need.side == "generated" else real)
    value = compute_metric(full, inputs)
    assert value.value == value.extras["raw"] == compute_fid(test, real)
    assert not value.extras["singular_by_count"]
    assert value.stderr == compute_fid_stderr(test, compute_statistics(real))
    # The reals add an error of their own.
    assert (
        compute_metric(held_out, inputs).stderr
        == compute_fid_stderr(test, real, reference="sample")
        > value.stderr
    )
    equal = compute_metric(full, ToyInputs(lambda need: real[:40]))
    assert equal.value == max(equal.extras["raw"], 0.0) and equal.extras["singular_by_count"]
