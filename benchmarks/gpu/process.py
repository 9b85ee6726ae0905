"""A measurement in a process of its own, which is stopped when the part's time ends."""

import json
import subprocess
import sys

from benchmarks.gpu.report import Bench, Result


def figures_of(module: str, arguments: list[str], bench: Bench) -> Result:
    """What `python -m module arguments` prints last, as JSON; what it says otherwise goes to a file."""
    log = bench.out / f"{module.split('.')[-1]}-{'-'.join(arguments[-1:])}.txt"
    command = [sys.executable, "-m", module, *arguments]
    with log.open("w") as stream:
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=stream, text=True, timeout=max(bench.seconds_left, 1)
            )
        except subprocess.TimeoutExpired:
            return {"error": "stopped: no time left"}
    last = done.stdout.strip().split("\n")[-1]
    if done.returncode or not last.startswith("{"):
        return {"error": f"ended with code {done.returncode}, see {log.name}"}
    return json.loads(last)
