"""fact-train: parse flags into a TrainConfig, print what will run, call train(). No logic."""

import dataclasses
import inspect
import json
import os
import sys
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fact_metrics.base.errors import UsageError, UserError
from fact_train.commands.classifier import classifier
from fact_train.commands.style import bake, cost
from fact_train.settings.axes import axes_table
from fact_train.settings.config import TrainConfig, fields_of, flag
from fact_train.settings.presets import PRESETS, get_preset

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)

_OWN = {
    "preset": Annotated[str, typer.Option(help="named configuration to start from; see --list-presets")],
    "outdir": Annotated[
        Path | None, typer.Option(help="run folder; default runs/<preset>-seed<seed>[-<changes>]")
    ],
    "dry_run": Annotated[
        bool, typer.Option("--dry-run", "-n", help="print the resolved configuration and stop")
    ],
    "list_presets": Annotated[bool, typer.Option("--list-presets", help="print the presets and stop")],
    "list_axes": Annotated[
        bool, typer.Option("--list-axes", help="print the axes of style injection and stop")
    ],
    "eval": Annotated[str | None, typer.Option(help="score snapshots with these metrics, comma separated")],
    "eval_kimg": Annotated[
        float | None, typer.Option(help="score the first snapshot after every this many kimg, and the last")
    ],
}


def _train(
    preset_name: str | None,
    outdir: Path | None,
    *,
    dry_run: bool,
    list_presets: bool,
    list_axes: bool,
    scored: str | None,
    eval_kimg: float | None,
    changes: dict[str, Any],
) -> None:
    if list_presets:
        _print_presets()
        return
    if list_axes:
        print(axes_table())
        return
    if preset_name is None:
        raise UsageError("--preset is missing; see --list-presets, e.g. fact-train --preset mnist.")
    preset = get_preset(preset_name)
    missing = [name for name in preset.needs if name not in changes]
    if missing:
        raise UsageError(f"--preset {preset_name} needs {flag(missing[0])}.")
    base = preset.at(changes.get("resolution"))
    cfg = dataclasses.replace(base, **changes)

    from fact_train import run_folder  # cheap; torch stays out of --help and --dry-run

    label = run_folder.run_label(
        preset_name, dataclasses.replace(base, resolution=preset.config.resolution), cfg
    )
    outdir = outdir or run_folder.default_outdir(preset_name, label, cfg.seed)
    if dry_run:
        print(json.dumps({"preset": preset_name, "outdir": str(outdir), "config": cfg.to_dict()}, indent=2))
        return
    print(f"run {outdir}  (preset {preset_name})", file=sys.stderr)
    print(_resolved(cfg), file=sys.stderr, flush=True)

    scorer = _scorer(scored, eval_kimg)

    from fact_train.training.loop import train

    result = train(cfg, outdir, preset=preset_name, label=label, after_snapshot=scorer)
    if int(os.environ.get("RANK", 0)) == 0:
        verb = "wrote" if result.trained else "nothing left to do: already trained,"
        print(f"{verb} {result.snapshot}", file=sys.stderr)
        print(f"next: fact-eval all {outdir.parent}", file=sys.stderr)
        print(result.snapshot)
    if scorer is not None and scorer.problems:
        count = len(scorer.problems)
        raise UserError(f"trained, but {count} scores failed; fact-eval run {outdir} tries again")


def _scorer(metrics: str | None, every_kimg: float | None):
    """What --eval asks for; None without it. UsageError on an unknown metric."""
    if metrics is None:
        if every_kimg is not None:
            raise UsageError(f"--eval-kimg {every_kimg:g} says how often; name metrics with --eval.")
        return None
    if every_kimg is not None and not every_kimg > 0:
        raise UsageError(f"--eval-kimg {every_kimg:g}: it must be positive.")
    from fact_eval.scoring.during_training import SnapshotScorer

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    return SnapshotScorer(names, every_kimg=every_kimg)


def _resolved(cfg: TrainConfig) -> str:
    values = [f"{f.name}={getattr(cfg, f.name)}" for f in fields_of()]
    lines, line = [], " "
    for v in values:
        if len(line) + len(v) > 108:
            lines.append(line)
            line = " "
        line += " " + v
    return "\n".join([*lines, line])


def _print_presets() -> None:
    width = max(map(len, PRESETS))
    for name, p in PRESETS.items():
        need = f"  needs {', '.join(map(flag, p.needs))}" if p.needs else ""
        cost = "" if p.minutes is None else f"  ~{p.minutes:g} min on 2 cores  {p.memory_gb:g} GB"
        print(f"{name:<{width}} {p.config.kimg:>7g} kimg{cost}  {p.summary}{need}")
        print(f"{'':<{width}} {p.source}")


def _signature() -> inspect.Signature:
    """One option per TrainConfig field; None means "as in the preset"."""
    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    parameters += [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if name in ("dry_run", "list_presets", "list_axes") else None,
            annotation=annotation,
        )
        for name, annotation in _OWN.items()
    ]
    for f in fields_of():
        option = typer.Option(
            *_flags(f), help=_help(f), rich_help_panel=f.metadata["panel"], metavar=_metavar(f)
        )
        parameters.append(
            inspect.Parameter(
                f.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[_option_type(f), option],
            )
        )
    return inspect.Signature(parameters)


def _flags(f: dataclasses.Field) -> list[str]:
    return [f"{flag(f.name)}/--no-{flag(f.name)[2:]}"] if f.type is bool else [flag(f.name)]


def _help(f: dataclasses.Field) -> str:
    whose = "default" if f.metadata["panel"] == "StylEx" else "StyleGAN2"
    return f"{f.metadata['help']} ({whose}: {f.default})"


def _alternatives(f: dataclasses.Field) -> tuple[list[Any], list[type]]:
    parts = typing.get_args(f.type) if typing.get_origin(f.type) not in (None, Literal) else (f.type,)
    literals = [v for p in parts if typing.get_origin(p) is Literal for v in typing.get_args(p)]
    return literals, [p for p in parts if isinstance(p, type)]


def _metavar(f: dataclasses.Field) -> str | None:
    literals, types = _alternatives(f)
    if literals:
        return "|".join([*map(str, literals), *(["none"] if type(None) in types else [])])
    if f.type is bool:
        return None
    name = next(t for t in types if t is not type(None)).__name__
    return f"{name}|none" if type(None) in types else name


def _option_type(f: dataclasses.Field) -> Any:
    """The type typer parses: plain types directly; optional ones through a parser that understands `none`."""
    if f.type in (bool, int, float, str):
        return f.type | None
    return str | None


def _parse(f: dataclasses.Field, text: str) -> Any:
    """A flag's text as the field's value.

    `none` switches an optional field off. TrainConfig refuses what does not fit.
    """
    literals, types = _alternatives(f)
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


def _command(ctx: typer.Context, **given: Any) -> None:
    if ctx.invoked_subcommand is not None:
        return
    changes = {}
    for f in fields_of():
        value = given[f.name]
        if value is not None:  # not given: the preset's
            changes[f.name] = _parse(f, value) if isinstance(value, str) and f.type is not str else value
    _train(
        given["preset"],
        given["outdir"],
        dry_run=given["dry_run"],
        list_presets=given["list_presets"],
        list_axes=given["list_axes"],
        scored=given["eval"],
        eval_kimg=given["eval_kimg"],
        changes=changes,
    )


_command.__signature__ = _signature()
_command.__annotations__ = {name: p.annotation for name, p in _command.__signature__.parameters.items()}
_command.__doc__ = (
    """Train a StyleGAN2-family model from a preset. The same command resumes an interrupted run."""
)
app.callback(invoke_without_command=True)(_command)
app.command()(classifier)
app.command()(bake)
app.command()(cost)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and an exit code, never a traceback."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        print(f"fact-train: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("fact-train: interrupted before training began; nothing was changed.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
