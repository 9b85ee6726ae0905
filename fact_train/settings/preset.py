"""Preset: a configuration with its source and cost."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fact_metrics.base.image_size import Resolution
from fact_train.settings.config import TrainConfig


@dataclass(frozen=True)
class Preset:
    """A configuration, its source, and its cost on two CPU cores.

    `at_resolution` gives the fields that depend on the resolution. `differs` says where the preset is not its
    source: {field, or part of the source: why}.
    """

    config: TrainConfig
    summary: str
    source: str
    minutes: float | None = None  # 2 CPU cores with AVX-512, python -m benchmarks presets; None: not measured
    memory_gb: float | None = None  # peak resident memory in the same run
    needs: tuple[str, ...] = ()  # fields that the user must give
    at_resolution: Callable[[Resolution], dict[str, Any]] | None = None
    differs: Mapping[str, str] = field(default_factory=dict)

    def at(self, resolution: Resolution | None) -> TrainConfig:
        """The configuration for images of this resolution; None keeps the preset's own.

        UsageError for a resolution that networks cannot have.
        """
        if resolution is None or self.at_resolution is None:
            return self.config
        sized = dataclasses.replace(self.config, resolution=resolution)
        return dataclasses.replace(sized, **self.at_resolution(sized.resolution))
