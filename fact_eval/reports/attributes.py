"""The table of an explanation: a line per method, a column per number, and what its controls say."""

import re
from collections.abc import Sequence

from fact_eval.explain.across import Agreement, summarise
from fact_eval.reports.tables import plain_table
from fact_leaderboard.explained import control_is_above_chance, flagged_methods
from fact_leaderboard.records import Record
from fact_metrics.base.plain_text import FLAGGED, for_terminal
from fact_metrics.families.attributes import METHODS

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
ON_FEATURES = {"minimality": "minimality", "cffid": "FID", "cfsplitfid": "split FID"}
NAME = re.compile(
    rf"({'|'.join(HEADERS | ON_FEATURES)})\d+k?_({'|'.join(sorted(METHODS, key=len, reverse=True))})_?(.*)"
)

Methods = dict[str, dict[str, Record]]  # by method and number, or number and detector


def attributes_table(records: Sequence[Record]) -> str:
    """Tables of all explained snapshots: value and half of its 95 % interval; empty without records."""
    groups: dict[tuple, Methods] = {}
    for record in records:
        found = NAME.fullmatch(record.metric)
        if found:
            number, method, detector = found.groups()
            number = f"{number} {detector}" if number in ON_FEATURES else number
            key = (record.run_id, record.kimg, record.seed, record.protocol["settings"].get("classifier"))
            groups.setdefault(key, {}).setdefault(method, {})[number] = record
    others = [_line(record) for record in records if record.metric.startswith(("ls", "composition"))]
    return "\n".join([*(_group(key, methods) for key, methods in groups.items()), *others])


def _line(record: Record) -> str:
    """A number that belongs to no method."""
    value = "no value" if record.value is None else f"{record.value:.4g}"
    return f"{record.metric} = {value}: {record.summary}"


def verdicts(methods: Methods) -> list[str]:
    """What the controls say of a group of records: one line per finding."""
    flips = {method: rows["flips"] for method, rows in methods.items() if "flips" in rows}
    flagged = flagged_methods(flips)
    lines = [f"{FLAGGED} {', '.join(own)}: {reason}" for reason, own in _grouped(flagged).items()]
    if control_is_above_chance(flips) is False:
        control, chance = flips["control"].value, flips["random"].value
        lines.append(f"control with random weights: {control:.3f}, random: {chance:.3f}, near chance")
    return lines


def _grouped(reasons: dict[str, str]) -> dict[str, list[str]]:
    """Methods by reason."""
    groups: dict[str, list[str]] = {}
    for method, reason in reasons.items():
        groups.setdefault(reason, []).append(method.replace("_", "-"))
    return groups


def agreement_table(found: Sequence[Agreement]) -> str:
    """Agreement of runs on attributes, a row per method; empty without runs that were compared."""
    rows = [
        {
            "method": one.method,
            "matched correlation": f"{one.value:.3f}",
            "95 % interval": f"{one.low:.3f} to {one.high:.3f}",
            "pairs of runs": f"{one.lowest:.3f} to {one.highest:.3f}",
        }
        for one in summarise(found)
    ]
    return (
        f"attributes of {len({r for one in found for r in one.runs})} runs\n{plain_table(rows)}\n"
        if rows
        else ""
    )


def _group(key: tuple, methods: Methods) -> str:
    run_id, kimg, seed, _ = key
    known = {number for rows in methods.values() for number in rows}
    on_features = {
        number: f"{ON_FEATURES[number.split()[0]]} {number.split()[1]}"
        for number in sorted(known - HEADERS.keys())
    }
    title = f"{for_terminal(run_id)} at {kimg:g} kimg, seed {seed}: 10 attributes"
    tables = [_table(methods, HEADERS), _table(methods, on_features), _curves(methods, on_features)]
    return "\n".join([title, *filter(None, tables), *(f"  {line}" for line in verdicts(methods))])


def _table(methods: Methods, headers: dict[str, str]) -> str:
    """A row per method, a column per number that any method has."""
    rows = [
        {"method": method, **{title: _cell(methods[method].get(number)) for number, title in headers.items()}}
        for method in METHODS
        if method in methods
    ]
    return _plain(rows)


def _curves(methods: Methods, headers: dict[str, str]) -> str:
    """FID by number of attributes, a row per method and distance; 0 are the unedited images."""
    rows = [
        {
            "method": method,
            "distance": title,
            **{f"{point['k']}": f"{point['value']:.3g}" for point in record.extras["curve"]},
        }
        for number, title in headers.items()
        for method in METHODS
        if (record := methods.get(method, {}).get(number)) and "curve" in record.extras
    ]
    return _plain(rows)


def _plain(rows: list[dict[str, str]]) -> str:
    """The rows that say something, without empty columns."""
    shown = [title for title in (rows[0] if rows else ()) if title == "method" or any(r[title] for r in rows)]
    rows = [{title: row[title] for title in shown} for row in rows if any(list(row.values())[1:])]
    return plain_table([{**row, "method": row["method"].replace("_", "-")} for row in rows])


def _cell(record: Record | None) -> str:
    if record is None or record.value is None:
        return ""
    half = "" if not record.ci else f" ± {(record.ci['high'] - record.ci['low']) / 2:.2g}"
    return f"{record.value:.3g}{half}"
