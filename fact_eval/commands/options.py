"""Options, messages and exit codes that the commands of fact-eval share."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fact_metrics.base.errors import UsageError
from fact_metrics.base.plain_text import for_json, for_terminal
from fact_metrics.base.processes import is_rank_zero, launched_world_size
from fact_metrics.features.weight_store import random_weights

Runs = Annotated[list[Path], typer.Argument(help="Run folders, or folders that contain runs at any depth.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAMES",
        help="Metrics, separated by commas or by repeating the option, or all. "
        "[default: the columns of the board]",
    ),
]
Seeds = Annotated[
    str,
    typer.Option(metavar="SEEDS", help="Evaluation seeds: 0, a list such as 0,1,2 or a range such as 0-4."),
]
Which = Annotated[
    str, typer.Option("--snapshot", metavar="WHICH", help="latest, all, or the kimg of a snapshot.")
]
Data = Annotated[
    str | None,
    typer.Option(metavar="NAME|PATH", help="Location of the real images, if it has changed since training."),
]
DeviceName = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Device: auto, cpu, cuda or cuda:N.")
]
Batch = Annotated[
    int,
    typer.Option(min=1, metavar="INT", help="Images per call of a network. Results change by rounding only."),
]
Threads = Annotated[
    int | None, typer.Option(min=1, metavar="INT", help="CPU threads. [default: all available cores]")
]
Force = Annotated[bool, typer.Option("--force", help="Measure again. Earlier records are kept.")]
Protocol = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="standard, embedded (needs no downloads), or auto: standard if all its weight files are "
        "installed. [default: auto]",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def say(line: str) -> None:
    """One line for people, on stderr; only rank 0 prints it."""
    if is_rank_zero():
        print(for_terminal(line), file=sys.stderr, flush=True)


def enter_smoke_mode(context: typer.Context, wanted: bool) -> bool:
    """Random weights from here to the end of the command."""
    if wanted:
        context.with_resource(random_weights())
        say("random weights: this is a smoke test; metrics that need downloaded weights give invalid rows")
    return wanted


RandomWeights = Annotated[
    bool,
    typer.Option(
        "--random-weights",
        callback=enter_smoke_mode,
        help="Smoke test: replace downloaded weights by random ones. The rows are marked invalid.",
    ),
]


def check_executor_options(executor: str | None, jobs: int | None) -> None:
    """UsageError for an unknown executor, and for --jobs or torchrun that do not go with it."""
    if executor is None:
        if jobs is not None:
            raise UsageError(f"--jobs {jobs} needs --executor, such as --executor local")
        return
    from fact_train.sweeps.executors import check_executor

    check_executor(executor)
    if launched_world_size() > 1:
        raise UsageError(f"--executor {executor} and torchrun both start processes; use one of them")


MOST_FAILURES = 19  # shown of a refusal; one more line counts the others


def finish(failures: Sequence[str]) -> None:
    """Print each failure once, on its own line, the first of many, and exit with 1, if there are any."""
    lines = list(dict.fromkeys(failures))
    for line in lines[:MOST_FAILURES]:
        say(f"failed: {line}")
    if len(lines) > MOST_FAILURES:
        say(f"failed: {len(lines) - MOST_FAILURES} more; fix those above first")
    if failures:
        raise typer.Exit(1)


def print_records(folders: Sequence[Path], *, as_json: bool) -> list[str]:
    """Print the records under the folders: JSON lines, or a table; returns a line per broken file."""
    if not is_rank_zero():
        return []
    from fact_leaderboard.records import read_folder

    problems: list[str] = []
    found = (file for folder in existing_folders(folders) for file in read_folder(folder, problems))
    records = [record for _, latest in found for record in latest]
    if as_json:
        for record in records:
            print(for_json(record.to_json()))
        return problems
    from fact_eval.reports.tables import records_table

    if not records and not problems:
        say(f"no records in {', '.join(map(str, folders))}; fact-eval all writes them")
    print(records_table(records))
    return problems


def existing_folders(folders: Sequence[Path]) -> Sequence[Path]:
    """The folders. Raises UsageError if one is missing."""
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; give a run folder or a folder of runs")
    return folders
