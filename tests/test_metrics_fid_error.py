"""The influence of an image on FID against deleting it, and standard errors against repeated draws."""

import pytest
import torch

from fact_metrics.engines import fid_error as module
from fact_metrics.engines.fid_error import (
    compute_fid_difference,
    compute_fid_influence,
    compute_fid_stderr,
    jackknife_variance,
)
from fact_metrics.engines.fid_pairs import compute_fid_pair_influence
from fact_metrics.engines.frechet import (
    FeatureStatistics,
    compute_fid,
    compute_fid_from_statistics,
    compute_statistics,
)

WIDTH = 64
SCALES = torch.arange(1, WIDTH + 1).double() ** -0.5
POPULATION = FeatureStatistics(10**9, torch.zeros(WIDTH).double(), torch.diag(SCALES**2))
DRAWS, ESTIMATES = 200, 50
# The sd of 200 draws is known to 1 / sqrt(2 * 199) = 5 %, the mean of 50 errors that vary by 30 % to 4 %;
# four times both. Without the quadratic part the error of alike sets would be 40 % too large, without the
# reals' part 29 % too small.
TOLERANCE = 0.25


def noise(n, rng):
    return torch.randn(n, WIDTH, generator=rng, dtype=torch.float64)


def alike(n, rng):
    return noise(n, rng) * SCALES


def apart(n, rng, z=None):
    """Other variances, turned so that the covariances do not commute, and another mean."""
    z = noise(n, rng) if z is None else z
    rows = z * SCALES * (1 + 0.3 * torch.sin(torch.arange(WIDTH)))
    axis = torch.ones(WIDTH).double() / WIDTH**0.5
    return rows - torch.outer(rows @ axis, axis) + 0.3 * SCALES


def errors_over_draws(draw):
    """Mean standard error and true standard deviation of `draw(rng) -> (value, function giving stderr)`."""
    rng = torch.Generator().manual_seed(5)
    results = [draw(rng) for _ in range(DRAWS)]
    spread = torch.tensor([value for value, _ in results]).std().item()
    return torch.tensor([stderr() for _, stderr in results[:ESTIMATES]]).mean().item(), spread


@pytest.mark.parametrize(
    ("n", "m", "width"), [(50, 300, 8), (40, 8, 20), (12, 20, 30), (40, 20, 30), (9, 9, 8), (3, 40, 8)]
)
@pytest.mark.parametrize("correction", [1, 0])
def test_influence_is_the_fid_less_the_fid_without_the_image(n, m, width, correction):
    rng = torch.Generator().manual_seed(n)
    gen = torch.randn(n, width, generator=rng, dtype=torch.float64) + 0.3
    real = compute_statistics(
        torch.randn(m, width, generator=rng, dtype=torch.float64), correction=correction
    )

    def fid(rows):
        return compute_fid_from_statistics(compute_statistics(rows, correction=correction), real, clamp=False)

    expected = torch.tensor(
        [fid(gen) - fid(torch.cat([gen[:i], gen[i + 1 :]])) for i in range(n)], dtype=torch.float64
    )
    influence = compute_fid_influence(gen, real)
    # The integral's step and ends; where N <= D an image alone in its direction has leverage 1 - rounding.
    bound = 1e-9 if n - 1 > width else 1e-6
    assert (influence - expected).abs().max() < bound * expected.abs().max()


@pytest.mark.parametrize(("n", "width"), [(12, 5), (40, 30), (31, 30), (8, 20), (3, 4)])
@pytest.mark.parametrize("apart_by", [1.0, 0.1, 1e-3])
def test_influence_of_a_pair_is_the_fid_less_the_fid_without_it(n, width, apart_by):
    rng = torch.Generator().manual_seed(n)
    a = torch.randn(n, width, generator=rng, dtype=torch.float64)
    b = a + apart_by * (torch.randn(n, width, generator=rng, dtype=torch.float64) + 0.3)

    def fid(*sets):
        return compute_fid_from_statistics(*map(compute_statistics, sets), clamp=False)

    rest = [torch.arange(n) != i for i in range(n)]
    expected = torch.tensor([fid(a, b) - fid(a[kept], b[kept]) for kept in rest], dtype=torch.float64)
    found = compute_fid_pair_influence(a, b)
    # Rounding of traces near the width, in what we compare with too: the FID is apart_by^2 of them.
    assert (found - expected).abs().max() < 1e-13 * width + 1e-11 * expected.abs().max()


def test_influence_of_nearly_equal_pairs_scales_with_the_square_of_their_difference():
    rng = torch.Generator().manual_seed(11)
    a, step = (torch.randn(60, 80, generator=rng, dtype=torch.float64) for _ in range(2))
    near, nearer = (compute_fid_pair_influence(a, a + size * step) / size**2 for size in (1e-4, 1e-6))
    # The next order is 1e-4 of the first; rounding is 1e-16 of traces near 80, over 1e-12.
    assert (near - nearer).abs().max() < 0.02 * near.abs().max()
    assert torch.equal(compute_fid_pair_influence(a[:, :1] * 0, a[:, :1] * 0), torch.zeros(60).double())


def test_influence_of_dead_features_is_none():
    rng = torch.Generator().manual_seed(0)
    gen, real = alike(90, rng), alike(200, rng)
    padded = [torch.cat([f, torch.full((len(f), 3), 2.0)], dim=1) for f in (gen, real)]
    influence = compute_fid_influence(padded[0], compute_statistics(padded[1]))
    expected = compute_fid_influence(gen, compute_statistics(real))
    assert (influence - expected).abs().max() < 1e-9 * expected.abs().max()


def test_an_outlier_among_the_generated_images_hurts_most():
    rng = torch.Generator().manual_seed(1)
    gen = alike(400, rng)
    gen[123] *= 6
    influence = compute_fid_influence(gen, POPULATION)
    assert influence.argmax() == 123
    assert influence[123] > 5 * influence.sort().values[-2]


def test_jackknife_of_a_mean_is_its_textbook_variance():
    values = torch.rand(30, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    influence = values.mean() - (values.sum() - values) / 29  # the mean less the mean without each
    assert jackknife_variance(influence) == pytest.approx(values.var().item() / 30, rel=1e-12)


@pytest.mark.parametrize("n", [20, 100, 400])  # fewer than features, a few times as many, many
@pytest.mark.parametrize("draw", [alike, apart])
def test_stderr_matches_repeated_draws_against_a_population(n, draw):
    def once(rng):
        gen = draw(n, rng)
        return compute_fid(gen, POPULATION), lambda: compute_fid_stderr(gen, POPULATION)

    stderr, spread = errors_over_draws(once)
    assert stderr == pytest.approx(spread, rel=TOLERANCE)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (100, 300), (300, 100)])
@pytest.mark.parametrize("draw", [alike, apart])
def test_stderr_matches_repeated_draws_where_the_reals_are_a_sample(n, m, draw):
    def once(rng):
        gen, real = draw(n, rng), alike(m, rng)
        return compute_fid(gen, real), lambda: compute_fid_stderr(gen, real, reference="sample")

    stderr, spread = errors_over_draws(once)
    assert stderr == pytest.approx(spread, rel=TOLERANCE)


def test_stderr_of_paired_sets_is_no_less_than_repeated_draws_say():
    def once(rng):
        gen = alike(200, rng)
        real = gen + 0.3 * alike(200, rng)
        return compute_fid(gen, real), lambda: compute_fid_stderr(gen, real, reference="paired")

    stderr, spread = errors_over_draws(once)
    # The quadratic part may be counted twice: at most sqrt(2).
    assert 0.8 * spread < stderr < 1.2 * 2**0.5 * spread
    gen = alike(200, torch.Generator().manual_seed(3))
    assert compute_fid_stderr(gen, gen * 1.01, reference="sample") > 10 * compute_fid_stderr(
        gen, gen * 1.01, reference="paired"
    )


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("reference", ["population", "sample"])
def test_difference_of_two_runs_has_the_error_of_repeated_draws(paired, reference):
    def once(rng):
        z = noise(150, rng)
        a, b = apart(150, rng, z), 1.05 * apart(150, rng, z if paired else None)
        real = POPULATION if reference == "population" else alike(300, rng)
        result = compute_fid_difference(a, b, real, paired=paired, reference=reference)
        return result.value, lambda: result.stderr

    stderr, spread = errors_over_draws(once)
    assert stderr == pytest.approx(spread, rel=TOLERANCE)


def clusters(n, rng):
    """Ten far groups, as features of digits have: normal in no direction that tells them apart."""
    centres = torch.randn(10, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scales = torch.linspace(-0.5, 0.5, 10, dtype=torch.float64).exp()[:, None]
    of_image = torch.randint(10, (n,), generator=rng)
    return (3 * SCALES * centres)[of_image] + scales[of_image] * alike(n, rng)


@pytest.mark.parametrize("kind", ["population", "sample", "independent", "paired", "independent sample"])
def test_sets_alike_of_features_that_are_not_normal_have_the_error_of_repeated_draws(kind):
    """Taken for normal, the quadratic part was too small, and errors up to 1.5 times too large."""
    population = compute_statistics(clusters(200_000, torch.Generator().manual_seed(1)))
    n = 500

    def once(rng):
        a, b, real = (clusters(n, rng) for _ in range(3))
        if kind in ("population", "sample"):
            reals = population if kind == "population" else real
            return compute_fid(a, reals), lambda: compute_fid_stderr(a, reals, reference=kind)
        sample = kind.endswith("sample")
        found = compute_fid_difference(
            a,
            b,
            real if sample else population,
            paired=kind == "paired",
            reference="sample" if sample else "population",
        )
        return found.value, lambda: found.stderr

    stderr, spread = errors_over_draws(once)
    # Four times the 5 % of 200 draws; with the quadratic part of normal features, 30 % too large and more.
    assert stderr == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("gen", [alike, apart])
def test_the_second_derivative_is_that_of_the_distance_in_the_shares_of_two_images(gen):
    """Against differences of FID where two images get a little more of the whole."""
    rng = torch.Generator().manual_seed(12)
    rows, step = gen(200, rng), 1e-3
    own = compute_statistics(rows, correction=0)
    other = FeatureStatistics(10**9, POPULATION.mean, POPULATION.cov, correction=0)

    def fid(x, y, more_x, more_y):
        shares = (1 - more_x - more_y, more_x, more_y)
        means = (own.mean, rows[x], rows[y])
        mean = sum(share * m for share, m in zip(shares, means, strict=True))
        square = shares[0] * (own.cov + torch.outer(own.mean, own.mean))
        square += sum(share * torch.outer(m, m) for share, m in zip(shares[1:], means[1:], strict=True))
        mixed = FeatureStatistics(200, mean, square - torch.outer(mean, mean), correction=0)
        return compute_fid_from_statistics(mixed, other, clamp=False)

    psi = module._second_derivatives(rows, own, other, module._directions(own, other))
    for x, y in ((0, 1), (2, 3), (4, 5), (6, 7)):
        corners = [
            sign_x * sign_y * fid(x, y, sign_x * step, sign_y * step)
            for sign_x in (1, -1)
            for sign_y in (1, -1)
        ]
        expected = sum(corners) / (4 * step**2)
        # The quadrature has a relative error of 1e-3, differences one of step^2 times the fourth derivative.
        assert psi[x, y].item() == pytest.approx(expected, rel=0.02, abs=0.02 * psi.abs().mean().item())


def test_pairs_of_normal_images_have_the_closed_form_of_the_quadratic_part():
    rng = torch.Generator().manual_seed(13)
    rows = apart(4000, rng)
    own = compute_statistics(rows)
    directions = module._directions(own, POPULATION)
    found = module._mean_square_of_pairs(module._second_derivatives(rows, own, POPULATION, directions))
    # 512 images: their mean square of psi is known to about 5 %.
    assert found == pytest.approx(module._normal_quadratic_part(directions.values.sqrt()), rel=0.2)


def test_shared_latents_make_a_difference_sharper():
    rng = torch.Generator().manual_seed(4)
    z = noise(150, rng)
    a, b = apart(150, rng, z), 1.05 * apart(150, rng, z)
    paired, unpaired = (compute_fid_difference(a, b, POPULATION, paired=paired) for paired in (True, False))
    assert paired.value == unpaired.value == compute_fid(b, POPULATION) - compute_fid(a, POPULATION)
    assert unpaired.stderr > 5 * paired.stderr


def test_few_images_have_no_error_and_two_no_influence():
    rng = torch.Generator().manual_seed(6)
    gen, real = alike(9, rng), alike(50, rng)
    assert compute_fid_stderr(gen, POPULATION) is None
    assert compute_fid_stderr(real, gen, reference="sample") is None
    assert compute_fid_difference(gen, gen, POPULATION, paired=True).stderr is None
    assert compute_fid_stderr(alike(10, rng), POPULATION) > 0
    with pytest.raises(ValueError, match="N >= 3, got 2"):
        compute_fid_influence(gen[:2], POPULATION)


def test_statistics_cannot_stand_for_a_sample_and_pairs_are_of_one_length():
    rng = torch.Generator().manual_seed(7)
    gen = alike(20, rng)
    with pytest.raises(ValueError, match="their statistics have no error"):
        compute_fid_stderr(gen, POPULATION, reference="sample")
    with pytest.raises(ValueError, match="their statistics have no error"):
        compute_fid_difference(gen, gen, POPULATION, paired=True, reference="sample")
    with pytest.raises(ValueError, match="got 20 and 19"):
        compute_fid_difference(gen, gen[1:], POPULATION, paired=True)
    with pytest.raises(ValueError, match="got 20 and 19"):
        compute_fid_stderr(gen, gen[1:], reference="paired")
    with pytest.raises(ValueError, match="one shape with N >= 3"):
        compute_fid_pair_influence(gen[:2], gen[:2])
    with pytest.raises(ValueError, match="'samples', not one of population, sample, paired"):
        compute_fid_stderr(gen, gen, reference="samples")
    with pytest.raises(ValueError, match=r"'paired', not one of population, sample$"):
        compute_fid_difference(gen, gen, gen, paired=True, reference="paired")


ROLES = ["regular", "dead", "stretched", "singular", "repeated", "few generated", "few real"]


@pytest.mark.parametrize("case", ROLES)
def test_the_influence_of_a_real_image_in_a_sample_is_what_deleting_it_changes(case):
    """The error of a sample takes the reals' influence from the decomposition for the generated ones."""
    rng = torch.Generator().manual_seed(11)
    n, m = {"few generated": (40, 200), "few real": (200, 40)}.get(case, (200, 150))
    gen, real = (apart if case == "singular" else alike)(n, rng) * 1.3 + 0.1, alike(m, rng)
    if case == "dead":
        gen[:, 3] = 0.0
    if case == "repeated":  # both lack directions, and not the same ones
        gen[:, 5], real[:, 6] = gen[:, 4], real[:, 7]
    if case == "stretched":
        gen, real = gen * 10.0 ** -torch.linspace(0, 4, WIDTH), real * 10.0 ** -torch.linspace(4, 0, WIDTH)
    sets = compute_statistics(gen), compute_statistics(real)
    exchanged = module._exchanged(module._directions(*sets), *sets)
    influence = module._leave_one_out(real, *sets[::-1], exchanged)
    some = range(0, m, 7)
    rest = [compute_statistics(torch.cat([real[:i], real[i + 1 :]])) for i in some]
    without = torch.tensor(
        [compute_fid_from_statistics(sets[0], r, clamp=False) for r in rest], dtype=torch.float64
    )
    expected = compute_fid_from_statistics(*sets, clamp=False) - without
    # In a null direction the FIDs that are subtracted have the root of a rounded 0 each: 2e-8 of about 0.01.
    bound = 1e-9 if case in ROLES[:3] else 5e-6
    assert (influence[::7] - expected).abs().max() < bound * expected.abs().max()
    directions = module._directions(*sets)
    variance = jackknife_variance(module._leave_one_out(gen, *sets, directions)) + jackknife_variance(
        influence
    )
    twice = module._quadratic_part(gen, *sets, directions) * (1 / n + 1 / m) ** 2
    whole = module._corrected(variance, twice)
    assert compute_fid_stderr(gen, real, reference="sample") == pytest.approx(whole, rel=1e-12)


def test_constant_sets_have_a_finite_influence():
    real = compute_statistics(alike(50, torch.Generator().manual_seed(8)))
    influence = compute_fid_influence(torch.full((12, WIDTH), 0.5), real)
    assert torch.equal(influence, torch.zeros(12).double())
