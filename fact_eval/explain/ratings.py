"""Scores of a user study from its answer key and the CSV files of its raters.

The interval of a share treats answers as independent. Answers of one person are not quite so: the deviation
over raters, which the papers report, stands beside it.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev

from fact_eval.explain.agreement import (
    chance_probability,
    fleiss_kappa,
    mean_cohen_kappa,
    wilson_interval,
)
from fact_eval.explain.raters import OPTIONS, KeyShape, QuestionShape
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.limits import ANSWERS
from fact_metrics.base.plain_text import for_terminal

COLUMNS = ("pack", "rater", "question", "kind", "position", "answer", "seconds")
# Words that say nothing about what changes.
FUNCTION_WORDS = frozenset(
    "a an and are as at be becomes by change changes from gets goes in into is it its of on or the their to "
    "turns with".split()
)

Answers = Mapping[str, Mapping[str, str]]  # rater -> question -> answer


@dataclass(frozen=True)
class Identified:
    """Right answers of a method: `rate` with its interval, and the mean over raters with its deviation.

    `chance_p` is the probability of at least `right` by guessing. Both kappas use the questions that all
    raters answered, of which there are `common`; None if they are undefined.
    """

    method: str
    questions: int
    raters: int
    answers: int
    right: int
    rate: float
    low: float
    high: float
    chance_p: float
    rater_mean: float
    rater_std: float | None
    common: int
    fleiss_kappa: float | None
    cohen_kappa: float | None


@dataclass(frozen=True)
class Described:
    """One attribute in words: the most frequent word, and how many raters used it.

    `agreeing_pairs` is the share of pairs of raters whose descriptions have a word in common.
    """

    question: str
    method: str
    class_name: str
    attribute: str
    raters: int
    word: str
    count: int
    share: float
    low: float
    high: float
    agreeing_pairs: float | None


def find_answers(paths: Sequence[Path]) -> list[Path]:
    """The CSV files among paths and in folders. UsageError for a missing path or no file at all."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist; give the CSV files of the raters, or their folder")
        files += sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"no CSV file in {', '.join(map(str, paths))}; raters save one from the form")
    return files


def read_answers(files: Sequence[Path], key: KeyShape) -> dict[str, dict[str, str]]:
    """The answers of every rater. UserError naming file and line for what does not fit the key."""
    questions = {question.id: question for question in key.questions}
    found: dict[str, dict[str, str]] = {}
    sources: dict[str, Path] = {}
    for path in files:
        for line, row in _rows(path):
            where = f"{path}, line {line}"
            if row["pack"] != key.pack:
                raise UserError(
                    f"{where}: form {_quoted(row['pack'])}, the key is of form {key.pack}; give the key of "
                    "this form"
                )
            rater = row["rater"]
            if sources.setdefault(rater, path) != path:
                raise UserError(
                    f"{path} and {sources[rater]} both have answers of {_quoted(rater)}; remove one of them"
                )
            question = questions.get(row["question"])
            if question is None:
                raise UserError(
                    f"{where}: the key has no question {_quoted(row['question'])}; restore the file"
                )
            if question.kind == "identification" and row["answer"] not in OPTIONS:
                raise UserError(
                    f"{where}: answer {_quoted(row['answer'])}, it must be {' or '.join(OPTIONS)}; "
                    "restore the file"
                )
            answers = found.setdefault(rater, {})
            if question.id in answers:
                raise UserError(f"{where}: {_quoted(rater)} answers {question.id} twice; remove one line")
            answers[question.id] = row["answer"]
    if not found:
        raise UserError(f"no answer in {', '.join(map(str, files))}; ask the raters for their files again")
    return found


def score_identification(key: KeyShape, answers: Answers) -> list[Identified]:
    """One score for each method with answers, in the order of the key's methods."""
    asked = [question for question in key.questions if question.kind == "identification"]
    methods = sorted({question.method for question in asked})
    found = (_identified(method, [q for q in asked if q.method == method], answers) for method in methods)
    return [score for score in found if score is not None]


def score_descriptions(key: KeyShape, answers: Answers) -> list[Described]:
    """One score for each described attribute with answers, by method and question."""
    asked = sorted(
        (question for question in key.questions if question.kind == "description"),
        key=lambda question: (question.method, question.id),
    )
    found = (_described(question, answers) for question in asked)
    return [score for score in found if score is not None]


def words_of(text: str) -> set[str]:
    """The words of a description: lower case, without function words."""
    return set(re.findall(r"[^\W_]+", text.casefold())) - FUNCTION_WORDS


def _identified(method: str, asked: Sequence[QuestionShape], answers: Answers) -> Identified | None:
    right_answers = {question.id: question.answer for question in asked}
    raters = {
        rater: {q: a for q, a in given.items() if q in right_answers} for rater, given in answers.items()
    }
    raters = {rater: given for rater, given in raters.items() if given}
    if not raters:
        return None
    rates = [fmean(a == right_answers[q] for q, a in given.items()) for given in raters.values()]
    n = sum(len(given) for given in raters.values())
    right = sum(a == right_answers[q] for given in raters.values() for q, a in given.items())
    low, high = wilson_interval(right, n)
    common = [q for q in right_answers if all(q in given for given in raters.values())]
    rows = [[given[q] for q in common] for given in raters.values()]
    comparable = len(rows) > 1 and common
    return Identified(
        method=method,
        questions=len(asked),
        raters=len(raters),
        answers=n,
        right=right,
        rate=right / n,
        low=low,
        high=high,
        chance_p=chance_probability(right, n, 1 / len(OPTIONS)),
        rater_mean=fmean(rates),
        rater_std=stdev(rates) if len(rates) > 1 else None,
        common=len(common),
        fleiss_kappa=fleiss_kappa(rows) if comparable else None,
        cohen_kappa=mean_cohen_kappa(rows) if comparable else None,
    )


def _described(question: QuestionShape, answers: Answers) -> Described | None:
    given = [words_of(each[question.id]) for each in answers.values() if question.id in each]
    counts = Counter(word for words in given for word in words)
    if not counts:
        return None
    word, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
    low, high = wilson_interval(count, len(given))
    pairs = [bool(a & b) for a, b in combinations(given, 2)]
    return Described(
        question=question.id,
        method=question.method,
        class_name=question.class_name,
        attribute=question.attribute,
        raters=len(given),
        word=word,
        count=count,
        share=count / len(given),
        low=low,
        high=high,
        agreeing_pairs=fmean(pairs) if pairs else None,
    )


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, columns) of a CSV file of answers."""
    way_out = "give the CSV files that raters saved from the form"
    try:
        with open(path, "rb") as file:
            content = file.read(ANSWERS.most + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {way_out}") from error
    ANSWERS.check(len(content), path, way_out)
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({for_terminal(error)}); {way_out}") from error
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise UserError(f"{path} does not have the columns {', '.join(COLUMNS)}; {way_out}")
    for line, row in rows:
        if None in row or None in row.values():
            raise UserError(f"{path}, line {line} does not have {len(COLUMNS)} columns; restore the file")
    return rows


def _quoted(text: str) -> str:
    """Text of a stranger, short enough for a message."""
    return for_terminal(repr(text[:60]))
