"""What a configuration field carries: help, panel, source, range. `--help` and `--list-axes` read it."""

import dataclasses
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

SCOPES = ("science", "schedule", "machine")
# The headings of `--help` and `--list-axes`, in their order.
PANELS = (
    "Data",
    "Generator",
    "Style injection",
    "Discriminator",
    "Losses and regularisation",
    "Optimiser",
    "Precision",
    "Augmentation",
    "StylEx",
    "Fine-tuning",
    "Run",
)


@dataclass(frozen=True)
class Bounds:
    """The numbers that a field takes: as `--list-axes` words them, as an error does, and as a test."""

    text: str
    rule: str
    holds: Callable[[float], bool]


POSITIVE = Bounds("above 0", "it must be positive", lambda v: v > 0)
SIDE = Bounds("above 0, HEIGHTxWIDTH", POSITIVE.rule, POSITIVE.holds)
NOT_NEGATIVE = Bounds("from 0", "it must not be negative", lambda v: v >= 0)
NOT_ZERO = Bounds("except 0", "0 removes the style: latents would have no effect", lambda v: v != 0)
SHARE = Bounds("from 0 to 1", "it must lie in [0, 1]", lambda v: 0 <= v <= 1)
PROBABILITY_ABOVE_0 = Bounds("above 0 and at most 1", "it must lie in (0, 1]", lambda v: 0 < v <= 1)
MEAN_SIGN = Bounds(
    "above -1 and below 1", "it must lie between -1 and 1, as a mean of signs does", lambda v: -1 < v < 1
)


def setting(
    default: Any,
    help: str,
    *,
    panel: str,
    source: str | None = None,
    bounds: Bounds | None = None,
    choices: tuple[str, ...] = (),
    metavar: str | None = None,
    reported: str | None = None,
    canonical: Callable[[str], Any] | None = None,
    off_alias: str | None = None,
    scope: str = "science",
) -> Any:
    """A dataclass field of TrainConfig.

    help: one or two sentences. panel: one of PANELS. source: a key of SOURCES; science fields have one.
    bounds: the numbers that fit. choices: the names of a `str` field whose table stands elsewhere.
    metavar: the placeholder of a free text. reported: what the style experiments say of the field.
    canonical: gives a free text its one value, or raises ValueError with what is wrong.
    off_alias: another flag that switches a switch off.
    """
    metadata = {
        "help": help,
        "panel": panel,
        "source": source,
        "bounds": bounds,
        "choices": choices,
        "metavar": metavar,
        "reported": reported,
        "canonical": canonical,
        "off_alias": off_alias,
        "scope": scope,
    }
    return dataclasses.field(default=default, metadata=metadata)


def alternatives(f: dataclasses.Field) -> tuple[list[Any], list[type]]:
    """The literal values and the plain types that a field takes; NoneType is among the types."""
    is_union = typing.get_origin(f.type) not in (None, Literal)
    parts = typing.get_args(f.type) if is_union else (f.type,)
    literals = [v for p in parts if typing.get_origin(p) is Literal for v in typing.get_args(p)]
    return literals, [p for p in parts if isinstance(p, type)]


def fit(f: dataclasses.Field, value: Any) -> Any:
    """The value in the field's own type. Raises ValueError with the reason if it does not fit."""
    literals, types = alternatives(f)
    if value is None and type(None) in types:
        return None
    if value in literals:
        return value
    if literals and not set(types) - {type(None)}:
        raise ValueError(f"it must be one of {', '.join(_names(literals, types))}")
    if bool in types:
        if isinstance(value, bool):
            return value
    elif float in types and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError("it must be a finite number")
        return float(value)
    elif int in types and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif str in types and isinstance(value, str) and value:
        canonical = f.metadata["canonical"]
        return value if canonical is None else canonical(value)
    wanted = [WORDS[t] for t in types if t is not type(None)]
    raise ValueError(f"it must be {' or '.join([*wanted, *_names(literals, types)])}")


def parse_text(f: dataclasses.Field, text: str) -> Any:
    """A command line's text as the field's value; `none` switches an optional field off.

    Text that does not fit comes back as it is: TrainConfig rejects it.
    """
    literals, types = alternatives(f)
    if f.type is bool:
        return {"on": True, "off": False}.get(text.lower(), text)
    if type(None) in types and text.lower() == "none":
        return None
    for option in literals:
        if text == str(option):
            return option
    for kind in (int, float):
        if kind in types:
            try:
                return kind(text)
            except ValueError:
                continue
    return text


WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


def _names(literals: list[Any], types: list[type]) -> list[str]:
    return [*map(str, literals), *(["none"] if type(None) in types else [])]


def placeholder(f: dataclasses.Field) -> str:
    """What follows the flag in `--help`: `INT`, `FLOAT|auto`, `skip|resnet|orig`; empty for a switch."""
    literals, types = alternatives(f)
    if f.type is bool:
        return ""
    plain = [
        f.metadata["metavar"] or {int: "INT", float: "FLOAT", str: "TEXT"}[t] for t in types if t in WORDS
    ]
    return "|".join(dict.fromkeys([*(f.metadata["choices"] or plain), *_names(literals, types)]))


def range_text(f: dataclasses.Field) -> str:
    """The values that a field takes, in words: `skip, resnet, orig`; `numbers above 0, none`."""
    literals, types = alternatives(f)
    if f.type is bool:
        return "on, off"
    named = [*f.metadata["choices"], *_names(literals, types)]
    if f.metadata["choices"] or not any(t in WORDS for t in types):
        return ", ".join(named)
    bounds = f.metadata["bounds"]
    plain = next(t for t in types if t in WORDS)
    numbers = {int: "whole numbers", float: "numbers", str: f.metadata["metavar"] or "text"}[plain]
    return ", ".join([f"{numbers} {bounds.text}" if bounds else numbers, *named])


def value_text(value: Any) -> str:
    """A value as the command line takes it: 10.0 -> 10, None -> none, True -> on."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)
