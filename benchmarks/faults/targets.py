"""What the campaign interrupts: commands that write, and what they leave when nobody interrupts them."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile.given import Given, write

TIMES = ("seconds", "provenance", "training")  # of records: other at every start
METRICS = "fid32_full_pixels,precision1k3_full_pixels,kid48_full_pixels"


@dataclass(frozen=True)
class Target:
    """A command in a folder that `make` fills; `results` are the hashes of what it leaves, by file."""

    name: str
    argv: tuple[str, ...]
    make: Callable[[Path], object]
    results: Callable[[Path], dict[str, str]]


def make_targets(given: Given) -> list[Target]:
    """Training of three kinds, scoring, and what is made from records."""
    train = given.training("run")
    train = train[: train.index("--kimg")] + ("--kimg", "0.064") + train[train.index("--kimg") + 2 :]
    stylex = ("--model", "stylex", "--classifier", str(given.classifier), "--w-lpips", "0")
    ada = ("--augment", "ada", "--ada-interval", "1", "--ada-kimg", "0.1")
    score = ("fact-eval", "run", "run", "--metrics", METRICS, "--device", "cpu", "--threads", "1")
    board = ("fact-eval", "leaderboard", "--results", "published", "--out", "board.md")
    publish = ("fact-eval", "publish", "run", "--results", "published", "--allow-dirty")
    return [
        Target("training", train, _nothing, _training),
        Target("training with ADA", (*train, *ada), _nothing, _training),
        Target("StylEx training", (*train, *stylex), _nothing, _training),
        Target("scoring", score, lambda at: _scored(given, at), _records),
        Target("publishing", publish, lambda at: _published(given, at), _board),
        Target("board", board, lambda at: _published(given, at), _board),
    ]


def _nothing(at: Path) -> None:
    pass


def _scored(given: Given, at: Path) -> None:
    shutil.copytree(given.run, at / "run")
    (at / "run" / "results.jsonl").unlink()


def _published(given: Given, at: Path) -> None:
    """A run with records, other records published long ago, and an older board."""
    names = [f"other-{i}" for i in range(8)]
    old = [json.dumps({**given.record, "run_id": name, "label": name}) for name in names]
    write(at / "run" / "results.jsonl", json.dumps(given.record) + "\n")
    write(at / "run" / "verifications.jsonl", json.dumps(given.verification) + "\n")
    for name, line in zip(names, old, strict=True):
        write(at / "published" / f"{name}.jsonl", line + "\n")
    write(at / "board.md", "# An older board\n")


def _training(at: Path) -> dict[str, str]:
    """Snapshots byte by byte; ticks without their times."""
    found = {path.name: _sha256(path.read_bytes()) for path in sorted(at.glob("run/network-snapshot-*"))}
    ticks = [json.loads(line) for line in _lines(at / "run" / "stats.jsonl")]
    kept = [
        {name: tick[name] for name in sorted(tick) if name.startswith(("nimg", "Loss/"))} for tick in ticks
    ]
    return found | {"stats.jsonl": _sha256(json.dumps(kept).encode())}


def _records(at: Path) -> dict[str, str]:
    """Records without the circumstances of their making, whatever their order."""
    records = [json.loads(line) for line in _lines(at / "run" / "results.jsonl")]
    done = {
        r["metric"]: {k: v for k, v in r.items() if k not in TIMES} for r in records if r["status"] == "ok"
    }
    return {
        name: _sha256(json.dumps(record, sort_keys=True).encode()) for name, record in sorted(done.items())
    }


def _board(at: Path) -> dict[str, str]:
    paths = [at / "board.md", *sorted(at.glob("published/*.jsonl"))]
    paths += sorted(at.glob("verifications/*.jsonl"))
    return {path.name: _sha256(path.read_bytes()) for path in paths if path.exists()}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
