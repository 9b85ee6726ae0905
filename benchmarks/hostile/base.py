"""The good files that hostile ones are made of: pictures, a tiny run, its records, a classifier."""

import json
import sys
from pathlib import Path

import torch
from PIL import Image

from fact_leaderboard.records import Record
from fact_metrics.base.canonical import canonical_sha256


def make_pictures(folder: Path) -> Path:
    """24 labelled gray 8x8 pictures of two classes."""
    folder.mkdir(parents=True)
    gen = torch.Generator().manual_seed(0)
    labels = []
    for i in range(24):
        x = torch.randint(0, 60, (8, 8), generator=gen, dtype=torch.uint8)
        (x[:, :4] if i % 2 == 0 else x[:4]).add_(180)
        Image.fromarray(x.numpy()).save(folder / f"{i:03d}.png")
        labels.append([f"{i:03d}.png", i % 2])
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


def make_run(outdir: Path, pictures: Path) -> Path:
    """A run of a tiny network, trained for 32 images."""
    from fact_train.cli import main

    sizes = {"z-dim": 8, "w-dim": 8, "map-depth": 2, "channel-base": 64, "channel-max": 8, "batch": 8}
    times = {"kimg": 0.032, "kimg-per-tick": 0.016, "snapshot-ticks": 1, "device": "cpu", "threads": 1}
    flags = [text for name, value in {**sizes, **times}.items() for text in (f"--{name}", str(value))]
    before = sys.argv
    sys.argv = [
        "fact-train",
        "--preset",
        "mnist-stylegan2",
        "--data",
        str(pictures),
        "--outdir",
        str(outdir),
        *flags,
    ]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.argv = before
    return outdir


def make_records(run: Path) -> None:
    """One record of the run, of a column of the board."""
    options = json.loads((run / "training_options.json").read_text())
    protocol = {
        "metric": "legible10k",
        "detectors": {"digits_probs": {"detector": "digits_probs", "width": 10}},
    }
    git = {"commit": "c" * 40, "dirty": False}
    record = Record(
        run_id=options["run_id"][:60],
        source="run",
        label=options["label"][:40],
        snapshot="network-snapshot-000000.safetensors",
        snapshot_sha256="a" * 64,
        kimg=0.032,
        train_seed=0,
        config_sha256=options["config_sha256"],
        metric="legible10k",
        metric_version=1,
        summary="Share of images.",
        citation="this project",
        protocol=protocol,
        protocol_sha256=canonical_sha256(protocol),
        seed=0,
        higher_is_better=True,
        value=0.5,
        n_requested=10,
        n_effective=10,
        n_real=None,
        status="ok",
        dataset={**options["dataset"], "name": "mnist", "resolution": 32},
        training={"preset": "mnist", "argv": ["fact-train"], "git": git},
        provenance={"git": git, "argv": ["fact-eval"], "packages": {"torch": "2"}, "device": "cpu"},
    )
    (run / "results.jsonl").write_text(record.to_json() + "\n")


def make_classifier(path: Path, pictures: Path) -> Path:
    """A classifier of the pictures."""
    from fact_train.classifiers.training import train_classifier

    train_classifier(path, data=str(pictures), epochs=12, batch=8, report=lambda line: None)
    return path


if __name__ == "__main__":
    home = Path(sys.argv[1])
    make_records(make_run(home / "good", make_pictures(home / "pictures")))
    make_classifier(home / "classifier.safetensors", home / "pictures")
