"""A run folder's states and snapshots: which may be missing, their names, the room they need."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fact_metrics.base.errors import UsageError, UserError
from fact_train import run_folder
from fact_train.data import open_dataset
from fact_train.run_folder import LostState
from fact_train.settings.config import TrainConfig
from fact_train.training import checkpoint, preflight
from fact_train.training.loop import train
from fact_train.training.trainer import Trainer


def run(cfg: TrainConfig, outdir: Path, **changes):
    cfg = dataclasses.replace(cfg, **changes)
    return train(cfg, outdir, preset="tiny", label="tiny")


def test_a_run_whose_states_are_gone_is_refused_and_stays_as_it_is(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    run(tiny_config, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for state in checkpoint.list_checkpoints(tmp_path):
        state.unlink()
        del before[state.name]
    with pytest.raises(LostState, match=r"1 snapshots, .* no training-state file"):
        run(tiny_config, tmp_path, kimg=0.4)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_kill_between_a_state_and_its_snapshot_costs_neither(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    whole = run(tiny_config, tmp_path / "whole", kimg=3.2, kimg_per_tick=1.6)
    part = run(tiny_config, tmp_path / "part", kimg=1.6, kimg_per_tick=1.6)
    first = part.snapshot.read_bytes()
    part.snapshot.unlink()
    resumed = run(tiny_config, tmp_path / "part", kimg=3.2, kimg_per_tick=1.6)
    assert part.snapshot.read_bytes() == first
    assert resumed.snapshot.read_bytes() == whole.snapshot.read_bytes()
    resumed.snapshot.unlink()
    again = run(tiny_config, tmp_path / "part", kimg=3.2, kimg_per_tick=1.6)
    assert again.snapshot.read_bytes() == whole.snapshot.read_bytes()


def test_states_of_one_kimg_are_two_files_and_those_named_by_kimg_still_load(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    run(tiny_config, tmp_path)
    states = checkpoint.list_checkpoints(tmp_path)
    assert [run_folder.checkpoint_nimg(path) for path in states] == [160, 200]
    states[0].unlink()
    states[1].rename(tmp_path / "training-state-000000.pt")
    (tmp_path / "training-state-old.pt").write_bytes(b"no state")
    longer = run(tiny_config, tmp_path, kimg=0.24)
    assert longer.snapshot.read_bytes() == run(tiny_config, tmp_path / "b", kimg=0.24).snapshot.read_bytes()
    names = [path.name for path in checkpoint.list_checkpoints(tmp_path)]
    assert names == ["training-state-000000.pt", "training-state-000000240.pt"]


def test_a_disk_without_room_is_refused_before_the_first_step(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    monkeypatch.setattr(Trainer, "step", lambda self, **kw: pytest.fail("trained"))
    with pytest.raises(UserError, match=r"training state take .* MiB are free"):
        run(tiny_config, tmp_path)


def test_the_room_that_is_asked_for_is_what_the_files_take(tiny_config: TrainConfig, tmp_path: Path) -> None:
    result = run(tiny_config, tmp_path, channel_base=1024, channel_max=64)
    state = checkpoint.list_checkpoints(tmp_path)[-1]
    taken = result.snapshot.stat().st_size + state.stat().st_size
    trainer = Trainer(
        dataclasses.replace(tiny_config, channel_base=1024, channel_max=64),
        open_dataset(tiny_config.data),
        torch.device("cpu"),
    )
    assert 0.9 * taken < preflight.room(trainer) <= taken  # the rest is headers and names


def test_what_a_run_may_not_expect_is_said_at_its_start(
    tiny_config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = shutil.copytree(tiny_config.data, tmp_path / "data")
    (data / "notes.txt").write_text("x")
    run(tiny_config, tmp_path / "r", kimg=0.04, data=str(data), batch=40, mbstd_group_size=4)
    said = capsys.readouterr().err
    assert "data: 1 of 26 files skipped: 1 .txt" in said
    assert "labels of 2 classes are not used; --cond conditions on them" in said
    assert "warning: 24 images are fewer than a batch of 40; batches repeat them" in said
    run(tiny_config, tmp_path / "c", kimg=0, cond=True)
    said = capsys.readouterr().err
    assert "labels of" not in said and "warning: D can learn 24 images by heart" in said


def test_data_of_another_kind_is_named_in_the_refusal(tiny_config: TrainConfig, tmp_path: Path) -> None:
    data = shutil.copytree(tiny_config.data, tmp_path / "data")
    run(tiny_config, tmp_path / "r", kimg=0, data=str(data))
    (data / "dataset.json").unlink()
    shutil.copy(data / "img001.png", data / "more.png")
    with pytest.raises(
        run_folder.ConfigConflict, match="n 24 and 25, classes 2 and 0, labels class and None"
    ):
        run(tiny_config, tmp_path / "r", kimg=0, data=str(data))


def test_settings_that_no_network_can_have_are_refused_with_the_nearest(tiny_config: TrainConfig) -> None:
    for value, way_out in ((4, "try 8"), (48, "try 64"), (33, "try 32")):
        with pytest.raises(
            UsageError, match=f"--resolution {value}: .* power of two from 8 to 16384; {way_out}"
        ):
            dataclasses.replace(tiny_config, resolution=value)
    with pytest.raises(UsageError, match="--device gpu: use auto, cpu, cuda or cuda:N"):
        dataclasses.replace(tiny_config, device="gpu")
    for value in (float("nan"), float("inf")):
        with pytest.raises(UsageError, match=f"--kimg {value}: it must be a finite number"):
            dataclasses.replace(tiny_config, kimg=value)


def test_images_too_small_for_the_discriminator_are_refused(tiny_config: TrainConfig, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.zeros((30, 4, 4, 1), np.uint8))
    with pytest.raises(UsageError, match=r"images of 4 px; .* give --resolution 8 or more"):
        run(tiny_config, tmp_path / "r", data=str(tmp_path / "a.npz"))
