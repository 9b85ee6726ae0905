"""What others can rely on, as Markdown: which values of a board were made again, and which a second code has.

Only checks by committed code count, and only of the values that the records hold now.
"""

from collections import defaultdict
from collections.abc import Sequence

from fact_leaderboard.build import Section
from fact_leaderboard.gate import CONTROLS
from fact_leaderboard.records import Record
from fact_leaderboard.verifications import Verification, of_records
from fact_metrics.base.plain_text import for_cell

TITLE = "### Which numbers have been checked"
MADE_AGAIN = (
    "Made again by `fact-eval recompute`: the claimed values against values from the same snapshot, or from "
    "the configuration trained anew. Largest: the largest difference, as a share of its tolerance."
)
SECOND_CODE = (
    "Other people's code on the same features or images, by `fact-eval crosscheck`. Digits: leading decimal "
    "digits in which the two values agree, at least."
)


def render_verified(section: Section, verifications: Sequence[Verification]) -> list[str]:
    """Markdown blocks of a section's checks; [] if there are none."""
    rows = [*section.ranked, *section.controls, *section.unranked]
    records = {record.key: record for row in rows for record in row.records}
    found = of_records(verifications, list(records.values()))
    again = [v for v in found if v.kind != "crosscheck"]
    second = [v for v in found if v.kind == "crosscheck"]
    blocks = []
    if again:
        blocks += [MADE_AGAIN, _made_again(again, records), _details(again, records)]
    if second:
        blocks += [SECOND_CODE, _second_code(second, records)]
    return [TITLE, *blocks] if blocks else []


def _made_again(verifications: Sequence[Verification], records: dict[tuple, Record]) -> str:
    """A line per model, seed and way of checking."""
    groups: dict[tuple, list[Verification]] = defaultdict(list)
    for v in verifications:
        record = records[v.key]
        groups[_model(record), _seed(record), v.basis, _commit(v), _machine(v)].append(v)
    lines = []
    for (model, seed, basis, commit, machine), group in sorted(groups.items()):
        of_model = [r for r in records.values() if (_model(r), _seed(r)) == (model, seed)]
        holding = sum(v.holds is True for v in group)
        judged = [v for v in group if v.tolerance is not None]
        shares = [abs(v.difference) / v.tolerance for v in judged if v.tolerance]
        undecided = len(group) - len(judged)
        state = "verified" if holding == len(group) else f"{len(judged) - holding} differ"
        state = f"{undecided} undecided" if undecided and holding == len(judged) else state
        lines.append(
            {
                "model": model,
                "training seed": seed,
                "state": f"{state}: {holding} of {len(of_model)} values",
                "from": basis,
                "largest": f"{max(shares):.2g}" if shares else "0",
                "commit": commit,
                "date": max(map(_date, group)),
                "machine": machine,
            }
        )
    return table(lines)


def _details(verifications: Sequence[Verification], records: dict[tuple, Record]) -> str:
    lines = [
        {
            "model": _model(records[v.key]),
            "metric": v.metric,
            "claimed": f"{v.claimed:.8g}",
            "recomputed": f"{v.found:.8g}",
            "difference": f"{v.difference:.1e}",
            "tolerance": "none" if v.tolerance is None else f"{v.tolerance:.1e}",
            "holds": {True: "yes", False: "**no**", None: "undecided"}[v.holds],
            "from": v.basis,
        }
        for v in sorted(verifications, key=lambda v: (_model(records[v.key]), v.run_id, v.metric, v.kind))
    ]
    found = table(lines, ours=["holds"])
    return f"<details><summary>Every value, claimed and recomputed</summary>\n\n{found}\n\n</details>"


def _second_code(verifications: Sequence[Verification], records: dict[tuple, Record]) -> str:
    """A line per metric and package."""
    groups: dict[tuple, list[Verification]] = defaultdict(list)
    for v in verifications:
        groups[v.metric, v.by].append(v)
    lines = []
    for (metric, by), group in sorted(groups.items()):
        worst = min(group, key=lambda v: v.digits)
        differing = sum(v.holds is False for v in group)
        lines.append(
            {
                "metric": metric,
                "by": by,
                "values": str(len(group)),
                "digits": f"{worst.digits}" + (f" ({differing} differ)" if differing else ""),
                "models": ", ".join(sorted({_model(records[v.key]) for v in group})),
                "commit": ", ".join(sorted({_commit(v) for v in group})),
                "date": max(map(_date, group)),
            }
        )
    return table(lines)


def table(rows: Sequence[dict[str, str]], *, ours: Sequence[str] = ()) -> str:
    """Dictionaries of texts as a Markdown table. Texts are escaped, but for those of the columns `ours`."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names)]
    lines += [[row[name] if name in ours else for_cell(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _model(record: Record) -> str:
    return CONTROLS.get(record.source, record.label)


def _seed(record: Record) -> str:
    return "" if record.train_seed is None else str(record.train_seed)


def _commit(v: Verification) -> str:
    return v.provenance["git"]["commit"][:12]


def _date(v: Verification) -> str:
    return (v.provenance.get("finished") or "")[:10]


def _machine(v: Verification) -> str:
    packages = v.provenance.get("packages") or {}
    platform, device = (v.provenance.get(name) or "?" for name in ("platform", "device"))
    return f"{platform}, {device}, torch {packages.get('torch', '?')}"
