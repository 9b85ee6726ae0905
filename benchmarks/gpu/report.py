"""The parts in the order of their worth, their time limits, and the files that they leave."""

import importlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine
from fact_metrics.base.atomic import write_text
from fact_metrics.base.devices import resolve_device

Result = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One part: `module` has `measure(bench) -> iterator of results` and `table(results) -> str`."""

    name: str
    title: str
    module: str
    share: float  # of the time left when the part begins


# In the order of their worth: a run that is cut off has the first ones.
PARTS = (
    Part("correctness", "Correctness", "benchmarks.gpu.correctness", 0.25),
    Part("training", "Training speed", "benchmarks.gpu.training", 0.45),
    Part("packing", "Several runs on one GPU", "benchmarks.gpu.packing", 0.5),
    Part("profile", "Where a step waits", "benchmarks.gpu.profile", 0.4),
    Part("scoring", "Scoring speed", "benchmarks.gpu.scoring", 0.4),
    Part("compilation", "torch.compile", "benchmarks.gpu.compilation", 0.6),
    Part("peer", "The reference networks", "benchmarks.gpu.peer", 0.95),
)


@dataclass
class Bench:
    """What a part needs to know: the device, its deadline, and whether this is a dry run."""

    device: torch.device
    out: Path
    deadline: float = 0.0  # of the running part, time.monotonic()
    peer: Path | None = None  # a checkout of the reference
    left_out: list[str] = field(default_factory=list)  # cases of the running part that had no time

    @property
    def dry(self) -> bool:
        """Without a GPU all sizes are tiny."""
        return self.device.type != "cuda"

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Skipped(Exception):
    """A part does not run, for the reason given."""


class Interrupted(BaseException):
    """SIGTERM arrived: write the tables of what there is."""


def run(
    *,
    minutes: float = 8.0,
    out: Path = Path("gpu-benchmark"),
    parts: tuple[str, ...] = (),
    device: str = "auto",
    peer: Path | None = None,
) -> Result:
    """Run all parts, or those named, within `minutes`; returns what gpu.json holds."""
    bench = Bench(resolve_device(device), Path(out), peer=peer)
    bench.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + minutes * 60
    result: Result = {"machine": machine(), "dry_run": bench.dry, "minutes": minutes, "parts": {}}
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        for part in PARTS:
            if not parts or part.name in parts:
                _run_part(part, bench, result, end)
    except (Interrupted, KeyboardInterrupt):
        result["interrupted"] = True
    finally:
        signal.signal(signal.SIGTERM, before)
        _write_json(bench.out, result)
        write_text(bench.out / "gpu.md", table(result) + "\n")
    return result


def _run_part(part: Part, bench: Bench, result: Result, end: float) -> None:
    started = time.monotonic()
    bench.deadline, bench.left_out = started + (end - started) * part.share, []
    found: Result = {"results": [], "seconds": 0.0}
    result["parts"][part.name] = found
    try:
        if started >= end:
            raise Skipped("no time left")
        for row in _module(part).measure(bench):
            found["results"].append(row)
            found["seconds"] = round(time.monotonic() - started, 1)
            print(f"{part.name} {found['seconds']} s: {_short(row)}", file=sys.stderr, flush=True)
            _write_json(bench.out, result)
    except Skipped as reason:
        found["skipped"] = str(reason)
    except ModuleNotFoundError as error:
        found["skipped"] = f"needs the package {error.name}"
    except Exception as error:  # one part's failure must not cost the others
        found["failed"] = f"{type(error).__name__}: {error}".splitlines()[0]
        found["traceback"] = traceback.format_exc()
    if bench.left_out:
        found["no_time_left_for"] = bench.left_out
    found["seconds"] = round(time.monotonic() - started, 1)
    _write_json(bench.out, result)


def table(result: Result) -> str:
    """All parts as Markdown."""
    about = result["machine"]
    lines = [f"{about['gpu'] or about['cpu']}, {about['cores']} cores, torch {about['torch']}."]
    if result["dry_run"]:
        lines.append("\n**Dry run without a GPU: tiny sizes, no measurement.**")
    if result.get("interrupted"):
        lines.append("\n**Interrupted: later parts are missing.**")
    for part in PARTS:
        if part.name in result["parts"]:
            lines += _section(part, result["parts"][part.name])
    return "\n".join(lines)


def _section(part: Part, found: Result) -> list[str]:
    lines = ["", f"### {part.title}", ""]
    if found["results"]:
        try:
            lines += [_module(part).table(found["results"]), ""]
        except Exception as error:  # gpu.json has the figures
            lines += [f"no table: {type(error).__name__}: {error}", ""]
    for outcome in ("skipped", "failed"):
        if outcome in found:
            lines += [f"{outcome}: {found[outcome]}", ""]
    if "no_time_left_for" in found:
        lines += ["No time left for: " + "; ".join(found["no_time_left_for"]) + ".", ""]
    return [*lines, f"{found['seconds']:.0f} s"]


def markdown(columns: dict[str, Callable[[Result], Any]], rows: list[Result]) -> str:
    """A Markdown table: heading -> text of a row."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(text(row)) for text in columns.values()) + " |" for row in rows]
    return "\n".join(lines)


def fitting(cases: list[Any], bench: Bench, *, seconds: float) -> Iterator[Any]:
    """The cases in their order, as long as `seconds` are left for one; the others are named in the report."""
    for i, case in enumerate(cases):
        if bench.seconds_left < seconds:
            bench.left_out += map(str, cases[i:])
            return
        yield case


def _module(part: Part):
    return importlib.import_module(part.module)


def _write_json(out: Path, result: Result) -> None:
    write_text(out / "gpu.json", json.dumps(result, indent=1, default=str) + "\n")


def _short(row: Result) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
    )


def _interrupt(signum, frame) -> None:
    raise Interrupted
