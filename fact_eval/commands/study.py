"""The command `fact-eval study`: the answer that records give to a question."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.options import AsJson, existing_folders, say
from fact_metrics.base.errors import UsageError


def study(
    files: Annotated[list[Path], typer.Argument(help="Study files, or folders of them.")],
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="Folder of runs whose records count beside the published ones; repeatable."
        ),
    ] = None,
    results: Annotated[Path | None, typer.Option(metavar="PATH", help="Folder of published records.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Also write page, forest plot and, of runs at hand, sample grids to this folder.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer questions from records of runs.

    The answer has the effect of every setting with its interval, a verdict, and the runs that are missing.
    Studies with people are something else: fact-eval study-pack and study-score.
    """
    from fact_leaderboard.answers.answer import answer_study
    from fact_leaderboard.answers.pages import answer_json, study_text
    from fact_leaderboard.answers.samples import Evidence
    from fact_leaderboard.publish import published_records
    from fact_leaderboard.records import find_results, read_records
    from fact_train.sweeps.study import read_studies, read_study

    if results is not None and not results.is_dir():
        raise UsageError(f"--results {results} is not a folder")
    studies = [
        study for path in files for study in (read_studies(path) if path.is_dir() else [read_study(path)])
    ]
    if not studies:
        raise UsageError(f"no study in {', '.join(map(str, files))}; a study is a TOML file")
    folders = existing_folders(runs or [])
    local = [r for folder in folders for path in find_results(folder) for r in read_records(path)]
    evidence = Evidence(published_records(results), local=local)
    answers = [answer_study(study, evidence) for study in studies]
    if as_json:
        print(json.dumps([answer_json(answer) for answer in answers], indent=1))
    else:
        print("\n\n\n".join(map(study_text, answers)))
    if out is not None:
        _write(answers, out, folders)


def _write(answers, out: Path, folders: list[Path]) -> None:
    """Page, plot and sample grids of every answer that has results."""
    from fact_eval.jobs.runs import find_runs
    from fact_leaderboard.answers.pages import study_page
    from fact_leaderboard.answers.plot import draw_samples, find_grids, forest_plot
    from fact_metrics.base.atomic import write_text

    out.mkdir(parents=True, exist_ok=True)
    at_hand = {
        (run.options["config_sha256"], float(run.config["kimg"]), run.options["seed"]): run.folder
        for run in (find_runs(folders) if folders else [])
    }
    for answer in answers:
        name = answer.study.name
        if not answer.has_results:
            say(f"{name} has no results to draw")
            continue
        write_text(out / f"{name}.md", study_page(answer))
        forest_plot(answer, out / f"{name}.png")
        grids = find_grids(answer, at_hand)
        if grids:
            draw_samples(grids, out / f"{name}-samples.png")
        say(f"wrote {out / name}.md, .png{' and -samples.png' if grids else ''}")
