"""The spread of seeds that studies compare with: pooled over configurations, and in ratios for distances."""

import math
from statistics import fmean

import numpy as np
import pytest
from study_toys import FID, run_record, study_records, write_study

from fact_leaderboard.answers.answer import answer_study
from fact_leaderboard.answers.effects import BETTER, SAME, UNDECIDED, WORSE, Comparison, Pair, primary_effects
from fact_leaderboard.answers.samples import Evidence
from fact_leaderboard.answers.spread import FEWEST, Pool, Spread, variance
from fact_metrics.registry import get_spec
from fact_train.sweeps.study import read_study

PLAIN = get_spec("kid10k_full_digits")  # compared in differences

VARIANCES = (0.8, 1.1, 0.2, 2.9, 0.6, 1.7, 0.05)
DEGREES = (5, 2, 2, 2, 2, 3, 2)


def sample(own: float, degrees: int) -> list[float]:
    """degrees + 1 values with this variance."""
    values = np.arange(degrees + 1.0)
    return (values * math.sqrt(own / values.var(ddof=1))).tolist()


SAMPLES = [sample(own, degrees) for own, degrees in zip(VARIANCES, DEGREES, strict=True)]


def only(values, base, spread, *, relevant=0.1):
    (effect,) = primary_effects(
        [Pair("a", "base", values, base)],
        metric=FID,
        higher_is_better=False,
        relevant=relevant,
        spread=spread,
    )
    return effect


# The pool


def test_variances_are_drawn_together_as_in_limma() -> None:
    """fitFDist and squeezeVar of InMoose 0.9 (its port of limma) on the same variances; double precision."""
    pool = Pool.of(SAMPLES)
    assert pool.variance == pytest.approx(0.8050532706088075, rel=1e-9)
    assert pool.degrees == pytest.approx(5.543933046214989, rel=1e-9)
    drawn = [0.80265698, 0.88324769, 0.64464536, 1.36045235, 0.75069084, 1.11929265, 0.6048783]
    assert [pool.of_values(own)[0] for own in SAMPLES] == pytest.approx(drawn, abs=5e-9)
    assert [pool.of_values(own)[1] for own in SAMPLES] == pytest.approx([d + pool.degrees for d in DEGREES])


def test_equal_variances_are_one_variance_with_all_degrees_of_freedom() -> None:
    pool = Pool.of([sample(own, 2) for own in (0.9, 1.1, 1.2, 0.8, 1.0)])
    assert math.isinf(pool.degrees) and pool.variance == pytest.approx(1.0)
    assert pool.of_values(sample(0.5, 2)) == (pool.variance, 10)  # never more than there are


def test_a_spread_far_beyond_the_others_speaks_for_itself() -> None:
    pool = Pool.of([sample(own, 2) for own in (0.9, 1.1, 1.2, 0.8, 1.0)])
    assert pool.of_values(sample(50.0, 2)) == (pytest.approx(50.0), 2)


def test_too_few_configurations_with_a_spread_are_no_pool() -> None:
    assert Pool.of(SAMPLES[: FEWEST - 1]) is None
    assert Pool.of([*SAMPLES[: FEWEST - 1], [3.0], [2.0, 2.0, 2.0]]) is None  # one seed, and equal seeds
    assert Pool.of(SAMPLES[:FEWEST]) is not None


def test_seeds_that_agree_are_compared_by_the_spread_of_the_pool() -> None:
    spread = Spread.of(SAMPLES, PLAIN)
    assert only([3.0] * 3, [0.0] * 6, Spread()).low is None
    assert only([3.0] * 3, [0.0] * 6, spread).verdict == WORSE


@pytest.mark.parametrize("apart", [0.0, 0.3, 0.7])
def test_false_verdicts_stay_rare_and_true_ones_become_frequent(apart) -> None:
    """Twelve settings of 3 seeds, a base of 6; spreads of configurations differ by exp(N(0, apart))."""
    rng = np.random.default_rng(0)
    wrong, right, alone = [], [], []
    for _ in range(80):
        spreads = np.exp(rng.normal(0, apart, 13))
        samples = [(own * rng.normal(size=6 if i == 0 else 3)).tolist() for i, own in enumerate(spreads)]
        spread = Spread.of(samples, PLAIN)
        for values, own in zip(samples[1:], spreads[1:], strict=True):
            wrong.append(Comparison.of(Pair("a", "base", values, samples[0]), spread).estimate.p < 0.05)
            moved = Pair("a", "base", [v + 2.5 * math.sqrt(own * spreads[0]) for v in values], samples[0])
            right.append(Comparison.of(moved, spread).estimate.p < 0.05)
            alone.append(Comparison.of(moved, Spread()).estimate.p < 0.05)
    assert fmean(wrong) < 0.075  # 5 %, and 3 standard errors of 960 comparisons that share 80 bases
    assert fmean(right) > fmean(alone) + 0.2


# Ratios


def test_distances_are_compared_in_ratios_and_shown_as_differences() -> None:
    base, values = [9.0, 11.0, 10.0, 10.5], [38.0, 62.0, 50.0]
    effect = only(values, base, Spread("ratio"))
    logs = Comparison.of(Pair("a", "b", [math.log(v) for v in values], [math.log(b) for b in base]), Spread())
    centre = math.exp(fmean(map(math.log, base)))
    low, high = logs.estimate.interval()
    assert (effect.base, effect.p) == (pytest.approx(centre), logs.estimate.p)
    assert effect.low == pytest.approx(centre * math.expm1(low))
    assert effect.high == pytest.approx(centre * math.expm1(high))
    assert effect.verdict == WORSE and effect.low > 0
    assert only(values, base, Spread(), relevant=0.1).p > effect.p  # the spread grew with the mean


def test_the_relevant_difference_keeps_its_unit() -> None:
    base = [10.0, 10.2, 9.9, 10.1, 10.0, 9.8]
    assert only([11.0, 11.2, 10.9], base, Spread("ratio"), relevant=3.0).verdict == SAME
    assert only([14.0, 14.2, 13.9], base, Spread("ratio"), relevant=3.0).verdict == WORSE
    assert only([3.0, 3.1, 2.9], base, Spread("ratio"), relevant=20.0).verdict == SAME  # -7 of at most 20
    low, high = Comparison.of(Pair("a", "b", base, base), Spread("ratio")).bounds(20.0)
    assert low == -math.inf and high == pytest.approx(math.log1p(20 / 9.999), abs=1e-3)


def test_values_that_are_not_above_0_are_never_ratios() -> None:
    assert Spread.of([[1.0, 2.0], [0.0, 3.0]], get_spec("recon5k_mse")).scale == "difference"
    assert Spread.of([[1.0, 2.0], [0.5, 3.0]], get_spec("recon5k_mse")).scale == "ratio"


def test_one_more_seed_is_predicted_above_0() -> None:
    low, high = Spread("ratio").predictive_interval([5.0, 6.5, 26.0])
    assert 0 < low < 5.0 and high > 26.0
    assert Spread().predictive_interval([2.0, 2.0]) == (2.0, 2.0)
    assert variance([1.0, 3.0]) == 2.0


# Odds


def test_shares_are_compared_in_odds_and_shown_as_differences() -> None:
    """By hand: log-odds of shares of 5,000 images, half an image added to either side."""
    base, values = [0.96, 0.98, 0.97, 0.99], [0.996, 0.998, 0.999]
    spread = Spread.of([base, values], get_spec("agreement5k"))

    def odds(share: float) -> float:
        return math.log((5000 * share + 0.5) / (5000 * (1 - share) + 0.5))

    effect = only(values, base, spread)
    logs = Comparison.of(Pair("a", "b", list(map(odds, values)), list(map(odds, base))), Spread())
    centre = fmean(map(odds, base))
    low, high = (
        1 / (1 + math.exp(-centre - one)) - 1 / (1 + math.exp(-centre)) for one in logs.estimate.interval()
    )
    assert effect.p == pytest.approx(logs.estimate.p, rel=1e-9)
    assert effect.low == pytest.approx(low, abs=2e-4) and effect.high == pytest.approx(high, abs=2e-4)
    assert effect.base + effect.high < 1  # no interval leaves the range of shares


@pytest.mark.parametrize("share", [0.0, 0.0002, 0.3, 1.0])
def test_a_share_comes_back_from_its_odds(share) -> None:
    spread = Spread.of([[share]], get_spec("recall5k3_test_pixels"))
    assert spread.scale == "odds" and math.isfinite(spread.scaled(share))
    assert spread.value(spread.scaled(share)) == pytest.approx(share, abs=1e-12)


def test_bounds_end_with_the_range_of_shares() -> None:
    base = [0.01, 0.012, 0.009]
    pair, spec = Pair("a", "b", base, base), get_spec("recall5k3_test_pixels")
    low, high = Comparison.of(pair, Spread.of([base], spec)).bounds(0.05)
    assert low == -math.inf and 0 < high < math.inf
    assert only([0.0, 0.0, 0.001], base, Spread.of([base], spec), relevant=0.05).verdict == SAME


def test_metrics_say_how_they_are_compared() -> None:
    distances = ("fid5k_full_digits", "recon5k_mse", "wgap5k_frechet", "ppl2k_wend_stlpips_vgg", "seconds1k")
    assert {get_spec(name).scale for name in distances} == {"ratio"}
    shares = ("recall5k3_test_pixels", "agreement5k", "legible5k", "coverage10k5_test_stlpips_alex")
    assert {get_spec(name).scale for name in shares} == {"odds"}
    other = ("sharpness5k_test", "kid10k_full_digits", "covered5k", "density10k5_test_stlpips_alex")
    assert {get_spec(name).scale for name in other} == {"difference"}


# Evidence


def test_configurations_of_the_preset_in_other_studies_tell_the_spread(tmp_path) -> None:
    """Four settings of another study join the pool, with their values at the end of training only."""
    study = read_study(write_study(tmp_path))
    records = study_records(study, lambda name: 100.0, spread=4.0)
    text = (tmp_path / "r1-weight.toml").read_text().replace("settings = [1, 100]", "settings = [2, 3, 4, 6]")
    other = read_study(write_study(tmp_path, text, name="other"))
    preset = {"git": {"commit": "c" * 40, "dirty": False}, "seconds": 60.0, "preset": study.base}
    elsewhere = [
        run_record(run, FID, 100.0 + run.seed, training=preset, **changes)
        for run in other.runs()
        if run.setting.name != "base"
        for changes in ({}, {"kimg": run.config.kimg / 2, "value": 9000.0, "snapshot_sha256": "1" * 64})
    ]
    alone, pooled = (answer_study(study, Evidence(own)) for own in (records, records + elsewhere))
    assert alone.spreads[FID].pool is None
    assert pooled.spreads[FID].pool.configurations == 3 + 4
    assert pooled.spreads[FID].pool.variance < 0.01  # of logarithms; 9,000 and 100 in one sample would be 5
    assert pooled.primary[0].high - pooled.primary[0].low < alone.primary[0].high - alone.primary[0].low
    assert {effect.verdict for effect in pooled.primary} <= {SAME, UNDECIDED, BETTER, WORSE}
