"""Cases of text: JSON in every place where it is read, fields of other types, names, markup."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.hostile import files
from benchmarks.hostile.given import DOCUMENTS, EVIL, Given, write
from benchmarks.hostile.runner import Case


def documents(given: Given) -> Iterator[Case]:
    """JSON that is not what it should be, in every place where JSON is read."""
    small = ("--metrics", "legible10k", "--device", "cpu")
    places: dict[str, tuple[Callable[[Path, str], object], list[tuple[str, ...]]]] = {
        "options": (
            given.with_options,
            [
                ("fact-eval", "run", "run", *small),
                ("fact-eval", "all", ".", *small),
                ("fact-eval", "explain", "."),
                given.training("run"),
            ],
        ),
        "records": (
            lambda at, text: given.with_records(at, [text]),
            [
                ("fact-eval", "show", "run"),
                ("fact-eval", "compare", "run", "run"),
                ("fact-eval", "publish", "run", "--results", "published"),
                ("fact-eval", "leaderboard", "--results", "published", "--out", "board.md"),
            ],
        ),
        "verifications": (
            given.with_verifications,
            [
                ("fact-eval", "publish", "run", "--results", "p", "--allow-dirty"),
                ("fact-eval", "leaderboard", "--results", "published", "--out", "board.md"),
                ("fact-eval", "leaderboard", "--results", "published", "--check"),
            ],
        ),
        "manifest": (
            lambda at, text: write(at / "weights" / "manifest.json", text),
            [("fact-eval", "weights", "list"), ("fact-eval", "weights", "check")],
        ),
        "key": (
            given.with_key,
            [
                ("fact-eval", "cache", "ls"),
                ("fact-eval", "cache", "gc"),
                ("fact-eval", "cache", "verify"),
            ],
        ),
        "snapshot": (
            lambda at, text: write(at / "x.safetensors", _metadata(given.snapshot, "fact", text)),
            [
                ("fact-eval", "fused", "x.safetensors", "--device", "cpu"),
                ("fact-train", "bake", "x.safetensors", "--out", "b.safetensors"),
            ],
        ),
        "classifier": (
            lambda at, text: write(at / "c.safetensors", _metadata(given.classifier, "classifier", text)),
            [
                (
                    *given.training("x"),
                    "--model",
                    "stylex",
                    "--classifier",
                    "c.safetensors",
                    "--outdir",
                    "x",
                )
            ],
        ),
        "statistics": (
            lambda at, text: write(at / "s.safetensors", _statistics(text)),
            [("fact-eval", "ref", "s.safetensors")],
        ),
        "answer key": (
            lambda at, text: write(at / "key.json", text),
            [("fact-eval", "study-score", "key.json", "key.json")],
        ),
        "answers": (
            given.with_answers,
            [("fact-eval", "study-score", "key.json", "answers.csv")],
        ),
        "attributes": (
            given.with_attributes,
            [("fact-eval", "study-pack", "run", "--device", "cpu")],
        ),
        "labels": (
            given.with_labels,
            [("fact-train", "classifier", "--data", "pictures", "--out", "c.safetensors")],
        ),
    }
    lenient = ("weights list", "cache ls", "cache gc", "cache verify", "show run")
    for place, (make, commands) in places.items():
        for kind, text in DOCUMENTS.items():
            for command in commands:
                refused = not any(name in " ".join(command) for name in lenient)
                refused = refused and not (place in ("records", "labels") and kind in ("empty", "null"))
                refused = refused and not (place == "verifications" and kind == "empty")
                yield Case(
                    f"{place}: {kind}: {' '.join(command[:2])}",
                    command,
                    partial(_call, make, text),
                    refused=refused,
                    environment={"FACT_WEIGHTS": "weights"},
                )


def fields(given: Given) -> Iterator[Case]:
    """Fields of records, options and snapshots with values of another type."""
    wrong: dict[str, Any] = {
        "run_id": [], "label": 5, "metric": 5, "kimg": "x", "train_seed": "x", "dataset": {},
        "training": None, "provenance": None, "protocol": [], "extras": [1], "ci": {"low": "x"},
        "value": "x", "seed": "x", "config_sha256": 5, "summary": None, "n_real": 1.5,
    }  # fmt: skip
    for name, value in wrong.items():
        line = json.dumps({**given.record, name: value})
        for command in (
            ("fact-eval", "show", "run"),
            ("fact-eval", "compare", "run", "run"),
            ("fact-eval", "publish", "run", "--results", "published"),
        ):
            yield Case(
                f"record with {name} {value!r}: {command[1]}",
                command,
                lambda at, line=line: given.with_records(at, [line, ""]),
            )
    wrong = {
        "run_id": 5, "label": [], "config": {"data": 5}, "dataset": {}, "seed": "x", "argv": 5,
        "resumed": [5], "git": "x", "config_sha256": None, "preset": [],
    }  # fmt: skip
    for name, value in wrong.items():
        text = json.dumps({**given.options, name: value})
        for command in (("fact-eval", "run", "run"), given.training("run")):
            yield Case(
                f"options with {name} {value!r}: {command[0]}",
                command,
                lambda at, text=text: given.with_options(at, text),
            )
    wrong = {
        "kind": "faith", "run_id": "../x", "metric_version": "x", "claimed": "x", "tolerance": [], "holds": 5,
        "by": None, "basis": {}, "provenance": {"git": {"commit": 5}}, "difference": 1.0,
    }  # fmt: skip
    for name, value in wrong.items():
        line = json.dumps({**given.verification, name: value})
        for command in (
            ("fact-eval", "publish", "run", "--results", "p", "--allow-dirty"),
            ("fact-eval", "leaderboard", "--results", "published", "--out", "board.md"),
        ):
            yield Case(
                f"verification with {name} {value!r}: {command[1]}",
                command,
                lambda at, line=line: given.with_verifications(at, line),
            )
    meta = read_metadata(given.snapshot)
    wrong = {
        "config": {**meta["config"], "map_depth": 10**9},
        "config of wide layers": {"config": {**meta["config"], "channel_max": 10**9, "channel_base": 10**12}},
        "config of another network": {"config": {**meta["config"], "w_dim": 9}},
        "dataset": {**meta["dataset"], "resolution": 2**40},
        "dataset of classes": {"dataset": {**meta["dataset"], "classes": 10**15}},
        "nimg": "x",
        "schema": "a",
        "weights_sha256": 5,
    }
    for name, value in wrong.items():
        changed = {**meta, **(value if " " in name else {name: value})}
        content = _metadata(given.snapshot, "fact", json.dumps(changed))
        yield Case(
            f"snapshot with another {name}",
            ("fact-eval", "fused", "x.safetensors", "--device", "cpu"),
            lambda at, content=content: write(at / "x.safetensors", content),
        )


def names(given: Given) -> Iterator[Case]:
    """Names in records that lead out of the folder."""
    for name in (
        "../../out",
        "/OUT/out",
        "..",
        ".",
        "a/b",
        "a\\b",
        "x\0y",
        "",
        ".hidden",
        "a\nb",
        "\x1b[2J",
    ):
        for where in ("run_id", "dataset"):

            def make(at: Path, name: str = name, where: str = where) -> None:
                name = name.replace("/OUT", str(at.parent / "outside"))
                value = name if where == "run_id" else {**given.record["dataset"], "name": name}
                given.with_records(at, [json.dumps({**given.record, where: value}), ""])

            command = ("fact-eval", "publish", "run", "--results", "p", "--allow-dirty")
            fine = where == "dataset" and name == ".hidden"
            yield Case(f"{where} {name!r}: publish", command, make, refused=not fine)
    for name in ("../../out", "/OUT/out", "a/b", "x\0y"):

        def make(at: Path, name: str = name) -> None:
            name = name.replace("/OUT", str(at.parent / "outside"))
            given.with_options(
                at, json.dumps({**given.options, "dataset": {**given.options["dataset"], "name": name}})
            )

        yield Case(f"dataset of options {name!r}: all", ("fact-eval", "all", "."), make)


def texts(given: Given) -> Iterator[Case]:
    """Text from runs, shown on a terminal and written into boards and CSV files."""
    for name in ("label", "error", "summary", "citation"):
        changed = {**given.record, name: EVIL}
        for command, shown in (
            (("fact-eval", "show", "run"), ()),
            (("fact-eval", "show", "run", "--json"), ()),
            (("fact-eval", "leaderboard", "--results", "published", "--out", "board.md"), ("board.md",)),
            (("fact-eval", "publish", "run", "--results", "p", "--allow-dirty"), ()),
        ):

            def make(at: Path, changed: dict = changed) -> None:
                given.with_records(at, [json.dumps(changed), ""])

            yield Case(
                f"{name} of markup: {' '.join(command[1:4])}", command, make, refused=False, shown=shown
            )

    for name in ("by", "basis", "reason"):
        line = json.dumps({**given.verification, name: EVIL})
        command = ("fact-eval", "leaderboard", "--results", "published", "--out", "board.md")
        yield Case(
            f"{name} of a verification of markup",
            command,
            lambda at, line=line: given.with_verifications(at, line),
            refused=False,
            shown=("board.md",),
        )

    def formulas(at: Path) -> None:
        for name in ("=cmd|calc!A0", "+1", "@SUM(1)", "-2", "\x1b[2Jx"):
            for folder in ("a", "b"):
                write(at / folder / f"{name}.png", files.png(8, 8, color_type=2))

    command = ("fact-eval", "reconstruct", "a", "b", "--out", "pairs.csv", "--measures", "mse")
    yield Case("formulas in CSV", command, formulas, refused=False)
    yield Case(
        "file names of escapes: audit",
        ("fact-eval", "audit", "a"),
        lambda at: write(at / "a" / "\x1b[2J\u202e.png", b"junk"),
    )
    yield Case(
        "a folder with markup of rich",
        ("fact-eval", "images", "[/red]", "--reference", "[/red]"),
        lambda at: write(at / "[/red]" / "a.png", b"junk"),
    )


def _call(make: Callable[[Path, str], object], text: str, at: Path) -> None:
    make(at, text)


def read_metadata(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return json.loads(file.metadata()["fact"])


def _metadata(path: Path, key: str, text: str) -> bytes:
    """A safetensors file with its tensors and another metadata text; bytes that are no text stay."""
    from safetensors.torch import load_file, save

    try:
        return save(load_file(path), {key: text})
    except (UnicodeEncodeError, ValueError):
        return files.safetensors({key: "?"}).replace(b"?", text.encode("utf-8", "surrogateescape"))


def _statistics(text: str) -> bytes:
    from safetensors.torch import save

    texts = {"schema": "1", "n": "5", "correction": "1", "sha256": "0"}
    metadata = {"format": "fact-stylegan reference statistics", **texts, "detector": text, "dataset": text}
    try:
        return save({"mean": torch.zeros(3), "cov": torch.eye(3)}, metadata)
    except (UnicodeEncodeError, ValueError):
        return b"\xff" * 32
