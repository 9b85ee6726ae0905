"""Configuration: one field, one flag, one recorded value.

Refusals name the flag, the value and the way out.
"""

import dataclasses
import json

import pytest

from fact_metrics.base.errors import UsageError
from fact_train.settings.config import TrainConfig, differing_fields, fields_of
from fact_train.settings.fields import PANELS, SCOPES
from fact_train.settings.presets import PRESETS, get_preset


def test_configuration_survives_json() -> None:
    for preset in PRESETS.values():
        again = TrainConfig.from_dict(json.loads(json.dumps(preset.config.to_dict())))
        assert again == preset.config


def test_every_field_has_help_scope_and_panel() -> None:
    for f in fields_of():
        assert f.metadata["help"] and f.metadata["panel"] in PANELS and f.metadata["scope"] in SCOPES


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch": 0}, "--batch 0: it must be positive"),
        ({"r1_gamma": -1.0}, "--r1-gamma -1: it must not be negative"),
        ({"g_arch": "unet"}, "--g-arch unet"),
        ({"batch": 6, "mbstd_group_size": 4}, "--mbstd-group-size 4"),
        ({"g_lr": float("nan")}, "--g-lr nan"),
        ({"batch": 8.5}, "--batch 8.5"),
        ({"cond": 1}, "--cond 1"),
        ({"style_mixing_prob": 1.5}, "--style-mixing-prob 1.5"),
        ({"channels": 2}, "--channels 2"),
        ({"r1_auto_batch": 8}, "--r1-auto-batch 8: it needs --r1-gamma auto"),
        ({"fp16_layers": 4, "precision": "bf16"}, "--fp16-layers 4: --precision bf16"),
    ],
)
def test_bad_values_are_refused_by_flag_and_value(changes: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named.replace(".", r"\.")):
        TrainConfig(**changes)


def test_an_unknown_field_in_a_saved_configuration_is_refused() -> None:
    with pytest.raises(UsageError, match="r1_gama"):
        TrainConfig.from_dict({"r1_gama": 1.0})


def test_hash_groups_seeds_and_separates_configurations() -> None:
    base = TrainConfig()
    changed = lambda **kw: dataclasses.replace(base, **kw)  # noqa: E731
    assert changed(seed=5).sha256() == base.sha256()
    assert changed(kimg=1.0, device="cpu", threads=1).sha256() == base.sha256()
    hashes = {
        base.sha256(),
        changed(r1_gamma=1.0).sha256(),
        changed(batch=64).sha256(),
        changed(cond=True).sha256(),
    }
    assert len(hashes) == 4
    assert differing_fields(base, changed(seed=1, kimg=2.0, g_lr=0.1)) == ["g_lr", "seed"]


def test_unknown_preset_is_refused_with_the_closest_one() -> None:
    with pytest.raises(UsageError, match="did you mean mnist-stylegan2"):
        get_preset("mnist-stylegan")
