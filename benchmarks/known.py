"""What opening image files costs that were decoded before: `python -m benchmarks known`.

As scoring opens them, each time in a process of its own: files that are new, the same again, and the same
with one batch of images decoded. Smooth random PNG files, as in one_pass.py.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.one_pass import make_files

FILES, SIDE, BATCH = 2000, 256, 64


def run(
    *, seconds: float = 0.0, device: str = "auto", threads: int | None = None, files: int = FILES
) -> dict[str, Any]:
    """Wall and processor seconds of opening, imports not counted."""
    with tempfile.TemporaryDirectory(prefix="known-") as name:
        folder = make_files(Path(name) / "pictures", files, seed=0, side=SIDE)
        time.sleep(3)  # files written just now are not remembered
        environment = {**os.environ, "FACT_CACHE": str(Path(name) / "cache")}
        command = [sys.executable, "-m", "benchmarks.known", str(folder)]
        calls = {"new": "0", "known": "0", f"known, {BATCH} of them decoded": str(BATCH)}
        rows = {}
        for what, batch in calls.items():
            done = subprocess.run(
                [*command, batch], env=environment, capture_output=True, text=True, check=True
            )
            rows[what] = json.loads(done.stdout)
    return {"files": files, "side": SIDE, "seconds": rows}


def table(result: dict[str, Any]) -> str:
    """Seconds of each call, as Markdown."""
    lines = [
        f"| {result['files']:,} PNG files of {result['side']} px | wall s | processor s |",
        "|---|---|---|",
    ]
    lines += [f"| {what} | {row['wall']:.2f} | {row['cpu']:.2f} |" for what, row in result["seconds"].items()]
    return "\n".join(lines)


def _open(folder: str, batch: int) -> dict[str, float]:
    from fact_eval.images.datasets import open_images

    wall, cpu = time.perf_counter(), time.process_time()
    dataset = open_images(folder)
    dataset.describe(), dataset.repeats
    if batch:
        dataset.images(range(batch))
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


if __name__ == "__main__":
    print(json.dumps(_open(sys.argv[1], int(sys.argv[2]))))
