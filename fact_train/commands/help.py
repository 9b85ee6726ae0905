"""The help of fact-train: options under the headings of PANELS, with the values of the named preset."""

import re
from collections.abc import Sequence
from typing import Any

from typer.core import TyperGroup

from fact_metrics.base.errors import UsageError
from fact_metrics.base.image_size import parse_resolution
from fact_train.settings.config import TrainConfig, fields_of, flag
from fact_train.settings.fields import PANELS, value_text
from fact_train.settings.presets import Preset, get_preset

GENERAL = (
    "Values in brackets are the general defaults, which are StyleGAN2's where it has the setting. "
    "A preset sets its own: fact-train --preset NAME --help shows them."
)
COLUMN = 30  # widest flag that shares its line with its text
# Characters that wrapping keeps together, and what is printed for them.
NO_BREAK = {"\N{NO-BREAK SPACE}": " ", "\N{NON-BREAKING HYPHEN}": "-"}
_GIVEN = "fact_train.given"


class PanelGroup(TyperGroup):
    """A command whose options stand under their panels.

    Plain text instead of typer's rich panels: those cut long flags at 80 columns and take twice as long.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_GIVEN] = given  # --help acts before the values of other options are known
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        text = super().get_help(ctx)
        for character, printed in NO_BREAK.items():
            text = text.replace(character, printed)
        return text

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        super().format_help_text(ctx, formatter)
        formatter.write_paragraph()
        with formatter.indentation():
            for line in _introduction(ctx.meta[_GIVEN]):
                formatter.write_text(_unbroken(line))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        preset, cfg = _shown(ctx.meta[_GIVEN])
        needs = preset.needs if preset else ()
        values = {f.name: value_text(getattr(cfg, f.name)) for f in fields_of()}
        panels: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Command", *PANELS)}
        for option in self.get_params(ctx):
            names, text = option.get_help_record(ctx)
            if option.name in values:
                shown = "required" if option.name in needs else f"default: {values[option.name]}"
                text = f"{text} [{shown}]"
            text = _unbroken(text)
            panels[getattr(option, "rich_help_panel", None) or "Command"].append((names, text))
        for name, rows in panels.items():
            with formatter.section(name):
                formatter.write_dl([(f"{names:<{COLUMN}}", text) for names, text in rows], col_max=COLUMN)
        self.format_commands(ctx, formatter)


def _unbroken(text: str) -> str:
    """The text with characters that keep flags and bracketed values on one line."""
    text = text.replace("-", "\N{NON-BREAKING HYPHEN}")
    return re.sub(r"(?<=\[default:) (?=[^\s\]]+\])", "\N{NO-BREAK SPACE}", text)


def _shown(given: dict[str, Any]) -> tuple[Preset | None, TrainConfig]:
    """The preset that was named, and the configuration whose values help shows."""
    if not given.get("preset"):
        return None, TrainConfig()
    preset = get_preset(given["preset"])
    try:
        return preset, preset.at(parse_resolution(given.get("resolution") or ""))
    except (ValueError, UsageError):  # the run itself says what is wrong with it
        return preset, preset.config


def _introduction(given: dict[str, Any]) -> Sequence[str]:
    preset, _ = _shown(given)
    if preset is None:
        return [GENERAL]
    lines = [f"Preset {given['preset']}: {preset.summary}.", f"Source: {preset.source}."]
    if preset.minutes is not None:
        lines.append(
            f"It takes about {preset.minutes:g} minutes and {preset.memory_gb:g} GB "
            "on 2 CPU cores with AVX-512."
        )
    if preset.needs:
        lines.append(f"It needs {' and '.join(map(flag, preset.needs))}.")
    if preset.differs:
        lines.append("It differs from its source in:")
        lines += [
            f"- {flag(name) if hasattr(preset.config, name) else name}: {why}"
            for name, why in preset.differs.items()
        ]
    return [*lines, "Values in brackets are the values of this preset."]
