"""The files of the answers: STUDIES.md, a page and a plot of every study that has results, measured.json."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from fact_leaderboard.answers.answer import ANSWERED, IN_PART, Answer, answer_study
from fact_leaderboard.answers.pages import studies_page, study_page
from fact_leaderboard.answers.plot import digest, forest_plot, plotted
from fact_leaderboard.answers.samples import Evidence
from fact_leaderboard.records import Record
from fact_metrics.base.atomic import write_text
from fact_metrics.base.errors import UserError
from fact_train.settings import measured
from fact_train.sweeps.study import read_studies

STUDIES, PAGE = "studies", "STUDIES.md"


def answer_all(home: Path, records: Iterable[Record]) -> list[Answer]:
    """Answers to all studies in home/studies, by the published records."""
    evidence = Evidence(records)
    return [answer_study(study, evidence) for study in read_studies(home / STUDIES)]


def write_answers(home: Path, records: Iterable[Record], *, axes: Path = measured.PATH) -> list[Path]:
    """Write what is stale of STUDIES.md, pages and plots under home, and `axes`, the answers by field.

    Returns the files written or deleted.
    """
    answers = answer_all(home, records)
    stale = _stale(home, answers, axes)
    texts = _texts(home, answers, axes)
    plots = _plots(home, answers)
    for path in stale:
        if path in texts:
            write_text(path, texts[path])
        elif path in plots:
            forest_plot(plots[path], path)
        else:
            path.unlink()
    return stale


def check_answers(home: Path, records: Iterable[Record], *, axes: Path = measured.PATH) -> None:
    """UserError if a file of the answers differs from what the published records give."""
    stale = _stale(home, answer_all(home, records), axes)
    if stale:
        more = f" and {len(stale) - 1} more are" if len(stale) > 1 else " is"
        raise UserError(f"{stale[0]}{more} stale; fact-eval leaderboard builds them again")


def measured_text(answers: Sequence[Answer]) -> str:
    """The answers of answered studies by the field that they are about, as JSON."""
    by_field: dict[str, list[dict[str, str]]] = {}
    for answer in answers:
        if answer.study.axis and answer.status in (ANSWERED, IN_PART):
            entry = {"study": answer.study.name, "answer": answer.sentence}
            by_field.setdefault(answer.study.axis, []).append(entry)
    return json.dumps(by_field, indent=1, sort_keys=True) + "\n"


def _texts(home: Path, answers: Sequence[Answer], axes: Path) -> dict[Path, str]:
    pages = {home / STUDIES / f"{a.study.name}.md": study_page(a) for a in answers if a.has_results}
    return {home / PAGE: studies_page(answers), axes: measured_text(answers), **pages}


def _plots(home: Path, answers: Sequence[Answer]) -> dict[Path, Answer]:
    return {home / STUDIES / f"{a.study.name}.png": a for a in answers if a.has_results}


def _stale(home: Path, answers: Sequence[Answer], axes: Path) -> list[Path]:
    """Files that are missing, differ, or belong to no study with results."""
    texts, plots = _texts(home, answers, axes), _plots(home, answers)
    found = {path for ending in ("*.md", "*.png") for path in (home / STUDIES).glob(ending)}
    return [
        *(path for path, text in texts.items() if not path.exists() or path.read_text() != text),
        *(path for path, answer in plots.items() if plotted(path) != digest(answer)),
        *sorted(found - texts.keys() - plots.keys()),
    ]
