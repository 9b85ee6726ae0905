"""PPL against a plain rewrite of its definition, its parts in closed form, and what it refuses."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_toys import MeanSquares, ToyGenerator, ToyInputs

from benchmarks.parity.images import SquaredDifferences, WavesGenerator, plain_ppl
from fact_metrics.engines import path_length
from fact_metrics.engines.path_length import (
    PATHS,
    LatentPath,
    bootstrap_ppl,
    compute_ppl,
    compute_step_distances,
    measure_path,
    slerp,
)
from fact_metrics.registry import compute_metric, get_spec, list_metrics

PPLS = [get_spec(name) for name in list_metrics() if name.startswith("ppl")]
EVERY_PATH = PATHS | {
    "zfull, whole": LatentPath("z", "full", crop=False),
    "zend, whole": LatentPath("z", "end", crop=False),
    "wfull, whole": LatentPath("w", "full", crop=False),
}


class LineGenerator(ToyGenerator):
    """Paths from 0 to 1 in every dimension: a latent is its own position."""

    def __init__(self):
        super().__init__()
        self.ws = []

    def latents(self, indices, *, stream="image"):
        if stream == "path position":
            return super().latents(indices, stream=stream).double()
        return torch.full((len(indices), 4), {"image": 0.0, "path end": 1.0}[stream], dtype=torch.float64)

    def synthesis(self, ws, noise, **options):
        self.ws.append(ws)
        return super().synthesis(ws, noise, **options)


@pytest.mark.parametrize("name", EVERY_PATH)
def test_ppl_equals_a_plain_rewrite_of_the_definition(name):
    generator, detector, path = WavesGenerator(64), SquaredDifferences(), EVERY_PATH[name]
    found = compute_ppl(measure_path(generator, detector, path, pairs=range(120)))
    # In float64, where a step of 1e-4 squared leaves 1e-16 / 1e-8 of rounding.
    assert found == pytest.approx(plain_ppl(generator, detector, path, samples=120), rel=1e-7)


def test_the_paths_give_different_numbers():
    generator, detector = WavesGenerator(64), SquaredDifferences()
    values = {compute_ppl(measure_path(generator, detector, p, pairs=range(50))) for p in EVERY_PATH.values()}
    assert len(values) == len(EVERY_PATH)


def test_ppl_of_a_linear_generator_is_the_mean_squared_image_of_its_direction():
    generator = ToyGenerator(steepness=0.5)
    distances = measure_path(generator, MeanSquares(), pairs=range(60))
    starts, ends = generator.latents(range(60)), generator.latents(range(60), stream="end")
    other = ToyGenerator(steepness=0.5)
    expected = MeanSquares().distance(
        *(other.synthesis(other.mapping(z, None), [torch.zeros(60, 1, 32, 32)]) for z in (starts, ends))
    )
    # The step is 1e-4 of images near 1 in float32: each difference carries 1e-7 / 1e-4 of rounding.
    torch.testing.assert_close(distances, expected, rtol=1e-2, atol=1e-4)


def test_ppl_grows_with_the_square_of_the_slope():
    flat, steep = (
        measure_path(ToyGenerator(steepness=s), MeanSquares(), pairs=range(60)) for s in (0.2, 0.4)
    )
    assert compute_ppl(steep) / compute_ppl(flat) == pytest.approx(4, rel=1e-2)


def test_steps_start_at_the_end_of_the_path_or_uniformly_along_it():
    for sampling in ("end", "full"):
        generator = LineGenerator()
        measure_path(generator, MeanSquares(), LatentPath("w", sampling, crop=False), pairs=range(500))
        pairs = [ws[:, 0, 0].chunk(2) for ws in generator.ws]
        starts, ends = (torch.cat(side) for side in zip(*pairs, strict=True))
        torch.testing.assert_close(ends - starts, torch.full_like(starts, 1e-4), rtol=1e-9, atol=0)
        if sampling == "end":
            assert (starts == 0).all()
            continue
        # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed by one uniform sample in a thousand.
        steps = torch.arange(1, 501, dtype=torch.float64) / 500
        assert (starts.sort().values - steps).abs().max() < 1.95 / 500**0.5
        assert 0 < starts.min() and starts.max() < 1


def test_slerp_goes_from_start_to_end_at_constant_speed_on_the_sphere_whatever_the_lengths():
    a, b = (torch.from_numpy(np.random.default_rng(i).normal(size=(20, 64))) for i in (1, 2))
    radius = 64**0.5
    for t, goal in ((0.0, a), (1.0, b)):
        found = slerp(a, b, torch.full((20,), t))
        torch.testing.assert_close(found, goal / goal.norm(dim=1, keepdim=True) * radius)
    ts = torch.linspace(0, 1, 9, dtype=torch.float64)
    points = torch.stack([slerp(a, b, t.expand(20)) for t in ts])
    torch.testing.assert_close(points.norm(dim=2), torch.full((9, 20), radius, dtype=torch.float64))
    chords = (points[1:] - points[:-1]).norm(dim=2)
    torch.testing.assert_close(chords, chords[:1].expand_as(chords))
    torch.testing.assert_close(slerp(3 * a, 0.1 * b, ts[3].expand(20)), points[3])
    assert slerp(a.float(), b.float(), ts[3].expand(20)).dtype == torch.float32


def test_slerp_of_a_tiny_step_keeps_its_angle():
    a, b = (torch.from_numpy(np.random.default_rng(i).normal(size=(5, 512))) for i in (1, 2))
    angle = torch.nn.functional.cosine_similarity(a, b).arccos()
    start, end = (slerp(a, b, torch.full((5,), t, dtype=torch.float64)) for t in (0.3, 0.3 + 1e-4))
    torch.testing.assert_close((end - start).norm(dim=1) / 512**0.5, 1e-4 * angle, rtol=1e-8, atol=0)


def test_both_images_of_a_pair_get_the_same_noise_and_every_pair_its_own():
    generator = ToyGenerator()
    measure_path(generator, MeanSquares(), pairs=range(30))
    for noise in generator.noises:
        start, end = noise.chunk(2)
        assert torch.equal(start, end)
        assert len(start.flatten(1).unique(dim=0)) == len(start)


@pytest.mark.parametrize("name", ["ppl_zfull", "ppl2_wend"])
def test_values_do_not_depend_on_the_batch(name, monkeypatch):
    generator, detector = WavesGenerator(64), SquaredDifferences()
    whole = measure_path(generator, detector, PATHS[name], pairs=range(30))
    monkeypatch.setattr("fact_metrics.engines.path_length.BATCH", 7)
    parts = measure_path(generator, detector, PATHS[name], pairs=range(30))
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=0)


def test_trimming_equals_numpy_percentiles_lower_and_higher_by_todays_keyword():
    distances = torch.rand(437, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4
    values = distances.numpy()
    low, high = np.percentile(values, 1, method="lower"), np.percentile(values, 99, method="higher")
    assert compute_ppl(distances) == pytest.approx(
        values[(values >= low) & (values <= high)].mean(), rel=1e-14
    )


def test_one_wild_pair_in_a_thousand_does_not_move_ppl():
    distances = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    wild = distances.clone()
    wild[distances.argmax()] = 1e9
    assert compute_ppl(wild) == compute_ppl(distances)


def test_bootstrap_interval_covers_the_value_and_narrows_with_the_sample():
    distances = torch.rand(4000, generator=torch.Generator().manual_seed(2))
    few, many = (bootstrap_ppl(distances[:n], seed=0, resamples=200) for n in (100, 4000))
    for sample, (stderr, low, high) in ((distances[:100], few), (distances, many)):
        assert low < compute_ppl(sample) < high
        # Trimming a fiftieth of a uniform sample leaves the error of its mean, sd / sqrt(n), within a fifth.
        assert stderr == pytest.approx(sample.std().item() / len(sample) ** 0.5, rel=0.2)
    assert many == bootstrap_ppl(distances, seed=0, resamples=200)
    assert many != bootstrap_ppl(distances, seed=1, resamples=200)


def test_uint8_images_at_a_small_step_are_refused_by_both_names():
    images = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"uint8 images at epsilon 0\.0001 .* at least 0\.01"):
        compute_step_distances(images, images, MeanSquares())


def test_quantised_images_measure_rounding_at_a_small_step_and_the_path_at_a_large_one():
    """What the refusal prevents: torch-fidelity's documentation has 1147 from uint8 and 31 from floats."""
    generator = WavesGenerator(64)
    ws = generator.mapping(generator.latents(range(20)), None)
    goals = generator.mapping(generator.latents(range(20), stream="path end"), None)
    ratios = {}
    for epsilon in (1e-4, 1e-1):
        pair = [generator.synthesis(w, generator.noise(range(20))) for w in (ws, ws.lerp(goals, epsilon))]
        levels = [((image.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1 for image in pair]
        quantised, true = (
            compute_step_distances(*images, SquaredDifferences(), epsilon=epsilon).mean().item()
            for images in (levels, pair)
        )
        ratios[epsilon] = quantised / true
    assert ratios[1e-4] > 5
    assert ratios[1e-1] == pytest.approx(1, abs=0.01)  # a step of some grey levels


def test_uint8_images_at_a_large_step_pass_in_their_own_range():
    black, white = torch.zeros(1, 1, 32, 32, dtype=torch.uint8), torch.full((1, 1, 32, 32), 255).byte()
    distance = compute_step_distances(black, white, MeanSquares(), epsilon=0.01)
    assert distance.item() == pytest.approx(2**2 / 0.01**2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32])
def test_images_of_less_than_float32_are_refused(dtype):
    images = torch.zeros(2, 1, 32, 32, dtype=dtype)
    with pytest.raises(ValueError, match=f"float32 images, got {dtype}"):
        compute_step_distances(images, images, MeanSquares())


def test_autocast_and_tf32_around_it_do_not_reach_the_generator():
    class Products(ToyGenerator):
        tf32 = []  # noqa: RUF012

        def synthesis(self, ws, noise, **options):
            self.tf32.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
            images = (ws[:, 0] @ torch.eye(4)).reshape(-1, 1, 2, 2)
            assert images.dtype == torch.float32
            return images

    plain = measure_path(Products(), MeanSquares(), pairs=range(5))
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(measure_path(Products(), MeanSquares(), pairs=range(5)), plain)
        assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    assert set(Products.tf32) == {(False, False)}


def test_the_crop_keeps_rows_3_to_7_and_columns_2_to_6_of_8():
    for row, column, kept in (
        (24, 16, True), (55, 47, True), (23, 16, False), (56, 47, False), (24, 15, False), (55, 48, False),
    ):  # fmt: skip
        image = torch.zeros(1, 1, 64, 64)
        image[..., row, column] = 1
        distance = compute_step_distances(
            image, torch.zeros_like(image), MeanSquares(), epsilon=1.0, crop=True
        )
        # Of 64 x 64 pixels a quarter is left.
        assert distance.item() == (pytest.approx(4 / 64**2) if kept else 0)


def test_images_above_256_pixels_are_averaged_down_after_the_crop():
    class Sizes(MeanSquares):
        seen = []  # noqa: RUF012

        def distance(self, a, b):
            self.seen.append(tuple(a.shape[-2:]))
            return super().distance(a, b)

    image = torch.rand(1, 1, 512, 512, generator=torch.Generator().manual_seed(0))
    blocks = image.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    found = compute_step_distances(image, torch.zeros_like(image), Sizes(), epsilon=1.0)
    assert found.item() == pytest.approx(blocks.square().mean().item(), rel=1e-5)
    face = image[..., 192:448, 128:384]
    found = compute_step_distances(image, torch.zeros_like(image), Sizes(), epsilon=1.0, crop=True)
    assert found.item() == pytest.approx(face.square().mean().item(), rel=1e-5)
    assert Sizes.seen == [(256, 256), (256, 256)]


def test_ppl_of_nothing_and_of_what_is_not_finite_is_refused():
    for distances in (torch.zeros(0), torch.tensor([1.0, math.nan]), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="finite distances"):
            compute_ppl(distances)


def test_progress_is_reported_up_to_the_last_pair():
    generator = ToyGenerator()
    measure_path(generator, MeanSquares(), pairs=range(30))
    assert generator.reported == [(25, 30), (30, 30)]


@pytest.mark.parametrize("metric", PPLS, ids=lambda metric: metric.name)
def test_a_protocol_measures_what_it_states(metric, monkeypatch):
    measured = {"samples": 0}

    def measure(generator, detector, path, *, pairs):
        assert pairs.start == measured["samples"] and len(pairs) % path_length.BATCH == 0  # whole batches
        measured.update(path=path, samples=pairs.stop, detector=detector.name)
        return torch.rand(len(pairs), generator=torch.Generator().manual_seed(pairs.start))

    monkeypatch.setattr(path_length, "measure_path", measure)
    generator = ToyGenerator()
    generator.resolution = 64
    value = compute_metric(metric, ToyInputs(generator=generator))
    settings = {**measured["path"].settings(), "samples": measured["samples"]}
    assert settings.items() <= metric.settings.items()
    assert metric.detectors == (measured["detector"],)
    path = measured["path"]
    if metric.name in PATHS:
        assert (path, measured["samples"], measured["detector"]) == (PATHS[metric.name], 50_000, "lpips_vgg")
    else:
        assert metric.name.endswith(measured["detector"])
        count, _, name = metric.name.removeprefix("ppl").partition("_")
        assert value.n_generated == measured["samples"] == int(count.removesuffix("k")) * 1000
        assert name.startswith(
            f"{path.space}{path.sampling}_crop" if path.crop else f"{path.space}{path.sampling}_stl"
        )
    assert value.ci["low"] < value.value < value.ci["high"] and value.stderr > 0


def test_every_published_protocol_is_registered_under_its_name_and_at_its_size():
    assert set(PATHS) <= {metric.name for metric in PPLS}
    registered = {(m.settings["space"], m.settings["sampling"], m.settings["crop"]): 0 for m in PPLS}
    for metric in PPLS:
        key = metric.settings["space"], metric.settings["sampling"], metric.settings["crop"]
        registered[key] = max(registered[key], metric.settings["samples"])
    for path in PATHS.values():
        assert registered[tuple(path.settings().values())] == 50_000


def test_a_crop_too_small_for_lpips_has_no_value_and_says_why():
    metric = get_spec("ppl2k_zfull_crop_stlpips_vgg")
    value = compute_metric(metric, ToyInputs(generator=ToyGenerator()))
    assert value.value is None
    assert value.extras["undefined"] == "16 pixels are left of 32: too few for stlpips_vgg"


def test_protocols_of_published_numbers_are_what_they_were():
    """Records are ranked by the hash of this; what it says must not drift while the number stays."""
    results = Path(__file__).parent.parent / "leaderboard" / "results"
    published = [json.loads(line) for path in results.glob("*.jsonl") for line in path.open()]
    protocols = [
        r["protocol"] for r in published if r["metric"] == "ppl2k_wend_stlpips_vgg" and r["protocol"]
    ]
    assert protocols
    for protocol in protocols:
        assert protocol["settings"] == get_spec("ppl2k_wend_stlpips_vgg").settings
