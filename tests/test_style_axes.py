"""Style axes in the generator, the trainer and the evaluation: shapes, sampling, refusals, short runs."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from eval_toys import make_data, make_run

from fact_eval.images.sources import GeneratorSource
from fact_metrics.base.errors import UsageError
from fact_metrics.engines.path_length import PATHS, slerp
from fact_train.data import open_dataset
from fact_train.networks.generator import Generator
from fact_train.networks.injection import StyleOptions
from fact_train.networks.mapping import Mapping
from fact_train.settings.config import TrainConfig
from fact_train.settings.presets import PRESETS, get_preset
from fact_train.snapshot import load_snapshot
from fact_train.training import losses
from fact_train.training.step import Phase
from fact_train.training.trainer import Trainer

CPU = torch.device("cpu")
SMALL = dict(
    z_dim=8, w_dim=8, c_dim=0, img_resolution=16, img_channels=3, map_depth=2, channel_base=128, channel_max=8
)


def generator(injection="vectors", *, vectors=4, **options) -> Generator:
    torch.manual_seed(0)
    style = StyleOptions(style_vectors=vectors)
    return Generator(**{**SMALL, **options}, injection=injection, style=style).eval()


@pytest.mark.parametrize(("space", "rows"), [("w", 4), ("w_plus", 4 * 6)])
def test_latents_have_k_rows_and_w_plus_has_them_for_every_layer(space: str, rows: int) -> None:
    G = generator(latent_space=space)
    assert G.num_ws == 6 and G.z_shape == (rows, 8)
    z = torch.randn(2, *G.z_shape)
    ws = G.mapping(z)
    assert ws.shape == (2, 6 * 4, 8)
    assert G(z).shape == (2, 3, 16, 16)
    blocks = ws.reshape(2, 6, 4, 8)
    repeated = all(torch.equal(blocks[:, 0], blocks[:, i]) for i in range(6))
    assert repeated == (space == "w")
    with pytest.raises(ValueError, match="not of shape"):
        G.mapping(torch.randn(2, 8))
    one = generator("modconv", vectors=1, latent_space=space)
    assert one.z_shape == ((8,) if space == "w" else (6, 8))
    assert one(torch.randn(2, *one.z_shape)).shape == (2, 3, 16, 16)


def test_every_row_goes_through_the_one_mapping() -> None:
    torch.manual_seed(0)
    shape = dict(z_dim=6, c_dim=3, w_dim=5, num_ws=4, depth=2)
    one, several = Mapping(**shape), Mapping(**shape, vectors=3)
    several.load_state_dict(one.state_dict())
    for mapping in (one, several):
        mapping.w_avg.fill_(0.3)
    z, c = torch.randn(2, 3, 6), torch.eye(3)[:2]
    ws = several(z, c, 0.7).reshape(2, 4, 3, 5)
    for row in range(3):
        torch.testing.assert_close(ws[:, :, row], one(z[:, row], c, 0.7))
    torch.testing.assert_close(several.mean_w(several(z, c)), several(z, c)[:, :3].mean(dim=(0, 1)))


@pytest.mark.parametrize(
    ("setting", "styled"),
    [("all", [4, 8, 16]), ("final", [16]), ("none", []), ("first", [4, 8, 16])],
)
def test_torgb_takes_the_style_where_it_is_told_to(setting: str, styled: list[int]) -> None:
    G = generator(torgb_style=setting)
    blocks = {res: getattr(G.synthesis, f"b{res}") for res in (4, 8, 16)}
    assert [res for res, block in blocks.items() if hasattr(block.torgb, "inject")] == styled
    ws = G.mapping(torch.randn(2, *G.z_shape)).reshape(2, 6, 4, 8)
    base = G.synthesis(ws.flatten(1, 2), noise_mode="const")
    rows = []
    for row in range(4):  # the last layer's style is the last ToRGB's alone
        other = ws.clone()
        other[:, -1, row] += 1
        changed = G.synthesis(other.flatten(1, 2), noise_mode="const")
        rows.append(bool((changed - base).abs().max() > 1e-4))
    # 3 image channels take rows 0, 1 and 2 of 4
    assert rows == {"none": [False] * 4, "first": [True, False, False, False]}.get(
        setting, [True] * 3 + [False]
    )


def test_plain_torgb_starts_with_unit_gain() -> None:
    torch.manual_seed(0)
    G = Generator(**{**SMALL, "channel_base": 4096, "channel_max": 256}, torgb_style="none")
    x = torch.randn(4, 256, 16, 16)
    assert G.synthesis.b16.torgb(x, None, fused=False).std().item() == pytest.approx(1.0, abs=0.2)


def test_noise_strength_starts_where_told_and_stays_where_not_learned() -> None:
    learned = Generator(**SMALL, noise_strength_init=0.3)
    fixed = Generator(**SMALL, noise_strength_init=0.3, noise_learned=False)
    for G in (learned, fixed):
        assert [float(layer.noise_strength) for layer in G.synthesis.layers] == pytest.approx([0.3] * 5)
    names = [name for name, _ in fixed.named_parameters() if "noise" in name]
    assert names == [] and any("noise_strength" in name for name, _ in learned.named_parameters())


def trainer_of(cfg: TrainConfig, **changes) -> Trainer:
    cfg = dataclasses.replace(cfg, **changes)
    return Trainer(cfg, open_dataset(cfg.data), CPU)


def test_a_frozen_mapping_stays_as_drawn_and_a_trained_one_does_not(tiny_config: TrainConfig) -> None:
    for train_mapping in (True, False):
        t = trainer_of(tiny_config, train_mapping=train_mapping)
        mapping = t.model.gan.G.mapping
        before = mapping.fc0.weight.clone()
        for _ in range(2):
            t.step()
        assert torch.equal(mapping.fc0.weight, before) != train_mapping
        assert float(mapping.w_avg.abs().max()) > 0


def test_r1_auto_takes_the_batch_of_the_heuristic_and_not_the_runs(tiny_config: TrainConfig) -> None:
    """8 pixels, batch 8 and 4: StyleGAN2-ADA's batch on one GPU is 32."""
    a, b = (trainer_of(tiny_config, r1_gamma="auto", batch=n) for n in (8, 4))
    gammas = a.model.gan.r1_gamma, b.model.gan.r1_gamma
    assert gammas == pytest.approx((0.0002 * 64 / 32, 0.0002 * 64 / 32))
    assert "warning" in a.model.notes[0] and trainer_of(tiny_config).model.notes == ()
    a.step()
    assert math.isfinite(a.stats.collect()["Loss/r1_penalty"]["mean"])


@pytest.mark.parametrize("fused", ["never", "always"])
@pytest.mark.parametrize(
    "style",
    [{}, {"injection": "vectors", "style_vectors": 4}, {"injection": "matrix", "style_vectors": 8}],
    ids=["modconv", "vectors", "matrix"],
)
def test_path_length_reaches_every_weight_in_both_orders(tiny_config, style: dict, fused: str) -> None:
    """Weights are never held fixed in this phase: fused or several-vector layers would lose their styles."""
    t = trainer_of(tiny_config, fused_modconv=fused, **style)
    G = t.model.gan.G
    t.take(t.inputs(), Phase("PL", torch.optim.SGD(G.parameters(), lr=0.0), t.model.gan.path_length_loss))
    for name, p in G.named_parameters():
        last = name in ("synthesis.b8.torgb.bias", "synthesis.b4.torgb.bias")
        noise = "noise_strength" in name
        if not last and not noise:
            assert p.grad is not None and float(p.grad.abs().max()) > 0, name


def test_path_length_gradients_do_not_depend_on_the_order(tiny_config: TrainConfig) -> None:
    grads = []
    for fused in ("never", "always"):
        t = trainer_of(tiny_config, fused_modconv=fused, injection="vectors", style_vectors=4)
        gan = t.model.gan
        optimiser = torch.optim.SGD(gan.G.parameters(), lr=0.0)
        t.take(t.inputs(), Phase("PL", optimiser, gan.path_length_loss))
        grads.append(torch.cat([p.grad.flatten() for p in gan.G.parameters() if p.grad is not None]))
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4 * float(grads[0].abs().max()))  # float32


def test_path_length_of_the_trainer_is_multiplied_by_k_to_the_power(tiny_config: TrainConfig) -> None:
    seen = []
    for power in (0.0, 0.5, 1.0):
        t = trainer_of(tiny_config, injection="vectors", style_vectors=4, pl_power=power)
        t.step(regularise=True)
        seen.append(t.stats.collect()["Path_length"]["mean"])
    assert seen[1] == pytest.approx(2 * seen[0], rel=1e-4) and seen[2] == pytest.approx(4 * seen[0], rel=1e-4)


@pytest.mark.parametrize("phase", ["R1", "PL"])
def test_a_lazy_regulariser_is_its_interval_times_as_strong(tiny_config: TrainConfig, phase: str) -> None:
    grads = []
    for interval in (1, 16):
        t = trainer_of(tiny_config, r1_interval=interval, pl_interval=interval)
        gan = t.model.gan
        net, loss = {"R1": (gan.D, gan.r1_loss), "PL": (gan.G, gan.path_length_loss)}[phase]
        t.take(t.inputs(), Phase(phase, torch.optim.SGD(net.parameters(), lr=0.0), loss))
        grads.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    torch.testing.assert_close(16 * grads[0], grads[1], rtol=1e-4, atol=1e-4 * float(grads[1].abs().max()))


# Evaluation


def test_evaluation_draws_latents_of_the_generators_shape_one_seed_an_image(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    run = make_run(tmp_path, data, injection="vectors", style_vectors=4)
    source = GeneratorSource(load_snapshot(run / "network-snapshot-000004.safetensors"), seed=0)
    z = source.latents(range(5))
    assert z.shape == (5, 4, 8)
    assert torch.equal(z[3:4], source.latents([3]))
    assert torch.equal(z[2], torch.randn(4, 8, generator=torch.Generator().manual_seed(2)))
    assert source.mapping(z, None).shape == (5, 4 * source.num_ws, 8)
    assert source.images(range(5)).shape == (5, 1, 8, 8)


@pytest.mark.parametrize("name", ["ppl_zfull", "ppl2_wend"])
def test_path_length_steps_of_several_vectors(tmp_path: Path, name: str) -> None:
    from fact_metrics.engines.path_length import _step

    data = make_data(tmp_path / "data")
    run = make_run(tmp_path, data, injection="vectors", style_vectors=4)
    source = GeneratorSource(load_snapshot(run / "network-snapshot-000004.safetensors"), seed=0)
    ws = _step(source, PATHS[name], range(3), epsilon=1e-3)
    assert ws.shape == (6, 4 * source.num_ws, 8)
    assert 0 < float((ws[:3] - ws[3:]).abs().max()) < 0.1


def test_slerp_moves_each_row_of_a_latent_on_its_own_circle() -> None:
    a, b = (torch.randn(2, 3, 6, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    rows = slerp(a, b, t)
    for k in range(3):
        torch.testing.assert_close(rows[:, k], slerp(a[:, k], b[:, k], t), rtol=1e-12, atol=1e-12)


# Configuration

REFUSED = [
    ({"style_vectors": 4}, "--style-vectors 4: --injection modconv takes one style vector"),
    ({"injection": "matrix"}, "--style-vectors 1: a style matrix has one row per channel"),
    ({"matrix_centre": True}, "--matrix-centre: it needs --injection matrix"),
    ({"style_kernel": 3}, "--style-kernel 3: it needs --injection matrix or adaconv"),
    (
        {"injection": "adaconv", "style_kernel": 3},
        "--fused-modconv eval: fused and unfused 3x3 styles differ",
    ),
    ({"adaconv_groups": 2}, "--adaconv-groups 2: it needs --injection adaconv"),
    (
        {"injection": "adaconv", "style_amplify": 2.0},
        "--style-amplify 2: it has no effect with --injection adaconv",
    ),
    (
        {"injection": "matrix", "style_vectors": 8, "matrix_scale": 2.0, "torgb_style": "none"},
        "--matrix-scale 2: --matrix-postnorm composite cancels it",
    ),
    ({"style_amplify": 0.0}, "--style-amplify 0: 0 removes the style"),
    (
        {"injection": "matrix", "style_vectors": 8, "matrix_scale": 0.0},
        "--matrix-scale 0: 0 removes the style",
    ),
    ({"latent_norm": "joint"}, "--latent-norm joint: it has no effect on one style vector"),
    ({"latent_div_sqrt": True}, "--latent-div-sqrt: it has no effect on one style vector"),
    ({"torgb_style": "first"}, "--torgb-style first: it equals all"),
    (
        {"torgb_style": "final", "g_arch": "resnet"},
        "--torgb-style final: --g-arch resnet has one ToRGB layer",
    ),
    ({"pl_power": 0.0}, "--pl-power 0: it has no effect on one style vector"),
    ({"latent_space": "w_plus"}, "--latent-space w_plus: .* --style-mixing-prob 0"),
    (
        {"noise": "off", "noise_strength_init": 0.1},
        "--noise-strength-init 0.1: it has no effect with --noise off",
    ),
    ({"noise_learned": False}, "--no-noise-learned: the noise strength would stay at 0"),
    ({"matrix_scale": "cube"}, "--matrix-scale cube: it must be a number or sqrt or rsqrt"),
    ({"r1_gamma": "high"}, "--r1-gamma high: it must be a number or auto"),
    ({"style_kernel": 2}, "--style-kernel 2: it must be one of 1, 3"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[m.split(":")[0] for _, m in REFUSED])
def test_settings_that_contradict_each_other_are_refused_with_the_reason(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**changes)


def test_later_fields_at_their_defaults_leave_the_hashes_of_earlier_runs_alone() -> None:
    """Two hashes from before there was a style field."""
    before = {TrainConfig(): "ac93d13a", get_preset("mnist-stylegan2").config: "0f52ffd3"}
    for cfg, digest in before.items():
        assert cfg.sha256().startswith(digest)
        assert not dataclasses.replace(cfg, affine_lr_mult=0.5).sha256().startswith(digest)


def test_named_configurations_have_the_reference_settings() -> None:
    """The table in train.py of NVlabs/stylegan2-ada-pytorch."""
    columns = (
        "batch",
        "mbstd_group_size",
        "channel_base",
        "g_lr",
        "r1_gamma",
        "ema_kimg",
        "ema_rampup",
        "map_depth",
    )
    expected = {
        "stylegan2": (32, 4, 32768, 0.002, 10.0, 10.0, None, 8),
        "paper256": (64, 8, 16384, 0.0025, 1.0, 20.0, None, 8),
        "paper512": (64, 8, 32768, 0.0025, 0.5, 20.0, None, 8),
        "paper1024": (32, 4, 32768, 0.002, 2.0, 10.0, None, 8),
        "cifar": (64, 32, 32768, 0.0025, 0.01, 500.0, 0.05, 2),
    }
    for name, values in expected.items():
        cfg = get_preset(name).config
        assert tuple(getattr(cfg, c) for c in columns) == values, name
        assert cfg.d_lr == cfg.g_lr and cfg.channel_max == 512
    cifar = get_preset("cifar").config
    assert (cifar.pl_weight, cifar.style_mixing_prob, cifar.d_arch, cifar.kimg) == (0.0, 0.0, "orig", 100000)
    auto = get_preset("auto")
    sizes = {
        32: (32, 16384, 0.0025),
        256: (16, 16384, 0.0025),
        512: (8, 32768, 0.0025),
        1024: (4, 32768, 0.002),
    }
    for resolution, values in sizes.items():
        cfg = auto.at(resolution)
        assert (cfg.batch, cfg.channel_base, cfg.g_lr) == values and cfg.resolution == resolution
        assert cfg.ema_kimg == cfg.batch * 10 / 32 and cfg.r1_gamma == "auto"
    final = get_preset("overparam256").config
    assert (final.style_vectors, final.r1_gamma, final.noise, final.affine_lr_mult) == (
        512,
        30.0,
        "off",
        0.01,
    )
    assert (final.latent_norm, final.pl_power, final.map_depth, final.batch) == ("joint", 0.5, 2, 16)


def test_auto_follows_the_resolution_on_the_command_line() -> None:
    def dry(*arguments: str) -> dict:
        command = [sys.executable, "-m", "fact_train", *arguments, "-n"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    found = dry("--preset", "auto", "--data", "pictures", "--resolution", "1024", "--batch", "8")
    assert (found["config"]["batch"], found["config"]["g_lr"]) == (8, 0.002)
    assert "resolution=1024" in found["outdir"] and "g_lr" not in found["outdir"]
    missing = subprocess.run(
        [sys.executable, "-m", "fact_train", "--preset", "auto"], capture_output=True, text=True
    )
    assert missing.returncode == 2 and "--data" in missing.stderr


# Every setting of every axis trains: a few steps on MNIST at 8 pixels.

VECTORS = {"injection": "vectors", "style_vectors": 4}
MATRIX = {"injection": "matrix", "style_vectors": 8, "fused_modconv": "never", "matrix_centre": True}
SETTINGS = {
    **{f"K={k}": {"injection": "vectors", "style_vectors": k} for k in (1, 2, 4, 8, 16)},
    "K=8 fused": {"injection": "vectors", "style_vectors": 8, "fused_modconv": "always"},
    "adain": {"injection": "adain"},
    "adaconv": {"injection": "adaconv"},
    "adaconv 3x3": {"injection": "adaconv", "style_kernel": 3, "fused_modconv": "never"},
    "matrix": MATRIX,
    "matrix baked": {**MATRIX, "fused_modconv": "always"},
    "matrix 3x3": {**MATRIX, "style_kernel": 3},
    "matrix 3x3 baked": {**MATRIX, "style_kernel": 3, "fused_modconv": "always"},
    "matrix uncentred": {**MATRIX, "matrix_centre": False},
    "matrix rows": {**MATRIX, "matrix_normalise": True},
    "matrix sqrt": {**MATRIX, "matrix_scale": "sqrt", "matrix_identity": True},
    "matrix rsqrt": {**MATRIX, "matrix_scale": "rsqrt", "matrix_identity": True},
    **{f"matrix {n}": {**MATRIX, "matrix_postnorm": n} for n in ("none", "weight", "instance")},
    **{f"gamma {g}": {**VECTORS, "r1_gamma": g} for g in ("auto", 1.0, 10.0, 100.0)},
    "frozen mapper": {**VECTORS, "train_mapping": False},
    "deep mapper": {**VECTORS, "map_depth": 8},
    "16 px": {**VECTORS, "resolution": 16},
    **{f"noise {n}": {**VECTORS, "noise": n} for n in ("off", "const")},
    "noise gain": {**VECTORS, "noise_strength_init": 0.01},
    "noise fixed": {**VECTORS, "noise_strength_init": 1.0, "noise_learned": False},
    **{f"amplify {c}": {**VECTORS, "style_amplify": c} for c in (0.25, 8**0.5, 4.0)},
    **{f"torgb {s}": {**VECTORS, "torgb_style": s} for s in ("none", "final", "first")},
    **{f"{arch}": {**VECTORS, "g_arch": arch} for arch in ("resnet", "orig")},
    "batch 4": {**VECTORS, "batch": 4},
    "accumulated": {**VECTORS, "batch_gpu": 4},
    "no mixing": {**VECTORS, "style_mixing_prob": 0.0},
    "w_plus": {**VECTORS, "latent_space": "w_plus", "style_mixing_prob": 0.0},
    "w_plus K=1": {"latent_space": "w_plus", "style_mixing_prob": 0.0},
    "no path length": {**VECTORS, "pl_weight": 0.0},
    "power 0": {**VECTORS, "pl_power": 0.0},
    "bf16": {**VECTORS, "precision": "bf16"},
    "fp16": {**VECTORS, "precision": "fp16"},
    "labels": {**VECTORS, "cond": True},
    "affine 1/100": {**VECTORS, "affine_lr_mult": 0.01},
    "affine bias 0": {**VECTORS, "affine_bias_init": 0.0},
    "joint": {**VECTORS, "latent_norm": "joint"},
    "recipe": {**VECTORS, "latent_norm": "joint", "affine_lr_mult": 0.01, "noise": "off", "r1_gamma": 30.0},
}


@pytest.fixture(scope="module")
def digits() -> dict:
    return {side: open_dataset("mnist", resolution=side, max_images=64) for side in (8, 16)}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_every_setting_trains_with_finite_losses(tiny_config, digits: dict, setting: dict) -> None:
    cfg = dataclasses.replace(tiny_config, data="mnist", max_images=64, **{"resolution": 8, **setting})
    t = Trainer(cfg, digits[cfg.resolution], CPU)
    synthesis = t.model.gan.G.synthesis
    before = torch.cat([p.detach().flatten() for p in synthesis.parameters()])
    for _ in range(3):
        t.step()
    stats = t.stats.collect()
    for name in ("Loss/G", "Loss/D", "Loss/r1_penalty"):
        assert math.isfinite(stats[name]["mean"]), name
    assert t.weights_finite()
    assert not torch.equal(before, torch.cat([p.detach().flatten() for p in synthesis.parameters()]))


def test_presets_of_digits_build_and_step() -> None:
    """K = 64 = C and the style matrix at their real widths, one image."""
    for name in ("mnist-vectors-64", "mnist-matrix"):
        cfg = get_preset(name).config
        style = StyleOptions.of(cfg)
        G = Generator(
            z_dim=128, w_dim=128, c_dim=0, img_resolution=32, img_channels=1, map_depth=2, channel_base=512,
            channel_max=64, injection=cfg.injection, style=style, fused_modconv=cfg.fused_modconv,
        )  # fmt: skip
        assert G(torch.randn(1, *G.z_shape)).shape == (1, 1, 32, 32)
    assert {f"mnist-vectors-{k}" for k in (1, 4, 16, 64)} <= set(PRESETS)


def test_k_1_of_vectors_trains_bitwise_as_the_baseline(tiny_config: TrainConfig) -> None:
    runs = [trainer_of(tiny_config, injection=name) for name in ("modconv", "vectors")]
    for t in runs:
        for _ in range(3):
            t.step()
    a, b = (t.model.gan.G_ema.state_dict() for t in runs)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_style_mixing_of_the_trainer_keeps_layers_whole() -> None:
    G = generator()
    gen = torch.Generator().manual_seed(0)
    z = torch.randn(2, *G.z_shape, generator=gen)
    ws = G.mapping(z)
    for _ in range(20):
        mixed = losses.style_mixing(G.mapping, ws, None, prob=1.0, generator=gen, host_generator=gen)
        kept = (mixed == ws).all(dim=2).all(dim=0).reshape(6, 4)
        whole = (kept.sum(dim=1) == 0) | (kept.sum(dim=1) == 4)
        assert whole.all() and kept[0].all() and not kept[-1].any()
