"""CPU threads of a run: a resumed run keeps them, and a change is said and recorded."""

import dataclasses
import io
from pathlib import Path

import pytest
import torch

from fact_metrics.base.errors import UsageError
from fact_train import run_folder
from fact_train.data import open_dataset
from fact_train.settings.config import TrainConfig
from fact_train.training.loop import train
from fact_train.training.probe import Probe, seconds_per_step
from fact_train.training.threads import choose_threads, fell
from fact_train.training.trainer import Trainer


def run(cfg: TrainConfig, outdir: Path, **changes):
    return train(dataclasses.replace(cfg, **changes), outdir, preset="tiny", label="tiny")


def saved(trainer: Trainer) -> bytes:
    """The trainer's state, as a checkpoint holds it."""
    file = io.BytesIO()
    torch.save(trainer.state_dict(), file)
    return file.getvalue()


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


def test_the_choice_leaves_the_training_state_and_sets_the_threads(
    tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch, threads_stay: None
) -> None:
    trainer = Trainer(tiny_config, open_dataset(tiny_config.data), torch.device("cpu"), threads=3)
    trainer.step()
    untouched = Trainer(tiny_config, trainer.dataset, torch.device("cpu"), threads=3)
    untouched.step()
    tried = []

    def seconds_of(trainer: Trainer, *, regularise: bool) -> float:
        tried.append((torch.get_num_threads(), regularise))
        seconds_per_step(trainer, regularise=regularise)
        return 0.01 * torch.get_num_threads()

    monkeypatch.setattr("fact_train.training.threads.seconds_per_step", seconds_of)
    assert choose_threads(trainer, most=3).threads == 1
    assert (trainer.threads, trainer.machine["threads"], torch.get_num_threads()) == (1, 1, 1)
    assert set(tried) == {(3, False), (1, False)}
    trainer.use_threads(3)
    for each in (trainer, untouched):  # the next steps are those of a trainer that has not chosen
        each.step()
        each.step()
    assert saved(trainer) == saved(untouched)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Seconds of a step by threads, as the choice finds them; the machine has three cores."""
    seconds = {3: 0.01, 1: 0.02}
    monkeypatch.setattr(
        "fact_train.training.threads.seconds_per_step",
        lambda trainer, *, regularise: seconds[torch.get_num_threads()],
    )
    monkeypatch.setattr("fact_metrics.base.devices.available_threads", lambda: 3)
    monkeypatch.setattr("fact_train.training.run.available_threads", lambda: 3)
    return seconds


def test_a_run_chooses_its_threads_once_and_keeps_them(
    tiny_config: TrainConfig, tmp_path: Path, capsys, measured: dict[int, float], threads_stay: None
) -> None:
    cfg = dataclasses.replace(tiny_config, kimg=0.08, threads=None)
    measured[3] = 0.04  # another program
    run(cfg, tmp_path / "r")
    said = "threads: 1 of 3, more are slower now (200 img/s on 3, 400 img/s on 1)"
    assert said in (tmp_path / "r" / "log.txt").read_text()
    assert run_folder.read_options(tmp_path / "r")["threads"] == torch.get_num_threads() == 1
    measured[3] = 0.01  # it ended
    resumed = run(cfg, tmp_path / "r", kimg=0.16)
    assert torch.get_num_threads() == 1 and "resumed" not in run_folder.read_options(tmp_path / "r")
    assert (tmp_path / "r" / "log.txt").read_text().count("threads: ") == 1
    told = run(cfg, tmp_path / "told", kimg=0.16, threads=1)
    assert resumed.snapshot.read_bytes() == told.snapshot.read_bytes()
    run(cfg, tmp_path / "quiet")
    assert run_folder.read_options(tmp_path / "quiet")["threads"] == 3
    assert "threads: all 3 (800 img/s on 3" in (tmp_path / "quiet" / "log.txt").read_text()


def test_a_run_that_becomes_slow_says_so_once(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads_stay: None
) -> None:
    assert fell(140.0, promised=290.0, threads=2) is not None
    assert fell(150.0, promised=290.0, threads=2) is None and fell(14.0, promised=290.0, threads=1) is None
    monkeypatch.setattr("fact_train.training.loop.probe", lambda trainer: Probe(1e-6, trainer.cfg.batch))
    cfg = dataclasses.replace(tiny_config, kimg=0.032, kimg_per_tick=0.016)  # two ticks
    run(cfg, tmp_path / "r", threads=2)
    run(cfg, tmp_path / "one", threads=1)
    told = (tmp_path / "r" / "log.txt").read_text()
    assert told.count("img/s instead of 8000000: other programs use the cores.") == 1
    assert "other programs" not in (tmp_path / "one" / "log.txt").read_text()


def test_follow_load_changes_threads_at_a_checkpoint_as_a_resume_there_would(
    tiny_config: TrainConfig, tmp_path: Path, measured: dict[int, float], threads_stay: None
) -> None:
    """Killed and resumed, it has the bits of a run that is stopped there and told the threads."""
    cfg = dataclasses.replace(tiny_config, kimg=0.032, kimg_per_tick=0.016, image_ticks=9)
    assert cfg.snapshot_ticks == 1
    run(cfg, tmp_path / "told", threads=3)
    told = run(cfg, tmp_path / "told", kimg=0.064, threads=1).snapshot.read_bytes()
    assert told != run(cfg, tmp_path / "kept", kimg=0.064, threads=3).snapshot.read_bytes()

    follow = dataclasses.replace(cfg, kimg=0.064, threads=None, follow_load=True)
    outdir = tmp_path / "followed"

    def seconds_of(trainer: Trainer, *, regularise: bool) -> float:
        """Another program starts while the run is between its checkpoints at 0.016 and 0.032 kimg."""
        slow = trainer.nimg >= 32 and torch.get_num_threads() == 3
        return 0.04 if slow else measured[torch.get_num_threads()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fact_train.training.threads.seconds_per_step", seconds_of)
        followed = run(follow, outdir)
    assert followed.snapshot.read_bytes() == told
    (start,) = run_folder.read_options(outdir)["resumed"]
    assert (start["threads"], start["kimg"]) == (1, 0.032)
    log = (outdir / "log.txt").read_text()
    assert "threads: all 3 (" in log and "threads: 1 of 3" in log
    assert "warning: threads was 3 and is now 1: the result differs by rounding" in log

    newest = outdir / "training-state-000000064.pt"
    followed.snapshot.unlink()
    newest.rename(tmp_path / "x")  # as if killed before it was written
    measured[3] = 0.04
    resumed = run(follow, outdir)
    assert resumed.trained and resumed.snapshot.read_bytes() == told


def test_follow_load_is_refused_where_it_has_no_effect(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="--follow-load: --threads 2 fixes the number; leave one"):
        dataclasses.replace(tiny_config, threads=2, follow_load=True)
    monkeypatch.setattr("fact_train.distributed.world_size", lambda: 2)
    cfg = dataclasses.replace(tiny_config, threads=None, follow_load=True)
    with pytest.raises(UsageError, match="--follow-load: it needs one process on a CPU; leave it out"):
        run(cfg, tmp_path / "r")
    assert not (tmp_path / "r").exists()
