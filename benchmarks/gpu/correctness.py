"""Every test that needs a GPU, run by pytest in a process of its own; a result per test."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.report import Bench, Result, markdown

TESTS = Path(__file__).resolve().parents[2] / "tests"


def measure(bench: Bench) -> Iterator[Result]:
    """A result per test marked `gpu`; on a CPU they are skipped, which the result says."""
    import pytest  # noqa: F401  the part is skipped by name without it

    files = sorted({str(path) for path in TESTS.glob("test_*.py") if "mark.gpu" in path.read_text()})
    report = bench.out / "gpu-tests.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        f"--junitxml={report}",
        "-p",
        "no:cacheprovider",
    ]
    log = bench.out / "gpu-tests.txt"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*command, *files], stdout=stream, stderr=subprocess.STDOUT, cwd=TESTS.parent
        )
        try:
            process.wait(timeout=max(bench.seconds_left, 1))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(timeout=10)
            yield {"test": "all of them", "outcome": "stopped: no time left", "seconds": 0.0}
    if report.exists():
        yield from outcomes(report)


def outcomes(report: Path) -> Iterator[Result]:
    """Test, outcome and seconds of every case in a JUnit file."""
    for case in ElementTree.parse(report).iter("testcase"):
        children = {child.tag: child.get("message", "").split("\n")[0] for child in case}
        outcome = next((name for name in ("failure", "error", "skipped") if name in children), "passed")
        text = f"{outcome}: {children[outcome]}" if outcome in children else outcome
        yield {"test": case.get("name"), "outcome": text, "seconds": float(case.get("time"))}


def table(rows: list[Result]) -> str:
    """Every test and its outcome."""
    return markdown(
        {
            "test": lambda r: r["test"],
            "outcome": lambda r: r["outcome"].replace("|", "\\|"),
            "s": lambda r: f"{r['seconds']:.1f}",
        },
        rows,
    )
