"""`python -m benchmarks hostile`: commands on hostile files; what crashed, ran, escaped or took much memory.

Targets: no traceback, no crash, no execution, no write outside, no raw text on a terminal or in a board, and
less than 1 GB of memory for a file that is refused.
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.hostile.cases import all_cases
from benchmarks.hostile.given import Given
from benchmarks.hostile.runner import run_case

SIZE = 3 << 30  # bytes that a bomb unpacks to
FAULTS = (
    "traceback",
    "crash",
    "hang",
    "left running",
    "execution",
    "write outside",
    "raw text",
    "accepted",
    "no line",
)


def run(*, size: int = SIZE, every: int = 1, **_: Any) -> dict[str, Any]:
    """Run all cases, or every n-th; the result counts faults and holds the worst cases."""
    with tempfile.TemporaryDirectory() as home, patch.dict(os.environ, _environment(Path(home))):
        given = make_given(Path(home), size=size)
        rows = []
        for number, case in enumerate(list(all_cases(given))[::every]):
            outcome = run_case(case, Path(home) / "cases" / f"{number:04d}")
            rows.append((case, outcome))
    counts = Counter(fault for _, outcome in rows for fault in outcome.faults)
    refused = [(case, outcome) for case, outcome in rows if outcome.code in (1, 2)]
    worst = sorted(refused, key=lambda row: -row[1].peak_mb)[:5]
    return {
        "commands": len(rows),
        "faults": {fault: counts[fault] for fault in FAULTS},
        "refused": len(refused),
        "peak_mb": round(worst[0][1].peak_mb) if worst else None,
        "worst": [{"case": case.name, "peak_mb": round(outcome.peak_mb)} for case, outcome in worst],
        "faulty": [
            {
                "case": case.name,
                "code": outcome.code,
                "faults": list(outcome.faults),
                "output": outcome.output[-500:],
            }
            for case, outcome in rows
            if outcome.faults
        ],
    }


def table(result: dict[str, Any]) -> str:
    """The counts, the largest memory of a refused file, and every faulty case."""
    lines = [f"{result['commands']} commands on hostile files, {result['refused']} refused"]
    lines += [f"  {fault:<14} {count}" for fault, count in result["faults"].items()]
    lines.append(f"  peak memory    {result['peak_mb']} MB (of refused files; target below 1,000)")
    lines += [f"    {row['peak_mb']:>5} MB  {row['case']}" for row in result["worst"]]
    lines += [f"  {', '.join(row['faults'])}: {row['case']} (exit {row['code']})" for row in result["faulty"]]
    return "\n".join(lines)


def make_given(home: Path, *, size: int = SIZE) -> Given:
    """A small run with records, pictures and a classifier below `home`.

    They are made by another process: what this one has in memory counts in every case.
    """
    subprocess.run([sys.executable, "-m", "benchmarks.hostile.base", home], check=True, capture_output=True)
    return Given(home / "good", home / "pictures", home / "classifier.safetensors", size=size)


def _environment(home: Path) -> dict[str, str]:
    names = {"FACT_CACHE": "cache", "FACT_CONFIG": "config", "FACT_WEIGHTS": "weights", "TORCH_HOME": "torch"}
    return {name: str(home / folder) for name, folder in names.items()} | {"OMP_NUM_THREADS": "1"}
