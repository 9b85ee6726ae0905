"""Commands that check records: `fact-eval recompute`, `crosscheck`."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.options import AsJson, Batch, Data, DeviceName, Threads, finish, say
from fact_metrics.base.errors import UsageError
from fact_metrics.base.processes import launched_world_size

Records = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Run folders, folders of records, or .jsonl files. [default: the published records]",
        show_default=False,
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAMES",
        help="Check these metrics only, separated by commas or by repeating the option. "
        "[default: all that the records hold]",
    ),
]


def recompute(
    records: Records = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, metavar="INT", help="Check this many snapshots, drawn at random. [default: all]"),
    ] = None,
    training: Annotated[
        bool,
        typer.Option("--from-training", help="Train the configurations again instead of loading snapshots."),
    ] = False,
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="With --from-training: folder of the new runs.")
    ] = Path("runs/recomputed"),
    metrics: Metrics = None,
    data: Data = None,
    device: DeviceName = "auto",
    batch: Batch = 64,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Make records again and compare.

    Needs a snapshot in the run folder or a published one, or trains the configuration. Stored features are
    not used. The outcome is appended to the verifications beside the records.
    """
    from fact_eval.checks.claims import read_claims
    from fact_eval.checks.recompute import Recomputation, draw
    from fact_leaderboard import publish

    progress, device, threads = _session(device, threads)
    claims = draw(read_claims(records or [publish.RESULTS], metrics=_names(metrics)), sample)
    for one in claims:
        say(f"to check: {one.title}, {len(one.records)} values")
    known = publish.published_records() if training else []
    options = {"device": device, "batch": batch, "threads": threads, "data": data, "known": known}
    with Recomputation(progress=progress, **options) as recomputation:
        for one in claims:
            if training:
                recomputation.from_training(one, out)
            else:
                recomputation.from_snapshot(one)
        outcome = recomputation.outcome
    _report(outcome.verifications, outcome.left_out, as_json=as_json)
    finish(outcome.problems())
    if not outcome.verifications:
        finish(["nothing could be made again"])


def crosscheck(
    run: Annotated[Path, typer.Argument(help="Run folder, folder of runs, or a .jsonl file of records.")],
    metrics: Metrics = None,
    device: DeviceName = "auto",
    batch: Batch = 64,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Compare records with other people's code.

    torch-fidelity, clean-fid, lpips and scikit-learn compute the same numbers from the same stored features
    or images. The outcome is appended to the verifications beside the records.
    """
    from fact_eval.checks.claims import read_claims
    from fact_eval.checks.crosscheck import crosscheck as check
    from fact_eval.scoring.evaluation import Evaluation
    from fact_metrics.base import provenance
    from fact_metrics.base.errors import UserError

    progress, device, threads = _session(device, threads)
    claims = read_claims([run], metrics=_names(metrics))
    evaluation = Evaluation(device=device, batch=batch, progress=progress)
    origin = provenance.collect(device=device, threads=threads)
    verifications, left_out, failures = [], [], []
    for one in claims:
        try:
            outcome = check(one, evaluation, origin=origin)
        except UserError as error:
            failures.append(str(error))
            continue
        verifications += [(one, found) for found in outcome.verifications]
        left_out += [f"{one.title}: {line}" for line in outcome.left_out]
        evaluation.clear()
    _report(verifications, left_out, as_json=as_json)
    differing = [
        f"{v.run_id}: {v.metric} is {v.claimed:.10g}, {v.by} has {v.found:.10g}"
        for _, v in verifications
        if not v.holds
    ]
    finish([*failures, *differing])
    if not verifications:
        finish(["no record has an independent implementation"])


def _session(device: str, threads: int | None):
    """Progress, device and threads of a check, which runs in one process."""
    from fact_metrics.base.devices import resolve_device, set_threads
    from fact_metrics.base.memory import keep_freed_memory
    from fact_metrics.base.progress import Progress

    if launched_world_size() > 1:
        raise UsageError("checks run in one process; start them without torchrun")
    device = str(resolve_device(device))
    keep_freed_memory()
    return Progress(), device, set_threads(threads)


def _names(metrics: list[str] | None) -> list[str] | None:
    from fact_metrics.registry import get_specs

    if metrics is None:
        return None
    return [spec.name for spec in get_specs([n.strip() for text in metrics for n in text.split(",")])]


def _report(verifications, left_out: list[str], *, as_json: bool) -> None:
    """Append the verifications beside their records, and print them."""
    from fact_eval.reports.tables import verifications_table
    from fact_leaderboard.verifications import append_verifications, beside

    for line in left_out:
        say(f"left out: {line}")
    files = defaultdict(list)
    for claims, verification in verifications:
        files[beside(claims.results)].append(verification)
    for path, found in files.items():
        append_verifications(path, found)
    found = [verification for _, verification in verifications]
    if as_json:
        print(json.dumps([json.loads(v.to_json()) for v in found], indent=1))
    elif found:
        print(verifications_table(found))
    for path in files:
        say(f"wrote {path}")
    if any(not v.is_clean for v in found):
        say("uncommitted code made these checks: the board does not show them")
