"""The table of an explanation: a line per method, a column per number, and what its controls say."""

import re
from collections.abc import Sequence

from fact_eval.reports.tables import plain_table
from fact_leaderboard.records import Record
from fact_metrics.base.plain_text import for_terminal
from fact_metrics.families.attributes import METHODS, NUMBERS

HEADERS = {
    "flips": "flips",
    "effectiveness": "second",
    "logitchange": "logits",
    "sparsity": "needed",
    "cflpips": "LPIPS",
    "cfmse": "MSE",
    "cfchanged": "pixels",
    "cout": "COUT",
    "attstability": "stability",
}
NAME = re.compile(rf"({'|'.join(NUMBERS)})\d+k?_({'|'.join(sorted(METHODS, key=len, reverse=True))})(_.*)?")


def attributes_table(records: Sequence[Record]) -> str:
    """Tables of all explained snapshots: value and half of its 95 % interval; empty without records."""
    groups: dict[tuple, dict[str, dict[str, Record]]] = {}
    for record in records:
        found = NAME.fullmatch(record.metric)
        if found:
            number, method, _ = found.groups()
            key = (record.run_id, record.kimg, record.seed, record.protocol["settings"].get("classifier"))
            groups.setdefault(key, {}).setdefault(method, {})[number] = record
    others = [_line(record) for record in records if record.metric.startswith(("ls", "composition"))]
    return "\n".join([*(_group(key, methods) for key, methods in groups.items()), *others])


def _line(record: Record) -> str:
    """A number that belongs to no method."""
    value = "no value" if record.value is None else f"{record.value:.4g}"
    return f"{record.metric} = {value}: {record.summary}"


def verdicts(methods: dict[str, dict[str, Record]]) -> list[str]:
    """What the controls say of a group of records: one line per finding."""
    lines = []
    flips = {method: rows["flips"] for method, rows in methods.items() if "flips" in rows}
    for method, record in flips.items():
        if record.extras.get("own_only"):
            lines.append(f"{method}: flips its own classifier only, not the second one")
    control, chance = flips.get("control"), flips.get("random")
    if control and chance and control.ci and chance.ci:
        near = control.ci["low"] <= chance.ci["high"]
        what = "near chance" if near else "above chance: flips do not depend on the classifier alone"
        lines.append(f"control with random weights: {control.value:.3f}, random: {chance.value:.3f}, {what}")
    return lines


def _group(key: tuple, methods: dict[str, dict[str, Record]]) -> str:
    run_id, kimg, seed, _ = key
    rows = []
    for method in METHODS:
        if method in methods:
            cells = {title: _cell(methods[method].get(number)) for number, title in HEADERS.items()}
            rows.append({"method": method.replace("_", "-"), **cells})
    shown = [title for title in HEADERS.values() if any(row[title] for row in rows)]
    rows = [{name: row[name] for name in ("method", *shown)} for row in rows]
    title = f"{for_terminal(run_id)} at {kimg:g} kimg, seed {seed}: 10 attributes"
    return "\n".join([title, plain_table(rows), *(f"  {line}" for line in verdicts(methods))])


def _cell(record: Record | None) -> str:
    if record is None or record.value is None:
        return ""
    half = "" if not record.ci else f" ± {(record.ci['high'] - record.ci['low']) / 2:.2g}"
    return f"{record.value:.3g}{half}"
