"""The axes of the style-injection notes: settings, what the notes lead one to expect, how far each got there.

Source: EXPERIMENTS.md of yohan-pg/stylegan2-ada-pytorch at 366721a (AFHQ cat at 32 px, batch 8, one seed,
judged from pictures): the expectations are hypotheses. `fact-train --list-axes` prints this table.
"""

import textwrap
from dataclasses import dataclass

from fact_train.settings.config import flag

WIDTHS = (22, 40, 50, 8)


@dataclass(frozen=True)
class Axis:
    """One factor: the fields of TrainConfig that set it, and the notes' settings, expectation and status."""

    name: str
    fields: tuple[str, ...]
    settings: str
    expected: str
    status: str


AXES = (
    Axis("style vectors", ("injection", "style_vectors"), "1, 2, 4, 8, 16, 32, 64, 512",
         "tiny gamma: up to 16 train, wobbly and slower; gamma 10: 512 works", "done"),
    Axis("R1 gamma", ("r1_gamma",), "auto, 1, 10, 100; 30 and 60 later",
         "auto and 1 fail at 32 px, 10 works; 100 does not rescue noise", "partly"),
    Axis("mapper", ("train_mapping", "map_depth", "mapping_lr_mult"),
         "trained, frozen; depth 2 or 8; 0.01, 0.01/22.6",
         "training it helps a bit at small gamma", "open"),
    Axis("resolution", ("resolution",), "32, 64, 128",
         "does not cure the collapse of K > 16 at small gamma", "done"),
    Axis("noise", ("noise", "noise_learned", "noise_strength_init"),
         "off, const, random; gain 1, 0.01; told apart by style_diversity1k_train_* and "
         "noise_diversity1k_train_* of fact-eval",
         "gamma 10: the style is ignored and noise alone used, at first", "partly"),
    Axis("style amplification", ("style_amplify",), "1, sqrt(D), K, 1/K",
         "helps somewhat at small gamma; still few images", "done"),
    Axis("ToRGB style", ("torgb_style",), "none, final, all, first",
         "works in all; more variety of hue early", "partly"),
    Axis("G trunk", ("g_arch",), "resnet, skip, orig", "both of the first work", "done"),
    Axis("batch", ("batch", "batch_gpu"), "4, 8, 32; accumulated",
         "4 works, no faster per kimg than 8", "partly"),
    Axis("style mixing", ("style_mixing_prob",), "off, 0.9 with cuts between layers",
         "expected to be fine with cuts on multiples of K", "partly"),
    Axis("W+ sampling", ("latent_space",), "w, w_plus", "none: never worked there with K > 1", "open"),
    Axis("baking", ("fused_modconv", "style_kernel"), "never, always; 1x1, 3x3",
         "1x1 equals unbaked; loses below O k^2 pixels", "open"),
    Axis("path length", ("pl_weight", "pl_power", "pl_interval"), "0, 2; power 0, 0.5",
         "trains; levels differ by sqrt(K) at power 0", "partly"),
    Axis("fused or not", ("fused_modconv",), "train, eval, never, always",
         "no difference but rounding, in path length too", "open"),
    Axis("augmentation", ("mirror",), "off, mirrored; see the Augmentation panel of --help",
         "none was written down", "done"),
    Axis("precision", ("precision", "conv_clamp"), "fp32, tf32, bf16, fp16", "fp16 was broken there", "open"),
    Axis("metrics at 32 px", (),
         "recall10k3_test_* of fact-eval, style_diversity1k_train_*: pixels or perceptual",
         "recall seems low; a network that uses noise alone scores 0.17", "open"),
    Axis("inversion speed", ("resolution", "style_vectors"), "128 px, K = 1 or 512", "none", "partly"),
    Axis("matrix: rows", ("matrix_normalise",), "off, on", "on does not train; off does", "done"),
    Axis("matrix: identity", ("matrix_identity", "matrix_centre"), "centred at 0, at I",
         "negligibly better without the scale", "done"),
    Axis("matrix: scale", ("matrix_scale",), "1, sqrt, rsqrt, a number",
         "sqrt is slower to converge; rsqrt slightly best", "done"),
    Axis("matrix: what follows", ("matrix_postnorm",), "none, weight, composite, instance",
         "instance and demodulated styles failed", "open"),
    Axis("configuration", (), "presets auto, stylegan2, overparam256", "none", "open"),
    Axis("affine", ("affine_lr_mult", "affine_bias_init"), "1, 1/100, 1/226; bias 1, 0",
         "1/100 and 1 in the final recipe", "later"),
    Axis("latents", ("latent_norm", "latent_div_sqrt", "z_dim", "w_dim"),
         "row, joint; as they are, / sqrt(K); sizes", "joint in the final recipe", "later"),
    Axis("other injections", ("injection", "adaconv_groups"), "adain, adaconv",
         "not in the notes: StyleGAN1's, and Chandran's convolution", "ours"),
)  # fmt: skip


def axes_table() -> str:
    """The axes as a table for a terminal, 125 columns wide."""
    rows = [("axis", "settings", "the notes expect", "there")]
    rows += [(a.name, a.settings, a.expected, a.status) for a in AXES]
    lines = []
    for i, cells in enumerate(rows):
        wrapped = [textwrap.wrap(text, width) for text, width in zip(cells, WIDTHS, strict=True)]
        lines += _block(wrapped)
        if i == 0:
            lines.append("  ".join("-" * width for width in WIDTHS))
        elif AXES[i - 1].fields:
            lines.append("    " + " ".join(map(flag, AXES[i - 1].fields)))
    return "\n".join(lines)


def _block(wrapped: list[list[str]]) -> list[str]:
    height = max(map(len, wrapped))
    padded = [cell + [""] * (height - len(cell)) for cell in wrapped]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, WIDTHS, strict=True)).rstrip()
        for line in zip(*padded, strict=True)
    ]
