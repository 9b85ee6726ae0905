"""Settings that change while a run trains: `--schedule NAME=SHAPE:END:KIMG[,...]`, one mechanism for all.

A setting starts at its own flag's value. It reaches END after KIMG thousand images, and stays there.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fact_metrics.base.errors import close_names
from fact_train.settings.fields import value_text

# What a schedule can change, in the order in which schedules are written; each is read in every step.
SCHEDULED = ("g_lr", "d_lr", "beta2", "ema_kimg", "augment_p", "r1_gamma", "r2_gamma", "top_k")
# name -> value between start and end at the share t of the way
SHAPES: dict[str, Callable[[float, float, float], float]] = {
    "geometric": lambda start, end, t: start * (end / start) ** t,
    "cosine": lambda start, end, t: end + (start - end) * (1 + math.cos(math.pi * t)) / 2,
}


@dataclass(frozen=True)
class Schedule:
    """The way of one setting from its start to `end`, within `kimg` thousand images."""

    shape: str
    end: float
    kimg: float

    def at(self, start: float, *, nimg: int) -> float:
        """The value after `nimg` images."""
        return SHAPES[self.shape](start, self.end, min(nimg / (self.kimg * 1000), 1.0))


@functools.cache
def parse_schedules(text: str | None) -> dict[str, Schedule]:
    """{setting: Schedule} of a --schedule. ValueError with the reason where it is malformed."""
    found: dict[str, Schedule] = {}
    for entry in [] if text is None else text.split(","):
        name, _, rest = (part.strip() for part in entry.partition("="))
        shape, *numbers = rest.split(":")
        if name not in SCHEDULED:
            raise ValueError(f"no setting {name!r} to schedule; {close_names(name, SCHEDULED).rstrip('.?')}")
        if name in found:
            raise ValueError(f"{name} stands there twice")
        if shape not in SHAPES or len(numbers) != 2:
            shapes = " or ".join(SHAPES)
            raise ValueError(f"{entry.strip()!r} is not NAME=SHAPE:END:KIMG with SHAPE {shapes}")
        try:
            end, kimg = map(float, numbers)
        except ValueError:
            raise ValueError(f"END and KIMG of {entry.strip()!r} must be numbers") from None
        if not (math.isfinite(end) and math.isfinite(kimg) and kimg > 0):
            raise ValueError(f"KIMG of {entry.strip()!r} must be positive, and END finite")
        found[name] = Schedule(shape, end, kimg)
    return found


def schedules_of(cfg: Any) -> dict[str, Schedule]:
    """All schedules of a configuration; --r1-gamma-final is one."""
    found = parse_schedules(cfg.schedule)
    if cfg.r1_gamma_final is not None:
        found = {**found, "r1_gamma": Schedule("geometric", cfg.r1_gamma_final, cfg.r1_decay_kimg)}
    return found


def value_at(cfg: Any, name: str, *, nimg: int, start: float | None = None) -> float:
    """A setting after `nimg` images. `start` takes the place of its field, where that is not a number."""
    start = getattr(cfg, name) if start is None else start
    schedule = schedules_of(cfg).get(name)
    return start if schedule is None else schedule.at(start, nimg=nimg)


def canonical(text: str) -> str:
    """The one spelling of a --schedule: configurations that mean the same have the same hash."""
    found = parse_schedules(text)
    return ",".join(
        f"{name}={found[name].shape}:{value_text(found[name].end)}:{value_text(found[name].kimg)}"
        for name in SCHEDULED
        if name in found
    )
