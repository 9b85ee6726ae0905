"""One command-line option per TrainConfig field, for every command that trains."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from fact_train.settings.config import fields_of, flag
from fact_train.settings.fields import parse_text, placeholder


def field_parameters(*, hidden: bool = False) -> list[inspect.Parameter]:
    """Keyword parameters of a command; None means "as in the preset". `hidden`: not in its help."""
    return [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[_option_type(f), _option(f, hidden)],
        )
        for f in fields_of()
    ]


def signature_of(options: Mapping[str, tuple[Any, Any, Any]]) -> inspect.Signature:
    """Of a command with `options` (name: type, default, typer.Option) and every field, hidden in its help."""
    own = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[type_, option]
        )
        for name, (type_, default, option) in options.items()
    ]
    return inspect.Signature([*own, *field_parameters(hidden=True)])


def changed_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given, in their own types. TrainConfig rejects values that do not fit."""
    changes = {}
    for f in fields_of():
        value = given[f.name]
        if value is not None:
            changes[f.name] = parse_text(f, value) if isinstance(value, str) and f.type is not str else value
    return changes


def _option(f: dataclasses.Field, hidden: bool) -> Any:
    return typer.Option(
        *_flags(f),
        help=f.metadata["help"],
        rich_help_panel=f.metadata["panel"],
        metavar=placeholder(f) or None,
        hidden=hidden,
    )


def _flags(f: dataclasses.Field) -> list[str]:
    if f.type is not bool:
        return [flag(f.name)]
    alias = f.metadata["off_alias"]
    return [f"{flag(f.name)}/--no-{flag(f.name)[2:]}", *([] if alias is None else [f" /{alias}"])]


def _option_type(f: dataclasses.Field) -> Any:
    """The type typer parses: plain types directly; optional ones through a parser that understands `none`."""
    if f.type in (bool, int, float, str):
        return f.type | None
    return str | None
