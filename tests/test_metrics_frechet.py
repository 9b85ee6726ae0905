"""FID against closed forms, torch-fidelity and clean-fid, in singular cases, and its standard error."""

import pytest
import torch
from cleanfid.fid import frechet_distance
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from metrics.frechet import (
    FeatureStatistics,
    compute_fid,
    compute_fid_from_statistics,
    compute_fid_influence,
    compute_fid_stderr,
    compute_statistics,
    factor_covariance,
)


def gaussian(n, width, *, seed, scale=1.0, shift=0.0):
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99)) / width**0.5
    return (torch.randn(n, width, generator=rng) @ mixing) * scale + shift


def statistics(mean, cov):
    return FeatureStatistics(100, mean, cov, factor_covariance(cov))


def random_covariance(width, *, seed):
    rng = torch.Generator().manual_seed(seed)
    factor = torch.randn(width, 2 * width, generator=rng, dtype=torch.float64)
    return factor @ factor.T / (2 * width)


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
    fitted = [fid_features_to_statistics(features) for features in (gen, real)]
    peer = fid_statistics_to_metric(*fitted, verbose=False)["frechet_inception_distance"]
    # With fewer images than features the peer takes roots of eigenvalues that are rounding noise (1e-16)**0.5
    # each.
    assert relative(compute_fid(gen, real), peer) < (1e-11 if min(n_gen, n_real) > 64 else 1e-6)


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


@pytest.mark.parametrize("features", [torch.zeros(1, 4), torch.zeros(4), torch.full((5, 3), torch.nan)])
def test_fid_refuses_one_image_wrong_shapes_and_non_finite_values(features):
    with pytest.raises(ValueError, match=r"N >= 2|not finite"):
        compute_fid(features, torch.zeros(5, 4))


def test_fid_refuses_features_of_two_detectors():
    with pytest.raises(ValueError, match="not from one detector"):
        compute_fid(torch.rand(9, 4), torch.rand(9, 5))


def test_stderr_of_fid_matches_repeated_draws():
    width, n, draws = 16, 2000, 300
    real = compute_statistics(gaussian(20_000, width, seed=15))
    samples = [gaussian(n, width, seed=100 + i, scale=1.1, shift=0.1) for i in range(draws)]
    spread = torch.tensor([compute_fid(sample, real) for sample in samples]).std().item()
    stderr = compute_fid_stderr(samples[0], real)
    # The sd of 300 draws is itself known to 1/sqrt(600) = 4 %; four of those, and second-order terms at n =
    # 2000.
    assert stderr == pytest.approx(spread, rel=0.2)


def test_influence_predicts_the_fid_without_an_image():
    features, real = gaussian(400, 8, seed=16, shift=0.2), compute_statistics(gaussian(4000, 8, seed=17))
    influence = compute_fid_influence(features, real)
    worst = influence.argmax().item()
    without = torch.cat([features[:worst], features[worst + 1 :]])
    change = compute_fid(features, real) - compute_fid(without, real)
    # First order in 1/N: the next term is of relative size |x - m|^2 / N, about 50 / 400 for the worst image.
    assert change == pytest.approx(influence[worst].item() / 399, rel=0.25)
    assert abs(influence.mean().item()) < 1e-12


def test_stderr_is_absent_where_the_covariance_is_singular_by_count():
    real = compute_statistics(gaussian(100, 16, seed=18))
    assert compute_fid_stderr(gaussian(16, 16, seed=19), real) is None
    assert compute_fid_stderr(gaussian(17, 16, seed=19), real) > 0


def test_stderr_ignores_features_that_are_constant_everywhere():
    gen, real = gaussian(300, 8, seed=20, shift=0.3), gaussian(300, 8, seed=21)
    padded = [torch.cat([f, torch.full((300, 3), 2.0)], dim=1) for f in (gen, real)]
    expected = compute_fid_stderr(gen, compute_statistics(real))
    assert compute_fid_stderr(padded[0], compute_statistics(padded[1])) == pytest.approx(expected, rel=1e-6)
