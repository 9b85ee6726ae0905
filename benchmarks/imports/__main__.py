"""The command line: a process per checkout, the table on stdout, benchmarks/results/imports.json."""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.imports import metrics, peers
from benchmarks.machine import write_result
from fact_metrics.base.errors import UserError
from fact_train.imports import load_checkpoint
from fact_train.imports.export import to_stylegan2_ada

TOLERANCE = 1e-4  # values reach 24; float32 sums of up to 4,608 terms in another order


def compare(folder: Path) -> Iterator[dict[str, Any]]:
    """A result per case of the program in a checkout."""
    kind = peers.kind_of(folder)
    peers.enter(folder)
    cases = {
        "rosinality": peers.ROSINALITY,
        "stylegan2-ada-pytorch": peers.ADA,
        "style-vector fork": peers.FORK,
        "stylegan3": peers.NVIDIA,
    }[kind]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "network"
        for case in cases:
            made = peers.rosinality(case, file) if kind == "rosinality" else peers.nvidia(case, file, kind)
            yield {"program": kind, **dataclasses.asdict(case), **differences(case, made)}
            if case.name in metrics.CASES.get(kind, ()):
                reals = Path(place) / f"{case.name} images"
                reals.mkdir()
                for agreement in metrics.agreements(case, made, reals):
                    yield {"program": kind, **dataclasses.asdict(agreement)}
        if kind == "stylegan3":
            try:
                load_checkpoint(peers.alias_free(file).file)
                line = "loaded"
            except UserError as error:
                line = str(error).replace(str(file), "FILE")
            yield {"program": kind, "name": "alias-free", "resolution": 32, "refused": line}


def differences(case: peers.Case, made: peers.Made) -> dict[str, Any]:
    """The largest difference of images (psi 1 and 0.5) and scores, beside the largest value."""
    loaded = load_checkpoint(made.file)
    count = 1 if case.resolution > 256 else 4
    z = torch.randn(count, *loaded.G.z_shape, generator=torch.Generator().manual_seed(2))
    c = torch.eye(case.classes)[torch.arange(count) % case.classes] if case.classes else None
    found: dict[str, Any] = {}
    with torch.no_grad():
        for psi in (1.0, 0.5):
            theirs = made.images(z, c, psi)
            ours = loaded.G(z, c, psi, noise_mode="const")
            found[f"images at psi {psi:g}"] = _difference(ours, theirs)
        found["scores"] = _difference(loaded.D(theirs, c), made.scores(theirs, c))
    if made.reload is not None:
        tensors, metadata = to_stylegan2_ada(loaded)
        found["export equal"] = made.reload(tensors, json.loads(metadata["stylegan2-ada"]))
    return found


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, float]:
    return {
        "difference": float((ours - theirs).abs().max()),
        "largest": float(theirs.abs().max()),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: the largest differences, and the largest value of the images."""
    head = [
        "program",
        "network",
        "px",
        "mapping",
        "images",
        "images, psi 0.5",
        "largest value",
        "scores",
        "export",
    ]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        if "refused" in row:
            lines.append(
                [row["program"], f"{row['name']}: {row['refused']}", str(row["resolution"]), *[""] * 6]
            )
            continue
        images, half, scores = (row[key] for key in ("images at psi 1", "images at psi 0.5", "scores"))
        shown = [f"{found['difference']:.1e}" for found in (images, half, scores)]
        shown.insert(2, f"{images['largest']:.0f}")
        export = {True: "equal", False: "DIFFERS", None: "–"}[row.get("export equal")]
        lines.append(
            [row["program"], row["name"], str(row["resolution"]), str(row["mapping"]), *shown, export]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def faults(rows: list[dict[str, Any]]) -> list[str]:
    """What is beyond the tolerance, or was not refused."""
    wrong = [
        f"{row['program']}, {row['name']}: {key}"
        for row in rows
        for key, found in row.items()
        if isinstance(found, dict) and "difference" in found and not found["difference"] <= TOLERANCE
    ]
    wrong += [f"{row['program']}, {row['name']}: export" for row in rows if row.get("export equal") is False]
    return wrong + [
        f"{row['name']} was not refused" for row in rows if "alias" not in row.get("refused", "alias")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description=__doc__)
    parser.add_argument(
        "--peer", type=Path, action="append", required=True, help="a checkout; may be repeated"
    )
    parser.add_argument(
        "--rows", action="store_true", help="of one checkout, as JSON lines; nothing is written"
    )
    args = parser.parse_args()
    if unknown := [folder for folder in args.peer if peers.kind_of(folder) is None]:
        parser.error(f"--peer {unknown[0]}: none of {', '.join(peers.MARKS)}")
    if args.rows:
        warnings.simplefilter("ignore")
        for row in compare(args.peer[0].resolve()):
            print(json.dumps(row), flush=True)
        return
    rows = []
    for folder in args.peer:
        command = [sys.executable, "-m", "benchmarks.imports", "--rows", "--peer", str(folder.resolve())]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows += [json.loads(row) for row in done.stdout.splitlines() if row.startswith("{")]
    scored = [row for row in rows if "metric" in row]
    rows = [row for row in rows if "metric" not in row]
    print(table(rows), *([metrics.table(scored)] if scored else []), sep="\n\n")
    write_result("imports", {"tolerance": TOLERANCE, "rows": rows, "metrics": scored})
    if wrong := faults(rows) + metrics.faults(scored):
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
