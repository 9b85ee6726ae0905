"""Settings of the style that contradict each other, or would do nothing: what is wrong and why.

A setting without an effect is refused, as a run that names it would be compared as if it had one.
"""

from typing import Any

MATRIX = ("matrix_centre", "matrix_normalise", "matrix_scale", "matrix_identity", "matrix_postnorm")


def style_problem(cfg: Any, *, changed: set[str]) -> tuple[str, str] | None:
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
        (cfg.torgb_style == "first" and not many, "torgb_style", "one style vector is the first; use all"),
        (
            cfg.torgb_style == "final" and cfg.g_arch != "skip",
            "torgb_style",
            f"--g-arch {cfg.g_arch} has no other ToRGB; use all",
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
