"""fact-eval: parse, call, print. Data goes to stdout, the rest to stderr; heavy imports wait for work."""

import dataclasses
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.explain_command import explain
from fact_eval.pair_commands import fused, reconstruct
from metrics.errors import UsageError, UserError

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Score every run the same honest way and build the leaderboard.",
)
cache_app = typer.Typer(help="List or clear the cached features.")
app.add_typer(cache_app, name="cache")
app.command()(fused)
app.command()(reconstruct)
app.command()(explain)

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
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]


class Stopped(BaseException):
    """SIGTERM arrived: stop as for Ctrl-C, with another exit code."""


@app.command("all")
def all_(
    runs: Runs,
    metrics: Metrics = None,
    seeds: Seeds = "0",
    snapshot: Which = "latest",
    data: Data = None,
    controls: Annotated[bool, typer.Option(help="also score held-out reals and noise")] = True,
    device: DeviceName = "auto",
    batch: Batch = 64,
    threads: Threads = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Score what is missing in all runs, print the board."""
    from fact_eval.plan import plan_all
    from fact_eval.records import done_keys
    from fact_eval.runs import find_runs
    from leaderboard.publish import published_records, write_local_board

    found = find_runs(runs)
    root = found[0].folder.parent if runs[0] == found[0].folder else runs[0]
    request = _request(metrics, seeds, snapshot, data, force)
    published = done_keys(published_records())
    jobs, problems = plan_all(found, root, request, controls=controls, published=published)
    failures = _carry_out(jobs, device, batch, threads, force) + problems
    sections, path = write_local_board(root)
    _print_board(sections, as_json=as_json)
    _say(f"board: {path}; next: fact-eval publish {root}")
    _finish(failures)


@app.command()
def run(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    metrics: Metrics = None,
    seeds: Seeds = "0",
    snapshot: Which = "latest",
    data: Data = None,
    device: DeviceName = "auto",
    batch: Batch = 64,
    threads: Threads = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Score what is missing in one run, print its records."""
    from fact_eval.plan import plan_run
    from fact_eval.runs import find_runs, read_run

    find_runs([run])
    jobs = plan_run(read_run(run), _request(metrics, seeds, snapshot, data, force))
    failures = _carry_out(jobs, device, batch, threads, force)
    _print_records([run], as_json=as_json)
    _finish(failures)


@app.command()
def images(
    folder: Annotated[Path, typer.Argument(help="folder or zip of pictures, whatever made them")],
    reference: Annotated[
        str, typer.Option(help="the real images: mnist, an image folder, a zip, an idx folder")
    ],
    out: Annotated[Path, typer.Option(help="where the records go, in a folder of their own")] = Path("runs"),
    metrics: Metrics = None,
    seeds: Seeds = "0",
    device: DeviceName = "auto",
    batch: Batch = 64,
    threads: Threads = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Score anybody's pictures against a dataset."""
    request = _request(metrics, seeds, "latest", None, force)
    if not folder.exists():
        raise UsageError(f"{folder} does not exist; give a folder or zip of pictures")
    from fact_eval.pictures import open_reference, plan_pictures

    job, left_out = plan_pictures(folder, open_reference(reference), out, request)
    for line in left_out:
        _say(f"left out: {line}")
    failures = _carry_out([job], device, batch, threads, force)
    _print_records([job.results.parent], as_json=as_json)
    _finish(failures)


@app.command()
def ref(
    data: Annotated[str, typer.Argument(help="mnist, an image folder, a zip, an idx folder")] = "mnist",
    out: Annotated[Path, typer.Option(help="folder of runs; records go to its controls/")] = Path("runs"),
    metrics: Metrics = None,
    seeds: Seeds = "0",
    device: DeviceName = "auto",
    batch: Batch = 64,
    threads: Threads = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Score a dataset's held-out reals and noise."""
    from fact_eval.pictures import open_reference
    from fact_eval.plan import plan_controls

    jobs = plan_controls([open_reference(data)], out, _request(metrics, seeds, "latest", None, force))
    failures = _carry_out(jobs, device, batch, threads, force)
    _print_records([jobs[0].results.parent], as_json=as_json)
    _finish(failures)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List metrics and detectors with their sources."""
    from fact_eval.catalog import load_cards, load_detector_cards

    cards, detectors = load_cards(), load_detector_cards()
    if as_json:
        listed = {"metrics": cards, "detectors": detectors}
        print(
            json.dumps({name: [dataclasses.asdict(c) for c in cs] for name, cs in listed.items()}, indent=1)
        )
        return
    from fact_eval.tables import cards_list, detectors_list

    print(f"Metrics\n\n{cards_list(cards)}\n\nDetectors\n\n{detectors_list(detectors)}")


@app.command()
def show(runs: Runs, as_json: AsJson = False) -> None:
    """Show the records of runs."""
    _print_records(runs, as_json=as_json)


@app.command()
def compare(
    a: Annotated[
        Path, typer.Argument(help="a run folder, or a folder of the training seeds of one configuration")
    ],
    b: Annotated[Path, typer.Argument(help="the other one")],
    as_json: AsJson = False,
) -> None:
    """Compare two models, with errors."""
    from fact_eval.compare import compare_folders

    comparisons, left_out = compare_folders(a, b)
    for line in left_out:
        _say(f"left out: {line}")
    if as_json:
        print(json.dumps([{**dataclasses.asdict(c), "better": c.better} for c in comparisons], indent=1))
        return
    from fact_eval.tables import comparisons_table

    print(comparisons_table(comparisons))


@app.command()
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
    from leaderboard import publish

    if results is not None and not results.is_dir():
        raise UsageError(f"--results {results} is not a folder")
    out = out or publish.BOARD
    if check:
        publish.check_board(out, results)
        _say(f"{out} is up to date")
        return
    sections = publish.published_sections(results)
    _print_board(sections, as_json=as_json)
    written = publish.write_board(out, results)
    _say(f"wrote {out}" if written else f"nothing left to do: {out} is up to date")
    if png:
        from leaderboard.picture import draw_board

        _say(f"wrote {draw_board(sections, out.with_name('board.png'), grids=grid or ())}")


@app.command("publish")
def publish_(
    runs: Runs,
    results: Annotated[Path | None, typer.Option(help="folder of published records")] = None,
    allow_dirty: Annotated[
        bool,
        typer.Option("--allow-dirty", help="also records of uncommitted code; the board lists them unranked"),
    ] = False,
) -> None:
    """Copy the records of runs to the published ones."""
    from leaderboard.publish import publish_records

    changed, refused = publish_records(_existing(runs), results, allow_dirty=allow_dirty)
    for path in changed:
        print(path)
    _say(
        f"published {len(changed)} files; next: fact-eval leaderboard"
        if changed
        else "nothing new to publish"
    )
    _finish(refused)


@app.command("train-digits")
def train_digits_(
    out: Annotated[Path | None, typer.Option(help="folder for the weights and their card")] = None,
    seed: Annotated[int, typer.Option(help="random seed of weights, order and augmentation")] = 0,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="passes over the digits; the shipped recipe's without it")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the digits detectors again, in minutes."""
    from fact_eval.train_digits import EPOCHS, train_digits
    from metrics import features

    folder = out or Path(features.__file__).parent / "weights"
    card = train_digits(folder, seed=seed, epochs=epochs or EPOCHS, report=_say)
    if as_json:
        print(json.dumps(card, indent=1))


@cache_app.command("ls")
def cache_ls(as_json: AsJson = False) -> None:
    """List the cached features."""
    from fact_eval.cache import FeatureCache

    cache = FeatureCache()
    entries = cache.entries()
    rows = [entry.describe() for entry in entries]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from fact_eval.tables import plain_table

    print(plain_table([{k: str(v) for k, v in row.items()} for row in rows]))
    _say(f"{len(entries)} entries, {sum(e.size for e in entries) / 1e6:.1f} MB in {cache.root}")


@cache_app.command("clear")
def cache_clear() -> None:
    """Remove all cached features."""
    from fact_eval.cache import FeatureCache

    cache = FeatureCache()
    _say(f"freed {cache.clear() / 1e6:.1f} MB in {cache.root}")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: a user's mistake is one line on stderr and an exit code, never a traceback."""
    sys.exit(_run(argv))


def _run(argv: Sequence[str] | None) -> int:
    def stop(signum, frame):
        raise Stopped

    argv = list(sys.argv[1:] if argv is None else argv)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        code = app(args=argv or ["--help"], prog_name="fact-eval", standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C
            return _error(
                "interrupted; finished records and cached features are kept, run the same command again", code
            )
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _error(str(error), error.exit_code)
    except Stopped:
        return _error(
            "stopped; finished records and cached features are kept, run the same command again", 75
        )
    except OSError as error:
        return _error(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)
    except Exception as error:
        if not hasattr(
            error, "format_message"
        ):  # anything but typer's own usage errors is a bug: show it whole
            raise
        return _error(f"{error.format_message()} (see fact-eval --help)", error.exit_code)
    finally:
        signal.signal(signal.SIGTERM, before)


def _request(metrics: list[str] | None, seeds: str, snapshot: str, data: str | None, force: bool):
    from fact_eval.catalog import load_cards
    from fact_eval.plan import Request
    from fact_eval.sampling import parse_seeds
    from leaderboard.columns import metrics_for

    names = [name.strip() for given in metrics or [] for name in given.split(",") if name.strip()]
    named = bool(names) and names != ["all"]
    return Request(
        tuple(load_cards(names if named else None)),
        parse_seeds(seeds),
        named=named,
        defaults=None if names else metrics_for,
        snapshot=snapshot,
        data=data,
        force=force,
    )


def _carry_out(jobs, device: str, batch: int, threads: int | None, force: bool) -> list[str]:
    """Score what is missing; says so where nothing is. Returns one line per failure."""
    if not any(job.missing for job in jobs):
        if jobs:
            _say(f"nothing left to do: all records of {len(jobs)} sources are there")
        return []
    from fact_eval.evaluate import score

    outcome = score(jobs, device=device, batch=batch, threads=threads, again=force)
    _say(f"{len(outcome.written)} records written, {len(outcome.failures)} failed")
    return outcome.problems()


def _print_board(sections, *, as_json: bool) -> None:
    from leaderboard.render import board_json, render_terminal

    print(json.dumps(board_json(sections), indent=1) if as_json else render_terminal(sections))


def _print_records(folders: Sequence[Path], *, as_json: bool) -> None:
    from fact_eval.records import find_results, latest_records, read_records

    records = [
        r for f in _existing(folders) for path in find_results(f) for r in latest_records(read_records(path))
    ]
    if as_json:
        print("\n".join(record.to_json() for record in records))
        return
    from fact_eval.tables import records_table

    if not records:
        _say(f"no records in {', '.join(map(str, folders))}; `fact-eval all` makes them")
    print(records_table(records))


def _existing(folders: Sequence[Path]) -> Sequence[Path]:
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; give a run folder or a folder of runs")
    return folders


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _error(line: str, code: int) -> int:
    _say(f"fact-eval: {line}")
    return code


def _finish(failures: Sequence[str]) -> None:
    """Exit 1 with every failure on a line of its own."""
    for line in failures:
        _say(f"failed: {line}")
    if failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
