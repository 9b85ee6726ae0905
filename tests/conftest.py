"""Shared by all tests: one thread, and a configuration that trains in milliseconds per step."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch
from PIL import Image

from fact_train.config import TrainConfig

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 labelled gray 8x8 images: bright left halves (class 0) and bright top halves (class 1)."""
    folder = tmp_path_factory.mktemp("tiny_images")
    gen = torch.Generator().manual_seed(0)
    labels = []
    for i in range(24):
        x = torch.randint(0, 60, (8, 8), generator=gen, dtype=torch.uint8)
        (x[:, :4] if i % 2 == 0 else x[:4]).add_(180)
        Image.fromarray(x.numpy()).save(folder / f"img{i:03d}.png")
        labels.append(f'["img{i:03d}.png", {i % 2}]')
    (folder / "dataset.json").write_text('{"labels": [' + ", ".join(labels) + "]}")
    return folder


@pytest.fixture
def tiny_config(tiny_images: Path) -> TrainConfig:
    """Every regulariser on at short intervals; 8 images a step."""
    return TrainConfig(
        data=str(tiny_images),
        z_dim=8,
        w_dim=8,
        map_depth=2,
        channel_base=64,
        channel_max=8,
        batch=8,
        r1_interval=4,
        pl_interval=2,
        ema_kimg=0.05,
        kimg=0.2,
        kimg_per_tick=0.04,
        snapshot_ticks=1,
        image_ticks=2,
        device="cpu",
        threads=1,
    )
