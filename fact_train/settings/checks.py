"""Settings out of range, in contradiction, or without effect: which, and why.

A setting without effect is rejected: a run that names it would be compared as if the setting mattered.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from fact_metrics.base.image_size import size_problem
from fact_train.settings.schedules import parse_schedules
from fact_train.settings.stylex_checks import check_stylex

Problem = tuple[str, str]  # field, why its value is rejected

# Field -> the values of --augment that use it.
AUGMENTATION_USERS = {
    "augment_set": ("ada", "fixed"),
    "augment_p": ("ada", "fixed"),
    **dict.fromkeys(("ada_target", "ada_interval", "ada_kimg", "ada_ceiling"), ("ada",)),
    "diffaugment_policy": ("diffaugment",),
}
SMALLEST_TRAINED = 8  # px: D halves images at least once, down to their base
POLICIES = ("color", "translation", "cutout")

ONE_VECTOR = "it has no effect on one style vector; raise --style-vectors"
MATRIX = ("matrix_centre", "matrix_normalise", "matrix_scale", "matrix_identity", "matrix_postnorm")


def find_problem(cfg: Any, *, changed: Sequence[str]) -> Problem | None:
    """The first problem of a TrainConfig, or None.

    `changed` lists the fields that differ from their defaults, in order.
    """
    stylex = {name: getattr(cfg, name) for name in cfg.panel("StylEx")}
    return (
        _range_problem(cfg)
        or check_stylex(stylex, changed=[name for name in changed if name in stylex], cond=cfg.cond)
        or style_problem(cfg, changed=set(changed))
        or augmentation_problem(cfg, changed=set(changed))
        or loss_problem(cfg, changed=set(changed))
        or schedule_problem(cfg)
        or _init_problem(cfg, changed=changed)
    )


def _range_problem(cfg: Any) -> Problem | None:
    for f in dataclasses.fields(cfg):
        value, bounds = getattr(cfg, f.name), f.metadata["bounds"]
        if bounds is not None and isinstance(value, int | float) and not bounds.holds(value):
            optional = ", or none" if f.default is None else ""
            return f.name, bounds.rule + optional
    if cfg.resolution is not None:
        problem = size_problem(cfg.resolution, smallest=SMALLEST_TRAINED)
        if problem is not None:
            return "resolution", f"{problem[0]}; try {problem[1]}"
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", cfg.device):
        return "device", "use auto, cpu, cuda or cuda:N"
    if cfg.fp16_layers and cfg.precision in ("bf16", "fp16"):
        return "fp16_layers", f"--precision {cfg.precision} holds all feature maps in 16 bits"
    if cfg.follow_load and cfg.threads is not None:
        return "follow_load", f"--threads {cfg.threads} fixes the number; leave one of them out"
    if cfg.batch % min(cfg.mbstd_group_size, cfg.batch):
        return "mbstd_group_size", f"it must divide --batch {cfg.batch}"
    return None


def _init_problem(cfg: Any, *, changed: Sequence[str]) -> Problem | None:
    needing = [name for name in ("init_partial", "freeze_d") if name in changed and cfg.init is None]
    return (needing[0], "it needs --init") if needing else None


def style_problem(cfg: Any, *, changed: set[str]) -> Problem | None:
    """The first contradiction among the style settings, or None.

    `changed` holds the fields that differ from their defaults.
    """
    injection, many = cfg.injection, cfg.style_vectors > 1
    rules = (
        (
            many and injection not in ("vectors", "matrix"),
            "style_vectors",
            f"--injection {injection} takes one style vector",
        ),
        (
            injection == "matrix" and not many,
            "style_vectors",
            "a style matrix has one row per channel; set it to --channel-max",
        ),
        *(
            (name in changed and injection != "matrix", name, "it needs --injection matrix")
            for name in MATRIX
        ),
        (
            cfg.style_kernel != 1 and injection not in ("matrix", "adaconv"),
            "style_kernel",
            "it needs --injection matrix or adaconv",
        ),
        (
            cfg.style_kernel != 1 and cfg.fused_modconv in ("train", "eval"),
            "fused_modconv",
            "fused and unfused 3x3 styles differ at the image borders; use never or always",
        ),
        (
            "adaconv_groups" in changed and injection != "adaconv",
            "adaconv_groups",
            "it needs --injection adaconv",
        ),
        *(
            (
                name in changed and injection == "adaconv",
                name,
                "it has no effect with --injection adaconv",
            )
            for name in ("style_amplify", "affine_bias_init")
        ),
        (
            "matrix_scale" in changed
            and cfg.matrix_postnorm == "composite"
            and not cfg.matrix_identity
            and cfg.torgb_style in ("none", "first"),
            "matrix_scale",
            "--matrix-postnorm composite cancels it; add --matrix-identity or choose another normalisation",
        ),
        (
            cfg.style_amplify == "k" and not many,
            "style_amplify",
            ONE_VECTOR,
        ),
        (
            cfg.latent_norm == "joint" and not many,
            "latent_norm",
            ONE_VECTOR,
        ),
        (
            cfg.latent_div_sqrt and not many,
            "latent_div_sqrt",
            ONE_VECTOR,
        ),
        (
            cfg.torgb_style == "first" and not many,
            "torgb_style",
            "it equals all with one style vector; use all",
        ),
        (
            cfg.torgb_style == "final" and cfg.g_arch != "skip",
            "torgb_style",
            f"--g-arch {cfg.g_arch} has one ToRGB layer; use all",
        ),
        (
            cfg.model == "stylex" and many,
            "style_vectors",
            "the StylEx encoder predicts one w; use --style-vectors 1",
        ),
        (
            cfg.model == "stylex" and cfg.latent_space == "w_plus",
            "latent_space",
            "the StylEx encoder predicts one w for all layers; use w",
        ),
        (
            "pl_power" in changed and not many and cfg.pl_rows == "layer",
            "pl_power",
            ONE_VECTOR,
        ),
        (
            "pl_rows" in changed and cfg.pl_power == 0,
            "pl_rows",
            "it has no effect with --pl-power 0",
        ),
        (
            cfg.latent_space == "w_plus" and cfg.style_mixing_prob > 0,
            "latent_space",
            "each layer draws its own latent, so mixing has no effect; add --style-mixing-prob 0",
        ),
        *(
            (
                name in changed and cfg.noise == "off",
                name,
                "it has no effect with --noise off",
            )
            for name in ("noise_learned", "noise_strength_init")
        ),
        (
            not cfg.noise_learned and cfg.noise_strength_init == 0 and cfg.noise != "off",
            "noise_learned",
            "the noise strength would stay at 0; use --noise off, or set --noise-strength-init",
        ),
    )
    return next(((name, why) for wrong, name, why in rules if wrong), None)


def augmentation_problem(cfg: Any, *, changed: set[str]) -> Problem | None:
    """The first problem of the augmentation settings, or None."""
    for name, users in AUGMENTATION_USERS.items():
        if name in changed and cfg.augment not in users:
            return name, f"it needs --augment {' or '.join(users)}; --augment is {cfg.augment}"
    if cfg.augment == "fixed" and cfg.augment_p == 0:
        return "augment_p", "--augment fixed needs a probability above 0"
    if cfg.ada_ceiling is not None and cfg.ada_ceiling < cfg.augment_p:
        return "ada_ceiling", f"it must be at least --augment-p {cfg.augment_p:g}"
    policy = cfg.diffaugment_policy.split(",")
    if policy != [name for name in POLICIES if name in policy]:
        return "diffaugment_policy", f"it must be one or more of {','.join(POLICIES)}, in this order"
    return None


def loss_problem(cfg: Any, *, changed: set[str]) -> Problem | None:
    """The first problem of the losses and penalties of D, or None."""
    penalised = cfg.r1_gamma != 0 or cfg.r2_gamma != 0
    off = "--r1-gamma 0 switches R1 off"
    neither = "--r1-gamma and --r2-gamma are 0"
    adam = "without a penalty Adam cancels it; set --r1-gamma or --r2-gamma, or change --d-lr"
    rules = (
        (cfg.r1_gamma == 0 and cfg.r1_gamma_final is not None, "r1_gamma_final", off),
        (cfg.r1_gamma == 0 and "gp" in changed, "gp", off),
        ("r1_auto_batch" in changed and cfg.r1_gamma != "auto", "r1_auto_batch", "it needs --r1-gamma auto"),
        (not penalised and "r1_phase" in changed, "r1_phase", neither),
        (not penalised and "d_loss_scale" in changed, "d_loss_scale", adam),
    )
    return next(((name, why) for wrong, name, why in rules if wrong), None)


def schedule_problem(cfg: Any) -> Problem | None:
    """The first schedule that cannot be followed, or has no effect; None without one."""
    bounds = {f.name: f.metadata["bounds"] for f in dataclasses.fields(cfg)}
    for name, schedule in parse_schedules(cfg.schedule).items():
        start = getattr(cfg, name)
        if not bounds[name].holds(schedule.end):
            return "schedule", f"the END of {name}: {bounds[name].rule}"
        if schedule.shape == "geometric" and (start == 0 or schedule.end == 0):
            return "schedule", f"a geometric way neither starts nor ends at 0; use {name}=cosine"
        if start == schedule.end:
            return "schedule", f"{name} starts at its END"
        if name in ("r1_gamma", "r2_gamma") and start == 0:
            return "schedule", f"--{name.replace('_', '-')} 0 switches it off from the start"
        if name == "r1_gamma" and cfg.r1_gamma_final is not None:
            return "schedule", "--r1-gamma-final is a schedule of r1_gamma; set one of them"
        if name == "augment_p" and cfg.augment != "fixed":
            return "schedule", "augment_p needs --augment fixed; ada moves it by itself"
    return None
