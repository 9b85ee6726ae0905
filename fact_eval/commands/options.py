"""What the commands of fact-eval share: their options, and how they speak and end."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fact_metrics.base.errors import UsageError
from fact_metrics.base.processes import is_rank_zero
from fact_metrics.weight_store import random_weights

Runs = Annotated[list[Path], typer.Argument(help="run folders, or folders that hold runs at any depth")]
Metrics = Annotated[
    list[str] | None,
    typer.Option(help="metrics by name, comma separated or repeated, or all; the board's columns without it"),
]
Seeds = Annotated[str, typer.Option(help="evaluation seeds: 0 or 0,1,2 or 0-4")]
Which = Annotated[str, typer.Option("--snapshot", help="latest, all, or a number of kimg")]
Data = Annotated[str | None, typer.Option(help="where the real images lie now, if they were moved")]
DeviceName = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N")]
Batch = Annotated[int, typer.Option(min=1, help="images at once; does not change a number beyond rounding")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads; all cores this process may use without it")
]
Force = Annotated[bool, typer.Option("--force", help="measure again what is done; history stays")]
Protocol = Annotated[
    str | None,
    typer.Option(help="standard, embedded (no downloads) or auto: standard if its weights are all installed"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]


def say(line: str) -> None:
    """One line for people, on stderr; of several processes the first one speaks."""
    if is_rank_zero():
        print(line, file=sys.stderr, flush=True)


def enter_smoke_mode(context: typer.Context, wanted: bool) -> bool:
    """Random weights from here to the end of the command."""
    if wanted:
        context.with_resource(random_weights())
        say("random weights: a smoke test; what needs downloaded weights makes invalid rows")
    return wanted


RandomWeights = Annotated[
    bool,
    typer.Option(
        "--random-weights",
        callback=enter_smoke_mode,
        help="smoke test: random weights in place of downloaded ones; its rows are invalid",
    ),
]


def finish(failures: Sequence[str]) -> None:
    """Exit 1 with every failure on a line of its own."""
    for line in failures:
        say(f"failed: {line}")
    if failures:
        raise typer.Exit(1)


def print_records(folders: Sequence[Path], *, as_json: bool) -> None:
    """The records under the folders on stdout: JSON lines, or a table."""
    if not is_rank_zero():
        return
    from fact_leaderboard.records import find_results, latest_records, read_records

    records = [
        r
        for f in existing_folders(folders)
        for path in find_results(f)
        for r in latest_records(read_records(path))
    ]
    if as_json:
        print("\n".join(record.to_json() for record in records))
        return
    from fact_eval.reports.tables import records_table

    if not records:
        say(f"no records in {', '.join(map(str, folders))}; `fact-eval all` makes them")
    print(records_table(records))


def existing_folders(folders: Sequence[Path]) -> Sequence[Path]:
    """The folders. UsageError where one is missing."""
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; give a run folder or a folder of runs")
    return folders
