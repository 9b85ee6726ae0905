"""CPU threads of a run: a resumed run keeps them, and a change is said and recorded."""

import dataclasses
from pathlib import Path

import pytest
import torch

from fact_train import run_folder
from fact_train.settings.config import TrainConfig
from fact_train.training.loop import train


def run(cfg: TrainConfig, outdir: Path, **changes):
    return train(dataclasses.replace(cfg, **changes), outdir, preset="tiny", label="tiny")


@pytest.fixture
def threads_stay():
    """Tests that change the process' threads leave them as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_resumed_run_keeps_its_threads_and_so_its_bits(
    tiny_config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture, threads_stay: None
) -> None:
    """With one micro-batch a step, torch splits sums over the threads: their number decides the last bits."""
    cfg = dataclasses.replace(tiny_config, kimg=0.08)
    straight = run(cfg, tmp_path / "straight", kimg=0.16, threads=3)
    run(cfg, tmp_path / "r", threads=3)
    resumed = run(cfg, tmp_path / "r", kimg=0.16, threads=None)
    assert torch.get_num_threads() == 3 and resumed.snapshot.read_bytes() == straight.snapshot.read_bytes()
    options = run_folder.read_options(tmp_path / "r")
    assert (options["threads"], options["device"], options["world_size"]) == (3, "cpu", 1)
    assert "resumed" not in options and "threads was" not in capsys.readouterr().err


def test_other_threads_than_before_are_said_and_recorded(
    tiny_config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture, threads_stay: None
) -> None:
    cfg = dataclasses.replace(tiny_config, kimg=0.08)
    run(cfg, tmp_path / "r", threads=1)
    run(cfg, tmp_path / "r", kimg=0.16, threads=2)
    assert "warning: threads was 1 and is now 2: the result differs by rounding" in capsys.readouterr().err
    (start,) = run_folder.read_options(tmp_path / "r")["resumed"]
    assert (start["threads"], start["kimg"]) == (2, 0.08) and start["git"] and start["packages"]
    run(cfg, tmp_path / "r", kimg=0.24, threads=None)
    assert torch.get_num_threads() == 2  # the latest start's
    run(cfg, tmp_path / "r", kimg=0.24, threads=1)  # complete: it trains nothing and adds no start
    assert len(run_folder.read_options(tmp_path / "r")["resumed"]) == 1
