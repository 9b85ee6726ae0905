"""A board as Markdown: a table per dataset, then how every number was made. Holds no date: equal records, equal bytes."""

import dataclasses
from collections.abc import Iterable, Sequence

from baselines.load import ReportedSet, measured_presets
from fact_eval.records import Record
from leaderboard.build import Cell, Row, Section, flatten
from leaderboard.columns import Column

TITLE = "# Leaderboard"
LEGEND = (
    "↓ lower is better, ↑ higher is better; **bold** is the best ranked value. ± is the half-width of the 95 % t interval over "
    "training seeds: with one seed there is none. Values are means over seeds, never the best of them. Blank: not measured."
)


def render_board(
    sections: Sequence[Section],
    *,
    reported: Iterable[ReportedSet] = (),
    regenerate: str = "fact-eval leaderboard",
) -> str:
    """LEADERBOARD.md as text. `reported` numbers stand in tables of their own, never ranked with measured ones."""
    blocks = [TITLE, f"Made by `{regenerate}` from the records; do not edit. {LEGEND}"]
    if not sections:
        blocks.append(
            "No records yet: `fact-eval all runs/` measures, `fact-eval publish runs/` adds the rows here."
        )
    for section in sections:
        blocks += _render_section(section)
    blocks += _render_reported(list(reported))
    return "\n\n".join(blocks) + "\n"


def board_json(sections: Sequence[Section]) -> list[dict]:
    """The board as JSON: per dataset the ranked, control and unranked rows with their numbers."""

    def cell(c: Cell) -> dict:
        return {
            "mean": c.mean.mean,
            "half_width": c.mean.half_width,
            "n_train_seeds": c.mean.n,
            "n_requested": c.n_requested,
            "n_effective": c.n_effective,
        }

    def row(r: Row) -> dict:
        cells = {metric: cell(c) for metric, c in sorted(r.cells.items())}
        known = {"label": r.label, "source": r.source, "kimg": r.kimg, "train_seeds": list(r.train_seeds)}
        return known | {"published": not r.local, "why": r.why, "metrics": cells}

    return [
        {
            "dataset": section.dataset,
            "columns": [dataclasses.asdict(column) for column in section.columns],
            "higher_is_better": dict(sorted(section.higher_is_better.items())),
            "ranked": [row(r) for r in section.ranked],
            "controls": [row(r) for r in section.controls],
            "unranked": [row(r) for r in section.unranked],
        }
        for section in sections
    ]


def section_title(section: Section) -> str:
    """Dataset, size and channels of a section."""
    d = section.dataset
    return f"{d['name']}, {d['resolution']}x{d['resolution']}, {'gray' if d['channels'] == 1 else 'RGB'}"


def header(column: Column, section: Section) -> str:
    """A column's header with the arrow of its direction."""
    return f"{column.header} {'↑' if section.higher_is_better[column.metric] else '↓'}"


def cell_text(cell: Cell | None, column: Column, *, seeds: int, best: float | None = None) -> str:
    """A number as the board shows it: mean, ± where there is an interval, n where it differs from the row's seeds."""
    if cell is None:
        return ""
    text = format(cell.mean.mean, column.format)
    if best is not None and cell.mean.mean == best:
        text = f"**{text}**"
    if cell.mean.half_width is not None:
        text += f" ± {format(cell.mean.half_width, column.format)}"
    if seeds and cell.mean.n != seeds:
        text += f" (n={cell.mean.n})"
    if cell.short:
        text += f" ({cell.n_effective:,} images)"
    return text


def section_table(
    section: Section, rows: Sequence[Row], *, ranked: bool = True, controls: Sequence[Row] = ()
):
    """The rows as a pandas DataFrame of texts, one column per board column; control rows follow, without a rank."""
    import pandas as pd

    table = []
    for rank, row in enumerate([*rows, *controls], start=1):
        is_control = rank > len(rows)
        line = {
            "#": str(rank) if ranked and not is_control else "",
            "model": row_name(row, italic=is_control),
        }
        line["kimg"] = "" if row.kimg is None else format(row.kimg, "g")
        line["seeds"] = str(len(row.train_seeds)) if row.train_seeds else ""
        for column in section.columns:
            best = section.best(column.metric) if ranked and not is_control else None
            cell = row.cells.get(column.metric)
            line[header(column, section)] = cell_text(cell, column, seeds=len(row.train_seeds), best=best)
        if not ranked:
            line["why"] = row.why
        table.append(line)
    frame = pd.DataFrame(table)
    return frame if ranked else frame.drop(columns="#")


def row_name(row: Row, *, italic: bool = False) -> str:
    """The row's label with its role: measured baseline, not published, pictures."""
    marks = []
    if row.preset in measured_presets():
        marks.append("baseline")
    if row.source == "images":
        marks.append("pictures")
    if row.local:
        marks.append("not published")
    label = f"*{row.label}*" if italic else row.label
    return label + (f" ({', '.join(marks)})" if marks else "")


def to_markdown(frame) -> str:
    """A DataFrame of texts as a Markdown table; numbers are not parsed, so every digit stays as it was written."""
    from tabulate import tabulate

    align = [
        "right" if name in ("#", "kimg", "seeds") or name[-1] in "↑↓" else "left" for name in frame.columns
    ]
    return tabulate(
        frame.astype(str),
        headers="keys",
        tablefmt="pipe",
        showindex=False,
        disable_numparse=True,
        colalign=align,
    )


def _render_section(section: Section) -> list[str]:
    blocks = [f"## {section_title(section)}"]
    blocks.append(to_markdown(section_table(section, section.ranked, controls=section.controls)))
    if section.unranked:
        blocks.append("Not ranked:")
        blocks.append(to_markdown(section_table(section, section.unranked, ranked=False)))
    blocks.append("### How each number was made")
    blocks.append(_render_protocols(section))
    blocks.append(_render_rows(section))
    return blocks


def _render_protocols(section: Section) -> str:
    """One bullet per column; what all protocols share is said once."""
    flats = {c.metric: flatten(section.protocols[c.metric].protocol) for c in section.columns}
    shared = dict(set.intersection(*(set(_hashable(flat).items()) for flat in flats.values())))
    shared = shared if len(flats) > 1 else {}
    lines = []
    for column in section.columns:
        record = section.protocols[column.metric]
        own = {k: v for k, v in _hashable(flats[column.metric]).items() if k not in shared}
        lines.append(
            f"- **{column.header}** is `{record.metric}` version {record.metric_version}: {_sample(record)}{_list(own)}"
        )
    if shared:
        lines.append(f"- All columns: {_list(dict(sorted(shared.items())))}")
    return "\n".join(lines)


def _render_rows(section: Section) -> str:
    lines = []
    for row in [*section.ranked, *section.controls, *section.unranked]:
        first = row.records[0]
        line = f"- {row_name(row)}: "
        if row.source == "run":
            trained = " ".join(first.training.get("argv", []))
            line += f"trained by `{trained}`, seeds {', '.join(map(str, row.train_seeds))}; "
        commands = sorted({" ".join(r.provenance.get("argv", [])) for r in row.records})
        line += f"scored by {' and '.join(f'`{c}`' for c in commands)}{_where(row.records)}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


def _where(records: Sequence[Record]) -> str:
    """Commit, torch version and device of the scoring, where they are known."""
    known = []
    commits = sorted({(r.provenance.get("git") or {}).get("commit") or "no commit" for r in records})
    known.append("commit " + ", ".join(c[:12] for c in commits))
    versions = sorted({(r.provenance.get("packages") or {}).get("torch", "?") for r in records})
    known.append("torch " + ", ".join(versions))
    known.append("on " + ", ".join(sorted({r.provenance.get("device", "?") for r in records})))
    return ", " + ", ".join(known)


def _sample(record: Record) -> str:
    parts = []
    if record.n_requested is not None:
        parts.append(f"{record.n_requested:,} generated")
    if record.n_real is not None:
        d = record.dataset
        parts.append(f"{record.n_real:,} real images ({d['name']} {d['split']}, sha256 {d['sha256'][:12]})")
    return ", ".join(parts) + ("; " if parts else "")


def _list(flat: dict[str, object]) -> str:
    return "; ".join(f"{key.replace('_', ' ')}: {_shown(value)}" for key, value in flat.items())


def _shown(value: object) -> str:
    text = str(value)
    is_hash = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return text[:12] if is_hash else text


def _hashable(flat: dict[str, object]) -> dict[str, object]:
    return {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in flat.items()}


def _render_reported(reported: Sequence[ReportedSet]) -> list[str]:
    if not reported:
        return []
    import pandas as pd

    blocks = [
        "## What papers report",
        "Copied from the sources named, not measured here: other networks, detectors and sample sizes. Not comparable with "
        "the tables above, nor always with each other.",
    ]
    for group in reported:
        rows = []
        for r in group.results:
            spread = "" if r.spread is None else f" ± {r.spread:g}"
            protocol = r.protocol + (f"; {r.note}" if r.note else "")
            counts = [_count(r.n_generated), _count(r.n_real)]
            rows.append(
                {"model": r.model, "metric": r.metric, "value": f"{r.value:g}{spread}"}
                | {"generated": counts[0], "real": counts[1], "protocol": protocol, "paper": r.paper}
            )
        title = f"{group.dataset}, {group.resolution}x{group.resolution}: {group.source}"
        note = f"\n\n{group.note}" if group.note else ""
        table = to_markdown(pd.DataFrame(rows))
        blocks.append(f"<details><summary>{title}</summary>{note}\n\n{table}\n\n</details>")
    return blocks


def _count(n: int | None) -> str:
    return "" if n is None else f"{n:,}"
