"""Commands that show what is measured: `fact-eval show`, `compare`, `leaderboard`, `publish`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.options import AsJson, Runs, existing_folders, finish, print_records, say
from fact_metrics.base.errors import UsageError
from fact_metrics.base.processes import is_rank_zero


def show(runs: Runs, as_json: AsJson = False) -> None:
    """Show the records of runs."""
    print_records(runs, as_json=as_json)


def compare(
    a: Annotated[
        Path, typer.Argument(help="a run folder, or a folder of the training seeds of one configuration")
    ],
    b: Annotated[Path, typer.Argument(help="the other one")],
    as_json: AsJson = False,
) -> None:
    """Compare two models, with errors."""
    from fact_eval.compare.folders import compare_folders

    comparisons, left_out = compare_folders(a, b)
    for line in left_out:
        say(f"left out: {line}")
    if as_json:
        print(json.dumps([{**dataclasses.asdict(c), "better": c.better} for c in comparisons], indent=1))
        return
    from fact_eval.reports.tables import comparisons_table

    print(comparisons_table(comparisons))


def leaderboard(
    check: Annotated[
        bool, typer.Option("--check", help="only say whether the file is up to date (exit 1)")
    ] = False,
    results: Annotated[Path | None, typer.Option(help="folder of published records")] = None,
    out: Annotated[Path | None, typer.Option(help="the board to write")] = None,
    png: Annotated[bool, typer.Option("--png", help="also draw board.png beside it")] = False,
    grid: Annotated[list[str] | None, typer.Option(help="LABEL=FILE: a sample grid for the picture")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the board of the published records."""
    from fact_leaderboard import publish

    if results is not None and not results.is_dir():
        raise UsageError(f"--results {results} is not a folder")
    out = out or publish.BOARD
    if check:
        publish.check_board(out, results)
        say(f"{out} is up to date")
        return
    sections = publish.published_sections(results)
    print_board(sections, as_json=as_json)
    written = publish.write_board(out, results)
    say(f"wrote {out}" if written else f"nothing left to do: {out} is up to date")
    if png:
        from fact_leaderboard.picture import draw_board

        say(f"wrote {draw_board(sections, out.with_name('board.png'), grids=grid or ())}")


def publish_(
    runs: Runs,
    results: Annotated[Path | None, typer.Option(help="folder of published records")] = None,
    allow_dirty: Annotated[
        bool,
        typer.Option("--allow-dirty", help="also records of uncommitted code; the board lists them unranked"),
    ] = False,
) -> None:
    """Copy the records of runs to the published ones."""
    from fact_leaderboard.publish import publish_records

    changed, refused = publish_records(existing_folders(runs), results, allow_dirty=allow_dirty)
    for path in changed:
        print(path)
    say(
        f"published {len(changed)} files; next: fact-eval leaderboard"
        if changed
        else "nothing new to publish"
    )
    finish(refused)


def print_board(sections, *, as_json: bool) -> None:
    """A board on stdout."""
    if not is_rank_zero():
        return
    from fact_leaderboard.render import board_json, render_terminal

    print(json.dumps(board_json(sections), indent=1) if as_json else render_terminal(sections))
