"""`python -m benchmarks faults`: kills, full and read-only disks, generated bad inputs; what went wrong.

Targets: after any kill and any fault of the disk, the same command leaves what an uninterrupted one leaves,
hash by hash. Every command on a bad input ends in time with exit code 0, 1 or 2 and errors in one line. It
prints no traceback, runs nothing of the file, and takes less than 1 GB.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.faults.disk import injected, real
from benchmarks.faults.entries import make_entries
from benchmarks.faults.inputs import run_entries
from benchmarks.faults.kills import kill_targets
from benchmarks.faults.targets import make_targets
from benchmarks.faults.warm import warm_up
from benchmarks.hostile import _environment, make_given

PARTS = ("kills", "disk", "tmpfs", "inputs")
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- faults -->", "<!-- end -->"


def run(
    *,
    kills: int = 20,
    inputs: int = 1000,
    every: int = 1,
    parts: Sequence[str] = PARTS,
    seed: int = 0,
    only: Sequence[str] = (),
    **_: Any,
) -> dict[str, Any]:
    """Parts of the campaign. `every`: a disk fault at every n-th change of a file; `only`: these targets."""
    result: dict[str, Any] = {"seed": seed, **{part: [] for part in PARTS}, "left_out": []}
    with tempfile.TemporaryDirectory() as home, patch.dict(os.environ, _environment(Path(home))):
        at = Path(home)
        given = make_given(at, size=1 << 20)
        warm_up()
        targets = [target for target in make_targets(given) if not only or target.name in only]
        entries = make_entries(given, only=only)
        made = {
            "kills": lambda: kill_targets(targets, at / "kills", kills=kills, seed=seed),
            "disk": lambda: injected(targets, at / "disk", every=every),
            "tmpfs": lambda: real(targets, at / "tmpfs"),
            "inputs": lambda: run_entries(entries, at / "inputs", inputs=inputs, seed=seed),
        }
        for part in parts:
            for row in made[part]():
                if isinstance(row, str):
                    result["left_out"].append(row)
                    continue
                print(_progress(part, row), flush=True)
                result[part].append(asdict(row))
    return result


def table(result: dict[str, Any]) -> str:
    """All parts as Markdown tables, then a line per fault."""
    faults = [fault for part in PARTS for row in result[part] for fault in row["faults"]]
    blocks = [f"Seed {result['seed']}; {len(faults)} faults."]
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


def publish(result: dict[str, Any]) -> None:
    """Put the tables into benchmarks/README.md."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n\n{table(result)}\n\n{END}{after}")


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _progress(part: str, row: Any) -> str:
    return f"{part}: {getattr(row, 'target', None) or row.entry}: {len(row.faults)} faults"
