"""Commands that show and publish records: `fact-eval show`, `compare`, `leaderboard`, `publish`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.options import AsJson, Runs, existing_folders, finish, print_records, say
from fact_metrics.base.errors import UsageError
from fact_metrics.base.processes import is_rank_zero


def show(runs: Runs, as_json: AsJson = False) -> None:
    """Print the records of runs."""
    finish(print_records(runs, as_json=as_json))


def compare(
    a: Annotated[
        Path, typer.Argument(help="Run folder, or folder with several training seeds of one configuration.")
    ],
    b: Annotated[Path, typer.Argument(help="Run folder, or folder of runs, to compare with.")],
    as_json: AsJson = False,
) -> None:
    """Compare two models metric by metric.

    The table shows each difference with its confidence interval.
    """
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
        bool,
        typer.Option(
            "--check",
            help="Only check that no record contradicts itself and that board and studies are up to date; "
            "exit with 1 if not.",
        ),
    ] = False,
    results: Annotated[Path | None, typer.Option(metavar="PATH", help="Folder of published records.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Board file to write, without the studies.")
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="Also draw board.png next to the board.")] = False,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=FILE", help="Sample grid to show in the picture; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build the board and the answers to studies from the published records."""
    from fact_leaderboard import publish
    from fact_leaderboard.answers import files

    if results is not None and not results.is_dir():
        raise UsageError(f"--results {results} is not a folder")
    with_studies, out = out is None, out or publish.BOARD
    if check:
        from fact_leaderboard.self_check import check_results

        finish(check_results(results or publish.RESULTS))
        publish.check_board(out, results)
        if with_studies:
            files.check_answers(publish.HOME, publish.published_records(results))
        say(f"{out} is up to date, and no record contradicts itself")
        return
    sections = publish.published_sections(results)
    print_board(sections, as_json=as_json)
    written = publish.write_board(out, results)
    say(f"wrote {out}" if written else f"nothing left to do: {out} is up to date")
    if with_studies:
        for path in files.write_answers(publish.HOME, publish.published_records(results)):
            say(f"wrote {path}" if path.exists() else f"removed {path}")
    if png:
        from fact_leaderboard.picture import draw_board

        say(f"wrote {draw_board(sections, out.with_name('board.png'), grids=grid or ())}")


def publish_(
    runs: Runs,
    results: Annotated[Path | None, typer.Option(metavar="PATH", help="Folder of published records.")] = None,
    allow_dirty: Annotated[
        bool,
        typer.Option(
            "--allow-dirty", help="Also publish records of uncommitted code; the board lists them unranked."
        ),
    ] = False,
    with_snapshots: Annotated[
        bool,
        typer.Option(
            "--with-snapshots",
            help="Also publish the newest snapshot of each run, without its discriminator.",
        ),
    ] = False,
    largest_snapshot: Annotated[
        float, typer.Option(metavar="MB", help="With --with-snapshots: the largest snapshot to publish.")
    ] = 5.0,
) -> None:
    """Publish the records of runs, with their verifications."""
    from fact_leaderboard.publish import publish_records

    changed, refused = publish_records(
        existing_folders(runs),
        results,
        allow_dirty=allow_dirty,
        with_snapshots=with_snapshots,
        largest_snapshot=largest_snapshot,
    )
    for path in changed:
        print(path)
    say(
        f"published {len(changed)} files; next: fact-eval leaderboard"
        if changed
        else "nothing new to publish"
    )
    finish(refused)


def print_board(sections, *, as_json: bool) -> None:
    """Print a board."""
    if not is_rank_zero():
        return
    from fact_leaderboard.render import board_json, render_terminal

    print(json.dumps(board_json(sections), indent=1) if as_json else render_terminal(sections))
