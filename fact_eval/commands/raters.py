"""The commands `fact-eval study-pack` and `fact-eval study-score`: user studies of explanations."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.options import AsJson, Batch, Data, DeviceName, Threads, Which, say


def study_pack(
    run: Annotated[Path, typer.Argument(help="Run folder that fact-eval explain has explained.")],
    snapshot: Which = "latest",
    classifier: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Classifier that was explained. [default: the one of the StylEx run]"
        ),
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Folder of the explanation in explanations/SNAPSHOT. [default: the only one]",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Methods to ask about, separated by commas. [default: all in the explanation]",
        ),
    ] = None,
    attributes: Annotated[
        int,
        typer.Option(min=2, metavar="INT", help="Attributes of each method; each gives two questions."),
    ] = 6,
    seed: Annotated[int, typer.Option(min=0, metavar="INT", help="Seed of the random order.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Folder of the form. [default: the folder study beside the explanation]",
        ),
    ] = None,
    data: Data = None,
    device: DeviceName = "auto",
    batch: Batch = 64,
    threads: Threads = None,
) -> None:
    """Write a user study of an explanation: a form for people, and its answer key.

    People see films of attributes. They say which films show the same change, and describe changes in words.
    The form works without a server; each rater saves a CSV file. `fact-eval study` is something else: it
    answers questions from the records of runs.
    """
    from fact_eval.explain.document import find_document
    from fact_eval.explain.filming import film_explanation
    from fact_eval.explain.raters import write_pack
    from fact_eval.jobs.plan import Request, plan_run
    from fact_eval.jobs.runs import read_run
    from fact_metrics.base.devices import resolve_device, set_threads
    from fact_metrics.base.errors import UsageError
    from fact_metrics.base.progress import Progress

    if not run.is_dir():
        raise UsageError(f"{run} is not a folder; give the folder of one run")
    jobs = plan_run(read_run(run), Request((), snapshot=snapshot, data=data))
    if len(jobs) > 1:
        raise UsageError(f"--snapshot {snapshot} names {len(jobs)} snapshots; a study is about one")
    if threads is not None:
        set_threads(threads)
    path = find_document(run, jobs[0].snapshot.name, question)
    frames = film_explanation(
        jobs[0],
        path,
        classifier=classifier,
        methods=[name.strip() for name in (methods or "").split(",") if name.strip()],
        most=attributes,
        device=str(resolve_device(device)),
        batch=batch,
        progress=Progress(),
    )
    folder = out or path.parent / "study"
    form, key = write_pack(folder, frames, attributes=attributes, seed=seed)
    say(f"wrote {form}: send it to the raters")
    say(f"wrote {key}: keep it; fact-eval study-score {key} ANSWERS.csv reads it")


def study_score(
    key: Annotated[Path, typer.Argument(help="answer-key.json that fact-eval study-pack wrote.")],
    answers: Annotated[list[Path], typer.Argument(help="CSV files of the raters, or folders of them.")],
    as_json: AsJson = False,
) -> None:
    """Score the answers of a user study: right answers with intervals, and agreement between raters."""
    from fact_eval.explain.raters import read_key
    from fact_eval.explain.ratings import (
        find_answers,
        read_answers,
        score_descriptions,
        score_identification,
    )
    from fact_eval.reports.raters import described_table, identified_table

    known = read_key(key)
    given = read_answers(find_answers(answers), known)
    identified, described = score_identification(known, given), score_descriptions(known, given)
    if as_json:
        shown = {
            "run_id": known.run_id,
            "snapshot_sha256": known.snapshot_sha256,
            "pack": known.pack,
            "raters": len(given),
            "identification": [dataclasses.asdict(score) for score in identified],
            "description": [dataclasses.asdict(score) for score in described],
        }
        print(json.dumps(shown, indent=1))
        return
    tables = (identified_table(identified), described_table(described))
    print("\n\n".join(table for table in tables if table))
