"""Commands that measure: `fact-eval all`, `run`, `images`, `ref`."""

from pathlib import Path
from typing import Annotated

import typer

from fact_eval.board_commands import print_board
from fact_eval.options import (
    AsJson,
    Batch,
    Data,
    DeviceName,
    Force,
    Metrics,
    Runs,
    Seeds,
    Threads,
    Which,
    finish,
    print_records,
    say,
)
from fact_eval.processes import first_of_group, started_together
from metrics.errors import UsageError, UserError


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

    problems: list[str] = []
    found = find_runs(runs, problems=problems)
    root = found[0].folder.parent if runs[0] == found[0].folder else runs[0]
    request = _request(metrics, seeds, snapshot, data, force)
    published = done_keys(published_records())
    jobs, unplanned = plan_all(found, root, request, controls=controls, published=published)
    problems += unplanned
    if any(job.missing for job in jobs):
        from fact_eval.audit import audit_references

        jobs, unusable = audit_references(jobs, say)
        problems += unusable
    failures = problems + _carry_out(jobs, device, batch, threads, force)
    if not first_of_group():
        return
    try:
        sections, path = write_local_board(root)
    except UserError as error:  # records that cannot be read: what was measured stays and what failed is told
        finish([*failures, f"no board: {error}"])
    print_board(sections, as_json=as_json)
    say(f"board: {path}; next: fact-eval publish {root}")
    finish(failures)


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
    print_records([run], as_json=as_json)
    finish(failures)


def images(
    folder: Annotated[Path, typer.Argument(help="folder, zip, tar (WebDataset) or npz of pictures")],
    reference: Annotated[
        str, typer.Option(help="the real images: mnist, a folder, zip, tar or npz, an idx folder")
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
        raise UsageError(f"{folder} does not exist; give a folder, zip, tar or npz of pictures")
    from fact_eval.audit import audit_pictures, find_duplicates, lines
    from fact_eval.pictures import open_reference, plan_pictures
    from fact_train.data.files import UnusableFiles

    findings = audit_pictures(folder, reference)
    for line in lines([f for f in findings if not f.error], names=4):
        say(line)
    finish(lines([f for f in findings if f.error]))
    try:
        job, left_out = plan_pictures(folder, open_reference(reference), out, request)
    except UnusableFiles as error:  # found while decoding: all of them
        finish(error.problems)
    if copies := find_duplicates(job.pictures):
        say(f"warning: duplicates: {len(copies):,} of {len(job.pictures):,} pictures repeat another one")
    for line in left_out:
        say(f"left out: {line}")
    failures = _carry_out([job], device, batch, threads, force)
    print_records([job.results.parent], as_json=as_json)
    finish(failures)


def ref(
    data: Annotated[str, typer.Argument(help="mnist, a folder, zip, tar or npz, an idx folder")] = "mnist",
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
    print_records([jobs[0].results.parent], as_json=as_json)
    finish(failures)


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
    if started_together() == 1 and not any(job.missing for job in jobs):
        if jobs:
            say(f"nothing left to do: all records of {len(jobs)} sources are there")
        return []
    from fact_eval.evaluate import score

    outcome = score(jobs, device=device, batch=batch, threads=threads, again=force)
    failed = {job for job, _, _ in outcome.failures}
    among = f" in {len(failed)} of {len(jobs)} sources" if failed else ""
    done = sum(record.status == "ok" for record in outcome.written)
    say(f"{done} records written, {len(outcome.failures)} failed{among}")
    return outcome.problems()
