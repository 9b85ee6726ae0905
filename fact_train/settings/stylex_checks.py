"""Which StylEx settings work together. Settings that would leave a network untrained, or have no effect, are
rejected with the reason.
"""

from collections.abc import Sequence
from typing import Any


def check_stylex(values: dict[str, Any], *, changed: Sequence[str], cond: bool) -> tuple[str, str] | None:
    """The first setting to reject and the reason, or None.

    `values` are the StylEx fields of a configuration, `changed` those that differ from their defaults, in
    order; `cond` is the field of that name.
    """
    if values["model"] == "stylegan2":
        return (changed[0], "it needs --model stylex") if changed else None
    if cond:
        return "cond", "StylEx takes classes from the classifier, not from labels; see --d-cond"
    return _turns(values) or _classes(values) or _losses(values)


def _turns(v: dict[str, Any]) -> tuple[str, str] | None:
    takes_turns = v["branches"] == "both"
    if not takes_turns and v["alternation"] != "off":
        only = v["branches"]
        return (
            "alternation",
            f"--branches {only} trains one branch; use --alternation off",
        )
    if v["alternation"] == "probability":
        if v["encoder_prob"] is None:
            return "alternation", "it needs --encoder-prob, the probability of an encoder turn"
        if not 0 < v["encoder_prob"] < 1:
            untrained = "encoder" if v["encoder_prob"] <= 0 else "mapping"
            return (
                "encoder_prob",
                f"the {untrained} would never be trained; choose a value between 0 and 1, or set --branches",
            )
    elif v["encoder_prob"] is not None:
        return "encoder_prob", "it needs --alternation probability"
    if v["compensation"] and v["alternation"] == "off":
        return (
            "compensation",
            "--alternation off already reconstructs in every step",
        )
    return None


def _classes(v: dict[str, Any]) -> tuple[str, str] | None:
    if v["mapping_class"] == "predicted":
        if v["branches"] == "encoder":
            return "mapping_class", "--branches encoder generates no images from the mapping network"
        if v["d_cond"] != "off":
            return (
                "mapping_class",
                f"these images have no class that D could see; --d-cond is {v['d_cond']}, use off",
            )
        if v["kl_branches"] == "both":
            return (
                "mapping_class",
                "images of the mapping have no class to be held to; use --kl-branches encoder",
            )
    return None


def _losses(v: dict[str, Any]) -> tuple[str, str] | None:
    if v["branches"] == "mapping" and not v["rec_in_d_phase"]:
        neutral = {"encoder_lr_mult": 1.0, "e_channel_mult": 1.0, "encoder_init": "random", "w_noise": 0.0}
        for name, value in neutral.items():
            if v[name] != value:
                return name, "--branches mapping trains the encoder only with --rec-in-d-phase; add it"
    if not v["encoder_adversarial"]:
        if v["branches"] == "mapping":
            return "encoder_adversarial", "--branches mapping shows D no image of the encoder; leave it on"
        if not (v["rec_scale"] or v["kl_scale"] or v["w_latent"]):
            return "encoder_adversarial", "without another loss the encoder would never be trained"
    if not v["rec_in_g_phase"] and not v["rec_in_d_phase"]:
        return (
            "rec_in_g_phase",
            "nothing would be reconstructed; add --rec-in-d-phase, or set --rec-scale 0",
        )
    if v["rec_in_d_phase"] and not (v["rec_scale"] or v["kl_scale"]):
        return "rec_in_d_phase", "--rec-scale 0 and --kl-scale 0 leave it without a loss"
    if v["rec_scale"] and not any(v[name] for name in ("w_lpips", "w_w", "w_l1", "w_l2")):
        return (
            "rec_scale",
            "its weights are all 0; set --rec-scale 0 to switch reconstruction off",
        )
    if v["kl_branches"] == "both":
        if not v["kl_scale"]:
            return "kl_branches", "--kl-scale 0 switches the KL loss off"
        if v["branches"] == "encoder":
            return "kl_branches", "--branches encoder generates no images from the mapping network"
    if v["w_latent"] and v["branches"] == "encoder":
        return "w_latent", "--branches encoder generates no images from the mapping network"
    if v["rec_interval"] > 1 and not (v["rec_scale"] or v["kl_scale"]):
        return "rec_interval", "--rec-scale 0 and --kl-scale 0 leave nothing to train"
    if not (v["rec_scale"] and v["w_lpips"]):
        for name, off in (("lpips_batch_shrink", 1), ("lpips_interval", 1), ("lpips_stretch", False)):
            if v[name] != off:
                return name, "the perceptual distance is off; raise --w-lpips or --rec-scale"
    return None
