"""`fact-train --list-axes`: every setting that defines an experiment, with its values, default and source.

The text is derived from the fields of TrainConfig and from SOURCES; nothing is described here.
"""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

from fact_train.settings.config import fields_of, flag
from fact_train.settings.fields import PANELS, placeholder, range_text, value_text
from fact_train.settings.measured import read_measured
from fact_train.settings.sources import SOURCES

INTRODUCTION = (
    "Every setting that defines an experiment. Its value is part of the configuration hash, and a run folder "
    "names the settings that differ from its preset."
)
REPORTED = "style experiments"
NARROWEST, WIDEST = 60, 120


def axes_text(width: int = 100) -> str:
    """The science fields under their panels, wrapped to a terminal's width in columns."""
    width = min(max(width, NARROWEST), WIDEST)
    lines = [_wrap(INTRODUCTION, width, "")]
    for panel in PANELS:
        fields = [f for f in fields_of("science") if f.metadata["panel"] == panel]
        if fields:
            lines += ["", panel]
        for f in fields:
            lines += [f"  {_names(f)}", *(_wrap(text, width, "      ") for text in _description(f))]
    lines += ["", "Sources"]
    lines += [_wrap(f"{name}: {text}.", width, "  ", hanging="    ") for name, text in SOURCES.items()]
    return "\n".join(lines)


def _names(f: dataclasses.Field) -> str:
    if f.type is bool:
        return f"{flag(f.name)} / --no-{flag(f.name)[2:]}"
    return f"{flag(f.name)} {placeholder(f)}"


def _description(f: dataclasses.Field) -> list[str]:
    facts = [f"Default: {value_text(f.default)}.", f"Source: {f.metadata['source']}."]
    if f.metadata["bounds"] or not placeholder(f):  # otherwise the flag's placeholder says it all
        facts.insert(0, f"Values: {range_text(f)}.")
    lines = [f.metadata["help"], " ".join(facts)]
    return [*lines, *findings(f, read_measured())]


def findings(f: dataclasses.Field, measured: Mapping[str, Sequence[str]]) -> list[str]:
    """What studies measured of a field; without any, what the style experiments report."""
    reported = f.metadata["reported"]
    return [f"Measured: {answer}" for answer in measured.get(f.name, ())] or (
        [f"Reported by the {REPORTED}: {reported}"] if reported else []
    )


def _wrap(text: str, width: int, indent: str, *, hanging: str | None = None) -> str:
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
