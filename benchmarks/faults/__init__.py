"""`python -m benchmarks faults`: kills, full and read-only disks, generated bad inputs; what went wrong.

Targets: after any kill and any fault of the disk, the same command leaves what an uninterrupted one leaves,
hash by hash. Every command on a bad input ends in time with exit code 0, 1 or 2 and errors in one line. It
prints no traceback, runs nothing of the file, and takes less than 1 GB.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.faults.disk import injected, real
from benchmarks.faults.entries import ENTRIES, make_entries
from benchmarks.faults.inputs import run_entries
from benchmarks.faults.kills import kill_targets
from benchmarks.faults.targets import make_targets
from benchmarks.faults.warm import warm_up
from benchmarks.hostile import _environment, make_given
from benchmarks.machine import RESULTS

PARTS = ("kills", "disk", "tmpfs", "inputs")
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- faults -->", "<!-- end -->"


def run(
    *,
    kills: int = 20,
    inputs: int = 1000,
    every: int = 1,
    seed: int = 0,
    parts: str = "",
    only: str = "",
    **_: Any,
) -> dict[str, Any]:
    """All parts of the campaign, or `parts`, on all commands and kinds of files, or `only` these.

    `every`: a disk fault at every n-th change of a file. Ctrl-C ends it and keeps the rows so far.
    """
    chosen = parts.split(",") if parts else list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        raise SystemExit(f"--parts {min(unknown)}: no such part; there are {', '.join(PARTS)}")
    names = only.split(",") if only else []
    result: dict[str, Any] = {**{part: [] for part in PARTS}, "left_out": []}
    with tempfile.TemporaryDirectory() as home, patch.dict(os.environ, _environment(Path(home))):
        at = Path(home)
        given = make_given(at, size=1 << 20)
        warm_up()
        targets = make_targets(given)
        known = [*(target.name for target in targets), *ENTRIES]
        if unknown := [name for name in names if name not in known]:
            raise SystemExit(f"--only {unknown[0]}: nothing of that name; there are {', '.join(known)}")
        targets = [target for target in targets if not names or target.name in names]
        entries = make_entries(given, only=names)
        made = {
            "kills": lambda: kill_targets(targets, at / "kills", kills=kills, seed=seed),
            "disk": lambda: injected(targets, at / "disk", every=every),
            "tmpfs": lambda: real(targets, at / "tmpfs"),
            "inputs": lambda: run_entries(entries, at / "inputs", inputs=inputs, seed=seed),
        }
        try:
            for part in chosen:
                for row in made[part]():
                    if isinstance(row, str):
                        result["left_out"].append(row)
                        continue
                    print(_progress(part, row), flush=True)
                    result[part].append({**asdict(row), "seed": seed})
        except KeyboardInterrupt:
            print("interrupted: the rows so far are kept", flush=True)
    return result


def table(result: dict[str, Any]) -> str:
    """All parts as Markdown tables, then a line per fault."""
    faults = [fault for part in PARTS for row in result[part] for fault in row["faults"]]
    seeds = sorted({row["seed"] for part in PARTS for row in result[part]})
    blocks = [f"Seeds: {', '.join(map(str, seeds))}. Faults: {len(faults)}."]
    rows = [
        {
            "interrupted": row["target"],
            "kills": row["kills"],
            "of them at a write": row["at_writes"],
            "finished afterwards": row["finished"],
            "equal to an uninterrupted run": row["equal"],
        }
        for row in result["kills"]
    ]
    rows_of_disk = [
        {
            "disk": row["kind"],
            "command": row["target"],
            "changes of files": row["changes"],
            "faults set": row["faults_set"],
            "refused": row["refused"],
            "went on": row["went_on"],
            "equal once there was room": row["equal"],
            "faults": len(row["faults"]),
        }
        for row in (*result["disk"], *result["tmpfs"])
    ]
    rows_of_inputs = [
        {
            "bad input": row["entry"],
            "inputs": row["inputs"],
            "refused": row["refused"],
            "accepted": row["accepted"],
            "also in a new process": row.get("fresh", 0),
            "kinds of message": len(row["kinds"]),
            "peak memory of a refusal": f"{row['peak_mb']:.0f} MB",
            "faults": len(row["faults"]),
        }
        for row in result["inputs"]
    ]
    blocks += [_markdown(rows) for rows in (rows, rows_of_disk, rows_of_inputs) if rows]
    blocks += [f"Left out: {line}." for line in result["left_out"]]
    blocks += [f"- {fault}" for fault in faults]
    return "\n\n".join(blocks)


def merged(result: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """A result with the rows of an earlier one that it has not measured again."""
    rows = {part: {_name(row): row for row in earlier.get(part, ())} for part in PARTS}
    for part in PARTS:
        rows[part] |= {_name(row): row for row in result[part]}
    return {**result, **{part: list(of_part.values()) for part, of_part in rows.items()}}


def with_tables(page: str, result: dict[str, Any]) -> str:
    """A page with the tables of a result between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(result)}\n\n{END}{after}"


def publish(result: dict[str, Any]) -> dict[str, Any]:
    """Put the tables, with earlier rows that were not measured again, into benchmarks/README.md."""
    path = RESULTS / "faults.json"
    result = merged(result, json.loads(path.read_text()) if path.exists() else {})
    README.write_text(with_tables(README.read_text(), result))
    return result


def _name(row: dict[str, Any]) -> tuple:
    return (row.get("target") or row["entry"], row.get("kind"))


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _progress(part: str, row: Any) -> str:
    return f"{part}: {getattr(row, 'target', None) or row.entry}: {len(row.faults)} faults"
