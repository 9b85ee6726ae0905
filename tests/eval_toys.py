"""Tiny stand-ins for the scoring tests: 8x8 pictures, run folders with real snapshots, toy metrics."""

import json
from pathlib import Path

import numpy as np
import torch
from metric_toys import toy_metric
from PIL import Image

from fact_leaderboard.records import Record
from fact_metrics.base.canonical import canonical_sha256
from fact_metrics.spec import FeatureNeed, MetricValue
from fact_train import run_folder
from fact_train.data import open_dataset
from fact_train.networks.build import build_networks
from fact_train.settings.config import TrainConfig
from fact_train.snapshot import save_snapshot
from fact_train.training.trainer import Trainer

TRAIN, TEST, SIDE = 40, 24, 8
COUNT = 30  # generated images of every toy metric


def make_data(folder: Path, *, labelled: bool = False, splits: dict[str, int] | None = None) -> Path:
    """An image folder with train/ and test/ of random gray pictures (labels 0 to 2 where asked for)."""
    rng = np.random.default_rng(0)
    for split, n in (splits or {"train": TRAIN, "test": TEST}).items():
        make_pictures(folder / split, n, rng=rng)
        if labelled:
            labels = [[f"{i:03d}.png", i % 3] for i in range(n)]
            (folder / split / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


def make_pictures(folder: Path, n: int, *, side: int = SIDE, rng=None) -> Path:
    """n random gray pictures, 000.png and on."""
    rng = rng or np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).save(folder / f"{i:03d}.png")
    return folder


def toy_config(data: Path, **changes) -> TrainConfig:
    """The smallest generator there is: 4x4 and 8x8, eight channels."""
    options = dict(z_dim=8, w_dim=8, map_depth=1, channel_base=64, channel_max=8, batch=4, mbstd_group_size=4)
    return TrainConfig(**{**options, "data": str(data), "kimg": 4, **changes})


def make_run(root: Path, data: Path, *, name: str = "", seed: int = 0, kimgs=(4,), **changes) -> Path:
    """A run folder as fact-train leaves it, with a snapshot per kimg of random weights drawn by the seed."""
    cfg = toy_config(data, seed=seed, **changes)
    dataset = open_dataset(cfg.data, split="train", resolution=cfg.resolution, crop=cfg.crop)
    folder = root / (name or f"toy-seed{seed}")
    folder.mkdir(parents=True, exist_ok=True)
    run_id = run_folder.prepare(folder, cfg, preset="toy", label=name or "toy", dataset=dataset.describe())
    for kimg in kimgs:
        torch.manual_seed(100 * seed + kimg)
        G, D = build_networks(cfg, dataset.describe())
        with torch.no_grad():  # a fresh generator ignores its noise: let it show
            for layer in G.synthesis.layers:
                if layer.use_noise:
                    layer.noise_strength.fill_(0.3)
        nimg = kimg * 1000
        save_snapshot(
            folder / run_folder.snapshot_name(nimg),
            {"G_ema": G, "D": D},
            cfg=cfg,
            dataset=dataset.describe(),
            nimg=nimg,
            run_id=run_id,
        )
    return folder


def register_toys(*, broken: bool = False) -> None:
    """Toy metrics over cheap detectors and the generator; `broken` adds one that raises and one of NaN."""
    generated = FeatureNeed("pixels", "generated", count=COUNT)

    def distance(inputs, split, count=None):
        real = FeatureNeed("pixels", "real", split=split, count=count)
        a, b = inputs.features(generated), inputs.features(real)
        value = (a.mean(0) - b.mean(0)).norm().item()
        return MetricValue(value, stderr=0.1, n_generated=len(a), n_real=len(b))

    @toy_metric(needs=[generated, FeatureNeed("pixels", "real", split="train")])
    def toy_distance(inputs):
        """Distance of means to the train split."""
        return distance(inputs, "train")

    @toy_metric(needs=[generated, FeatureNeed("pixels", "real", split="test", count=20)])
    def toy_distance_test(inputs):
        """Distance of means to 20 test images."""
        return distance(inputs, "test", 20)

    @toy_metric(higher_is_better=True, needs=[FeatureNeed("spectrum", "generated", count=COUNT - 10)])
    def toy_sharpness(inputs):
        """Share of high frequencies."""
        features = inputs.features(FeatureNeed("spectrum", "generated", count=COUNT - 10))
        return MetricValue(features.mean().item(), n_generated=len(features))

    @toy_metric(needs_generator=True, settings={"n": 12})
    def toy_path(inputs):
        """Squared step of the images along w."""
        g, indices = inputs.generator, range(12)
        ws = g.mapping(g.latents(indices), g.labels(indices))
        noise = g.noise(indices)
        g.progress(6, 12)
        steps = (g.synthesis(ws * 1.01, noise) - g.synthesis(ws, noise)).square().mean().item()
        return MetricValue(steps, n_generated=12)

    if not broken:
        return

    @toy_metric(higher_is_better=True, needs=[generated])
    def toy_failing(inputs):
        """Fails."""
        raise RuntimeError("out of luck")

    @toy_metric(higher_is_better=True, needs=[generated])
    def toy_nan(inputs):
        """Is not a number."""
        return MetricValue(float("nan"), n_generated=COUNT)


DATASET = {"name": "toy", "split": "train", "n": 40, "sha256": "d" * 64, "resolution": 8, "channels": 1}
CLEAN = {"commit": "c" * 40, "dirty": False}


def make_record(**changes) -> Record:
    """A valid ok record of a made-up run; every field can be changed."""
    protocol = changes.pop("protocol", {"detector": "pixels", "k": 3})
    fields = {
        "run_id": "toy-seed0", "source": "run", "label": "toy",
        "snapshot": "network-snapshot-000004.safetensors", "snapshot_sha256": "a" * 64,
        "kimg": 4.0, "train_seed": 0, "config_sha256": "b" * 64,
        "metric": "toy_distance", "metric_version": 1, "summary": "A toy.", "citation": "none",
        "protocol": protocol, "protocol_sha256": canonical_sha256(protocol),
        "seed": 0, "higher_is_better": False, "value": 1.5,
        "n_requested": 30, "n_effective": 30, "n_real": 40, "status": "ok", "dataset": DATASET,
        "training": {"preset": "toy", "argv": ["fact-train", "--preset", "toy"], "git": CLEAN},
        "provenance": {
            "git": CLEAN, "packages": {"torch": "2.15.0"}, "device": "cpu",
            "argv": ["fact-eval", "all", "runs"], "finished": "2026-01-01T00:00:00Z",
        },
    }  # fmt: skip
    return Record(**{**fields, **changes})


def make_stylex_run(root: Path, data: Path, classifier: str, *, name: str = "stylex", **changes) -> Path:
    """A StylEx run folder with a snapshot of random weights and the statistics of two ticks."""
    cfg = toy_config(data, model="stylex", classifier=classifier, w_lpips=0.0, **changes)
    dataset = open_dataset(cfg.data, split="train", resolution=cfg.resolution, crop=cfg.crop)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    model = Trainer(cfg, dataset, torch.device("cpu")).model
    run_id = run_folder.prepare(
        folder, cfg, preset="toy", label=name, dataset=dataset.describe(), classifier=model.classifier_card
    )
    nimg = 1000 * cfg.batch
    save_snapshot(
        folder / run_folder.snapshot_name(nimg),
        model.snapshot_networks,
        cfg=cfg,
        dataset=dataset.describe(),
        nimg=nimg,
        run_id=run_id,
        classifier=model.classifier_card,
    )
    ticks = [
        {
            "nimg": 2000 * i,
            "Timing/sec_per_kimg": 3.0 * i,
            "Rec/spikes": {"mean": 0.01 * i, "std": 0.1, "num": 100 * i},
        }
        for i in (1, 2)
    ]
    (folder / "stats.jsonl").write_text("".join(json.dumps(tick) + "\n" for tick in ticks))
    return folder
