"""fact-train: parse flags into a TrainConfig, print what will run, call train(). No logic."""

import inspect
import itertools
import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.interruption import INTERRUPTED, exit_now
from fact_metrics.base.plain_text import for_terminal
from fact_train.commands.classifier import classifier
from fact_train.commands.field_options import changed_fields, field_parameters
from fact_train.commands.help import PanelGroup
from fact_train.commands.style import bake, cost
from fact_train.commands.sweep import sweep
from fact_train.commands.tune import tune
from fact_train.datasets import find_data
from fact_train.settings.axes import axes_text
from fact_train.settings.config import TrainConfig, fields_of, flag
from fact_train.settings.presets import PRESETS, configure

app = typer.Typer(
    cls=PanelGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 120},
)

_OWN = {
    "preset": Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Named configuration to start from; see --list-presets. With --help: show its values.",
        ),
    ],
    "list_presets": Annotated[bool, typer.Option("--list-presets", help="Print all presets and exit.")],
    "list_axes": Annotated[
        bool,
        typer.Option(
            "--list-axes",
            help="Print every setting that defines an experiment, with its values and source, and exit.",
        ),
    ],
    "dry_run": Annotated[
        bool, typer.Option("--dry-run", "-n", help="Print the resolved configuration and exit.")
    ],
    "outdir": Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            rich_help_panel="Run",
            help="Run folder. [default: runs/PRESET-seedSEED, followed by the changed settings]",
        ),
    ],
    "eval": Annotated[
        str | None,
        typer.Option(
            metavar="METRICS",
            rich_help_panel="Run",
            help="Score snapshots during training with these metrics, separated by commas; "
            "see fact-eval list.",
        ),
    ],
    "eval_kimg": Annotated[
        float | None,
        typer.Option(
            metavar="FLOAT",
            rich_help_panel="Run",
            help="With --eval: score once per this many thousand images, and the last snapshot. "
            "[default: every snapshot]",
        ),
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
        print(axes_text(shutil.get_terminal_size().columns))
        return
    if preset_name is None:
        raise UsageError("--preset is missing; try --preset mnist, or see --list-presets.")
    cfg, reference = configure(preset_name, changes)

    from fact_train import run_folder  # cheap; torch stays out of --help and --dry-run

    label = run_folder.run_label(preset_name, reference, cfg)
    outdir = outdir or run_folder.default_outdir(preset_name, label, cfg.seed)
    if dry_run:
        print(json.dumps({"preset": preset_name, "outdir": str(outdir), "config": cfg.to_dict()}, indent=2))
        return
    find_data(cfg.data)  # before anything slow, and before the configuration hides the error
    run_folder.check_folder(outdir, cfg)
    print(f"run {outdir}  (preset {preset_name})", file=sys.stderr)
    print(_resolved(cfg), file=sys.stderr, flush=True)

    scorer = _scorer(scored, eval_kimg)

    from fact_train.training.loop import train
    from fact_train.training.run import NonFiniteLoss

    is_rank_zero = int(os.environ.get("RANK", 0)) == 0
    try:
        result = train(cfg, outdir, preset=preset_name, label=label, after_snapshot=scorer)
    except NonFiniteLoss:
        if is_rank_zero:
            from fact_eval.scoring.diverged import record_divergence

            record_divergence(outdir)
        raise
    if is_rank_zero:
        verb = "wrote" if result.trained else "nothing left to do, training is complete:"
        print(f"{verb} {result.snapshot}", file=sys.stderr)
        print(f"next: fact-eval all {outdir.parent}", file=sys.stderr)
        print(result.snapshot)
    if scorer is not None and scorer.problems:
        count = len(scorer.problems)
        raise UserError(f"training is complete, but {count} scores failed; repeat: fact-eval run {outdir}")


def _scorer(metrics: str | None, every_kimg: float | None):
    """What --eval asks for; None without it. UsageError on an unknown metric."""
    if metrics is None:
        if every_kimg is not None:
            raise UsageError(f"--eval-kimg {every_kimg:g} needs --eval METRICS.")
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
    """Presets, with their common source below each group. The times are those of Preset."""
    width = max(map(len, PRESETS))
    for source, group in itertools.groupby(PRESETS.items(), key=lambda item: item[1].source):
        for name, p in group:
            needs = f"; needs {' and '.join(map(flag, p.needs))}" if p.needs else ""
            cost = "" if p.minutes is None else f" ({p.minutes:g} min, {p.memory_gb:g} GB)"
            print(f"{name:<{width}} {p.config.kimg:>7g} kimg  {p.summary}{cost}{needs}")
        print(f"    Source: {source}\n")
    print("Minutes and memory are for 2 CPU cores with AVX-512.")


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
    return inspect.Signature([*parameters, *field_parameters()])


def _command(ctx: typer.Context, **given: Any) -> None:
    if ctx.invoked_subcommand is not None:
        return
    _train(
        given["preset"],
        given["outdir"],
        dry_run=given["dry_run"],
        list_presets=given["list_presets"],
        list_axes=given["list_axes"],
        scored=given["eval"],
        eval_kimg=given["eval_kimg"],
        changes=changed_fields(given),
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
app.command()(sweep)
app.command()(tune)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and an exit code, never a traceback."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # our own checks of pictures say more
    try:
        app(standalone_mode=True)
    except UserError as error:
        print(for_terminal(f"fact-train: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        reason = f"{error.filename or 'input/output'}: {error.strerror or error}"
        print(for_terminal(f"fact-train: {reason}; run the same command again to continue."), file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer's, on Ctrl-C
            exit_now(INTERRUPTED)
        raise
    except KeyboardInterrupt:
        print("fact-train: interrupted before training started; nothing was changed.", file=sys.stderr)
        exit_now(INTERRUPTED)


if __name__ == "__main__":
    main()
