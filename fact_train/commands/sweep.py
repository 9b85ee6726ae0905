"""`fact-train sweep`: options and printing, no logic."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.plain_text import for_terminal
from fact_train.commands.field_options import changed_fields, signature_of

_OPTIONS = {
    "preset": (
        str | None,
        None,
        typer.Option(metavar="NAME[,NAME...]", help="Named configurations to start from."),
    ),
    "axis": (
        list[str] | None,
        None,
        typer.Option(
            metavar="SETTING=VALUE,VALUE",
            help="A setting and its values, such as r1_gamma=1,10. Repeat the option for more axes. "
            "Separate values by semicolons if they contain commas.",
        ),
    ),
    "one_factor": (
        bool,
        False,
        typer.Option(
            "--one-factor", help="Run the base and one change at a time, instead of all combinations."
        ),
    ),
    "study": (
        list[Path] | None,
        None,
        typer.Option(
            metavar="PATH",
            help="Run a study file, or all studies of a folder. Repeat the option for more. "
            "Runs that studies share are done once.",
        ),
    ),
    "seeds": (
        str | None,
        None,
        typer.Option(
            metavar="SEEDS",
            help="Training seeds, such as 0-2 or 0,3. With --study: only these of its seeds. [default: 0]",
        ),
    ),
    "runs": (Path, Path("runs"), typer.Option(metavar="PATH", help="Folder of all run folders.")),
    "eval": (
        str | None,
        None,
        typer.Option(
            metavar="METRICS",
            help="Score the last snapshot of every run with these metrics, separated by commas. "
            "study takes the metrics of the study files.",
        ),
    ),
    "jobs": (
        int | None,
        None,
        typer.Option(
            min=1,
            metavar="INT",
            help="Runs at a time. [default: the available cores divided by --threads, and no more than fit "
            "in the free memory of the GPUs with --device cuda]",
        ),
    ),
    "executor": (
        str,
        "local",
        typer.Option(metavar="NAME", help="Where runs are executed: local, slurm or ray."),
    ),
    "runs_per_gpu": (
        int | None,
        None,
        typer.Option(
            min=1, metavar="INT", help="Runs that share a GPU. [default: as many as fit in its free memory]"
        ),
    ),
    "order": (
        str,
        "priority",
        typer.Option(
            metavar="NAME",
            help="priority starts urgent studies first, seed starts seed 0 of all studies first. "
            "Both start all settings of a seed before the next seed.",
        ),
    ),
    "minutes": (
        float | None,
        None,
        typer.Option(
            metavar="FLOAT",
            help="Stop after this time: running runs save their state, and the exit code is 75.",
        ),
    ),
    "skip_published": (
        bool,
        False,
        typer.Option(
            "--skip-published",
            help="Skip runs with records on the board: same configuration hash, images and seed.",
        ),
    ),
    "dry_run": (bool, False, typer.Option("--dry-run", "-n", help="Print the plan and exit.")),
}


def sweep(**given: Any) -> None:
    """Train many configurations and seeds. The same command continues.

    Every flag of fact-train, such as --kimg or --device, holds for all runs. Finished runs are skipped,
    interrupted ones resume, and a failure stops nothing. Each run uses one CPU thread without --threads.
    """
    from fact_train.sweeps.executors import check_executor, open_executor
    from fact_train.sweeps.plan import in_order
    from fact_train.sweeps.published import published_check
    from fact_train.sweeps.room import find_room, run_gb
    from fact_train.sweeps.sweep import run_sweep, stand

    check_executor(given["executor"])
    plan = _plan(given)
    runs = in_order(plan.runs, given["order"])
    metrics_of = _metrics(given["eval"], bool(given["study"]))
    _check_metrics(runs, metrics_of)
    room = find_room(
        given["executor"],
        given["runs"],
        devices={run.config.device for run in runs},
        threads=runs[0].config.threads,
        gb=run_gb(runs),
        jobs=given["jobs"],
        runs_per_gpu=given["runs_per_gpu"],
    )
    minutes = given["minutes"]
    if minutes is not None and not minutes > 0:
        raise UsageError(f"--minutes {minutes:g}: it must be positive.")
    standing = stand(
        runs,
        is_scored=_score_check(metrics_of),
        is_published=published_check(metrics_of) if given["skip_published"] else lambda run: False,
    )
    for line in plan.notes:
        _say(line)
    for line in [*plan.problems, *standing.problems()]:
        _say(f"problem: {line}")
    _say(_counts(given["runs"], runs, standing))
    problems = len(plan.problems) + len(standing.stuck)
    if given["dry_run"]:
        _print_plan(runs, standing, room.jobs)
        return
    result = None
    if standing.due:
        from fact_train.sweeps.display import Display

        with Display(total=len(runs), finished=len(standing.finished) + len(standing.published)) as display:
            result = run_sweep(
                standing.due,
                open_executor(given["executor"], room),
                root=given["runs"],
                metrics_of=metrics_of,
                watcher=display,
                seconds=None if minutes is None else minutes * 60,
            )
    _finish(given["runs"], result, problems)


sweep.__signature__ = signature_of(_OPTIONS)
sweep.__annotations__ = {name: p.annotation for name, p in sweep.__signature__.parameters.items()}


def _plan(given: dict[str, Any]):
    from fact_train.sweeps.plan import parse_axis, plan_axes, plan_studies
    from fact_train.sweeps.study_values import parse_seeds

    changes = changed_fields(given)
    if "seed" in changes:
        raise UsageError(f"--seed {changes['seed']}: use --seeds for the seeds of a sweep.")
    changes.setdefault("threads", 1)
    seeds = None
    if given["seeds"] is not None:
        try:
            seeds = parse_seeds(given["seeds"])
        except UserError as error:
            raise UsageError(f"--seeds: {error}") from None
    if given["study"]:
        for name in ("preset", "axis", "one_factor"):
            if given[name]:
                raise UsageError(
                    f"--{name.replace('_', '-')} and --study both choose runs; give one of them."
                )
        return plan_studies(given["study"], seeds, changes, root=given["runs"])
    if given["preset"] is None:
        raise UsageError("give --preset NAME or --study FILE; fact-train --list-presets lists the presets.")
    axes = [parse_axis(text) for text in given["axis"] or []]
    presets = [name.strip() for name in given["preset"].split(",")]
    if given["one_factor"] and not axes:
        raise UsageError("--one-factor needs --axis.")
    return plan_axes(
        presets, axes, seeds or (0,), changes, root=given["runs"], one_factor=given["one_factor"]
    )


def _metrics(text: str | None, by_study: bool) -> Callable[[Any], Sequence[str]]:
    """Run -> names of the metrics that score it. UsageError for an unknown metric."""
    from fact_metrics.registry import get_specs

    if text is None:
        return lambda run: ()
    if text == "study":
        if not by_study:
            raise UsageError("--eval study needs --study FILE.")
        return lambda run: run.metrics
    names = [name.strip() for name in text.split(",") if name.strip()]
    get_specs(names)
    return lambda run: names


def _check_metrics(runs: Sequence[Any], metrics_of: Callable[[Any], Sequence[str]]) -> None:
    """UsageError before anything is trained, for a metric that a run cannot have or whose weights miss."""
    from fact_eval.jobs.protocols import require_weights
    from fact_metrics.registry import get_specs
    from fact_train.sweeps.study_values import misfit

    wanted = {name: get_specs([name])[0] for run in runs for name in metrics_of(run)}
    for run in runs:
        for name in metrics_of(run):
            if (why := misfit(wanted[name], run.config)) is not None:
                raise UsageError(f"--eval {why}: {run.name}. Drop the metric, or that run.")
    require_weights(list(wanted.values()), "--eval")


def _score_check(metrics_of: Callable[[Any], Sequence[str]]) -> Callable[[Any], bool]:
    """Whether the last snapshot of a trained run has a record of each of its metrics."""

    def is_scored(run: Any) -> bool:
        from fact_eval.jobs.plan import Request, plan_run
        from fact_eval.jobs.runs import read_run
        from fact_metrics.registry import get_specs

        names = metrics_of(run)
        if not names:
            return True
        request = Request(tuple(get_specs(names)), named=True)
        return not any(job.missing for job in plan_run(read_run(run.outdir), request))

    return is_scored


def _counts(folder: Path, runs: Sequence[Any], standing: Any) -> str:
    groups = {
        "finished": standing.finished,
        "published": standing.published,
        "cannot continue": standing.stuck,
        "to do": standing.due,
    }
    counts = [f"{len(group)} {name}" for name, group in groups.items() if group]
    return f"{len(runs)} run{'s' * (len(runs) > 1)} in {folder}: {', '.join(counts)}"


def _print_plan(runs: Sequence[Any], standing: Any, jobs: int) -> None:
    from fact_train.sweeps.estimate import estimate
    from fact_train.sweeps.progress import TRAINED

    groups = {"finished": standing.finished, "published": standing.published}
    words = {run.name: word for word, group in groups.items() for run in group}
    width = max(len(run.name) for run in runs)
    for run in runs:
        progress = standing.progress[run.name]
        word = words.get(run.name, "to score" if progress.state == TRAINED else progress.state)
        print(
            f"{run.name:<{width}}  {progress.kimg:>6g} / {run.config.kimg:<6g} kimg  {word:<9} {run.setting}"
        )
    sys.stdout.flush()
    for line in estimate(standing.due, runs, standing.progress).describe(jobs):
        _say(line)


def _finish(folder: Path, result: Any, problems: int) -> None:
    """The last lines and the exit code."""
    failed = result.failed if result else []
    if result is None and not problems:
        _say("nothing left to do: all runs are finished")
        _say(f"next: fact-eval all {folder}")
        return
    for run, reason in failed:
        _say(f"failed: {run.name}: {reason}")
    if result is not None:
        counts = f"{len(result.done)} done, {len(failed)} failed, {len(result.stopped)} left"
        _say(f"{counts}; logs are in {folder}/sweep-logs")
    if result is not None and result.stopped:
        _say("stopped; run the same command again to continue")
    code = result.exit_code if result else 0
    if code == 0 and not problems:
        _say(f"next: fact-eval all {folder}")
    raise typer.Exit(code or (1 if problems else 0))


def _say(line: str) -> None:
    print(for_terminal(line), file=sys.stderr, flush=True)
