"""Modes of stacked digits: counts and KL by closed form and SciPy, errors against repeated draws."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from metric_toys import ToyInputs

from fact_eval.jobs.plan import ReferenceData, Request, plan_controls
from fact_eval.scoring.evaluation import held_out_split
from fact_leaderboard.columns import metrics_for
from fact_metrics.engines.modes import (
    bootstrap_modes,
    compute_channels_legible,
    compute_mode_kl,
    compute_modes,
    count_modes,
)
from fact_metrics.features import get_detector
from fact_metrics.registry import compute_metric, get_spec
from fact_train.data import open_dataset

N = 26_000


def rows(modes, *, sure=1.0):
    """Class probabilities [N, 30] of images of these modes."""
    modes = torch.as_tensor(modes)
    digits = torch.stack([modes // 100, modes // 10 % 10, modes % 10], dim=1)
    hot = torch.nn.functional.one_hot(digits, 10).float()
    return (hot * (sure - (1 - sure) / 9) + (1 - sure) / 9).flatten(1)


def draw(shares, *, n=N, seed=0):
    return rows(np.random.default_rng(seed).choice(1000, size=n, p=shares))


EVEN = np.full(1000, 1e-3)
# A generator that has most modes rarely: 5 % of the images share 500 modes.
UNEVEN = np.concatenate([np.full(500, 0.95 / 500), np.full(400, 0.0498 / 400), np.full(100, 2e-6)])


def test_a_mode_is_the_three_likeliest_digits_in_order():
    counts = count_modes(rows([907, 907, 70, 0]))
    assert counts.nonzero().flatten().tolist() == [0, 70, 907] and counts[907] == 2
    assert counts.shape == (1000,) and counts.sum() == 4


@pytest.mark.parametrize(("modes", "kl"), [(1000, 0.0), (500, math.log(2)), (1, math.log(1000))])
def test_even_modes_have_the_kl_of_their_number(modes, kl):
    probabilities = rows(torch.arange(2000) % modes)
    assert compute_modes(probabilities) == modes
    assert compute_mode_kl(probabilities) == pytest.approx(kl, abs=1e-12)


def test_kl_is_that_of_scipy():
    probabilities = draw(UNEVEN)
    shares = count_modes(probabilities).numpy() / N
    assert compute_mode_kl(probabilities) == pytest.approx(scipy.stats.entropy(shares, EVEN), rel=1e-12)


def test_a_perfect_generator_has_the_kl_of_a_finite_sample():
    found = [compute_mode_kl(draw(EVEN, seed=seed)) for seed in range(20)]
    # 2 N KL is chi-squared with 999 degrees of freedom: mean 0.0192, deviation 0.00086, of 20 draws 0.0002.
    assert np.mean(found) == pytest.approx(999 / 2 / N, abs=0.0006)


@pytest.mark.parametrize(("shares", "high_modes", "high_kl"), [(UNEVEN, 1.3, 1.3), (EVEN, None, 1.9)])
def test_bootstrap_errors_are_those_of_repeated_draws(shares, high_modes, high_kl):
    values = np.array(
        [(compute_modes(p), compute_mode_kl(p)) for p in (draw(shares, seed=s) for s in range(60))]
    )
    modes, kl = bootstrap_modes(draw(shares, seed=99))
    spread_modes, spread_kl = values.std(axis=0, ddof=1)
    # A deviation from 60 draws is off by 9 %. For even modes the KL measures noise: up to sqrt(3) too much.
    assert 0.7 < kl / spread_kl < high_kl
    if high_modes is None:
        assert spread_modes == modes == 0.0  # 26 images a mode: none is ever missing
    else:
        assert 0.7 < modes / spread_modes < high_modes


def test_the_bootstrap_is_the_same_every_time():
    assert bootstrap_modes(draw(UNEVEN)) == bootstrap_modes(draw(UNEVEN))


def test_legible_images_are_so_in_every_channel():
    sure, unsure = rows([123] * 3), rows([123] * 1, sure=0.8)
    one_unsure = torch.cat([rows([123])[:, :20], rows([123], sure=0.8)[:, 20:]], dim=1)
    assert compute_channels_legible(torch.cat([sure, unsure, one_unsure])) == 0.6


def test_what_is_no_row_of_probabilities_a_channel_is_refused():
    for wrong in (torch.zeros(0, 30), torch.full((4, 10), 0.1), rows([1])[0]):
        with pytest.raises(ValueError, match=r"class probabilities of channels are \[N, 30\]"):
            compute_modes(wrong)
    with pytest.raises(ValueError, match="sum to 1"):
        compute_mode_kl(2 * rows([1]))


def test_the_detector_reads_each_channel_as_the_digit_classifier_reads_a_digit():
    dataset = open_dataset("stacked-mnist", split="test")
    images = dataset.images(range(200))
    found = get_detector("stacked_digits_probs")(images).view(-1, 3, 10)
    for channel in range(3):
        expected = get_detector("digits_probs")(images[:, channel, None])
        # Another batch sums in another order: float32 through six layers.
        torch.testing.assert_close(found[:, channel], expected, rtol=1e-3, atol=1e-5)
    modes = found.argmax(dim=2) @ torch.tensor([100, 10, 1])
    # Three digits of 99.6 % accuracy each: 98.8 % expected, four standard errors are 3 %.
    assert (modes == dataset.labels(range(200))).double().mean() > 0.955


def test_records_have_value_error_and_the_share_of_legible_images():
    probabilities = draw(UNEVEN)
    inputs = ToyInputs(lambda need: probabilities)
    modes, kl = (compute_metric(get_spec(name), inputs) for name in ("modes26k", "modekl26k"))
    assert (modes.value, kl.value) == (compute_modes(probabilities), compute_mode_kl(probabilities))
    assert (modes.stderr, kl.stderr) == bootstrap_modes(probabilities)
    assert modes.extras == {"legible": 1.0} and modes.n_generated == kl.n_generated == N
    for name in ("modes26k", "modekl26k"):
        spec = get_spec(name)
        assert [need.count for need in spec.needs] == [N] and spec.needs_trait == "stacked digits"


def test_the_board_of_stacked_digits_measures_modes_of_reals_and_noise_and_no_single_digits(tmp_path):
    train = {"name": "stacked-mnist", "resolution": 32, "channels": 3, "sha256": "a" * 64}
    request = Request((), defaults=metrics_for)
    jobs = plan_controls([ReferenceData("stacked-mnist", train)], tmp_path, request)
    assert [job.source for job in jobs] == ["reals", "noise"]
    for job in jobs:
        names = {spec.name for spec, _ in job.missing}
        assert {"modes26k", "modekl26k", "fid10k_test_efficientnet_lite0"} <= names
        assert not {"legible10k", "covered10k", "fid10k_full_digits"} & names
    # The ceiling is scored on the split that is not compared with: 26,000 test images.
    assert held_out_split(get_spec("modes26k")) == "test"
    mnist = plan_controls([ReferenceData("mnist", train | {"name": "mnist"})], tmp_path, request)
    assert "modes26k" not in {spec.name for job in mnist for spec, _ in job.missing}
