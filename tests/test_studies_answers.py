"""Answers against simulated truth: verdicts, intervals, seeds still needed, failed and missing runs."""

import dataclasses
import itertools
import math
import random
from pathlib import Path
from statistics import fmean, geometric_mean

import numpy as np
import pytest
from scipy import stats
from study_toys import FID, QUESTION, run_record, study_records, write_study

from fact_leaderboard.answers.answer import answer_study, digits_of, seconds_spent
from fact_leaderboard.answers.effects import (
    BETTER,
    SAME,
    UNDECIDED,
    WORSE,
    Comparison,
    Pair,
    deciding_power,
    other_effects,
    primary_effects,
    seeds_to_decide,
)
from fact_leaderboard.answers.samples import Evidence
from fact_leaderboard.answers.spread import Spread
from fact_leaderboard.intervals import Side, independent_difference, welch_quantile
from fact_leaderboard.records import DIVERGED
from fact_metrics.base.canonical import canonical_sha256
from fact_train.sweeps.study import Study, read_study

TRUTH = {"r1_gamma=1": 60.0, "r1_gamma=100": 180.0}  # the base is 100; lower is better
LEGIBLE, STYLE = "legible5k", "style_diversity1k_train_pixels"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return read_study(write_study(tmp_path))


def truth(name: str) -> float:
    return TRUTH.get(name, 100.0)


def verdicts(study: Study, records, **options) -> dict[str, str]:
    return {e.setting: e.verdict for e in answer_study(study, Evidence(records, **options)).primary}


def pair(values, base) -> Pair:
    return Pair("a", "base", values, base)


def only(pairs, **options):
    options = {"metric": FID, "higher_is_better": False, "relevant": 25.0, **options}
    (effect,) = primary_effects(pairs, **options)
    return effect


# Verdicts


def test_planted_effects_are_found_with_their_direction(study: Study) -> None:
    answer = answer_study(study, Evidence(study_records(study, truth)))
    assert [e.verdict for e in answer.primary] == [BETTER, WORSE]
    assert answer.status == "answered" and not answer.missing
    assert (answer.primary[0].seeds, answer.primary[0].base_seeds) == (3, 6)


def test_intervals_cover_the_planted_effect(study: Study) -> None:
    effects = [
        effect
        for seed in range(150)
        for effect in answer_study(study, Evidence(study_records(study, truth, seed=seed))).primary
    ]
    covered = [e.low < truth(e.setting) - 100 < e.high for e in effects]
    assert fmean(covered) == pytest.approx(0.95, abs=0.05)  # 4 standard errors of 300 intervals


def test_equal_settings_have_no_relevant_difference(study: Study) -> None:
    answer = answer_study(study, Evidence(study_records(study, lambda name: 100.0, spread=4.0)))
    assert [e.verdict for e in answer.primary] == [SAME, SAME]
    assert answer.status == "answered"


def test_one_decided_setting_of_two_is_a_part_of_an_answer(study: Study) -> None:
    truths = {**TRUTH, "base": 100.0, "r1_gamma=1": 400.0, "r1_gamma=100": 110.0}
    answer = answer_study(study, Evidence(study_records(study, truths.__getitem__, spread=20.0)))
    assert [e.verdict for e in answer.primary] == [WORSE, UNDECIDED]
    assert answer.status == "answered in part"


def test_noise_beyond_the_relevant_difference_is_undecided(study: Study) -> None:
    answer = answer_study(study, Evidence(study_records(study, lambda name: 100.0, spread=60.0)))
    assert [e.verdict for e in answer.primary] == [UNDECIDED, UNDECIDED]
    assert answer.status == UNDECIDED and "would decide" in answer.sentence


def test_the_interval_holds_the_differences_that_the_test_does_not_reject() -> None:
    values, base = [61.0, 70.0, 66.0], [100.0, 95.0, 112.0, 99.0]
    effect = only([pair(values, base)])
    for shift in (effect.low, effect.high):
        assert only([pair([x - shift for x in values], base)]).p == pytest.approx(0.05, rel=1e-6)
    low, high = stats.ttest_ind(values, base, equal_var=False).confidence_interval(0.95)
    assert effect.low < low < high < effect.high  # Welch's own trusts the spreads of few seeds


def test_p_values_are_holm_corrected_on_the_primary_metric_only() -> None:
    base = [0.0, 1.0, -1.0, 0.5]
    pairs = [pair([x + 2.2, x + 3.0, x + 2.4], base) for x in (0.0, 0.3, 0.6)]
    raw = [e.p for e in other_effects(pairs, metric=FID, higher_is_better=False)]
    corrected = [e.p for e in primary_effects(pairs, metric=FID, higher_is_better=False, relevant=0.1)]
    smallest = min(range(3), key=lambda i: raw[i])
    assert corrected[smallest] == pytest.approx(3 * raw[smallest])
    assert raw == [independent_difference(p.base, p.values).p for p in pairs]


def test_a_significant_difference_inside_the_margin_is_not_relevant() -> None:
    values, base = [90.0, 90.5, 89.8], [100.0, 100.2, 99.9]
    assert only([pair(values, base)]).verdict == SAME
    assert only([pair(values, base)], relevant=5.0).verdict == BETTER
    assert only([pair(values, base)], relevant=5.0, higher_is_better=True).verdict == WORSE


def test_one_seed_on_a_side_decides_nothing() -> None:
    effect = only([pair([10.0], [100.0, 101.0])])
    assert (effect.verdict, effect.low, effect.more_seeds) == (UNDECIDED, None, None)


def test_false_verdicts_are_as_rare_as_promised() -> None:
    """Equal settings of six seeds: 'better' or 'worse' in 5 %, Welch being slightly conservative."""
    rng = np.random.default_rng(0)
    trials = 2000
    pairs = [pair(rng.normal(size=6).tolist(), rng.normal(size=6).tolist()) for _ in range(trials)]
    effects = other_effects(pairs, metric=FID, higher_is_better=False)
    for verdict in (BETTER, WORSE):  # 2.5 % of 2,000 trials: 50, with a standard deviation of 7
        assert 22 <= sum(e.verdict == verdict for e in effects) <= 78


# Seeds still needed


@pytest.mark.parametrize(
    ("value", "spread", "counts", "tests"), [(30, 20, (6, 8), 1), (0, 10, (7, 7), 1), (15, 12, (9, 6), 3)]
)
def test_the_power_is_that_of_simulated_studies(value, spread, counts, tests) -> None:
    rng, trials, relevant = np.random.default_rng(1), 4000, 25.0
    a = rng.normal(value, spread, (trials, counts[0]))
    b = rng.normal(0, spread, (trials, counts[1]))
    test = stats.ttest_ind(a, b, axis=1, equal_var=False)
    difference = a.mean(axis=1) - b.mean(axis=1)
    sides = [Side.of(n) for n in counts]
    room = welch_quantile(0.05, *sides) * np.abs(difference / test.statistic)
    significant = np.mean(np.abs(test.statistic) > welch_quantile(0.05 / tests, *sides))
    irrelevant = np.mean(np.abs(difference) + room < relevant)
    power = deciding_power(value, [spread**2] * 2, sides, bounds=(-relevant, relevant), tests=tests)
    # The formula takes the variance as known: it is up to a few points off at these sizes.
    assert power == pytest.approx(max(significant, irrelevant), abs=0.06)


def test_seeds_to_decide_is_the_first_count_with_enough_power() -> None:
    values, base = [0.0, 20.0, 40.0], [0.0, 15.0, -15.0]
    more = seeds_to_decide(Comparison.of(pair(values, base), Spread()), relevant=5.0, tests=2)
    variances = [400.0, 225.0]

    def power(k: int) -> float:
        return deciding_power(20.0, variances, [Side.of(3 + k)] * 2, bounds=(-5.0, 5.0), tests=2)

    assert more is not None and power(more) >= 0.8 > power(more - 1)


def test_a_hopeless_comparison_names_no_number_of_seeds(study: Study) -> None:
    values = {0: 100.0, 1: 1100.0, 2: -900.0}  # equal means, a spread of 40 relevant differences
    records = [run_record(run, FID, values[run.seed % 3]) for run in study.runs()]
    answer = answer_study(study, Evidence(records))
    assert all(e.more_seeds is None for e in answer.primary)
    assert "more than 50 further seeds would decide" in answer.sentence


def test_the_predictive_interval_holds_the_next_seed() -> None:
    rng = random.Random(3)
    inside = 0
    for _ in range(4000):
        low, high = Spread().predictive_interval([rng.gauss(0, 1) for _ in range(4)])
        inside += low < rng.gauss(0, 1) < high
    assert inside / 4000 == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors
    assert Spread().predictive_interval([1.0]) is None


# Which records count


def test_a_run_is_found_by_configuration_kimg_and_seed_whatever_its_name(study: Study) -> None:
    records = [
        run_record(run, FID, truth(run.setting.name) + run.seed, run_id="elsewhere", label="x")
        for run in study.runs()
    ]
    assert verdicts(study, records) == {"r1_gamma=1": BETTER, "r1_gamma=100": WORSE}


@pytest.mark.parametrize(
    "changes",
    [
        {"kimg": 20.0},
        {"config_sha256": "0" * 64},
        {"training": {"git": {"commit": "c" * 40, "dirty": True}}},
        {"status": "failed", "value": None},
        {"protocol": {"x": 1}, "protocol_sha256": canonical_sha256({"x": 1})},
    ],
    ids=["other length", "other configuration", "uncommitted code", "failed", "other protocol"],
)
def test_records_of_other_runs_do_not_count(study: Study, changes: dict) -> None:
    records = [
        run_record(run, FID, 100.0 + run.seed, **changes)
        if run.setting.against
        else run_record(run, FID, 1.0)
        for run in study.runs()
    ]
    answer = answer_study(study, Evidence(records))
    assert answer.status == "not run" and len(answer.missing) == 6
    assert "6 of 12 runs are missing" in answer.sentence


def test_local_records_count_without_a_commit_when_asked_for(study: Study) -> None:
    local = [run_record(run, FID, truth(run.setting.name) + run.seed, training={}) for run in study.runs()]
    assert verdicts(study, local) == dict.fromkeys(TRUTH, "not run")
    assert verdicts(study, [], local=local) == {"r1_gamma=1": BETTER, "r1_gamma=100": WORSE}


def test_a_configuration_trained_twice_counts_once(study: Study) -> None:
    run = study.runs()[0]
    later = {"provenance": {"git": {"commit": "c" * 40, "dirty": False}, "finished": "2026-02-01T00:00:00Z"}}
    records = [run_record(run, FID, 1.0), run_record(run, FID, 2.0, snapshot_sha256="e" * 64, **later)]
    for order in itertools.permutations(records):
        assert Evidence(order).samples(study)["base"].values[FID] == {0: 2.0}


def test_the_mean_over_evaluation_seeds_is_one_value(study: Study) -> None:
    run = study.runs()[0]
    records = [run_record(run, FID, 1.0, seed=0), run_record(run, FID, 4.0, seed=1)]
    assert Evidence(records).samples(study)["base"].values[FID] == {0: 2.5}


def test_studies_share_records_of_equal_configurations(study: Study, tmp_path: Path) -> None:
    records = study_records(study, truth)
    other = read_study(
        write_study(tmp_path, QUESTION + 'axis = "r1_gamma"\nsettings = [100]\n', name="other")
    )
    first, second = (answer_study(s, Evidence(records)) for s in (study, other))
    assert second.status == "answered" and second.primary[0].mean == first.primary[1].mean
    assert seconds_spent([first, second]) == (12 * 60.0, 12, 12)


def test_seeds_that_another_study_asked_for_count_too(study: Study) -> None:
    records = study_records(study, truth)
    base, setting = (study.run(one, 9) for one in (study.references[0], study.settings[0]))
    other_length = run_record(study.run(study.references[0], 10), FID, 1.0, kimg=20.0)
    found = [run_record(base, FID, 77.0), run_record(setting, FID, 55.0), other_length]
    answer = answer_study(study, Evidence(records + found))
    assert answer.samples["base"].values[FID][9] == 77.0 and 10 not in answer.samples["base"].values[FID]
    assert [effect.seeds for effect in answer.primary] == [4, 3] and answer.primary[0].base_seeds == 7
    assert not answer.missing and answer.runs == 14


def test_a_null_study_keeps_to_its_own_seeds(tmp_path: Path) -> None:
    text = QUESTION.replace('list = "injection"', 'list = "null"')
    again = 'seeds = "6-8"\n[[setting]]\nname = "again"\nfields = {}\n'
    study = read_study(write_study(tmp_path, text + again, name="null"))
    samples = Evidence(study_records(study, lambda name: 100.0)).samples(study)
    assert {name: sorted(sample.values[FID]) for name, sample in samples.items()} == {
        "base": [0, 1, 2, 3, 4, 5],
        "again": [6, 7, 8],
    }


# Runs that fail


def diverged(run):
    protocol = {"metric": DIVERGED, "version": 1}
    record = run_record(run, FID, 1.0, kimg=12.5, snapshot=None)
    return dataclasses.replace(
        record, metric=DIVERGED, protocol=protocol, protocol_sha256=canonical_sha256(protocol)
    )


def test_diverged_runs_are_results(study: Study) -> None:
    fails = {("r1_gamma=1", 1), ("r1_gamma=100", 0), ("r1_gamma=100", 1), ("r1_gamma=100", 2)}
    records = [
        diverged(run) if (run.setting.name, run.seed) in fails else run_record(run, FID, 100.0 + run.seed)
        for run in study.runs()
    ]
    answer = answer_study(study, Evidence(records))
    assert not answer.missing
    assert answer.primary[1].verdict == "diverges" and "diverges: r1_gamma=100" in answer.sentence
    assert answer.failures() == ["r1_gamma=1: of 3 runs, 1 diverged", "r1_gamma=100: of 3 runs, 3 diverged"]


def test_a_base_that_diverges_is_said(study: Study) -> None:
    records = [run_record(r, FID, 100.0 + r.seed) if r.setting.against else diverged(r) for r in study.runs()]
    assert verdicts(study, records) == dict.fromkeys(TRUTH, "its reference diverges")


def test_collapsed_runs_are_counted(study: Study) -> None:
    records = study_records(study, truth) + [
        run_record(r, STYLE, 0.05 if r.setting.name == "r1_gamma=1" and r.seed < 2 else 0.9)
        for r in study.runs()
    ]
    assert answer_study(study, Evidence(records)).failures() == ["r1_gamma=1: of 3 runs, 2 collapsed"]


# The sentence


def test_the_sentence_has_the_numbers_of_the_table(study: Study) -> None:
    answer = answer_study(study, Evidence(study_records(study, truth)))
    better, worse = answer.primary
    assert (
        f"better: r1_gamma=1 ({better.value:+.1f} [{better.low:+.1f}, {better.high:+.1f}])" in answer.sentence
    )
    assert f"worse: r1_gamma=100 ({worse.value:+.1f} " in answer.sentence
    assert f"base {better.base:.1f} over 6 seeds" in answer.sentence
    assert better.value == pytest.approx(geometric_mean(answer.samples["r1_gamma=1"].of(FID)) - better.base)


def test_many_settings_are_counted(tmp_path: Path) -> None:
    study = read_study(
        write_study(tmp_path, QUESTION + 'axis = "r1_gamma"\nsettings = [1, 2, 3, 4, 6, 7, 100]\n')
    )
    sentence = answer_study(study, Evidence(study_records(study, truth, spread=4.0))).sentence
    assert "of 7 comparisons, 1 better, 1 worse, 5 no relevant difference" in sentence
    assert "largest gain: r1_gamma=1 (" in sentence and "largest loss: r1_gamma=100 (" in sentence


def test_a_null_study_reports_its_share_of_claims(tmp_path: Path) -> None:
    text = QUESTION.replace('"injection"', '"null"') + 'seeds = "6-11"\n[[setting]]\nname = "again"\n'
    study = read_study(write_study(tmp_path, text, name="null"))
    values = {
        FID: lambda seed: 100.0 + seed % 6,
        LEGIBLE: lambda seed: (0.9 if seed < 6 else 0.5) + seed / 1000,
    }
    records = [run_record(run, m, value(run.seed)) for run in study.runs() for m, value in values.items()]
    answer = answer_study(study, Evidence(records))
    assert answer.status == "answered"
    assert '0 of 2 verdicts are "better" and 1 of 2 verdicts are "worse"' in answer.sentence


@pytest.mark.parametrize(("relevant", "digits"), [(25, 1), (200, 0), (1, 2), (0.1, 3), (0.05, 4)])
def test_differences_are_printed_to_a_tenth_of_what_matters(relevant: float, digits: int) -> None:
    assert digits_of(relevant) == digits
    assert 10**-digits <= relevant / 10 or math.isclose(10**-digits, relevant / 10)
