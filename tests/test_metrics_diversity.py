"""Style and noise diversity: distances against scipy, errors against closed forms and repeated draws."""

import itertools
import math

import numpy as np
import pytest
import torch
from metric_toys import MeanSquares, ToyGenerator, ToyInputs, cloud
from scipy.spatial.distance import pdist

from fact_metrics.engines import diversity
from fact_metrics.engines.diversity import (
    compute_group_distance,
    compute_mean_distance,
    compute_noise_diversity,
    compute_style_diversity,
    measure_noise,
    measure_style,
)
from fact_metrics.registry import compute_metric, get_spec

STYLE = get_spec("style_diversity1k_train_pixels")
NOISE = get_spec("noise_diversity1k_train_pixels")


class NoNoise(ToyGenerator):
    """A network that draws no noise."""

    def noise(self, indices, *, stream="image"):
        return []

    def synthesis(self, ws, noise, *, fused_modconv=None):
        return super().synthesis(ws, [torch.zeros(len(ws), 1, 32, 32)])


class Labelled(ToyGenerator):
    """Its images follow their label, of ten, and `deaf` ones nothing else."""

    deaf = True

    def labels(self, indices):
        return torch.nn.functional.one_hot(torch.as_tensor(list(indices)) * 7 % 10, 10).float()

    def mapping(self, z, c):
        w = 2 * c[:, :4] - c[:, 4:8]
        return super().mapping(w if self.deaf else w + z, None)


@pytest.fixture
def toy_detector(monkeypatch):
    monkeypatch.setattr("fact_metrics.features.get_detector", lambda name, device: MeanSquares(device))


def score(metric, generator, real=None):
    real = cloud(50, 16, seed=3, scale=0.1) if real is None else real
    return compute_metric(metric, ToyInputs(lambda need: real, generator=generator))


@pytest.mark.parametrize(("n", "width", "shift"), [(2, 3, 0.0), (3, 5, 0.0), (97, 40, 0.0), (60, 7, 1e6)])
@pytest.mark.parametrize("block", [7, 512])
def test_mean_distance_equals_scipys_over_all_pairs(n, width, shift, block, monkeypatch):
    monkeypatch.setattr(diversity, "BLOCK", block)
    rows = cloud(n, width, seed=n).double() + shift
    # float64 sums in another order; of differences, so that a shift of 1e6 costs nothing more.
    assert compute_mean_distance(rows).value == pytest.approx(pdist(rows.numpy()).mean(), rel=1e-13)


def test_float32_rows_are_subtracted_and_added_up_in_float64():
    rows = cloud(300, 64, seed=1) + 1000
    expected = pdist(rows.double().numpy()).mean()
    assert compute_mean_distance(rows).value == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("width", [1, 3, 50])
def test_normal_rows_are_as_far_apart_as_the_chi_distribution_says(width):
    found = compute_mean_distance(3 * cloud(2000, width, seed=5).double())
    # |x - y| = 3 sqrt(2) chi of `width` degrees: its mean, and E |x - y|^2 = 2 D 9.
    expected = 6 * math.exp(math.lgamma((width + 1) / 2) - math.lgamma(width / 2))
    assert found.value == pytest.approx(expected, abs=4 * found.stderr) and found.stderr < 0.02 * expected
    assert found.value**2 < 18 * width


def test_error_is_the_unbiased_variance_of_a_u_statistic_by_enumeration():
    rows = cloud(8, 2, seed=11).double()
    distance = torch.cdist(rows, rows).numpy()
    two = np.mean([distance[i, j] ** 2 for i, j in itertools.permutations(range(8), 2)])
    three = np.mean([distance[i, j] * distance[i, k] for i, j, k in itertools.permutations(range(8), 3)])
    four = np.mean([distance[i, j] * distance[k, m] for i, j, k, m in itertools.permutations(range(8), 4)])
    assert three > four  # else z1 counts as 0
    expected = (4 * 6 * (three - four) + 2 * (two - four)) / (8 * 7)
    assert compute_mean_distance(rows).stderr ** 2 == pytest.approx(expected, rel=1e-9)


def test_error_is_the_closed_form_of_uniform_numbers():
    # Gini's mean difference on [0, 1]: mean 1/3, z1 = Var(x^2 - x) = 1/180, z2 = 1/6 - 1/9.
    n, rng = 20, torch.Generator().manual_seed(0)
    draws = [compute_mean_distance(torch.rand(n, 1, generator=rng).double()) for _ in range(3000)]
    expected = (4 * (n - 2) / 180 + 2 / 18) / (n * (n - 1))
    assert np.mean([d.value for d in draws]) == pytest.approx(1 / 3, abs=4 * (expected / 3000) ** 0.5)
    # 3,000 draws know a variance to 2.6 %; z1 under 0 counts as 0 in a few of them.
    assert np.mean([d.stderr**2 for d in draws]) == pytest.approx(expected, rel=0.03)
    assert np.var([d.value for d in draws]) == pytest.approx(expected, rel=0.1)


def test_where_all_rows_are_equally_far_from_the_rest_the_quadratic_part_remains():
    n, rng, draws = 30, torch.Generator().manual_seed(0), []
    for _ in range(1000):  # on a circle: z1 = 0
        rows = torch.nn.functional.normalize(torch.randn(n, 2, generator=rng).double(), dim=1)
        draws.append(compute_mean_distance(rows))
    truth = 2 * (2 - (4 / math.pi) ** 2) / (n * (n - 1))  # chords: mean 4/pi, mean square 2
    assert np.var([d.value for d in draws]) == pytest.approx(truth, rel=0.2)
    # z1 is estimated and not let under 0, so the error errs on the large side.
    assert truth < np.mean([d.stderr**2 for d in draws]) < 2.5 * truth


def test_error_of_the_ratio_is_the_spread_of_repeated_draws():
    rng, found = torch.Generator().manual_seed(1), []
    for _ in range(600):
        scale = 1 + torch.rand(60, 1, generator=rng)
        gen, real = scale * torch.randn(60, 4, generator=rng), torch.randn(40, 4, generator=rng)
        found.append(compute_style_diversity(gen, real))
    spread = np.std([f.value for f in found])
    # 600 draws know a spread to 3 %; the delta method is of first order in 1/40.
    assert np.sqrt(np.mean([f.stderr**2 for f in found])) == pytest.approx(spread, rel=0.1)


def test_error_of_noise_diversity_is_the_spread_of_repeated_draws_of_groups():
    rng, found = torch.Generator().manual_seed(2), []
    for _ in range(600):
        loud = 0.1 + 0.4 * torch.rand(40, 1, 1, generator=rng)  # noise shows in some latents more
        groups = torch.randn(40, 1, 4, generator=rng) + loud * torch.randn(40, 3, 4, generator=rng)
        found.append(compute_noise_diversity(groups, torch.randn(50, 4, generator=rng)))
    spread = np.std([f.value for f in found])
    assert np.sqrt(np.mean([f.stderr**2 for f in found])) == pytest.approx(spread, rel=0.1)
    # The mean of loud is 0.3 and the chi mean of the reals cancels.
    assert np.mean([f.value for f in found]) == pytest.approx(0.3, abs=0.005)


def test_groups_are_averaged_and_pairs_of_two_groups_do_not_count():
    groups = cloud(6 * 5, 3, seed=4).double().unflatten(0, (6, 5))
    means = [pdist(group.numpy()).mean() for group in groups]
    apart = groups + 100 * torch.arange(6.0)[:, None, None]
    for rows in (groups, apart):
        found = compute_group_distance(rows)
        assert found.value == pytest.approx(np.mean(means), rel=1e-12)
        assert found.stderr == pytest.approx(np.std(means, ddof=1) / 6**0.5, rel=1e-9)


def test_equal_rows_are_no_distance_apart_and_few_rows_have_no_error():
    alike = compute_mean_distance(torch.full((9, 4), 0.1))
    assert (alike.value, alike.stderr) == (0.0, 0.0)
    assert compute_mean_distance(cloud(3, 4, seed=0)).stderr is None
    assert compute_group_distance(cloud(3, 4, seed=0)[None]).stderr is None
    assert compute_style_diversity(cloud(3, 4, seed=0), cloud(9, 4, seed=1)).stderr is None


def test_what_has_no_diversity_is_refused():
    rows = cloud(9, 4, seed=0)
    for call, match in (
        (lambda: compute_mean_distance(rows[:1]), "2 rows"),
        (lambda: compute_mean_distance(rows[0]), "2 rows"),
        (lambda: compute_mean_distance(rows * torch.inf), "not finite"),
        (lambda: compute_group_distance(rows), r"\[G, R, D\]"),
        (lambda: compute_group_distance(rows[:, None]), "2 rows"),
        (lambda: compute_style_diversity(rows, rows[:1].expand(5, -1)), "all real rows are equal"),
        (lambda: compute_noise_diversity(rows[None], rows[:, 1:]), "width"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_images_differ_in_z_alone_or_in_noise_alone():
    generator, detector = ToyGenerator(steepness=0.0), MeanSquares("cpu")
    assert len(measure_style(generator, detector, images=120).unique(dim=0)) == 1
    assert all((maps == generator.noises[0][:1]).all() for maps in generator.noises)
    groups = measure_noise(ToyGenerator(), detector, latents=30, draws=4)
    still = measure_noise(ToyGenerator(loudness=0.0), detector, latents=30, draws=4)
    assert groups.shape == still.shape == (30, 4, 16)
    assert (still == still[:, :1]).all() and len(still[:, 0].unique(dim=0)) == 30
    assert len(groups.flatten(0, 1).unique(dim=0)) == 120
    assert generator.reported[-1] == (120, 120)


def test_a_generator_that_ignores_its_style_has_collapsed_however_varied_its_noise(toy_detector):
    for steepness, verdict in ((0.0, "collapsed"), (0.002, "collapsed"), (0.3, "varied")):
        generator = ToyGenerator(steepness=steepness, loudness=0.8)
        style, noise = score(STYLE, generator), score(NOISE, generator)
        assert style.extras["verdict"] == verdict == ("collapsed" if style.value < 0.1 else "varied")
        assert noise.value > 0.1 and "verdict" not in noise.extras


def test_a_labelled_generator_that_ignores_z_has_collapsed_though_its_labels_differ(toy_detector):
    generator = Labelled()
    deaf = score(STYLE, generator)
    assert deaf.value > 0.5 and deaf.extras["z_alone"] == 0.0 and deaf.extras["verdict"] == "collapsed"
    generator.deaf = False
    hears = score(STYLE, generator)
    assert hears.extras["z_alone"] > 0.1 and hears.extras["verdict"] == "varied"
    assert 0 < hears.extras["z_alone_stderr"] < 0.1


def test_a_network_without_noise_has_noise_diversity_0_by_record(toy_detector):
    found = score(NOISE, NoNoise())
    assert (found.value, found.stderr, found.n_generated) == (0.0, 0.0, None)
    assert found.extras == {"noise": "the network draws none"}
    assert score(STYLE, NoNoise()).value > 0


def test_reals_that_are_all_equal_leave_a_record_without_a_value(toy_detector):
    for metric in (STYLE, NOISE):
        found = score(metric, ToyGenerator(), real=torch.ones(20, 16))
        assert found.value is None and "equal" in found.extras["undefined"]
