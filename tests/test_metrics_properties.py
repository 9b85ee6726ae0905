"""Properties of every public `compute_*` function of metrics/; one that no table names fails here.

A new function is one line in the table of its kind; what has no kind of its own says in ELSEWHERE which file
tests it. The registered protocols have theirs in test_metrics_common.py.
"""

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from metric_toys import MeanSquares, cloud

import fact_metrics.engines

INFINITY = float("inf")


@dataclass(frozen=True)
class SetPair:
    """compute(features_gen [M, D], features_real [N, D]) -> a number, or a result with a `value`.

    `equal`: where the value of equal sets lies. `scale`: p with compute(s x, s y) = s^p compute(x, y), or
    None without such a law. `by_position`: draws rows by position, so another order is another draw.
    """

    equal: tuple[float, float]
    symmetric: bool
    scale: int | None
    higher_is_better: bool
    options: dict = field(default_factory=dict)
    worse_are_copies: bool = False
    by_position: bool = False


@dataclass(frozen=True)
class OneSet:
    """compute(rows [N, D]) -> a number, or a result with a `value`; `best`: of ten even, sure classes."""

    best: float
    scale: int | None = None
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class PerRow:
    """compute(features_gen [M, D], features_real) -> [M], one number for each generated row."""

    scale: int
    real: Callable = lambda features: features


@dataclass(frozen=True)
class ImagePair:
    """compute(images_a, images_b), [N, C, H, W] -> [N], one number for each pair; all are symmetric."""

    equal: float
    higher_is_better: bool
    options: dict = field(default_factory=dict)


ZERO, ONE = (0.0, 0.0), (1.0, 1.0)

SET_PAIRS = {
    "frechet.compute_fid": SetPair(ZERO, symmetric=True, scale=2, higher_is_better=False),
    # Subsets of equal sets differ, and the line through them ends below the 0 of the whole.
    "fid_extrapolation.compute_fid_infinity": SetPair(
        (-INFINITY, 0.0), symmetric=False, scale=2, higher_is_better=False, by_position=True
    ),
    "fid_extrapolation.compute_fid_extrapolated": SetPair(
        (-INFINITY, 0.0), symmetric=False, scale=2, higher_is_better=False, by_position=True
    ),
    # Unbiased, so below 0 for equal rows; (x.y / D + 1)^3 is no power law.
    "kid.compute_kid": SetPair(
        (-INFINITY, 0.0), symmetric=True, scale=None, higher_is_better=False, options={"subsets": 0}
    ),
    "cmmd.compute_cmmd": SetPair(ZERO, symmetric=True, scale=0, higher_is_better=False),
    "mind.compute_mind": SetPair(
        ZERO, symmetric=True, scale=2, higher_is_better=False, options={"directions": 100}
    ),
    "precision_recall.compute_precision": SetPair(ONE, symmetric=False, scale=0, higher_is_better=True),
    "precision_recall.compute_recall": SetPair(ONE, symmetric=False, scale=0, higher_is_better=True),
    "density_coverage.compute_density": SetPair(ONE, symmetric=False, scale=0, higher_is_better=True),
    "density_coverage.compute_coverage": SetPair(ONE, symmetric=False, scale=0, higher_is_better=True),
    "diversity.compute_style_diversity": SetPair(ONE, symmetric=False, scale=0, higher_is_better=True),
    "memorization.compute_authpct": SetPair(
        ZERO, symmetric=False, scale=0, higher_is_better=True, worse_are_copies=True
    ),
    "memorization.compute_mifid": SetPair(
        ZERO, symmetric=False, scale=2, higher_is_better=False, worse_are_copies=True
    ),
}
ONE_SET = {
    "legibility.compute_legibility": OneSet(best=1.0),
    "legibility.compute_classes_covered": OneSet(best=10),
    "legibility.compute_class_entropy": OneSet(best=1.0),
    # Pairs of different classes are sqrt(2) apart: 90 of the 99 others.
    "diversity.compute_mean_distance": OneSet(best=2**0.5 * 90 / 99, scale=1),
    "vendi.compute_vendi_score": OneSet(best=10.0, scale=0),
    "inception_score.compute_inception_score": OneSet(best=10.0, options={"logits": False, "splits": 1}),
}
PER_ROW = {
    "realism.compute_realism": PerRow(scale=0),
    "fid_error.compute_fid_influence": PerRow(
        scale=2, real=lambda features: function("frechet.compute_statistics")(features)
    ),
}
IMAGE_PAIRS = {
    "pair_distances.compute_lpips": ImagePair(
        0.0, higher_is_better=False, options={"detector": MeanSquares()}
    ),
    "pair_distances.compute_mse": ImagePair(0.0, higher_is_better=False),
    "pair_distances.compute_psnr": ImagePair(INFINITY, higher_is_better=True),
    "pair_distances.compute_ssim": ImagePair(1.0, higher_is_better=True),
}
# The file with a test that fails when the function gives wrong values.
ELSEWHERE = {
    "attributes.compute_cout": "test_metrics_attributes.py",
    "consistency.compute_consistency_psnr": "test_metrics_consistency.py",
    "diversity.compute_group_distance": "test_metrics_diversity.py",
    "diversity.compute_noise_diversity": "test_metrics_diversity.py",
    "edited_images.compute_edits_fid": "test_edited_images.py",
    "edited_images.compute_latent_divergence": "test_edited_images.py",
    "edited_images.compute_split_fid": "test_edited_images.py",
    "explanation.compute_agreement": "test_metrics_explanation.py",
    "explanation.compute_class_kl": "test_metrics_explanation.py",
    "fid_pairs.compute_fid_pair_influence": "test_metrics_fid_error.py",
    "modes.compute_channels_legible": "test_metrics_modes.py",
    "modes.compute_mode_kl": "test_metrics_modes.py",
    "modes.compute_modes": "test_metrics_modes.py",
    "stability.compute_stability": "test_explain_stability.py",
    "w_gap.compute_w_gap_frechet": "test_metrics_explanation.py",
    "w_gap.compute_w_gap_kernel": "test_metrics_explanation.py",
    "density_coverage.compute_prdc": "test_metrics_density_coverage.py",
    "fid_error.compute_fid_difference": "test_metrics_fid_error.py",
    "fid_error.compute_fid_stderr": "test_metrics_fid_error.py",
    "frechet.compute_fid_from_statistics": "test_metrics_frechet.py",
    "frechet.compute_statistics": "test_metrics_frechet.py",
    "kid.compute_kid_difference": "test_metrics_kid.py",
    "kernel.compute_mmd": "test_metrics_kid.py",
    "kernel.compute_mmd_stderr": "test_metrics_kid.py",
    "path_length.compute_ppl": "test_metrics_path_length.py",
    "path_length.compute_step_distances": "test_metrics_path_length.py",
    "sharpness.compute_sharpness": "test_metrics_judges.py",
    "sharpness.compute_sharpness_stderr": "test_metrics_judges.py",
}
TABLES = {
    "SET_PAIRS": SET_PAIRS,
    "ONE_SET": ONE_SET,
    "PER_ROW": PER_ROW,
    "IMAGE_PAIRS": IMAGE_PAIRS,
    "ELSEWHERE": ELSEWHERE,
}
MODULES = {
    module.name: importlib.import_module(f"{package.__name__}.{module.name}")
    for package in (fact_metrics.engines,)
    for module in pkgutil.iter_modules(package.__path__)
}
BLOCK_SIZES = {"BLOCK", "ROWS", "COLUMNS", "CHUNK", "BATCH", "PART"}
M, N, WIDTH = 130, 120, 12


def public_functions():
    """Names of all `compute_*` functions, where they are defined."""
    return {
        f"{name}.{found}"
        for name, module in MODULES.items()
        for found, value in vars(module).items()
        if found.startswith("compute_") and inspect.isfunction(value) and value.__module__ == module.__name__
    }


def function(name):
    module, attribute = name.split(".")
    return getattr(MODULES[module], attribute)


def every(table):
    return pytest.mark.parametrize("name", table)


def value(name, *sets):
    """The number a function of SET_PAIRS or ONE_SET gives."""
    properties = SET_PAIRS.get(name) or ONE_SET[name]
    result = function(name)(*sets, **properties.options)
    return getattr(result, "value", result)


def feature_sets(name="", *, level=0.0):
    """Generated [M, D] and real [N, D] float64 features; `level` in [0, 1] makes the generated ones worse."""
    gen, real = (cloud(n, WIDTH, seed=seed).double() + 2 for n, seed in ((M, 1), (N, 2)))
    if name in SET_PAIRS and SET_PAIRS[name].worse_are_copies:
        copies = int(level * M)
        gen[:copies] = real[:10].repeat(M // 10, 1)[:copies] + 1e-4
        return gen, real
    # Worse: away from the reals (precision, FID) and closer together (recall).
    return (gen - 2) * (1 - 0.5 * level) + 2 + 2 * level, real


def class_rows(*, level=0.0):
    """Class probabilities [100, 10]; `level` takes classes away and makes images unsure."""
    classes = torch.arange(100) % max(round(10 * (1 - level)), 1)
    sure = torch.arange(100) >= 100 * level
    rows = torch.full((100, 10), 0.1, dtype=torch.float64)
    rows[sure] = torch.nn.functional.one_hot(classes[sure], 10).double()
    return rows[torch.randperm(100, generator=torch.Generator().manual_seed(0))]


def images(n=5, *, noise=0.2):
    """Pairs of float32 pictures [n, 3, 32, 32] in [-1, 1], the second ones noisy."""
    rng = torch.Generator().manual_seed(0)
    a = torch.rand(n, 3, 32, 32, generator=rng) * 1.6 - 0.8
    return a, (a + noise * torch.randn(a.shape, generator=rng)).clamp(-1, 1)


@pytest.fixture
def small_blocks(monkeypatch):
    """Every constant that says how much is done at once, of every module: blocks that divide no set."""
    changed = []
    for module in MODULES.values():
        for constant in BLOCK_SIZES & vars(module).keys():
            monkeypatch.setattr(module, constant, 37)
            changed.append(constant)
    assert len(changed) > 5


def test_every_public_function_is_in_a_property_table():
    known = {name for table in TABLES.values() for name in table}
    new, gone = sorted(public_functions() - known), sorted(known - public_functions())
    assert not new, (
        f"{', '.join(new)}: in no table of {Path(__file__).name}. Add a line to SET_PAIRS (two feature sets "
        "to a number), ONE_SET, PER_ROW (a number per generated image) or IMAGE_PAIRS, which test it; "
        "to ELSEWHERE only what is none of these, with the file that tests it"
    )
    assert not gone, f"{', '.join(gone)}: named in {Path(__file__).name} and not in metrics/"
    assert sum(len(table) for table in TABLES.values()) == len(known), "a function stands in two tables"


def test_wrong_values_of_what_is_tested_elsewhere_fail_there(tmp_path):
    """Each function of ELSEWHERE in turn returns other numbers; a test of its file must fail."""
    here, out = Path(__file__).parent, tmp_path / "failed.json"
    names = {
        f"{function(name).__module__}.{function(name).__name__}": file for name, file in ELSEWHERE.items()
    }
    options = ["-p", "wrong_values", "-p", "no:cacheprovider", f"--report-wrong={out}"]
    options += [f"--wrong={name}={file}" for name, file in names.items()]
    files = [str(here / file) for file in sorted(set(names.values()))]
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
    )
    failed = json.loads(out.read_text())
    assert failed.keys() == names.keys()
    assert [name for name in names if failed[name] is None] == []


@every(SET_PAIRS)
def test_equal_sets_have_the_identity_value(name):
    gen, _ = feature_sets()
    low, high = SET_PAIRS[name].equal
    assert low - 1e-9 <= value(name, gen, gen) <= high + 1e-9


@every(SET_PAIRS)
def test_worse_images_have_worse_values(name):
    values = [value(name, *feature_sets(name, level=level)) for level in (0.0, 0.4, 0.8)]
    assert values == sorted(values, reverse=SET_PAIRS[name].higher_is_better)
    assert values[0] != values[1] != values[2]


@every(SET_PAIRS)
def test_symmetric_ones_do_not_care_which_set_is_real_and_others_do(name):
    gen, real = feature_sets(name, level=0.5)
    there, back = value(name, gen, real), value(name, real, gen)
    if SET_PAIRS[name].symmetric:
        assert there == pytest.approx(back, rel=1e-9)
    else:
        assert there != pytest.approx(back, rel=1e-3)


@every([name for name, properties in SET_PAIRS.items() if not properties.by_position])
def test_the_order_of_rows_does_not_matter(name):
    gen, real = feature_sets(name, level=0.3)
    order = torch.randperm(M, generator=torch.Generator().manual_seed(0))
    # Sums run in another order: float64 rounding times the size of what cancels.
    assert value(name, gen[order], real.flip(0)) == pytest.approx(value(name, gen, real), rel=1e-9, abs=1e-9)


@every([name for name, properties in SET_PAIRS.items() if properties.by_position])
def test_what_draws_by_position_says_so_and_is_the_same_again(name):
    gen, real = feature_sets(level=0.3)
    assert value(name, gen, real) == value(name, gen, real)
    assert value(name, gen.flip(0), real) != value(name, gen, real)
    # Another draw, not another quantity.
    assert value(name, gen.flip(0), real) == pytest.approx(value(name, gen, real), rel=0.2)


@every([name for name, properties in SET_PAIRS.items() if properties.scale is not None])
@pytest.mark.parametrize("factor", [0.125, 3.0])
def test_scaling_all_features_has_the_stated_power(name, factor):
    gen, real = feature_sets(name, level=0.3)
    expected = value(name, gen, real) * factor ** SET_PAIRS[name].scale
    # A factor of 3 rounds every feature anew.
    assert value(name, factor * gen, factor * real) == pytest.approx(expected, rel=1e-9)


@every([name for name, properties in SET_PAIRS.items() if properties.scale is None])
def test_where_no_power_is_stated_there_is_none(name):
    gen, real = feature_sets(level=0.3)
    one, two, four = (value(name, factor * gen, factor * real) for factor in (1, 2, 4))
    assert two / one != pytest.approx(four / two, rel=1e-3)


@every(SET_PAIRS)
def test_the_size_of_blocks_does_not_matter(name, request):
    gen, real = feature_sets(name, level=0.3)
    expected = value(name, gen, real)
    request.getfixturevalue("small_blocks")
    assert value(name, gen, real) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@every(SET_PAIRS)
def test_other_widths_and_values_that_are_no_numbers_are_refused(name):
    gen, real = feature_sets()
    with pytest.raises(ValueError, match=r"wid|detector"):
        value(name, gen, real[:, 1:])
    for spoilt in ((gen * torch.nan, real), (gen, real.index_fill(0, torch.tensor(3), torch.inf))):
        with pytest.raises(ValueError, match="not finite"):
            value(name, *spoilt)


@every(ONE_SET)
def test_ten_even_and_sure_classes_are_the_best_and_fewer_are_worse(name):
    values = [value(name, class_rows(level=level)) for level in (0.0, 0.4, 0.9)]
    assert values[0] == pytest.approx(ONE_SET[name].best, rel=1e-12)
    assert values == sorted(values, reverse=True) and values[0] > values[2]


@every(ONE_SET)
def test_one_set_has_neither_order_nor_blocks(name, request):
    rows = class_rows(level=0.3)
    expected = value(name, rows)
    assert value(name, rows.flip(0)) == pytest.approx(expected, rel=1e-9)
    request.getfixturevalue("small_blocks")
    assert value(name, rows) == pytest.approx(expected, rel=1e-9)


@every([name for name, properties in ONE_SET.items() if properties.scale is not None])
def test_scaling_one_set_has_the_stated_power(name):
    rows = class_rows(level=0.3)
    assert value(name, 3 * rows) == pytest.approx(value(name, rows) * 3 ** ONE_SET[name].scale, rel=1e-9)


def row_values(name, gen, real):
    return function(name)(gen, PER_ROW[name].real(real))


@every(PER_ROW)
def test_a_number_per_row_goes_with_its_row_whatever_the_blocks(name, request):
    gen, real = feature_sets(level=0.3)
    expected = row_values(name, gen, real)
    assert expected.shape == (M,) and expected.dtype == torch.float64 and expected.isfinite().all()
    order = torch.randperm(M, generator=torch.Generator().manual_seed(0))
    # Differences of distances near 1 in float64, summed in another order.
    close = {"rtol": 1e-8, "atol": 1e-10}
    torch.testing.assert_close(row_values(name, gen[order], real.flip(0)), expected[order], **close)
    request.getfixturevalue("small_blocks")
    torch.testing.assert_close(row_values(name, gen, real), expected, **close)


@every(PER_ROW)
def test_scaling_all_features_has_the_stated_power_in_every_row(name):
    gen, real = feature_sets(level=0.3)
    expected = row_values(name, gen, real) * 4.0 ** PER_ROW[name].scale
    torch.testing.assert_close(row_values(name, 4 * gen, 4 * real), expected, rtol=1e-8, atol=1e-10)


def pair_values(name, a, b):
    return function(name)(a, b, **IMAGE_PAIRS[name].options)


@every(IMAGE_PAIRS)
def test_equal_images_have_the_identity_value_and_noise_is_worse(name):
    a, _ = images()
    assert (pair_values(name, a, a) == IMAGE_PAIRS[name].equal).all()
    means = [pair_values(name, *images(noise=noise)).mean() for noise in (0.05, 0.2, 0.5)]
    assert means == sorted(means, reverse=IMAGE_PAIRS[name].higher_is_better)
    assert means[0] != means[1] != means[2]


@every(IMAGE_PAIRS)
def test_a_pair_has_its_value_whatever_its_place_its_batch_and_which_comes_first(name, request):
    a, b = images()
    expected = pair_values(name, a, b)
    assert expected.shape == (5,)
    # LPIPS is float32; a batch of another size may add up in another order.
    close = {"rtol": 1e-6, "atol": 0}
    torch.testing.assert_close(pair_values(name, b, a), expected, **close)
    torch.testing.assert_close(pair_values(name, a.flip(0), b.flip(0)).flip(0), expected, **close)
    singly = torch.cat([pair_values(name, a[i : i + 1], b[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(singly, expected, **close)
    request.getfixturevalue("small_blocks")
    torch.testing.assert_close(pair_values(name, a, b), expected, **close)
