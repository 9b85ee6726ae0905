"""Settings out of range, in contradiction, or without effect: which, and why.

A setting without an effect is refused, as a run that names it would be compared as if it had one.
"""

from collections.abc import Sequence
from typing import Any

from fact_train.settings.stylex_checks import check_stylex

Problem = tuple[str, str]  # field, why its value cannot stand

POSITIVE = (
    "z_dim w_dim mbstd_group_size channel_base channel_max d_channel_mult r1_interval pl_interval "
    "pl_batch_shrink batch g_lr d_lr kimg_per_tick snapshot_ticks image_ticks map_depth mapping_lr_mult "
    "r1_decay_kimg style_vectors affine_lr_mult adaconv_groups ttur_mult d_loss_scale encoder_lr_mult "
    "e_channel_mult lpips_batch_shrink ada_interval ada_kimg"
).split()
NOT_NEGATIVE = (
    "r1_gamma pl_weight ema_kimg seed kimg noise_strength_init rec_scale w_lpips w_w w_l1 w_l2 kl_scale"
).split()
SHARES = "style_mixing_prob pl_decay beta1 beta2 augment_p".split()
# Fields of some values of --augment only.
AUGMENTATION_USERS = {
    "augment_set": ("ada", "fixed"),
    "augment_p": ("ada", "fixed"),
    **dict.fromkeys(("ada_target", "ada_interval", "ada_kimg", "ada_ceiling"), ("ada",)),
    "diffaugment_policy": ("diffaugment",),
}
POLICIES = ("color", "translation", "cutout")
POSITIVE_OR_NONE = "batch_gpu threads max_images conv_clamp r1_gamma_final".split()

MATRIX = ("matrix_centre", "matrix_normalise", "matrix_scale", "matrix_identity", "matrix_postnorm")


def find_problem(cfg: Any, *, changed: Sequence[str]) -> Problem | None:
    """The first problem of a TrainConfig; None where it can stand.

    `changed` are the fields that are not at their default, in order.
    """
    stylex = {name: getattr(cfg, name) for name in cfg.panel("StylEx")}
    return (
        _range_problem(cfg)
        or check_stylex(stylex, changed=[name for name in changed if name in stylex], cond=cfg.cond)
        or style_problem(cfg, changed=set(changed))
        or augmentation_problem(cfg, changed=set(changed))
    )


def _range_problem(cfg: Any) -> Problem | None:
    for name in POSITIVE:
        if getattr(cfg, name) <= 0:
            return name, "it must be positive"
    for name in NOT_NEGATIVE:
        if getattr(cfg, name) != "auto" and getattr(cfg, name) < 0:
            return name, "it must not be negative"
    for name in SHARES:
        if not 0 <= getattr(cfg, name) <= 1:
            return name, "it must lie in [0, 1]"
    for name in POSITIVE_OR_NONE:
        if getattr(cfg, name) is not None and getattr(cfg, name) <= 0:
            return name, "it must be positive, or left out"
    if cfg.r1_gamma_final is not None and cfg.r1_gamma == 0:
        return "r1_gamma_final", "R1 is off, as --r1-gamma is 0"
    if cfg.batch % min(cfg.mbstd_group_size, cfg.batch):
        return "mbstd_group_size", f"it must divide --batch {cfg.batch}"
    return None


def style_problem(cfg: Any, *, changed: set[str]) -> Problem | None:
    """(field, why it cannot stand) of a TrainConfig; None where all agree.

    `changed` are the fields that are not at their default.
    """
    injection, many = cfg.injection, cfg.style_vectors > 1
    rules = (
        (
            many and injection not in ("vectors", "matrix"),
            "style_vectors",
            f"--injection {injection} takes one",
        ),
        (
            injection == "matrix" and not many,
            "style_vectors",
            "a style matrix has a row per channel: give --channel-max",
        ),
        *(
            (name in changed and injection != "matrix", name, "only --injection matrix has a style matrix")
            for name in MATRIX
        ),
        (
            cfg.style_kernel != 1 and injection not in ("matrix", "adaconv"),
            "style_kernel",
            f"the style of --injection {injection} has no kernel of its own",
        ),
        (
            cfg.style_kernel != 1 and cfg.fused_modconv in ("train", "eval"),
            "fused_modconv",
            "baked and unbaked 3x3 styles differ at the borders, so a network is either: never or always",
        ),
        (
            "adaconv_groups" in changed and injection != "adaconv",
            "adaconv_groups",
            "only --injection adaconv has groups",
        ),
        *(
            (name in changed and injection == "adaconv", name, "adaconv predicts kernels, which have no 1")
            for name in ("style_amplify", "affine_bias_init")
        ),
        *(
            (getattr(cfg, name) == 0, name, "at 0 no style is left, and latents have no effect")
            for name in ("style_amplify", "matrix_scale")
        ),
        (
            "matrix_scale" in changed
            and cfg.matrix_postnorm == "composite"
            and not cfg.matrix_identity
            and cfg.torgb_style in ("none", "first"),
            "matrix_scale",
            "demodulation of the composite cancels it, unless --matrix-identity comes after",
        ),
        (
            cfg.latent_norm == "joint" and not many,
            "latent_norm",
            "one row is its own norm; raise --style-vectors",
        ),
        (cfg.latent_div_sqrt and not many, "latent_div_sqrt", "sqrt 1 is 1; raise --style-vectors"),
        (cfg.torgb_style == "first" and not many, "torgb_style", "one style vector is the first; use all"),
        (
            cfg.torgb_style == "final" and cfg.g_arch != "skip",
            "torgb_style",
            f"--g-arch {cfg.g_arch} has no other ToRGB; use all",
        ),
        (
            cfg.model == "stylex" and many,
            "style_vectors",
            "StylEx's encoder draws one w; use --style-vectors 1",
        ),
        (
            cfg.model == "stylex" and cfg.latent_space == "w_plus",
            "latent_space",
            "StylEx's encoder draws one w for all layers; use w",
        ),
        ("pl_power" in changed and not many, "pl_power", "1 to any power is 1; raise --style-vectors"),
        (
            cfg.latent_space == "w_plus" and cfg.style_mixing_prob > 0,
            "latent_space",
            "layers have latents of their own, so nothing is left to mix: --style-mixing-prob 0",
        ),
        *(
            (name in changed and cfg.noise == "off", name, "noise is off, see --noise")
            for name in ("noise_learned", "noise_strength_init")
        ),
        (
            not cfg.noise_learned and cfg.noise_strength_init == 0 and cfg.noise != "off",
            "noise_learned",
            "noise would stay at strength 0: use --noise off, or --noise-strength-init",
        ),
    )
    return next(((name, why) for wrong, name, why in rules if wrong), None)


def augmentation_problem(cfg: Any, *, changed: set[str]) -> Problem | None:
    """(field, why it cannot stand) of a TrainConfig; None where all agree."""
    for name, users in AUGMENTATION_USERS.items():
        if name in changed and cfg.augment not in users:
            return name, f"only --augment {' or '.join(users)} reads it, and --augment is {cfg.augment}"
    if cfg.augment == "fixed" and cfg.augment_p == 0:
        return "augment_p", "--augment fixed needs a probability above 0"
    if not -1 < cfg.ada_target < 1:
        return "ada_target", "a mean of signs lies between -1 and 1"
    if cfg.ada_ceiling is not None and not max(cfg.augment_p, 1e-9) <= cfg.ada_ceiling <= 1:
        return "ada_ceiling", "it must lie in (0, 1], at --augment-p or above"
    policy = cfg.diffaugment_policy.split(",")
    if policy != [name for name in POLICIES if name in policy]:
        return "diffaugment_policy", f"it is some of {','.join(POLICIES)}, in this order, with commas between"
    return None
