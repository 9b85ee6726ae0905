"""How a board, a file of results and `fact-eval all` grow: `python -m benchmarks growth`.

Records of published runs under other names and with other values, three training seeds a configuration. Each
measurement runs in a process of its own, whose peak memory is that of nothing else.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fact_leaderboard.build import build_board
from fact_leaderboard.publish import published_records
from fact_leaderboard.records import RESULTS, Record, append_records, read_records
from fact_leaderboard.render import render_board

SIZES = (2000, 20_000, 100_000)
RUNS = 500
SEEDS = 3
APPENDS = 20


def run(
    *,
    seconds: float = 0.0,
    device: str = "auto",
    threads: int | None = None,
    sizes: Sequence[int] = SIZES,
    runs: int = RUNS,
) -> dict[str, Any]:
    """Seconds and peak memory of every measurement at every size; "all" is from benchmarks/again.py."""
    from benchmarks import again

    rows = []
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        for size in sizes:
            folder = Path(name) / str(size)
            folder.mkdir()
            with open(folder / RESULTS, "w") as file:
                file.writelines(f"{record.to_json()}\n" for record in make_records(size))
            for what in MEASURED:
                rows.append({"records": size, "what": what, **_in_a_process(what, folder)})
    return {"rows": rows, "all": again.run(runs=runs)}


def table(result: dict[str, Any]) -> str:
    """A line per measurement, a column per size, as Markdown."""
    from benchmarks import again

    sizes = list(dict.fromkeys(row["records"] for row in result["rows"]))
    lines = ["| | " + " | ".join(f"{size:,} records" for size in sizes) + " |", "|---|" + "---|" * len(sizes)]
    found = {(row["what"], row["records"]): row for row in result["rows"]}
    for what in MEASURED:
        cells = [found[what, size] for size in sizes]
        texts = [f"{cell['seconds']:.3g} s, {cell['gigabytes']:.2f} GB" for cell in cells]
        lines.append(f"| {what} | " + " | ".join(texts) + " |")
    return "\n".join([*lines, "", again.table(result["all"])])


def make_records(count: int) -> Iterator[Record]:
    """So many records of one board, run after run."""
    templates: dict[str, list[Record]] = {}
    for record in published_records():
        if record.source == "run":
            templates.setdefault(record.run_id, []).append(record)
    template = max(templates.values(), key=len)
    made = 0
    run = 0
    while made < count:
        configuration, seed = divmod(run, SEEDS)
        mine = {
            "run_id": f"growth-{configuration}-seed{seed}",
            "label": f"growth-{configuration}",
            "snapshot_sha256": f"{run:064x}",
            "config_sha256": f"{configuration:064x}",
            "train_seed": seed,
        }
        for record in template[: count - made]:
            value = record.value * (1 + (run * 7919 % 1000) / 1e4)
            yield dataclasses.replace(record, **mine, value=value)
            made += 1
        run += 1


def _render(folder: Path) -> None:
    render_board(build_board(read_records(folder / RESULTS)))


def _append_first(folder: Path) -> None:
    """One record, to a large file that has no index yet."""
    folder.joinpath(f".{RESULTS}.index").unlink(missing_ok=True)
    assert append_records(folder / RESULTS, make_new(1)) == 1


def _append(folder: Path) -> None:
    """New records, one each time."""
    for record in make_new(APPENDS):
        assert append_records(folder / RESULTS, [record]) == 1


def make_new(count: int) -> Iterator[Record]:
    """Records that `make_records` does not make."""
    first = next(make_records(1))
    for number in range(count):
        yield dataclasses.replace(first, run_id=f"new-{time.time_ns()}-{number}")


def _show(folder: Path) -> None:
    from fact_eval.commands.options import print_records

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        print_records([folder], as_json=False)


MEASURED: dict[str, Callable[[Path], None]] = {
    "read, build and render a board": _render,
    "append a record, the first time": _append_first,
    "append 20 records, one by one": _append,
    "`fact-eval show`": _show,
}


def _in_a_process(what: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.growth", what, str(folder)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _measure(what: str, folder: Path) -> dict[str, float]:
    began = time.perf_counter()
    MEASURED[what](folder)
    seconds = time.perf_counter() - began
    # The kernel's own record of this program; getrusage also counts the process that started it.
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return {"seconds": seconds, "gigabytes": int(kilobytes) / 2**20}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], Path(sys.argv[2]))))
