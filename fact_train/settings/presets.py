"""PRESETS: name -> configuration, with its source and cost. A preset is one entry."""

import dataclasses
from typing import Any

from fact_metrics.base.errors import UsageError, unknown_name
from fact_train.settings.config import TrainConfig, flag
from fact_train.settings.mnist_presets import STYLEGAN2_PRESETS, STYLEX_PRESETS
from fact_train.settings.paper_presets import PAPER_PRESETS
from fact_train.settings.preset import Preset
from fact_train.settings.stacked_presets import STACKED_PRESETS
from fact_train.settings.stylex_presets import REPRODUCTION_PRESETS

PRESETS: dict[str, Preset] = {
    **STYLEGAN2_PRESETS,
    **STACKED_PRESETS,
    **PAPER_PRESETS,
    **STYLEX_PRESETS,
    **REPRODUCTION_PRESETS,
}


def get_preset(name: str) -> Preset:
    """The preset of this name; UsageError with the closest names otherwise."""
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]


def configure(name: str, changes: dict[str, Any]) -> tuple[TrainConfig, TrainConfig]:
    """A preset with changed fields, and the configuration that its label is compared with.

    UsageError for an unknown preset, a missing field that it needs, and values that contradict each other.
    """
    preset = get_preset(name)
    missing = [field for field in preset.needs if field not in changes]
    if missing:
        raise UsageError(f"--preset {name} needs {' and '.join(map(flag, missing))}.")
    base = preset.at(changes.get("resolution"))
    return dataclasses.replace(base, **changes), dataclasses.replace(
        base, resolution=preset.config.resolution
    )
