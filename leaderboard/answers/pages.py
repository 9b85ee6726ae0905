"""Answers as Markdown and as text: STUDIES.md, a page per study, and what `fact-eval study` prints.

Holds no date: equal records give equal bytes.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

from fact_leaderboard.answers.answer import (
    STATUSES,
    Answer,
    digits_of,
    effect_text,
    seconds_spent,
)
from fact_leaderboard.answers.effects import BETTER, WORSE, Effect
from fact_leaderboard.answers.spread import Spread
from fact_metrics.registry import get_spec
from fact_train.settings.fields import value_text
from fact_train.settings.sources import SOURCES

HEADINGS = {
    "stylex": "The StylEx list",
    "injection": "The style-injection list",
    "null": "Comparisons of equal settings",
}
INTRODUCTION = (
    "Made by `fact-eval leaderboard` from the files in `studies/` and the published records; do not edit. "
    "Every difference is setting less reference, over training seeds, with its 95 % interval (Welch, with a "
    "spread learnt from all configurations of the preset). "
    "Verdicts hold for the primary metric and are Holm-corrected within a study. "
    "[How to read an answer](../docs/studies.md)."
)
PRIMARY_HEADER = (
    *("setting", "against", "mean", "seeds", "one more seed", "reference", "difference [95 %]"),
    *("p (Holm)", "verdict"),
)
COMPARED = {
    "ratio": "Ratios are compared, so means are geometric.",
    "odds": "Odds are compared, so means are those of log-odds.",
}
MARKS = {BETTER: " ▲", WORSE: " ▼"}
MISSING_SHOWN = 6


def studies_page(answers: Sequence[Answer]) -> str:
    """STUDIES.md: every question with its answer and status, answered ones first."""
    counts = Counter(answer.status for answer in answers)
    counted = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    blocks = ["# Studies", INTRODUCTION, f"{len(answers)} questions: {counted}. {_runs_text(answers)}"]
    ordered = sorted(answers, key=lambda answer: STATUSES.index(answer.status))
    for name, heading in HEADINGS.items():
        rows = [_summary(answer) for answer in ordered if answer.study.list == name]
        if rows:
            blocks += [f"## {heading}", markdown_table(("question", "answer", "status"), rows)]
    return "\n\n".join(blocks) + "\n"


def study_page(answer: Answer) -> str:
    """The page of one study: answer, plot, what was asked, tables, missing runs."""
    study = answer.study
    blocks = [
        f"# {study.question}",
        "Made by `fact-eval leaderboard`; do not edit. [All studies](../STUDIES.md).",
        f"**{answer.status.capitalize()}.** {answer.sentence}",
        f"![Effects of the settings of {study.name}]({study.name}.png)",
        "\n".join(f"- {line}" for line in facts(answer)),
        f"## {study.primary}",
        f"{get_spec(study.primary).summary} {_direction(answer.primary[0])}",
        markdown_table(PRIMARY_HEADER, primary_rows(answer)),
        *filter(None, [spread_text(answer.spreads[study.primary])]),
    ]
    header, rows = other_rows(answer)
    if rows:
        blocks += [
            "## Other metrics",
            "Difference [95 % interval]; ▲ better, ▼ worse at 5 %, not corrected for the number of tests.",
            markdown_table(header, rows),
        ]
    return "\n\n".join(blocks) + "\n"


def study_text(answer: Answer) -> str:
    """The answer for a terminal."""
    blocks = [
        f"{answer.study.name}: {answer.study.question}",
        f"{answer.status}: {answer.sentence}",
        "\n".join(facts(answer)),
    ]
    if answer.has_results:
        blocks += [answer.study.primary, text_table(PRIMARY_HEADER, primary_rows(answer))]
        header, rows = other_rows(answer)
        blocks += ["Other metrics", text_table(header, rows)] if rows else []
    return "\n\n".join(blocks)


def answer_json(answer: Answer) -> dict:
    """The answer as JSON: sentence, status, every effect, missing runs."""
    return {
        "study": answer.study.name,
        "question": answer.study.question,
        "status": answer.status,
        "answer": answer.sentence,
        "primary": answer.study.primary,
        "relevant_difference": answer.study.relevant_difference,
        "effects": {
            metric: [dataclasses.asdict(e) for e in effects] for metric, effects in answer.effects.items()
        },
        "values": {
            name: {
                metric: {str(seed): v for seed, v in sorted(by_seed.items())}
                for metric, by_seed in s.values.items()
            }
            for name, s in answer.samples.items()
        },
        "failures": answer.failures(),
        "missing": [run.name for run in answer.missing],
    }


def facts(answer: Answer) -> list[str]:
    """What was asked and how far it is: one line each."""
    study = answer.study
    lines = [f"Source: {SOURCES[study.source]}."]
    if study.expected:
        lines.append(f"Expected: {study.expected}")
    if study.blocked:
        return lines
    changed = ", ".join(f"{name} {value_text(value)}" for name, value in study.fields.items())
    lines += [
        f"Base: preset {study.base}{f' with {changed}' if changed else ''}, {study.kimg:g} kimg.",
        f"Held fixed: {study.held_fixed}",
        f"Relevant difference: {study.relevant_difference:g} on {study.primary}.",
        _runs_text([answer]),
    ]
    lines += [f"Failures: {line}." for line in answer.failures()]
    if answer.missing:
        names = [run.name for run in answer.missing]
        more = f" and {len(names) - MISSING_SHOWN} more" if len(names) > MISSING_SHOWN else ""
        lines.append(f"Missing: {', '.join(names[:MISSING_SHOWN])}{more}.")
        lines.append(f"Run them: fact-train sweep --study leaderboard/studies/{study.name}.toml")
    return lines


def primary_rows(answer: Answer) -> list[list[str]]:
    """One row a setting, with the columns of PRIMARY_HEADER."""
    digits = digits_of(answer.study.relevant_difference)
    rows = []
    for effect in answer.primary:
        values = answer.samples[effect.setting].of(answer.study.primary)
        spread = answer.spreads[answer.study.primary].predictive_interval(values)
        rows.append(
            [
                effect.setting,
                effect.reference,
                _number(effect.mean, digits),
                str(effect.seeds),
                "" if spread is None else f"{spread[0]:.{digits}f} to {spread[1]:.{digits}f}",
                "" if effect.base is None else f"{effect.base:.{digits}f} ({effect.base_seeds})",
                "" if effect.value is None else effect_text(effect, digits),
                "" if effect.p is None else f"{effect.p:.2g}",
                effect.verdict,
            ]
        )
    return rows


def spread_text(spread: Spread) -> str:
    """How the seeds of a metric are compared, where it is not by their own spread and differences alone."""
    parts = []
    if spread.scale != "difference":
        parts.append(COMPARED[spread.scale])
    if spread.pool is not None:
        worth = "all" if math.isinf(spread.pool.degrees) else f"{spread.pool.degrees:.1f}"
        parts.append(
            f"The spread of seeds is learnt from {spread.pool.configurations} configurations of the preset: "
            f"{worth} of their {spread.pool.total:.0f} degrees of freedom count for each."
        )
    return " ".join(parts)


def other_rows(answer: Answer) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the other metrics that have a value: one row a setting, one column a metric."""
    others = {
        metric: effects
        for metric, effects in answer.effects.items()
        if metric != answer.study.primary and any(effect.value is not None for effect in effects)
    }
    if not others:
        return [], []
    header = [
        "setting",
        *(f"{metric} {'↑' if e[0].higher_is_better else '↓'}" for metric, e in others.items()),
    ]
    rows = [
        [setting.name, *(_other_cell(effects[i]) for effects in others.values())]
        for i, setting in enumerate(answer.study.settings)
    ]
    return header, rows


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; bars inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with aligned columns."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _summary(answer: Answer) -> list[str]:
    target = f"studies/{answer.study.name}.{'md' if answer.has_results else 'toml'}"
    missing = f"; {len(answer.missing)} of {answer.runs} runs missing" if answer.missing else ""
    return [f"[{answer.study.question}]({target})", answer.sentence, answer.status + missing]


def _runs_text(answers: Sequence[Answer]) -> str:
    """Runs with records, each once, and the time of their training."""
    seconds, timed, trained = seconds_spent(answers)
    total = len({run.key for answer in answers for sample in answer.samples.values() for run in sample.runs})
    text = f"{trained} of {total} runs have records"
    if timed:
        untimed = f" ({timed} of them timed)" if timed < trained else ""
        hours = f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.1f} minutes"
        text += f"; training took {hours}{untimed}"
    return text + "."


def _other_cell(effect: Effect) -> str:
    if effect.value is None:
        return ""
    value = f"{effect.value:+.3g}"
    interval = "" if effect.low is None else f" [{effect.low:+.3g}, {effect.high:+.3g}]"
    return value + interval + MARKS.get(effect.verdict, "")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _direction(effect: Effect) -> str:
    return "Higher is better." if effect.higher_is_better else "Lower is better."
