"""Every test that needs a GPU, run by pytest in a few processes of their own; a result per test.

Processes of their own because a failed kernel spoils the CUDA context of all that follows. Several at a time
because most of a test is spent on the host. Each result is there when its test ends.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.one_line_per_test import SHARE
from benchmarks.gpu.report import Bench, Result, markdown

TESTS = Path(__file__).resolve().parents[2] / "tests"
CORES_PER_PROCESS = 2
PROCESSES = 6  # at most


def measure(bench: Bench) -> Iterator[Result]:
    """A result per test marked `gpu`; on a CPU they are skipped, which the result says."""
    import pytest  # noqa: F401  the part is skipped by name without it

    files = sorted(str(path) for path in TESTS.glob("test_*.py") if "mark.gpu" in path.read_text())
    count = 1 if bench.dry else max(1, min(PROCESSES, (os.cpu_count() or 1) // CORES_PER_PROCESS))
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["-p", "benchmarks.gpu.one_line_per_test", *files]
    found: queue.SimpleQueue = queue.SimpleQueue()
    processes = []
    try:
        for i in range(count):
            processes.append(_start(command, f"{i}/{count}", bench.out / f"gpu-tests-{i}.txt", found))
        yield from _until_all_have_ended(processes, found, bench)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _start(command: list[str], share: str, log: Path, found: queue.SimpleQueue) -> subprocess.Popen:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=TESTS.parent,
        env={**os.environ, SHARE: share, "OMP_NUM_THREADS": "1"},
    )
    threading.Thread(target=_pass_on, args=(process, share, log, found), daemon=True).start()
    return process


def _pass_on(process: subprocess.Popen, share: str, log: Path, found: queue.SimpleQueue) -> None:
    """Results of one process into `found`, all of its output into `log`, and at its end how it ended."""
    with log.open("w") as stream:
        for line in process.stdout:
            stream.write(line)
            stream.flush()
            if line.startswith('{"test"'):
                found.put(json.loads(line))
    code = process.wait()
    # pytest: 0 passed, 1 some failed, 5 nothing in this share
    ended = None if code in (0, 1, 5) else f"error: pytest ended with code {code}, see {log.name}"
    found.put((share, ended))


def _until_all_have_ended(processes: list, found: queue.SimpleQueue, bench: Bench) -> Iterator[Result]:
    running = len(processes)
    while running:
        try:
            item = found.get(timeout=max(bench.seconds_left, 0.01))
        except queue.Empty:
            yield {"test": f"those left in {running} processes", "outcome": "not run: no time left"}
            return
        if isinstance(item, dict):
            yield item
            continue
        running -= 1
        share, ended = item
        if ended is not None:
            yield {"test": f"share {share}", "outcome": ended}


def table(rows: list[Result]) -> str:
    """How many of each outcome; then every test that did not pass, and all with their seconds."""
    passed = sum(row["outcome"] == "passed" for row in rows)
    ordered = sorted(rows, key=lambda row: row["outcome"] == "passed")
    return f"{passed} of {len(rows)} passed.\n\n" + markdown(
        {
            "test": lambda r: r["test"],
            "outcome": lambda r: r["outcome"].replace("|", "\\|"),
            "s": lambda r: f"{r['seconds']:.1f}" if "seconds" in r else "–",
        },
        ordered,
    )
