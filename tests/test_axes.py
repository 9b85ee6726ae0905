"""Every science field has a table row here and changes training; every field has a flag that sets it."""

import dataclasses
import json
import math

import pytest
import torch
from typer.testing import CliRunner

from fact_train.classifiers.training import train_classifier
from fact_train.cli import app
from fact_train.data import open_dataset
from fact_train.settings.config import TrainConfig, fields_of, flag
from fact_train.training.trainer import Trainer

CPU = torch.device("cpu")

AXES = {
    "z_dim": 16,
    "w_dim": 16,
    "map_depth": 1,
    "mapping_lr_mult": 0.5,
    "g_arch": "resnet",
    "noise": "off",
    "d_arch": "skip",
    "mbstd_group_size": 2,
    "channel_base": 32,
    "channel_max": 4,
    "d_channel_mult": 0.5,
    "d_channel_max": 4,
    "conv_clamp": 0.1,
    "loss": "relativistic",
    "top_k": 0.5,
    "r1_phase": "d",
    "gp": "one",
    "r2_gamma": 5.0,
    "schedule": "g_lr=cosine:0.0001:0.02",
    "r1_gamma": 100.0,
    "r1_auto_batch": 1,
    "r1_gamma_final": 0.01,
    "r1_decay_kimg": 0.01,
    "r1_interval": 2,
    "pl_weight": 20.0,
    "pl_interval": 1,
    "pl_batch_shrink": 1,
    "pl_decay": 0.5,
    "style_mixing_prob": 0.0,
    "batch": 4,
    "batch_gpu": 4,
    "updates": "simultaneous",
    "precision": "bf16",
    "g_lr": 0.02,
    "d_lr": 0.02,
    "ttur_mult": 1.5,
    "d_loss_scale": 2.0,
    "beta1": 0.5,
    "beta2": 0.9,
    "ema_kimg": 1.0,
    "ema_rampup": 0.05,
    "seed": 3,
    "cond": True,
    "mirror": True,
    "balance": True,
    "resolution": 16,
    "channels": 3,
    "max_images": 12,
    "injection": "adain",
    "style_vectors": 8,
    "style_amplify": 2.0,
    "style_kernel": 1,
    "affine_lr_mult": 0.1,
    "affine_bias_init": 0.5,
    "latent_norm": "joint",
    "latent_div_sqrt": True,
    "latent_space": "w_plus",
    "torgb_style": "none",
    "train_mapping": False,
    "noise_learned": False,
    "noise_strength_init": 0.5,
    "matrix_centre": True,
    "matrix_normalise": True,
    "matrix_scale": "rsqrt",
    "matrix_identity": True,
    "matrix_postnorm": "weight",
    "adaconv_groups": 2,
    "pl_power": 0.0,
    "pl_rows": "all",
    "freeze_d": 3,
    "augment": "diffaugment",
    "augment_set": "noise",
    "augment_p": 0.9,
    "ada_target": -0.99,
    "ada_interval": 1,
    "ada_kimg": 1.0,
    "ada_ceiling": 0.5,
    "diffaugment_policy": "cutout",
}
# StylEx fields, from the configuration with an encoder; those in 32 px from the one with all losses.
STYLEX_AXES = {
    "model": {"model": "stylegan2"},
    "classifier": {},  # another file: see the test
    "class_repr": {"class_repr": "logits"},
    "class_scale": {"class_scale": 0.2},
    "mapping_class": {"mapping_class": "predicted"},
    "class_dropout": {"class_dropout": 0.5},
    "class_noise": {"class_noise": 0.5},
    "w_noise": {"w_noise": 0.5},
    "d_cond": {"d_cond": "projection"},
    "branches": {"branches": "encoder", "alternation": "off"},
    "alternation": {"alternation": "off"},
    "encoder_prob": {"alternation": "probability", "encoder_prob": 0.9},
    "compensation": {"compensation": True},
    "rec_in_d_phase": {"rec_in_d_phase": True},
    "rec_in_g_phase": {"rec_in_g_phase": False, "rec_in_d_phase": True},
    "encoder_adversarial": {"encoder_adversarial": False},
    "encoder_lr_mult": {"encoder_lr_mult": 0.1},
    "encoder_init": {"encoder_init": "standardised"},
    "e_channel_mult": {"e_channel_mult": 0.5},
    "e_channel_max": {"e_channel_max": 4},
    "rec_scale": {"rec_scale": 5.0},
    "w_w": {"w_w": 1.0},
    "w_latent": {"w_latent": 0.5},
    "w_l1": {"w_l1": 0.1},
    "w_l2": {"w_l2": 1.0},
    "kl_scale": {"kl_scale": 0.1},
    "kl_branches": {"kl_branches": "both"},
    "w_lpips": {"w_lpips": 1.0},
    "perceptual": {"perceptual": "stlpips_vgg"},
    "rec_interval": {"rec_interval": 2},
    "lpips_interval": {"lpips_interval": 2},
    "lpips_stretch": {"lpips_stretch": True},
    "lpips_batch_shrink": {"lpips_batch_shrink": 2},
}
IN_32_PX = {"w_lpips", "perceptual", "lpips_interval", "lpips_stretch", "lpips_batch_shrink"}
# What an axis stands on, where it would mean nothing in the plain network.
VECTORS = {"injection": "vectors", "style_vectors": 4}
MATRIX = {"injection": "matrix", "style_vectors": 8}
ADA = dict(augment="ada", augment_p=0.5, ada_kimg=0.2, ada_target=0.99, ada_interval=2, d_lr=0.05)
STANDS_ON = {
    "style_vectors": VECTORS,
    "style_kernel": {**MATRIX, "style_kernel": 3, "fused_modconv": "never"},
    "latent_norm": VECTORS,
    "latent_div_sqrt": VECTORS,
    "pl_power": VECTORS,
    "latent_space": {"style_mixing_prob": 0.0},
    "noise_learned": {"noise_strength_init": 0.1},
    "adaconv_groups": {"injection": "adaconv"},
    "freeze_d": {"init": "other.safetensors"},
    "r1_auto_batch": {"r1_gamma": "auto"},
    "augment_set": dict(augment="fixed", augment_p=0.5),
    "augment_p": dict(augment="fixed", augment_p=0.5),
    **dict.fromkeys(("ada_target", "ada_interval", "ada_kimg"), ADA),
    "ada_ceiling": {**ADA, "ada_target": -0.99},
    "diffaugment_policy": dict(augment="diffaugment"),
    **{f"matrix_{name}": MATRIX for name in ("centre", "normalise", "scale", "identity", "postnorm")},
}
# Covered elsewhere: the dataset's own options (tests/test_data_*), the order of evaluation, which must NOT
# change the mathematics, and fp16 in the highest resolutions, which a CPU does not use (test_precision.py).
NO_EFFECT_ON_WEIGHTS = {"data", "resize", "crop", "alpha", "fused_modconv", "fp16_layers"}
NO_EFFECT_ON_WEIGHTS |= {"labels", "image_key"}
NO_EFFECT_ON_WEIGHTS |= {"init", "init_partial"}  # a run reads them, not the trainer: test_fine_tuning.py


# Another value of every field that has no row above, for the test of its flag.
NO_AXIS = {
    "data": "elsewhere",
    "resize": "bicubic",
    "crop": "center",
    "alpha": "white",
    "labels": "folders",
    "image_key": "mask",
    "fused_modconv": "never",
    "fp16_layers": 2,
    "init": "other.safetensors",
    "kimg": 7.0,
    "kimg_per_tick": 3.0,
    "snapshot_ticks": 5,
    "image_ticks": 6,
    "device": "cpu",
    "threads": 3,
    "follow_load": True,
    "log_to": "wandb",
    "cuda_graphs": True,
}
STYLEX = {"model": "stylex", "classifier": "mnist"}
# Fields whose row above is their value in the plain network, or only valid with further fields.
FLAG_CHANGES = {
    "model": STYLEX,
    "classifier": {**STYLEX, "classifier": "other.safetensors"},
    "style_kernel": {**STANDS_ON["style_kernel"], "style_kernel": 3},
    "precision": {"precision": "bf16", "fp16_layers": 0},
    "init_partial": {"init": "other.safetensors", "init_partial": True},
}


def test_every_science_field_is_in_the_table_of_axes() -> None:
    stylex = {f.name for f in fields_of("science") if f.metadata["panel"] == "StylEx"}
    assert stylex == set(STYLEX_AXES)
    assert {f.name for f in fields_of("science")} - stylex == set(AXES) | NO_EFFECT_ON_WEIGHTS


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_has_an_effect(tiny_config: TrainConfig, axis: str) -> None:
    base = dataclasses.replace(tiny_config, r1_gamma_final=1.0, **STANDS_ON.get(axis, {}))
    assert fingerprint(base) != fingerprint(dataclasses.replace(base, **{axis: AXES[axis]}))


@pytest.mark.parametrize("axis", STYLEX_AXES)
def test_every_axis_of_stylex_has_an_effect(
    stylex_config: TrainConfig, stylex32_config: TrainConfig, axis: str, tiny_images, tmp_path
) -> None:
    base = stylex32_config if axis in IN_32_PX else stylex_config
    changed = (
        dataclasses.replace(base, **STYLEX_AXES[axis])
        if axis != "model"
        else TrainConfig(
            **{**base.to_dict(), **{name: TrainConfig().to_dict()[name] for name in STYLEX_AXES}}
        )
    )
    if axis == "classifier":
        other = tmp_path / "other.safetensors"
        train_classifier(other, data=str(tiny_images), epochs=12, batch=8, seed=1, report=lambda line: None)
        changed = dataclasses.replace(base, classifier=str(other))
    steps = 2 if axis in IN_32_PX else 5
    assert fingerprint(base, steps=steps) != fingerprint(changed, steps=steps)


@pytest.mark.parametrize("field", fields_of(), ids=lambda field: field.name)
def test_every_flag_sets_its_field_alone_and_can_set_it_back(field: dataclasses.Field) -> None:
    """Through the command: `--flag value` changes that field only; `--flag value --flag default` nothing."""
    name = field.name
    if name in FLAG_CHANGES:
        changes = FLAG_CHANGES[name]
    elif name in STYLEX_AXES:
        changes = {**STYLEX, **STYLEX_AXES[name]}
    else:
        changes = {**STANDS_ON.get(name, {}), name: {**AXES, **NO_AXIS}[name]}
    plain = _dry_run()
    assert changes[name] != plain[name]
    assert _dry_run(changes) == {**plain, **changes}
    assert _dry_run(changes, {key: plain[key] for key in changes}) == plain


def _dry_run(*changes: dict) -> dict:
    """The configuration that `fact-train --preset stylegan2` trains with these settings, in their order."""
    flags = [text for settings in changes for name, value in settings.items() for text in _flags(name, value)]
    done = CliRunner().invoke(app, ["--preset", "stylegan2", "--data", "mnist", "--dry-run", *flags])
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)["config"]


def _flags(name: str, value) -> list[str]:
    if isinstance(value, bool):
        return [flag(name) if value else f"--no-{flag(name)[2:]}"]
    return [flag(name), "none" if value is None else str(value)]


def fingerprint(cfg: TrainConfig, *, steps: int = 5) -> tuple:
    """What training leads to: five steps, R1 at the first and the last."""
    t = Trainer(cfg, open_dataset(cfg.data, **_data_options(cfg)), CPU)
    for _ in range(steps):
        t.step()
    total = sum(p.detach().double().sum() for p in t.model.gan.G_ema.parameters())
    total += sum(p.detach().double().square().sum() for p in t.model.gan.D.parameters())
    assert math.isfinite(float(total))
    return (
        float(total),
        tuple(sum(p.numel() for p in net.parameters()) for net in t.model.networks.values()),
    )


def _data_options(cfg: TrainConfig) -> dict:
    return dict(
        resolution=cfg.resolution, channels=cfg.channels, max_images=cfg.max_images, resize=cfg.resize
    )
