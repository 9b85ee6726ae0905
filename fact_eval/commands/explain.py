"""`fact-eval explain`: the full report on StylEx runs."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.options import finish, say
from fact_metrics.base.errors import UsageError
from fact_metrics.base.processes import is_rank_zero


def explain(
    runs: Annotated[
        list[Path],
        typer.Argument(help="StylEx runs, or folders that contain such runs; with --classifier any runs."),
    ],
    seeds: Annotated[
        str,
        typer.Option(
            metavar="SEEDS", help="Evaluation seeds: 0, a list such as 0,1,2 or a range such as 0-4."
        ),
    ] = "0",
    snapshot: Annotated[
        str, typer.Option(metavar="WHICH", help="latest, all, or the kimg of a snapshot.")
    ] = "latest",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Location of the real images, if it has changed since training."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="Device: auto, cpu, cuda or cuda:N.")
    ] = "auto",
    batch: Annotated[int, typer.Option(min=1, metavar="INT", help="Images per call of a network.")] = 64,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="INT", help="CPU threads. [default: all available cores]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    images: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="INT",
            help="Images to search attributes in; as many more judge the attributes. 0: no search.",
        ),
    ] = 250,
    classifier: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Classifier to explain. [default: the classifier of the StylEx run]"
        ),
    ] = None,
    second: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Independently trained classifier with the same classes: it judges the edits as well.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Classes of interest, such as 8,9. [default: all]"),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Methods, separated by commas: attfind-greedy, attfind-independent, attfind-subset, "
            "class-mean, gradient, random, control. [default: all]",
        ),
    ] = None,
    shift: Annotated[
        float,
        typer.Option(min=0.01, metavar="FLOAT", help="Length of an edit; 1 reaches the extreme style."),
    ] = 1.0,
    discriminator_filter: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="FLOAT",
            help="Largest change of the discriminator's score that the greedy selection of AttFind accepts. "
            "[default: no filter]",
        ),
    ] = None,
    page: Annotated[
        bool,
        typer.Option("--page", help="Also write an HTML page with sliders and pictures of every method."),
    ] = False,
    across: Annotated[
        bool,
        typer.Option(
            "--across", help="Also compare the attributes of the runs, such as seeds of one preset."
        ),
    ] = False,
) -> None:
    """Report on StylEx runs, and explain a classifier with any generator.

    The report covers the encoder, the classifier, the W-gap with its picture, and the stability of training.
    The explanation finds attributes in StyleSpace by AttFind and by baselines, judges them, and writes
    explanations/SNAPSHOT/QUESTION/attributes.json into the run folder, a folder per classifier and classes.
    """
    from fact_eval.explain.across import check_count
    from fact_eval.explain.session import ExplainOptions, Plan, explain_jobs, plan_explanations
    from fact_eval.images.sampling import parse_seeds
    from fact_eval.jobs.plan import Request, plan_run
    from fact_eval.jobs.runs import find_runs
    from fact_eval.reports.attributes import agreement_table, attributes_table
    from fact_eval.reports.explain import draw_w_gap, health_lines, measure_health
    from fact_eval.reports.tables import records_table
    from fact_eval.scoring.session import score
    from fact_leaderboard.records import RESULTS, latest_records, read_records
    from fact_metrics.registry import list_specs

    everything = find_runs(runs)
    found = [run for run in everything if run.config.get("model") == "stylex"]
    if not found and classifier is None:
        where = ", ".join(map(str, runs))
        raise UsageError(
            f"no StylEx run in {where}; fact-train --preset mnist trains one, or choose a classifier with "
            "--classifier"
        )
    options = ExplainOptions(
        images=images,
        classifier=classifier,
        second=second,
        classes=_names(classes),
        methods=_names(methods) or ExplainOptions.methods,
        shift=shift,
        discriminator_filter=discriminator_filter,
    )
    specs = tuple(spec for spec in list_specs() if spec.needs_encoder)
    request = Request(specs, parse_seeds(seeds), snapshot=snapshot, data=data)
    jobs = [job for run in found for job in plan_run(run, request)]
    explained = found if classifier is None else everything
    if across:
        check_count(len(explained))
    searches = Plan([], set())
    if images:
        searches = plan_explanations(explained, options, seeds=request.seeds, snapshot=snapshot, data=data)
    failures = []
    if any(job.missing for job in jobs):
        failures = score(jobs, device=device, batch=batch, threads=threads).problems()
    if any(job.missing for job in searches.jobs):
        outcome = explain_jobs(searches.jobs, options, device=device, batch=batch, threads=threads)
        failures += outcome.problems()
    if not is_rank_zero():  # rank 0 has the records, and speaks
        return
    opened = {"snapshot": snapshot, "data": data, "device": device, "batch": batch}
    for seed in request.seeds if page else ():
        _write_pages(explained, options, seed=seed, **opened)
    agreements = _compare_runs(explained, options, seed=request.seeds[0], **opened) if across else []
    names = {spec.name for spec in specs}
    wanted = {job.content_sha256 for job in jobs}
    all_records = [
        record for run in explained for record in latest_records(read_records(run.folder / RESULTS))
    ]
    records = [r for r in all_records if r.metric in names and r.snapshot_sha256 in wanted]
    judged = [r for r in all_records if r.key in searches.keys]
    folders = {run.run_id: run.folder for run in found}
    for record in records:
        if record.metric == "wgap10k_frechet" and record.value is not None and record.seed == 0:
            path = folders[record.run_id] / f"wgap{int(record.kimg):06d}.png"
            say(f"wrote {draw_w_gap(record, path)}")
    health = [measure_health(run) for run in found]
    if as_json:
        shown = {
            "records": [json.loads(record.to_json()) for record in records],
            "health": [dataclasses.asdict(one) for one in health],
            "explanations": [json.loads(record.to_json()) for record in judged],
            "across": [dataclasses.asdict(one) for one in agreements],
        }
        print(json.dumps(shown, indent=1))
    else:
        print(records_table(records) if records else "", end="\n" if records else "")
        print("\n".join([*(line for one in health for line in health_lines(one)), attributes_table(judged)]))
        print(agreement_table(agreements), end="")
    finish(failures)


def _names(text: str | None) -> tuple[str, ...]:
    """Names separated by commas; empty for None."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _write_pages(runs, options, *, seed: int, device: str, batch: int, **which) -> None:
    """The page and the pictures of every explained snapshot, beside its document."""
    from fact_eval.explain.filming import film_explanation
    from fact_eval.explain.page import write_pictures
    from fact_metrics.base.devices import resolve_device
    from fact_metrics.base.progress import Progress

    given = dict(classifier=options.classifier, device=str(resolve_device(device)), batch=batch)
    for job, path in _documents(runs, options, seed=seed, **which):
        frames = film_explanation(job, path, progress=Progress(), **given)
        page, *pictures = write_pictures(path.parent, frames)
        say(f"wrote {page} and {len(pictures)} pictures")


def _compare_runs(runs, options, *, seed: int, device: str, batch: int, **which) -> list:
    """Agreement of the attributes of every pair of explained snapshots."""
    from fact_eval.explain.across import compare_attributes
    from fact_eval.explain.filming import open_explained
    from fact_metrics.base.devices import resolve_device
    from fact_metrics.base.progress import Progress

    progress = Progress()
    given = dict(classifier=options.classifier, device=str(resolve_device(device)), batch=batch)
    documents = _documents(runs, options, seed=seed, **which)
    explained = [open_explained(job, path, progress=progress, **given) for job, path in documents]
    return compare_attributes(explained, progress=progress)


def _documents(runs, options, *, seed: int, snapshot: str, data: str | None) -> list[tuple]:
    """The jobs of the explained snapshots, each with the document that answers the question."""
    from fact_eval.explain.document import document_path
    from fact_eval.explain.session import question_of
    from fact_eval.jobs.plan import Request, plan_run

    request, found = Request((), snapshot=snapshot, data=data), []
    for run in runs:
        question = question_of(run, options, seed=seed)
        jobs = plan_run(run, request)
        found += [(job, document_path(run.folder, job.snapshot.name, question)) for job in jobs]
    return found
