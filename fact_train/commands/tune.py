"""`fact-train tune`: options and printing, no logic."""

import shlex
import sys
from pathlib import Path
from typing import Any

import typer

from fact_metrics.base.errors import UsageError
from fact_train.commands.field_options import changed_fields, signature_of

SCORED = 10  # times that a trial is scored, without --eval-kimg

_OPTIONS = {
    "preset": (
        str | None,
        None,
        typer.Option(metavar="NAME", help="Named configuration to start from."),
    ),
    "space": (
        list[str] | None,
        None,
        typer.Option(
            metavar="SETTING=RANGE",
            help="A setting to search: r1_gamma=log:0.1:100, pl_decay=uniform:0:0.1 or noise=off,random. "
            "Repeat the option for more settings.",
        ),
    ),
    "metric": (
        str | None,
        None,
        typer.Option(metavar="NAME", help="Metric of the last snapshot that the search improves."),
    ),
    "trials": (
        int,
        20,
        typer.Option(min=1, metavar="INT", help="Trials in all, with those of earlier starts."),
    ),
    "eval_kimg": (
        float | None,
        None,
        typer.Option(
            metavar="FLOAT",
            help="Score a trial once per this many thousand images, and end it if it is worse than the "
            "median of the others. [default: a tenth of --kimg]",
        ),
    ),
    "runs": (
        Path | None,
        None,
        typer.Option(metavar="PATH", help="Folder of the trials. [default: runs/tune-PRESET]"),
    ),
    "jobs": (
        int | None,
        None,
        typer.Option(min=1, metavar="INT", help="Trials at a time. [default: as for fact-train sweep]"),
    ),
    "executor": (
        str,
        "local",
        typer.Option(metavar="NAME", help="Where trials are executed: local, slurm or ray."),
    ),
    "minutes": (
        float | None,
        None,
        typer.Option(metavar="FLOAT", help="Stop after this time, with all states saved. Exit code 75."),
    ),
}


def tune(**given: Any) -> None:
    """Search for the best settings with Optuna. The same command continues.

    Every flag of fact-train, such as --kimg or --seed, holds for all trials. Bad trials end early.
    """
    from fact_metrics.base.extras import need
    from fact_train.sweeps.executors import check_executor, open_executor
    from fact_train.sweeps.room import find_room

    check_executor(given["executor"])
    need("optuna", "tune", "fact-train tune")
    goal, spec, base = _goal(given)

    from fact_train.sweeps.display import Display
    from fact_train.sweeps.search import Search
    from fact_train.sweeps.tune import Tuning

    room = find_room(
        given["executor"],
        goal.root,
        devices={base.config.device},
        threads=base.config.threads,
        jobs=given["jobs"],
    )
    search = Search(goal.root, goal.head(), goal.space, maximize=spec.higher_is_better)
    finished = len(search.ended())
    _say(f"{finished} of {given['trials']} trials in {goal.root} have ended")
    signum = 0
    if search.open_trials or len(search.trials) < given["trials"]:
        minutes = given["minutes"]
        with Display(total=given["trials"], finished=finished) as display:
            tuning = Tuning(
                goal, search, open_executor(given["executor"], room), display, room.jobs, given["trials"]
            )
            signum = tuning.run(None if minutes is None else minutes * 60)
    _report(goal, search)
    _finish(search, given["trials"], signum)


tune.__signature__ = signature_of(_OPTIONS)
tune.__annotations__ = {name: p.annotation for name, p in tune.__signature__.parameters.items()}


def _goal(given: dict[str, Any]):
    """The goal, the metric's spec and the run of the preset. UsageError for what cannot be searched."""
    from fact_eval.jobs.protocols import require_weights
    from fact_metrics.registry import get_spec
    from fact_train.sweeps.plan import plan_axes
    from fact_train.sweeps.space import parse_space
    from fact_train.sweeps.study_values import misfit
    from fact_train.sweeps.tune import Goal

    for name, example in (("preset", "NAME"), ("space", "r1_gamma=log:0.1:100"), ("metric", "NAME")):
        if not given[name]:
            raise UsageError(f"--{name} is missing; give --{name} {example}.")
    for name in ("minutes", "eval_kimg"):
        if given[name] is not None and not given[name] > 0:
            raise UsageError(f"--{name.replace('_', '-')} {given[name]:g}: it must be positive.")
    changes = changed_fields(given)
    seed = changes.pop("seed", 0)
    changes.setdefault("threads", 1)
    space = parse_space(given["space"], changes)
    root = given["runs"] or Path("runs") / f"tune-{given['preset']}"
    (base,) = plan_axes([given["preset"]], [], (seed,), changes, root=root).runs
    spec = get_spec(given["metric"])
    if (why := misfit(spec, base.config)) is not None:
        raise UsageError(f"--metric {why}.")
    require_weights([spec], "--metric")
    every = given["eval_kimg"] or max(base.config.kimg / SCORED, 0.001)
    goal = Goal(given["preset"], changes, tuple(space), spec.name, seed, every, root)
    return goal, spec, base


def _report(goal: Any, search: Any) -> None:
    """The table, the plot and the best command."""
    from fact_train.sweeps.search import COMPLETE
    from fact_train.sweeps.tune_report import PLOT, plot_trials, trials_table

    ended = search.ended()
    if not ended:
        return
    print(trials_table(ended, goal.space, goal.metric))
    for trial in ended:
        if trial.why:
            _say(f"trial {trial.number}: {trial.why}")
    plot_trials(goal.root / PLOT, ended, goal.space, goal.metric)
    _say(f"plot: {goal.root / PLOT}")
    if ended[0].state == COMPLETE:
        command = shlex.join(["fact-train", *goal.run_of(ended[0]).command()])
        print(f"\nbest: trial {ended[0].number}, {goal.metric} {ended[0].value:.6g}\n{command}", flush=True)


def _finish(search: Any, trials: int, signum: int) -> None:
    import signal

    from fact_train.sweeps.search import COMPLETE

    left = max(trials - len(search.ended()), 0)
    if left:
        _say(f"stopped with {left} trials left; run the same command again to continue")
        raise typer.Exit(130 if signum == signal.SIGINT else 75)
    if not any(trial.state == COMPLETE for trial in search.ended()):
        _say("no trial was trained to its end")
        raise typer.Exit(1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
