"""Properties every registered metric has; a metric of a family that no set names fails here.

Families, not names, are listed: a new protocol of a known family is tested without an edit. The functions
beneath have theirs in test_metrics_properties.py.
"""

import json
import math
import multiprocessing
from pathlib import Path

import pytest
import torch
from metric_toys import MeanSquares, ToyEncoder, ToyGenerator, ToyInputs, cloud

from fact_metrics import registry
from fact_metrics.engines import path_length
from fact_metrics.engines.conventions import IMPROVED, PRDC
from fact_metrics.engines.fid_error import compute_fid_stderr
from fact_metrics.engines.frechet import compute_statistics
from fact_metrics.engines.kid import compute_kid, sum_over_reals
from fact_metrics.engines.neighbours import find_radii
from fact_metrics.engines.overlap import measure_overlap
from fact_metrics.features import get_detector, list_detectors
from fact_metrics.inputs import Tick, TrainingHistory
from fact_metrics.registry import compute_metric, get_spec, list_metrics, list_specs
from fact_metrics.spec import FeatureNeed

N = 250

MEASURE_PATH = path_length.measure_path

# Where a family's value lies where generated and real features are the same rows.
ZERO, ONE, NOT_ABOVE_ZERO = (0.0, 0.0), (1.0, 1.0), (-math.inf, 0.0)
IDENTITY = {
    "fid": ZERO,
    "sfid": ZERO,
    "fd": ZERO,
    "cmmd": ZERO,
    "fid_infinity": NOT_ABOVE_ZERO,  # subsets of equal sets differ: the line through them ends below 0
    "kid": NOT_ABOVE_ZERO,  # unbiased
    "mind": ZERO,
    "precision": ONE,
    "recall": ONE,
    "density": ONE,
    "coverage": ONE,
    "authpct": ZERO,
    "mifid": ZERO,
    "sharpness": ZERO,
    "reconfid": ZERO,
    "reconprecision": ONE,
    "reconrecall": ONE,
    "reconsharpness": ZERO,
}
SYMMETRIC = {"fid", "sfid", "fd", "kid", "cmmd", "mind", "sharpness", "reconfid", "reconsharpness"}
NOT_SYMMETRIC = {
    "reconprecision",
    "reconrecall",
    "fid_infinity",
    "precision",
    "recall",
    "density",
    "coverage",
    "authpct",
    "mifid",
}
# Families that are worse where generated images are copies of real ones, not where they are far from them.
MEMORIES = {"authpct", "mifid"}
# Families whose products are float32.
FLOAT32 = {"kid", "cmmd", "mind"}
# Families that draw images by their position, so that another order is another draw.
BY_POSITION = {"fid_infinity", "is"}
# 25 images a split: five classes thrice, five twice.
SPLIT_ENTROPY = -5 * (0.12 * math.log(0.12) + 0.08 * math.log(0.08))
# Families that judge generated images alone, and the value of perfect ones.
JUDGES = {
    "legible": 1.0,
    "covered": 10.0,
    "vendi": 10.0,
    "is": math.exp(SPLIT_ENTROPY),
    "reconlegible": 1.0,
    "modes": 250.0,
    "modekl": math.log(1000 / 250),
}
# Families that call the generator, and the value of a constant generator whose paths agree.
GENERATOR = {"fused": {"lower": 0.0, "higher": 200.0}, "ppl": {"lower": 0.0}}
# Families that call the encoder of a StylEx run, and the values of one that returns what it is given and
# whose w are the mapping's.
ENCODER = {
    "recon": {"lower": 0.0, "higher": 1.0},
    "agreement": {"higher": 1.0},
    "kl": {"lower": 0.0},
    "wgap": {"lower": 0.0},
}
# Families that compare what varies in a generator with the reals.
DIVERSITY = {"style_diversity", "noise_diversity"}
# Families that read how a run was trained; test_metrics_training.py has their values.
TRAINING = {"seconds", "spikes"}
FAMILIES = set(IDENTITY) | set(JUDGES) | set(GENERATOR) | set(ENCODER) | DIVERSITY | TRAINING

METRICS = list_specs()
BY_FAMILY = {family: [m for m in METRICS if m.family == family] for family in sorted(FAMILIES)}


def of(*families):
    chosen = [metric for family in families for metric in BY_FAMILY[family]]
    return pytest.mark.parametrize("metric", chosen, ids=lambda metric: metric.name)


def judged(need, *, level=0.0):
    """Class probabilities, or features of one direction per class; `level`: classes rare and unsure."""
    if need.detector == "stacked_digits_probs":
        number, classes = torch.arange(N), max(round(10 * (1 - level)), 1)
        digits = torch.stack([number // 100, number // 10, number], dim=1) % 10 % classes
        return torch.nn.functional.one_hot(digits, 10).float().flatten(1)
    rng = torch.Generator().manual_seed(1)
    classes = torch.arange(N) % max(round(10 * (1 - level)), 1)
    sure = torch.rand(N, generator=rng) >= level
    rows = torch.full((N, 10), 0.1)
    rows[sure] = 0.005 if need.detector == "digits_probs" else 0.0
    rows[sure, classes[sure]] = 0.955
    if need.detector == "inception_logits":
        return torch.where(sure[:, None] & (rows > 0.9), 1000.0, 0.0)
    return rows


def features(need, *, seed, level=0.0):
    """Plausible features of a need's detector; `level` in [0, 1] makes generated ones worse."""
    rng = torch.Generator().manual_seed(seed)
    if need.detector == "spectrum":
        return torch.rand(N, 1, generator=rng) * 0.4 * (1 - level)
    # Five directions that matter, as neighbours in many random dimensions are all equally far.
    rows = 0.01 * torch.randn(N, min(get_detector(need.detector).width, 300), generator=rng)
    # Worse: away from the reals (precision, FID) and closer together (recall).
    rows[:, :5] = torch.randn(N, 5, generator=rng) * (1 - 0.3 * level) + 3 * level
    return rows


def compare(metric, gen, real):
    return compute_metric(metric, ToyInputs(lambda need: real if need.side == "real" else gen)).value


def pair(metric, *, level=0.0):
    gen_need, real_need = metric.needs
    real = features(real_need, seed=2)
    if metric.family not in MEMORIES:
        return features(gen_need, seed=1, level=level), real
    gen = features(gen_need, seed=1)
    copies = int(level * N)
    gen[:copies] = real[:10].repeat(N // 10, 1)[:copies] + 1e-4
    return gen, real


@pytest.fixture
def toy_detectors(monkeypatch):
    def toy(name, device="cpu"):
        return MeanSquares(device)

    for module in ("features", "engines.consistency", "engines.pair_distances"):
        monkeypatch.setattr(f"fact_metrics.{module}.get_detector", toy)


def test_every_metric_is_in_a_property_set():
    registered = {metric.family for metric in METRICS}
    new, gone = sorted(registered - FAMILIES), sorted(FAMILIES - registered)
    assert not new, (
        f"families {new} are in no property set of {Path(__file__).name}. Add each to IDENTITY, with the "
        "value of equal sets, and to SYMMETRIC or NOT_SYMMETRIC; or to JUDGES (generated images alone), with "
        "the value of perfect ones; or to GENERATOR, with that of a constant generator; or to DIVERSITY; or "
        "to TRAINING. This tests the rest"
    )
    assert not gone, f"no metric is of the families {gone}"
    assert set(IDENTITY) == SYMMETRIC | NOT_SYMMETRIC and not SYMMETRIC & NOT_SYMMETRIC
    assert MEMORIES | FLOAT32 <= set(IDENTITY) and BY_POSITION <= FAMILIES


@of(*IDENTITY)
def test_equal_sets_have_the_identity_value(metric):
    gen, _ = pair(metric)
    low, high = IDENTITY[metric.family]
    # float32 features: rounding of what cancels, squared.
    assert low - 1e-8 <= compare(metric, gen, gen) <= high + 1e-8


@of(*IDENTITY)
def test_the_declared_direction_is_that_of_degrading_features(metric):
    values = [compare(metric, *pair(metric, level=level)) for level in (0.0, 0.3, 0.6)]
    assert values == sorted(values, reverse=metric.higher_is_better)
    assert values[0] != values[-1]


@of(*JUDGES)
def test_perfect_images_have_the_best_value_and_degrading_ones_less(metric):
    levels = [judged(metric.needs[0], level=level) for level in (0, 0.5, 1)]
    values = [compute_metric(metric, ToyInputs(lambda need, rows=rows: rows)).value for rows in levels]
    assert values[0] == pytest.approx(JUDGES[metric.family], rel=1e-12)
    assert values == sorted(values, reverse=metric.higher_is_better) and len(set(values)) == 3


@of(*GENERATOR)
def test_the_declared_direction_is_that_of_a_worse_generator(metric, toy_detectors, monkeypatch):
    monkeypatch.setattr(
        path_length, "measure_path", lambda *args, pairs: MEASURE_PATH(*args, pairs=pairs[:25])
    )
    # Not so bad that uint8 clips both paths alike.
    worse = [ToyGenerator(steepness=x, defect=x / 1000) for x in (0.0, 0.05, 0.3)]
    values = [compute_metric(metric, ToyInputs(generator=generator)).value for generator in worse]
    best = GENERATOR[metric.family]["higher" if metric.higher_is_better else "lower"]
    assert values[0] == pytest.approx(best, abs=1e-8)
    assert values == sorted(values, reverse=metric.higher_is_better)
    assert len(set(values)) == 3


@of(*sorted(DIVERSITY))
def test_diversity_grows_from_0_with_what_varies_and_the_declared_direction_is_that(metric, toy_detectors):
    style = metric.family == "style_diversity"
    assert metric.higher_is_better == style  # noise that does much does what the style should
    levels = [{"steepness": x, "loudness": 0.05} if style else {"loudness": x} for x in (0.0, 0.1, 0.4)]
    real = ToyInputs(lambda need: cloud(50, 16, seed=3))
    values = []
    for level in levels:
        real.generator = ToyGenerator(**level)
        values.append(compute_metric(metric, real))
    assert values[0].value == 0.0 and values[0].stderr == 0.0
    assert values[0].value < values[1].value < values[2].value
    assert {(v.n_generated, v.n_real) for v in values} == {(1000, 50)}


@of(*ENCODER)
def test_the_declared_direction_is_that_of_a_worse_encoder(metric, toy_detectors):
    values = [compute_metric(metric, ToyInputs(encoder=ToyEncoder(x))).value for x in (0.0, 0.2, 0.6)]
    if values[0] is not None:  # None: the PSNR of equal images
        best = ENCODER[metric.family]["higher" if metric.higher_is_better else "lower"]
        if metric.name == "wgap10k_kernel":  # unbiased: below 0 for the very same rows
            assert values[0] <= 0
        else:
            assert values[0] == pytest.approx(best, abs=1e-8)
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=metric.higher_is_better) and len(set(known)) == len(known)


@of(*sorted(TRAINING))
def test_slower_and_less_steady_training_is_worse(metric):
    ticks = [Tick(kimg=4.0, seconds=40.0 * x, encoder_turns=500, spikes=float(x)) for x in (1, 2, 4)]
    values = [
        compute_metric(metric, ToyInputs(training=TrainingHistory(ticks=(tick,)))).value for tick in ticks
    ]
    assert values == sorted(values, reverse=metric.higher_is_better) and len(set(values)) == 3


@of(*sorted(set(IDENTITY) - BY_POSITION))
def test_value_does_not_depend_on_the_order_of_images(metric):
    gen, real = pair(metric, level=0.2)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    # Sums run in another order: rounding of float64, and of float32 products where KID and MIND use them.
    rounding = 1e-5 if metric.family in FLOAT32 else 1e-9
    assert compare(metric, gen[order], real.flip(0)) == pytest.approx(
        compare(metric, gen, real), rel=rounding, abs=rounding
    )


@of(*sorted(BY_POSITION & set(IDENTITY)))
def test_another_order_is_another_draw_of_the_same_quantity(metric):
    gen, real = pair(metric, level=0.2)
    value, again = compare(metric, gen, real), compare(metric, gen.flip(0), real)
    assert again != value and again == pytest.approx(value, rel=0.2)


@of(*sorted(set(JUDGES) - BY_POSITION))
def test_judgement_does_not_depend_on_the_order_of_images(metric):
    rows = judged(metric.needs[0], level=0.4)
    values = [compute_metric(metric, ToyInputs(lambda need, r=r: r)).value for r in (rows, rows.flip(0))]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


@of(*sorted(SYMMETRIC))
def test_symmetric_metrics_do_not_care_which_side_is_real(metric):
    gen, real = pair(metric, level=0.3)
    rounding = 1e-5 if metric.family in FLOAT32 else 1e-9
    assert compare(metric, gen, real) == pytest.approx(compare(metric, real, gen), rel=rounding)


@of(*sorted(NOT_SYMMETRIC))
def test_other_metrics_care_which_side_is_real(metric):
    gen, real = pair(metric, level=0.8 if metric.family in MEMORIES else 0.3)
    assert compare(metric, gen, real) != pytest.approx(compare(metric, real, gen), rel=1e-3)


@of("precision", "recall", "coverage")
def test_five_real_images_over_and_over_are_precise_and_neither_recall_nor_cover(metric):
    _, real = pair(metric)
    value = compare(metric, real[:5].repeat(20, 1), real)
    assert value == 1.0 if metric.family == "precision" else value < 0.2


@of(*IDENTITY)
def test_result_says_how_many_images_it_saw_and_is_finite(metric):
    gen, real = pair(metric, level=0.5)
    value = compute_metric(metric, ToyInputs(lambda need: real[:200] if need.side == "real" else gen[:100]))
    assert (value.n_generated, value.n_real) == (100, 200)
    assert torch.isfinite(torch.tensor(value.value))
    assert value.stderr is None or value.stderr >= 0


def test_values_are_equal_in_another_process():
    expected = _values()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_values) == expected


def _values():
    torch.set_num_threads(1)
    return {
        metric.name: compare(metric, *pair(metric, level=0.2))
        for f in sorted(IDENTITY)
        for metric in BY_FAMILY[f]
    }


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_protocol_is_json_that_names_needs_detectors_and_weights(metric):
    protocol = json.loads(json.dumps(metric.protocol))
    assert protocol["metric"] == metric.name and protocol["version"] == metric.version
    used = {need["detector"] for need in protocol["needs"]} | set(protocol["detectors"])
    assert used == set(protocol["detectors"]) == set(metric.detectors)
    for name, spec in protocol["detectors"].items():
        assert spec == get_detector(name).describe() | {}
        assert {"resize", "range", "layer", "dtype", "weights_sha256", "version"} <= set(spec)


# Names of the field and what they stand for; every other name ends with its detector.
PUBLISHED = {
    "fid50k_full": "inception_pool3",
    "fid50k_full_clean": "clean_inception",
    "sfid50k_full": "inception_spatial",
    "kid50k_full": "inception_pool3",
    "is50k": "inception_logits",
    "precision50k3_full": "vgg16_fc2",
    "recall50k3_full": "vgg16_fc2",
    "density50k5_full": "vgg16_fc2",
    "coverage50k5_full": "vgg16_fc2",
    "cmmd50k_full": "clip_vit_l14_336",
    "ppl_zfull": "lpips_vgg",
    "ppl_zend": "lpips_vgg",
    "ppl_wfull": "lpips_vgg",
    "ppl_wend": "lpips_vgg",
    "ppl2_wend": "lpips_vgg",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_name_is_the_whole_published_protocol(name):
    metric = get_spec(name)
    assert metric.detectors == (PUBLISHED[name],) and metric.weights
    assert metric.settings.get("samples", 50_000) == 50_000
    for need in metric.needs:
        assert (need.split, need.count) in ((None, 50_000), ("train", None))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_name_says_family_count_and_detector(metric):
    stem = metric.family
    counts = {need.count for need in metric.needs if need.side != "real"}
    assert metric.name.startswith(stem)
    for count in counts:
        assert metric.name.startswith(f"{stem}{count // 1000}k")
    for need in metric.needs:
        if need.side == "real":
            counted = need.split == "train" and need.count is not None
            assert ("_train" if counted else {"train": "_full", "test": "_test"}[need.split]) in metric.name
            short = need.detector == "spectrum" or metric.name in PUBLISHED
            assert short or metric.name.endswith(need.detector)
    assert metric.summary.endswith(".") and metric.citation and metric.reference


def test_needs_without_a_sensible_side_are_refused():
    for arguments in (
        {"side": "real"},
        {"side": "generated"},
        {"side": "generated", "split": "train", "count": 5},
        {"side": "reconstructed", "count": 5},
        {"side": "reconstructed", "split": "test"},
    ):
        with pytest.raises(ValueError):
            FeatureNeed("pixels", **arguments)


def test_digit_metrics_are_offered_for_digits_only():
    everywhere = set(list_metrics(()))
    for trait, needing in (
        ("digits", {"digits", "digits_probs"}),
        ("stacked digits", {"stacked_digits_probs"}),
    ):
        added = set(list_metrics({trait})) - everywhere
        assert added == {m.name for m in METRICS if needing & set(m.detectors)} and added


def test_every_detector_can_be_chosen_in_the_name_of_a_metric():
    fixed = {family.fixed_detector for family in registry.FAMILIES.values()}
    chosen = {name for family in registry.FAMILIES.values() for name in family.fitting_detectors()}
    assert set(list_detectors()) <= fixed | chosen


def test_what_is_at_hand_of_the_reals_changes_no_bit():
    gen, real = torch.randn(80, 12), 0.9 * torch.randn(100, 12) + 0.2
    known = compute_statistics(gen), compute_statistics(real)
    for reference in ("population", "sample"):
        expected = compute_fid_stderr(gen, real, reference=reference)
        assert compute_fid_stderr(gen, real, reference=reference, known=known) == expected
    for subsets in (0, 5):
        expected = compute_kid(gen, real, subsets=subsets, subset_size=20)
        found = compute_kid(gen, real, subsets=subsets, subset_size=20, sums_real=sum_over_reals(real))
        assert (found.value, found.stderr) == (expected.value, expected.stderr)
        assert torch.equal(found.subsets, expected.subsets)
    conventions = (IMPROVED, PRDC)
    radii = find_radii(real, ks=[balls.k for balls in conventions])
    expected = measure_overlap(gen, real, conventions=conventions)
    found = measure_overlap(gen, real, conventions=conventions, real_radii=radii)
    for a, b in zip(found, expected, strict=True):
        assert (a.precision, a.recall, a.density, a.coverage) == (
            b.precision,
            b.recall,
            b.density,
            b.coverage,
        )
