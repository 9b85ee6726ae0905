"""Commands that measure: `fact-eval all`, `run`, `images`, `ref`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.board import print_board
from fact_eval.commands.onnx_options import LabelSource, PixelRange, ZDim, ZName
from fact_eval.commands.options import (
    AsJson,
    Batch,
    Data,
    DeviceName,
    Force,
    Metrics,
    Protocol,
    RandomWeights,
    Runs,
    Seeds,
    Threads,
    Which,
    check_executor_options,
    finish,
    print_records,
    say,
)
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.processes import is_rank_zero, launched_world_size


def all_(
    runs: Runs,
    metrics: Metrics = None,
    protocol: Protocol = None,
    seeds: Seeds = "0",
    snapshot: Which = "latest",
    data: Data = None,
    controls: Annotated[bool, typer.Option(help="Also score held-out real images and noise.")] = True,
    device: DeviceName = "auto",
    batch: Batch = 64,
    threads: Threads = None,
    executor: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Score each run in a process of its own, by local, slurm or ray. "
            "[default: all runs in this process]",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            min=1,
            metavar="INT",
            help="With --executor: runs at a time. [default: the available cores divided by --threads]",
        ),
    ] = None,
    force: Force = False,
    random_weights: RandomWeights = False,
    as_json: AsJson = False,
) -> None:
    """Score all runs and print the board.

    Only missing records are computed.
    """
    check_executor_options(executor, jobs)
    from fact_eval.jobs.plan import plan_all
    from fact_eval.jobs.runs import find_runs
    from fact_leaderboard.publish import published_records, write_local_board
    from fact_leaderboard.records import done_keys

    problems: list[str] = []
    found = find_runs(runs, problems=problems)
    root = found[0].folder.parent if runs[0] == found[0].folder else runs[0]
    request = _request(metrics, protocol, seeds, snapshot, data, force)
    published = done_keys(published_records())
    planned, unplanned = plan_all(found, root, request, controls=controls, published=published)
    problems += unplanned
    if any(job.missing for job in planned):
        from fact_eval.jobs.audit import audit_references

        planned, unusable = audit_references(planned, say)
        problems += unusable
    failures = problems
    if executor is not None:
        shared = [f"--seeds={seeds}", f"--snapshot={snapshot}", f"--device={device}", f"--batch={batch}"]
        shared += [f"--threads={threads or 1}", *([f"--data={data}"] if data is not None else [])]
        shared += ["--force"] * force + ["--random-weights"] * random_weights
        planned, failed = _carry_out_runs(planned, executor, root, shared, device, threads, jobs)
        failures = failures + failed
    failures = failures + _carry_out(planned, device, batch, threads, force)
    if not is_rank_zero():
        return
    try:
        sections, path = write_local_board(root, problems=failures)
    except UserError as error:  # unreadable published records, or no room: report the failures as well
        finish([*failures, f"no board: {error}"])
    own = sections if as_json else [section for section in sections if section.local] or sections
    print_board(own, as_json=as_json)
    if others := len(sections) - len(own):
        say(f"tables of published results alone, left out here: {others}")
    say(f"board: {path}; next: fact-eval publish {root}")
    finish(failures)


def run(
    run: Annotated[
        Path,
        typer.Argument(
            help="Run folder, or a checkpoint file: a snapshot, one of another program, an ONNX graph."
        ),
    ],
    metrics: Metrics = None,
    protocol: Protocol = None,
    seeds: Seeds = "0",
    snapshot: Which = "latest",
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Parent folder of the records of a checkpoint file. [default: runs]"
        ),
    ] = None,
    device: DeviceName = "auto",
    batch: Batch = 64,
    threads: Threads = None,
    force: Force = False,
    random_weights: RandomWeights = False,
    as_json: AsJson = False,
    z_dim: ZDim = None,
    z: ZName = None,
    labels: LabelSource = None,
    pixel_range: PixelRange = None,
) -> None:
    """Score one run or checkpoint file and print its records.

    Only missing records are computed. A checkpoint file needs --data. No code of the file runs.
    """
    graph = {"z_dim": z_dim, "z": z, "labels": labels, "pixel_range": pixel_range}
    graph = {name: value for name, value in graph.items() if value is not None}
    if graph and run.suffix.lower() != ".onnx":
        raise UsageError(f"--{next(iter(graph)).replace('_', '-')} is for ONNX files, {run} is not one")
    if run.suffix.lower() == ".onnx" or run.is_file():
        request = _request(metrics, protocol, seeds, snapshot, data, force)
        planned = _plan_graph if run.suffix.lower() == ".onnx" else _plan_checkpoint
        job, remarks = planned(run, out or Path("runs"), request, **graph)
        for line in remarks:
            say(line)
        failures = _carry_out([job], device, batch, threads, force)
        finish([*failures, *print_records([job.results.parent], as_json=as_json)])
        return
    if out is not None:
        raise UsageError(f"--out {out} is for a checkpoint file; the records of a run stay in its folder")
    from fact_eval.jobs.plan import plan_run
    from fact_eval.jobs.runs import find_runs, read_run

    find_runs([run])
    jobs = plan_run(read_run(run), _request(metrics, protocol, seeds, snapshot, data, force))
    failures = _carry_out(jobs, device, batch, threads, force)
    finish([*failures, *print_records([run], as_json=as_json)])


def _plan_checkpoint(path: Path, out: Path, request):
    from fact_eval.jobs.checkpoints import plan_checkpoint
    from fact_metrics.base.progress import Progress

    job, left_out = plan_checkpoint(path, out, request, progress=Progress(quiet=not is_rank_zero()))
    return job, [f"left out: {line}" for line in left_out]


def _plan_graph(path: Path, out: Path, request, **options):
    from fact_eval.images.onnx_graph import GraphOptions
    from fact_eval.jobs.graphs import plan_graph
    from fact_metrics.base.progress import Progress

    progress = Progress(quiet=not is_rank_zero())
    return plan_graph(path, GraphOptions(**options), out, request, progress=progress)


def images(
    folder: Annotated[Path, typer.Argument(help="Folder, zip, tar (WebDataset) or npz of images.")],
    reference: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="Real images: mnist, a folder, zip, tar, npz or idx folder, or a file of statistics.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="PATH", help="Parent folder of the records.")] = Path("runs"),
    metrics: Metrics = None,
    protocol: Protocol = None,
    seeds: Seeds = "0",
    device: DeviceName = "auto",
    batch: Batch = 64,
    threads: Threads = None,
    force: Force = False,
    random_weights: RandomWeights = False,
    as_json: AsJson = False,
) -> None:
    """Score any images against a dataset."""
    request = _request(metrics, protocol, seeds, "latest", None, force)
    if not folder.exists():
        raise UsageError(f"{folder} does not exist; give a folder, zip, tar or npz of images")
    from fact_eval.jobs.audit import audit_pictures, check_counts, lines
    from fact_eval.jobs.pictures import open_reference, plan_pictures
    from fact_metrics.base.progress import Progress
    from fact_train.data.errors import UnusableFiles

    progress = Progress(quiet=not is_rank_zero())
    findings = audit_pictures(folder, reference)
    for line in lines([f for f in findings if not f.error], names=4):
        say(line)
    finish(lines([f for f in findings if f.error]))
    try:
        opened = open_reference(reference, progress=progress)
        job, left_out = plan_pictures(folder, opened, out, request, progress=progress)
    except UnusableFiles as error:  # found while decoding: all of them
        finish(error.problems)
    if copies := job.pictures.repeats:
        say(f"warning: duplicates: {copies:,} of {len(job.pictures):,} images repeat another image")
    specs, n_real = [spec for spec, _ in job.missing], job.reference.train["n"]
    for line in lines(check_counts(specs, generated=len(job.pictures), real={"train": n_real})):
        say(line)
    for line in left_out:
        say(f"left out: {line}")
    failures = _carry_out([job], device, batch, threads, force)
    finish([*failures, *print_records([job.results.parent], as_json=as_json)])


def ref(
    data: Annotated[
        str, typer.Argument(help="mnist, a folder, zip, tar, npz or idx folder, or a file of statistics.")
    ] = "mnist",
    out: Annotated[
        Path,
        typer.Option(metavar="PATH", help="Folder of runs; its subfolder controls receives the records."),
    ] = Path("runs"),
    metrics: Metrics = None,
    protocol: Protocol = None,
    seeds: Seeds = "0",
    device: DeviceName = "auto",
    batch: Batch = 64,
    threads: Threads = None,
    force: Force = False,
    random_weights: RandomWeights = False,
    as_json: AsJson = False,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Save feature statistics to this file (.safetensors) instead of scoring."
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --save: feature extractor. [default: the one recommended for the dataset]",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="train|test", help="With --save: split of the dataset.")
    ] = "train",
) -> None:
    """Score held-out real images and noise.

    With --save, save feature statistics instead. Given a file of statistics, print its description.
    """
    from fact_eval.features.reference_stats import is_statistics, read_statistics

    if save is not None or detector is not None:
        _save_statistics(data, save, detector, split, device=device, batch=batch, threads=threads)
        return
    if is_statistics(data):
        print(json.dumps(read_statistics(data).describe(), indent=1))
        return
    from fact_eval.jobs.pictures import open_reference
    from fact_eval.jobs.plan import plan_controls
    from fact_metrics.base.progress import Progress

    opened = open_reference(data, progress=Progress(quiet=not is_rank_zero()))
    jobs = plan_controls([opened], out, _request(metrics, protocol, seeds, "latest", None, force))
    failures = _carry_out(jobs, device, batch, threads, force)
    finish([*failures, *print_records([jobs[0].results.parent], as_json=as_json)])


def _save_statistics(data: str, save: Path | None, detector: str | None, split: str, **options) -> None:
    if save is None:
        raise UsageError(f"--detector {detector} needs --save FILE")
    if not is_rank_zero():
        return  # one process computes and writes; torchrun's others have nothing to do
    from fact_eval.features.save_reference import save_reference

    made = save_reference(data, save, detector=detector, split=split, **options)
    print(json.dumps(made.describe(), indent=1))
    say(f"next: fact-eval images FOLDER --reference {save}")


def _request(
    metrics: list[str] | None,
    protocol: str | None,
    seeds: str,
    snapshot: str,
    data: str | None,
    force: bool,
):
    from fact_eval.images.sampling import parse_seeds
    from fact_eval.jobs.plan import Request
    from fact_eval.jobs.protocols import ProtocolChoice, require_weights
    from fact_leaderboard.columns import metrics_for
    from fact_metrics.registry import get_specs, list_specs

    names = [name.strip() for given in metrics or [] for name in given.split(",") if name.strip()]
    named = bool(names) and names != ["all"]
    if named and protocol is not None:
        raise UsageError(f"--protocol {protocol} and --metrics both choose metrics; give only one of them")
    specs = get_specs(names) if named else list_specs()
    if named:
        require_weights(specs, "--metrics")
    elif names:
        specs = _all_specs(specs, protocol or "auto")
    choice = ProtocolChoice(protocol or "auto", metrics_for, say=say)
    return Request(
        tuple(specs),
        parse_seeds(seeds),
        named=named,
        defaults=None if names else choice,
        snapshot=snapshot,
        data=data,
        force=force,
    )


def _all_specs(specs, protocol: str) -> list:
    """The metrics of `--metrics all`: those of one protocol; with `auto`, those with installed weights."""
    from fact_eval.jobs.protocols import check_choice, fetch_command, missing_weights, require_weights

    check_choice(protocol)
    standard = [spec for spec in specs if spec.weights]
    if protocol == "standard":
        require_weights(standard, "--protocol standard")
        return standard
    embedded = [spec for spec in specs if not spec.weights]
    if protocol == "embedded":
        return embedded
    missing = set(missing_weights(standard))
    there = [spec for spec in specs if not missing & set(spec.weights)]
    if missing:
        left_out = len(specs) - len(there)
        say(f"{left_out} metrics are left out because weights are missing; {fetch_command(sorted(missing))}")
    return there


def _carry_out_runs(
    jobs, executor: str, root: Path, arguments, device: str, threads: int | None, at_once: int | None
):
    """Score the runs among the jobs on an executor. Returns the other jobs, and one line per failure."""
    from fact_eval.scoring.tasks import score_on_executor, split_jobs

    runs, others = split_jobs(jobs)
    if not runs:
        return jobs, []
    result = score_on_executor(
        runs, executor, root, arguments=arguments, device=device, threads=threads, jobs=at_once
    )
    if result.stopped:
        say("stopped; finished records and cached features are kept, run the same command again")
        raise typer.Exit(result.exit_code)
    return others, [f"{run.folder}: {reason}" for run, reason in result.failed]


def _carry_out(jobs, device: str, batch: int, threads: int | None, force: bool) -> list[str]:
    """Score what is missing. Returns one line per failure."""
    if launched_world_size() == 1 and not any(job.missing for job in jobs):
        if jobs:
            say(f"nothing left to do: all records of {len(jobs)} sources exist")
        return []
    from fact_eval.jobs.plan import unwritable
    from fact_eval.scoring.session import score

    blocked = [unwritable(job) if job.missing else None for job in jobs]
    jobs = [job for job, problem in zip(jobs, blocked, strict=True) if problem is None]
    outcome = score(jobs, device=device, batch=batch, threads=threads, again=force)
    failed = {job for job, _, _ in outcome.failures}
    among = f" in {len(failed)} of {len(jobs)} sources" if failed else ""
    done = sum(record.status == "ok" for record in outcome.written)
    say(f"{done} records written, {len(outcome.failures)} failed{among}")
    return [*filter(None, blocked), *outcome.problems()]
