"""Shared by all tests: one thread, and a configuration that trains in milliseconds per step."""

import dataclasses
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from fact_train.settings.config import TrainConfig

torch.set_num_threads(1)

# A shell ignores Ctrl-C for its background jobs, and children inherit that; the tests of signals need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's own folder, for keys and trust, that is not the developer's."""
    folder = tmp_path_factory.mktemp("config")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACT_CONFIG", str(folder))
        yield folder


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


@pytest.fixture(scope="session")
def tiny_classifier(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """File of a classifier of the tiny images, trained in a second."""
    return _classifier(tiny_images, tmp_path_factory.mktemp("classifier") / "tiny.safetensors")


@pytest.fixture(scope="session")
def tiny_classifier32(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same for the images enlarged to 32 px, where LPIPS begins."""
    out = tmp_path_factory.mktemp("classifier32") / "tiny32.safetensors"
    return _classifier(tiny_images, out, resolution=32)


def _classifier(data: Path, out: Path, **options) -> str:
    from fact_train.classifiers.training import train_classifier

    train_classifier(out, data=str(data), epochs=12, batch=8, report=lambda line: None, **options)
    return str(out)


@pytest.fixture
def stylex_config(tiny_config: TrainConfig, tiny_classifier: str) -> TrainConfig:
    """The tiny configuration with an encoder, branches in turns, and every loss but the perceptual one."""
    return dataclasses.replace(tiny_config, model="stylex", classifier=tiny_classifier, w_lpips=0.0)


@pytest.fixture
def stylex32_config(stylex_config: TrainConfig, tiny_classifier32: str) -> TrainConfig:
    """The same at 32 px with all losses."""
    return dataclasses.replace(
        stylex_config,
        classifier=tiny_classifier32,
        resolution=32,
        w_lpips=0.1,
        batch=4,
        channel_base=256,
        pl_weight=0.0,
    )


@pytest.fixture
def call(capfd) -> Callable[..., tuple[int, str, str]]:
    """Runs fact-eval in this process; returns its exit code, stdout and stderr."""
    from fact_eval import cli

    def run(*argv: object) -> tuple[int, str, str]:
        code = cli._run([str(a) for a in argv])
        out, err = capfd.readouterr()
        return code, out, err

    return run
