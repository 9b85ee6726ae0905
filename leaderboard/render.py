"""A board as Markdown, as text for a terminal and as JSON. Holds no date: equal records give equal bytes.

A table per dataset, then how every number was made: protocol, detectors with their weights, sample, command.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence

from fact_baselines.load import ReportedSet, measured_presets
from fact_leaderboard.build import Cell, Row, Section, explained_classifier
from fact_leaderboard.columns import EXPLANATIONS, Column
from fact_leaderboard.explained import flagged_metrics
from fact_leaderboard.gate import flatten, short
from fact_leaderboard.records import Record
from fact_leaderboard.verifications import Verification
from fact_leaderboard.verified import render_verified
from fact_metrics.base.image_size import shown_size
from fact_metrics.base.plain_text import (
    DEGENERATE,
    FLAGGED,
    for_cell,
    for_code,
    for_html,
    for_markdown,
    for_terminal,
)

LEGEND = (
    "↓ lower is better, ↑ higher is better. **Bold** is the best ranked value of a column. ≈ marks values "
    "that are not called worse. If the best has an interval, other values with one and without ≈ are called "
    "worse. A table calls any value wrongly worse in at most 5 % of cases: Welch's statistic over training "
    "seeds, spreads up to 1:5, Holm-corrected over all pairs of rows in all columns. ± is the half-width of "
    "the 95 % t interval over training seeds; rounding and evaluation error count. One seed has no interval "
    "and no test. Values are means over seeds, never the best of them. Blank: not measured."
)
TERMINAL_LEGEND = "* best; ≈ not called worse (Holm over the whole table, 5 %); one seed: no test"
NO_RECORDS = "No records yet: `fact-eval all runs/` measures, `fact-eval publish runs/` adds the rows here."
NOT_OURS = (
    "Copied from the sources named, not measured here: other networks, detectors and sample sizes. Not "
    "comparable with the tables above, nor always with each other."
)
IMPORTED_NOTE = (
    "Networks that other programs trained, imported from the files named and scored here as the rows above "
    "are. Their training data, budget and code are their own, so they are never ranked with those rows."
)
# Parts of a protocol that the board says in places of their own.
ELSEWHERE = (
    "metric",
    "version",
    "needs",
    "detectors",
    "sampling",
)  # parts of a protocol that have a place of their own
MODELS_ABREAST = 5


def render_board(
    sections: Sequence[Section],
    *,
    reported: Iterable[ReportedSet] = (),
    verifications: Sequence[Verification] = (),
    made_by: str = "fact-eval leaderboard",
) -> str:
    """LEADERBOARD.md as text; `reported` numbers stand in tables of their own, never ranked with ours."""
    blocks = ["# Leaderboard", f"Made by `{made_by}` from the records; do not edit. {LEGEND}"]
    if not sections:
        blocks.append(NO_RECORDS)
    for section in sections:
        blocks += _render_section(section)
        blocks += render_verified(section, verifications)
    blocks += _render_reported(list(reported))
    return "\n\n".join(blocks) + "\n"


def render_terminal(sections: Sequence[Section]) -> str:
    """The same numbers for a terminal: a line per metric, a column per model with its rank.

    Who measured sees his own rows first, then the published ones; control rows are last.
    """
    blocks = []
    for section in sections:
        compared = f"\n{TERMINAL_LEGEND}" if len(section.ranked) > 1 else ""
        blocks.append(section_title(section) + compared)
        ranked = list(enumerate(section.ranked, start=1))
        rows = [*sorted(ranked, key=lambda row: not row[1].local), *((None, row) for row in section.controls)]
        for start in range(0, len(rows), MODELS_ABREAST):
            blocks.append(_abreast(section, rows[start : start + MODELS_ABREAST]))
        blocks += map(for_terminal, marked_lines(section))
        blocks += [for_terminal(f"not ranked: {row_name(row)}: {row.why}") for row in section.unranked]
    return "\n\n".join(blocks) or NO_RECORDS.replace("`", "")


def board_json(sections: Sequence[Section]) -> list[dict]:
    """The board as JSON: per dataset the ranked, control and unranked rows with their numbers."""

    def cell(c: Cell) -> dict:
        return {
            "mean": c.mean.mean,
            "half_width": c.mean.half_width,
            "n_train_seeds": c.mean.n,
            "n_requested": c.n_requested,
            "n_effective": c.n_effective,
            **({"degenerate": c.degenerate} if c.degenerate else {}),
        }

    def row(r: Row) -> dict:
        cells = {metric: cell(c) for metric, c in sorted(r.cells.items())}
        known = {"label": r.label, "source": r.source, "kimg": r.kimg, "train_seeds": list(r.train_seeds)}
        known |= {"diverged_seeds": list(r.diverged)}
        if flagged := flagged_metrics(r.records):
            known |= {"flagged": flagged}
        return known | {"published": not r.local, "why": r.why, "metrics": cells}

    def ranked(section: Section, r: Row) -> dict:
        tied = [metric for metric, c in sorted(r.cells.items()) if c.mean in section.tied(metric)]
        return row(r) | {"tied_with_best": tied}

    return [
        {
            "dataset": section.dataset,
            "protocol": section.protocol,
            "imported": section.imported,
            "columns": [dataclasses.asdict(column) for column in section.columns],
            "higher_is_better": dict(sorted(section.higher_is_better.items())),
            "best": {metric: section.best(metric) for metric in sorted(section.higher_is_better)},
            "ranked": [ranked(section, r) for r in section.ranked],
            "controls": [row(r) for r in section.controls],
            "unranked": [row(r) for r in section.unranked],
        }
        for section in sections
    ]


def section_title(section: Section) -> str:
    """Dataset, size and channels of a section, and its protocol unless it is embedded."""
    d = section.dataset
    standard = ", standard protocol" if section.protocol == "standard" else ""
    colours = "gray" if d["channels"] == 1 else "RGB"
    title = f"{for_terminal(d['name'])}, {for_terminal(shown_size(d['resolution']))}, {colours}{standard}"
    if section.protocol == EXPLANATIONS:
        sha256, classes = explained_classifier(next(iter(section.protocols.values())))
        title += for_terminal(f", explanations of classifier {sha256[:12]} ({classes})")
    return f"{title}, imported" if section.imported else title


def header(column: Column, section: Section) -> str:
    """A column's header with the arrow of its direction."""
    return f"{column.header} {'↑' if section.higher_is_better[column.metric] else '↓'}"


def cell_text(section: Section, row: Row, column: Column, *, best: str | None = "**{}**") -> str:
    """A number as the board shows it: mean, ± interval, n where it differs from the row's seeds.

    `best` is how the best of the column is written, None where the row is not ranked.
    """
    cell, seeds = row.cells.get(column.metric), len(row.train_seeds)
    if cell is None:
        return ""
    text = format(cell.mean.mean, column.format)
    if cell.degenerate:
        text += f" {DEGENERATE}"
    elif best and cell.mean.mean == section.best(column.metric):
        text = best.format(text)
    if cell.mean.half_width is not None:
        text += f" ± {format(cell.mean.half_width, column.format)}"
    if best and cell.mean in section.tied(column.metric):
        text += " ≈"
    if section.protocol == EXPLANATIONS and column.metric in flagged_metrics(row.records):
        text += f" {FLAGGED}"
    if seeds and cell.mean.n != seeds:
        text += f" (n={cell.mean.n})"
    if cell.short:
        text += f" ({cell.n_effective:,} images)"
    return text


def marked_lines(section: Section) -> list[str]:
    """A line per marked number of a section: row, column, reason."""
    lines = []
    for row in (*section.ranked, *section.controls, *section.unranked):
        flagged = flagged_metrics(row.records)
        for column in section.columns:
            cell = row.cells.get(column.metric)
            reasons = {DEGENERATE: cell and cell.degenerate, FLAGGED: cell and flagged.get(column.metric)}
            lines += [f"{mark} {row_name(row)}: {column.header}: {r}" for mark, r in reasons.items() if r]
    return lines


def row_marks(row: Row) -> list[str]:
    """The row's roles: measured baseline, pictures of a folder, not published."""
    roles = {
        "baseline": row.preset in measured_presets(),
        "pictures": row.source == "images",
        "not published": row.local,
    }
    return [role for role, holds in roles.items() if holds]


def row_name(row: Row) -> str:
    """The row's label with its roles."""
    marks = row_marks(row)
    return row.label + (f" ({', '.join(marks)})" if marks else "")


def _render_section(section: Section) -> list[str]:
    blocks = [f"## {for_markdown(section_title(section))}", *([IMPORTED_NOTE] if section.imported else [])]
    blocks.append(_table(section, section.ranked, controls=section.controls))
    if section.unranked:
        blocks += ["Not ranked:", _table(section, section.unranked, ranked=False)]
    if marked := marked_lines(section):
        blocks.append("\n".join(f"- {for_markdown(line)}" for line in marked))
    blocks += ["### How each number was made", _render_protocols(section)]
    blocks += ["Detectors and samples:", _render_detectors(section)]
    blocks += ["Commands:", _render_commands(section)]
    return blocks


def _table(
    section: Section, rows: Sequence[Row], *, ranked: bool = True, controls: Sequence[Row] = ()
) -> str:
    """Rows as a Markdown table; control rows follow in italics, without a rank."""
    table = []
    for rank, row in enumerate([*rows, *controls], start=1):
        is_ranked = ranked and rank <= len(rows)
        line = {"#": str(rank)} if is_ranked else ({"#": ""} if ranked else {})
        name = for_cell(row_name(row))
        line["model"] = name if rank <= len(rows) else f"*{name}*"
        if section.imported:
            line["file"] = for_cell(_file(row))
        line["kimg"] = "" if row.kimg is None else format(row.kimg, "g")
        line["seeds"] = seeds_text(row)
        best = "**{}**" if is_ranked else None
        for column in section.columns:
            line[header(column, section)] = cell_text(section, row, column, best=best)
        if not ranked:
            line["why"] = for_cell(row.why)
        table.append(line)
    return _markdown(table)


def _file(row: Row) -> str:
    """The imported file by name and hash."""
    record = row.records[0]
    origin = record.training.get("imported")
    sha256 = (origin if isinstance(origin, dict) else {}).get("file_sha256") or record.snapshot_sha256
    return f"{record.snapshot}, sha256 {short(sha256)}"


def seeds_text(row: Row) -> str:
    """How many training seeds a row is of, and how many more diverged: 3, or `3 of 5, 2 diverged`."""
    n, lost = len(row.train_seeds), len(row.diverged)
    return f"{n} of {n + lost}, {lost} diverged" if lost else str(n or "")


def _abreast(section: Section, ranked: Sequence[tuple[int | None, Row]]) -> str:
    """Up to MODELS_ABREAST rows of a section, each with its rank, side by side, a line per metric."""
    import pandas as pd
    from tabulate import tabulate

    table = {"": [header(column, section) for column in section.columns] + ["training seeds"]}
    for index, (rank, row) in enumerate(ranked):
        cells = [cell_text(section, row, c, best="*{}" if rank else None) for c in section.columns]
        table[index] = [*cells, seeds_text(row)]
    names = [
        "\n".join([f"#{rank}" if rank else "", for_terminal(row.label), *row_marks(row)])
        for rank, row in ranked
    ]
    return tabulate(
        pd.DataFrame(table),
        headers=["", *names],
        tablefmt="simple",
        showindex=False,
        disable_numparse=True,
        colalign=["left", *["right"] * len(ranked)],
    )


def _markdown(rows: Sequence[dict[str, str]]) -> str:
    """Dictionaries of texts as a Markdown table; no text is read as a number, so all digits stay."""
    import pandas as pd
    from tabulate import tabulate

    frame = pd.DataFrame(rows)
    numeric = [name in ("#", "kimg", "seeds", "value") or name[-1] in "↑↓" for name in frame.columns]
    return tabulate(
        frame,
        headers="keys",
        tablefmt="pipe",
        showindex=False,
        disable_numparse=True,
        colalign=["right" if is_number else "left" for is_number in numeric],
    )


def _render_protocols(section: Section) -> str:
    """A bullet per column: meaning, sample, settings, detectors by name, source."""
    lines = []
    for column in section.columns:
        record = section.protocols[column.metric]
        own = {key: value for key, value in record.protocol.items() if key not in ELSEWHERE}
        parts = [_sample(record), _listed(flatten(own.pop("settings", {})) | flatten(own))]
        parts.append(", ".join(f"detector {for_code(name)}" for name in record.protocol.get("detectors", {})))
        parts.append(for_markdown(record.citation))
        made = "; ".join(part for part in parts if part)
        name = f"{for_code(record.metric)} version {record.metric_version}"
        lines.append(f"- **{header(column, section)}** {for_markdown(record.summary)} {name}: {made}.")
    return "\n".join(lines)


def _render_detectors(section: Section) -> str:
    """A bullet per detector with everything that changes a feature, and one for how images are sampled."""
    detectors, sampling = {}, {}
    for column in section.columns:
        protocol = section.protocols[column.metric].protocol
        for name, settings in protocol.get("detectors", {}).items():
            detectors[f"- {for_code(name)}: {_listed(flatten(settings))}."] = None
        if protocol.get("sampling"):
            sampling[f"- images: {_listed(flatten(protocol['sampling']))}."] = None
    return "\n".join([*sorted(detectors), *sorted(sampling)])


def _render_commands(section: Section) -> str:
    lines = {}
    for row in [*section.ranked, *section.controls, *section.unranked]:
        first = row.records[0]
        line = f"- {for_markdown(row_name(row))}: "
        if first.training.get("argv"):
            seeds = ", ".join(map(str, row.train_seeds))
            line += f"trained by {for_code(' '.join(first.training['argv']))} with seeds {seeds}; "
        commands = sorted({" ".join(r.provenance.get("argv", [])) for r in row.records})
        line += f"scored by {', '.join(map(for_code, commands))}; {for_markdown(_where(row.records))}."
        lines[line] = None
    return "\n".join(lines)


def _where(records: Sequence[Record]) -> str:
    """Commit, torch version and device of the scoring."""
    origins = [r.provenance for r in records]
    commits = {(o.get("git") or {}).get("commit") or "none" for o in origins}
    versions = {(o.get("packages") or {}).get("torch") or "unknown" for o in origins}
    devices = {o.get("device") or "unknown" for o in origins}
    return (
        f"commit {', '.join(sorted(c[:12] for c in commits))}, torch {', '.join(sorted(versions))}, "
        f"on {', '.join(sorted(devices))}"
    )


def _sample(record: Record) -> str:
    parts = []
    if record.n_requested is not None:
        parts.append(f"{record.n_requested:,} generated")
    if record.n_real is not None:
        d = record.dataset
        images = for_markdown(f"{d['name']} {d['split']}, sha256 {d['sha256'][:12]}")
        parts.append(f"{record.n_real:,} real images ({images})")
    return " and ".join(parts)


def _listed(flat: dict[str, object]) -> str:
    return "; ".join(
        for_markdown(f"{key.replace('_', ' ')}: {_value(value)}")
        for key, value in sorted(flat.items())
        if key
    )


def _value(value: object) -> str:
    return short(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _render_reported(reported: Sequence[ReportedSet]) -> list[str]:
    if not reported:
        return []
    blocks = ["## What papers report", NOT_OURS]
    for group in reported:
        rows = []
        for r in group.results:
            value = f"{r.value:g}" + ("" if r.spread is None else f" ± {r.spread:g}")
            sample = {"generated": _count(r.n_generated), "real": _count(r.n_real)}
            protocol = r.protocol + (f"; {r.note}" if r.note else "")
            line = {"model": r.model, "metric": r.metric, "value": value}
            rows.append(line | sample | {"protocol": protocol, "paper": r.paper})
        title = f"{group.dataset}, {shown_size(group.resolution)}: {group.source}"
        note = f"\n\n{group.note}" if group.note else ""
        blocks.append(
            f"<details><summary>{for_html(title)}</summary>{note}\n\n{_markdown(rows)}\n\n</details>"
        )
    return blocks


def _count(n: int | None) -> str:
    return "" if n is None else f"{n:,}"
