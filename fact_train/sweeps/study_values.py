"""The values of a study file, checked one by one: texts, seeds, fields of a run. No torch."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fact_metrics.base.errors import UserError, close_names
from fact_metrics.spec import MetricSpec
from fact_train.datasets import dataset_entry
from fact_train.settings.config import TrainConfig, fields_of
from fact_train.settings.fields import alternatives, fit, value_text

_SETTABLE = {f.name for f in fields_of("science")} - {"seed", "data"} | {"kimg"}
# What a study may set of a run: what defines it but its seed, and how long it trains.
RUN_FIELDS = {f.name: f for f in fields_of() if f.name in _SETTABLE}


def read_fields(given: Any, where: str) -> dict[str, Any]:
    """Fields of a run with their values checked one by one. The text none stands for None."""
    if not isinstance(given, dict):
        raise UserError(f"{where}: fields must be a table such as {{ r1_gamma = 10 }}.")
    values = {}
    for name, value in given.items():
        if name not in RUN_FIELDS:
            raise UserError(f"{where}: unknown field {name!r}; {close_names(name, RUN_FIELDS)}")
        literals, types = alternatives(RUN_FIELDS[name])
        is_none = value == "none" and "none" not in literals and type(None) in types
        values[name] = _fitting(name, None if is_none else value, where)
    return values


def _fitting(name: str, value: Any, where: str) -> Any:
    f = RUN_FIELDS[name]
    try:
        value = fit(f, value)
    except ValueError as error:
        raise UserError(f"{where}: {name} = {value!r}: {error}.") from None
    bounds = f.metadata["bounds"]
    if bounds is not None and isinstance(value, int | float) and not bounds.holds(value):
        raise UserError(f"{where}: {name} = {value_text(value)}: {bounds.rule}.")
    return value


def parse_seeds(text: Any) -> tuple[int, ...]:
    """Training seeds: `0-2`, `0,3,5` or `0-2,6`."""
    parts = (
        [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in text.split(",")]
        if isinstance(text, str)
        else [None]
    )
    if None in parts:
        raise UserError(f"seeds are {text!r}; write them as 0-2 or 0,1,2.")
    seeds = [range(int(part[1]), int(part[2] or part[1]) + 1) for part in parts]
    found = [seed for part in seeds for seed in part]
    if not all(seeds) or len(set(found)) < len(found):
        raise UserError(f"seeds are {text!r}; count upwards and name each seed once.")
    return tuple(sorted(found))


def check_keys(values: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for key in values:
        if key not in known:
            raise UserError(f"unknown {what} {key!r}; {close_names(key, known)}")


def check_name(name: str, known: Mapping[str, Any], what: str) -> None:
    if name not in known:
        raise UserError(f"unknown {what} {name!r}; {close_names(name, known)}")


def read_text(values: Mapping[str, Any], key: str, *, optional: bool = False) -> str:
    if key not in values:
        if optional:
            return ""
        raise UserError(f"{key} is missing.")
    text = values[key]
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{key} is {text!r}; write a text.")
    return text.strip()


def read_positive(values: Mapping[str, Any], key: str) -> float:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UserError(f"{key} must be a positive number; it is {'missing' if value is None else value}.")
    return float(value)


def read_priority(value: Any) -> int:
    if value not in (1, 2, 3) or isinstance(value, bool):
        raise UserError(f"priority is {value!r}; give 1 (first), 2 or 3.")
    return value


def trains_encoder(config: TrainConfig) -> bool:
    """Whether a run ends with a trained encoder, which some metrics need."""
    return config.model == "stylex" and (config.branches != "mapping" or config.rec_in_d_phase)


def misfit(spec: MetricSpec, config: TrainConfig) -> str | None:
    """Why a run cannot have a metric; None if it can."""
    if not spec.fits(dataset_entry(Path(config.data).name).traits):
        return f"{spec.name} is for {spec.needs_trait} only, not for {config.data}"
    if spec.needs_encoder and not trains_encoder(config):
        return f"{spec.name} needs a trained encoder"
    return None
