"""Whole runs: files, resuming, interruptions, damage, full disks.

Everything through train() or the command.
"""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fact_metrics.base.atomic import write_atomically, write_safetensors, write_text, write_torch
from fact_metrics.base.errors import UsageError, UserError
from fact_train import run_folder
from fact_train.data import open_dataset
from fact_train.run_folder import ConfigConflict, list_snapshots
from fact_train.settings.config import TrainConfig
from fact_train.settings.presets import PRESETS
from fact_train.snapshot import load_snapshot
from fact_train.training import checkpoint, grids, loop
from fact_train.training.loop import train
from fact_train.training.models.gan import GAN
from fact_train.training.probe import Probe
from fact_train.training.run import NonFiniteLoss
from fact_train.training.run_log import tick_line
from fact_train.training.trainer import Trainer

PRESET = "mnist-stylegan2"  # what command() starts from, so that both ways name the run alike


def run(cfg: TrainConfig, outdir: Path, **changes):
    cfg = dataclasses.replace(cfg, **changes)
    return train(cfg, outdir, preset=PRESET, label=run_folder.run_label(PRESET, PRESETS[PRESET].config, cfg))


def test_a_run_leaves_the_documented_folder(tiny_config: TrainConfig, tmp_path: Path) -> None:
    result = run(tiny_config, tmp_path / "r")
    names = {
        p.name.split(".")[0] if p.name.startswith("events") else p.name for p in (tmp_path / "r").iterdir()
    }
    assert {
        "training_options.json",
        "network-snapshot-000000.safetensors",
        "training-state-000000160.pt",
        "training-state-000000200.pt",
        "stats.jsonl",
        "log.txt",
        "reals.png",
        "fakes_init.png",
        "fakes000000.png",
        "events",
    } == names
    assert result.trained and result.nimg == 200
    lines = [json.loads(x) for x in (tmp_path / "r" / "stats.jsonl").read_text().splitlines()]
    assert [x["nimg"] for x in lines] == [40, 80, 120, 160, 200]
    assert {"Loss/G", "Loss/D", "Loss/r1_penalty", "Timing/sec_per_kimg"} <= set(lines[0])
    for before, line in zip([{"Timing/total_sec": 0.0}, *lines], lines, strict=False):
        assert line["Timing/sec_per_kimg"] == pytest.approx(1000 / line["Timing/img_per_sec"], rel=1e-9)
        passed = line["Timing/total_sec"] - before["Timing/total_sec"]
        assert 0 < line["Timing/sec_per_kimg"] * 0.04 <= passed  # 40 images; files are written besides
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of this process, GiB
        assert 0.1 < line["Resources/peak_mem_gb"] <= peak
    options = run_folder.read_options(tmp_path / "r")
    assert options["config"]["kimg"] == 0.2 and options["dataset"]["n"] == 24 and options["seed"] == 0


def test_a_run_shows_its_reals_the_untrained_generator_and_the_average_at_the_end(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    trained = load_snapshot(run(tiny_config, tmp_path / "r").snapshot)
    untrained = load_snapshot(run(tiny_config, tmp_path / "untrained", kimg=0).snapshot)
    dataset = open_dataset(tiny_config.data)
    grid = grids.SampleGrid(trained.G, dataset, seed=tiny_config.seed, device=torch.device("cpu"))
    expected = {
        "reals": grids.real_grid(dataset, seed=tiny_config.seed),
        "fakes_init": grid.draw(untrained.G),
        "fakes000000": grid.draw(trained.G),
    }
    for name, picture in expected.items():
        shown = torch.from_numpy(np.asarray(Image.open(tmp_path / "r" / f"{name}.png")).copy())
        assert torch.equal(shown, picture[0]), name


def test_the_grid_of_reals_has_a_row_for_every_class_of_labelled_data() -> None:
    dataset = open_dataset("mnist", max_images=2000)
    rows, columns = grids.grid_size(32)
    labels = dataset.labels(grids.grid_indices(dataset, seed=0)).reshape(rows, columns)
    assert torch.equal(labels, torch.arange(10).unsqueeze(1).expand(10, columns))


def test_a_finished_run_has_nothing_left_to_do(tiny_config: TrainConfig, tmp_path: Path) -> None:
    first = run(tiny_config, tmp_path)
    stamp = first.snapshot.stat().st_mtime_ns
    again = run(tiny_config, tmp_path)
    assert not again.trained and again.snapshot.stat().st_mtime_ns == stamp


def test_training_longer_equals_training_through(tiny_config: TrainConfig, tmp_path: Path) -> None:
    run(tiny_config, tmp_path / "two", kimg=0.1)
    two = run(tiny_config, tmp_path / "two")
    one = run(tiny_config, tmp_path / "one")
    assert two.snapshot.read_bytes() == one.snapshot.read_bytes()
    nimgs = [json.loads(x)["nimg"] for x in (tmp_path / "two" / "stats.jsonl").read_text().splitlines()]
    assert nimgs == sorted(set(nimgs))


def test_zero_kimg_writes_the_untrained_network(tiny_config: TrainConfig, tmp_path: Path) -> None:
    untrained = load_snapshot(run(tiny_config, tmp_path, kimg=0).snapshot)
    assert untrained.nimg == 0
    assert float(untrained.G.synthesis.b8.conv1.bias.abs().max()) == 0


def test_snapshot_rebuilds_its_networks(tiny_config: TrainConfig, tmp_path: Path) -> None:
    cfg = dataclasses.replace(tiny_config, cond=True, g_arch="resnet")
    snap = load_snapshot(run(cfg, tmp_path).snapshot)
    assert (snap.nimg, snap.config["g_arch"], snap.dataset["n"]) == (200, "resnet", 24)
    assert snap.path.stat().st_mode & 0o777 == (tmp_path / "training_options.json").stat().st_mode & 0o777
    assert not snap.G.training and not any(p.requires_grad for p in snap.G.parameters())
    state = checkpoint.read_checkpoint(checkpoint.list_checkpoints(tmp_path)[-1])
    for saved, net in (("G_ema", snap.G), ("D", snap.D)):
        weights = net.state_dict()
        assert [name for name in weights if not torch.equal(weights[name], state[saved][name])] == []
    images = snap.G(torch.randn(2, 8), torch.eye(2), noise_mode="const")
    assert images.shape == (2, 1, 8, 8) and snap.D(images, torch.eye(2)).shape == (2, 1)


def test_snapshot_with_a_changed_byte_is_refused(tiny_config: TrainConfig, tmp_path: Path) -> None:
    path = run(tiny_config, tmp_path, kimg=0.04).snapshot
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"network-snapshot-000000.* altered"):
        load_snapshot(path)


@pytest.mark.parametrize("keep", [0, 5, 300, 0.5])
def test_truncated_snapshot_is_refused(tiny_config: TrainConfig, tmp_path: Path, keep: float) -> None:
    path = run(tiny_config, tmp_path, kimg=0.04).snapshot
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(UserError, match="truncated or damaged"):
        load_snapshot(path)


def test_foreign_and_missing_snapshots_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(UsageError, match="does not exist"):
        load_snapshot(tmp_path / "none.safetensors")
    save_file({"x": torch.zeros(1)}, str(tmp_path / "x.safetensors"))
    with pytest.raises(UserError, match="is not a snapshot"):
        load_snapshot(tmp_path / "x.safetensors")


def test_folder_of_another_configuration_is_refused_with_the_fields(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    run(tiny_config, tmp_path, kimg=0.04)
    with pytest.raises(ConfigConflict, match=r"r1_gamma is 10\.0 there and 1\.0 here.*--r1-gamma"):
        run(tiny_config, tmp_path, r1_gamma=1.0)
    with pytest.raises(UsageError, match="not empty"):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "thesis.tex").write_text("x")
        run(tiny_config, tmp_path / "other")


def test_two_processes_never_train_in_one_folder(tiny_config: TrainConfig, tmp_path: Path) -> None:
    with (
        run_folder.locked(tmp_path / "r"),
        pytest.raises(UsageError, match="another process is training"),
    ):
        run(tiny_config, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_what_a_killed_save_left_is_swept_away(tiny_config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / ".training-state-000000040.pt.partial-123").write_bytes(b"half")
    run(tiny_config, tmp_path, kimg=0.04)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_folder_trained_on_other_pixels_is_refused(tiny_config: TrainConfig, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_config.data, data)
    run(tiny_config, tmp_path / "r", data=str(data), kimg=0.04)
    shutil.copy(data / "img001.png", data / "img000.png")
    with pytest.raises(ConfigConflict, match="other data"):
        run(tiny_config, tmp_path / "r", data=str(data))


def test_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(
    tiny_config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    straight = run(tiny_config, tmp_path / "a", kimg=3.0, kimg_per_tick=1.0)
    run(tiny_config, tmp_path / "b", kimg=2.0, kimg_per_tick=1.0)
    _, newest = checkpoint.list_checkpoints(tmp_path / "b")
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    resumed = run(tiny_config, tmp_path / "b", kimg=3.0, kimg_per_tick=1.0)
    assert f"{newest.name} is truncated or damaged" in capsys.readouterr().err
    assert resumed.snapshot.read_bytes() == straight.snapshot.read_bytes()
    for path in checkpoint.list_checkpoints(tmp_path / "b"):
        path.write_bytes(b"PK")
    with pytest.raises(UserError, match="No good checkpoint"):
        run(tiny_config, tmp_path / "b", kimg=4.0)


def test_non_finite_loss_names_step_term_and_last_good_checkpoint(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = GAN.discriminator_loss

    def poisoned(self, work):
        loss = original(self, work)
        if work.inputs.step == 7:
            work.report("Loss/D", loss * float("nan"))
        return loss

    monkeypatch.setattr(GAN, "discriminator_loss", poisoned)
    with pytest.raises(NonFiniteLoss, match=r"Loss/D is not finite at step 7 .*training-state-000000040\.pt"):
        run(tiny_config, tmp_path)
    state = checkpoint.read_checkpoint(checkpoint.list_checkpoints(tmp_path)[-1])
    assert state["steps"] == 5


def test_diverged_weights_are_never_saved(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer.step

    def step(self, **kw):
        original(self, **kw)
        if self.steps == 5:
            with torch.no_grad():
                next(self.model.gan.D.parameters()).fill_(float("inf"))

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(loop, "probe", lambda trainer: Probe(1.0, 8))
    with pytest.raises(NonFiniteLoss, match="a weight is not finite"):
        run(tiny_config, tmp_path)
    assert checkpoint.list_checkpoints(tmp_path) == [] and list_snapshots(tmp_path) == []


@pytest.mark.parametrize(
    "save",
    [
        lambda path: write_torch(path, {"x": torch.zeros(100_000)}),
        lambda path: write_safetensors(path, {"x": torch.zeros(100_000)}, {}),
        lambda path: write_text(path, "x" * 100_000),
    ],
)
def test_a_disk_that_fills_leaves_the_old_file_and_nothing_else(tmp_path: Path, save) -> None:
    path = tmp_path / "state.pt"
    write_text(path, "good")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"could not save .*state\.pt: File too large"):
            save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "good" and os.listdir(tmp_path) == ["state.pt"]


def test_a_mistake_of_the_code_while_saving_is_not_called_a_full_disk(tmp_path: Path) -> None:
    def write(partial: Path) -> None:
        raise RuntimeError("file write failed: a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        write_atomically(tmp_path / "x", write)


# The command itself, in its own process


def command(cfg: TrainConfig, outdir: Path, **changes) -> list[str]:
    values = {**cfg.to_dict(), **changes}
    flags = ["--preset", PRESET, "--outdir", str(outdir)]
    for name, value in values.items():
        if isinstance(value, bool):
            flags.append(f"--{'' if value else 'no-'}{name.replace('_', '-')}")
        else:
            flags += [f"--{name.replace('_', '-')}", "none" if value is None else str(value)]
    return [sys.executable, "-m", "fact_train", *flags]


def wait_for_ticks(process: subprocess.Popen, outdir: Path, count: int) -> None:
    stats = outdir / "stats.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if stats.exists() and len(stats.read_text().splitlines()) >= count:
            return
        time.sleep(0.002)
    raise AssertionError(f"the run ended before {count} ticks:\n{process.communicate()[1]}")


def test_kill_9_at_three_moments_then_the_same_command_gives_the_same_bytes(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    cfg = dataclasses.replace(tiny_config, kimg=1.2, snapshot_ticks=5)
    straight = run(cfg, tmp_path / "straight")
    outdir = tmp_path / "killed"
    for ticks in (2, 9, 17):  # before the first checkpoint, between two, and later
        process = subprocess.Popen(
            command(cfg, outdir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for_ticks(process, outdir, ticks)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    final = subprocess.run(command(cfg, outdir), capture_output=True, text=True)
    assert final.returncode == 0, final.stderr
    assert "resuming at" in final.stderr
    assert Path(final.stdout.strip()).read_bytes() == straight.snapshot.read_bytes()
    assert not list(outdir.glob(".*partial*"))


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_first_and_the_run_goes_on_bitwise(
    tiny_config: TrainConfig, tmp_path: Path, signum: int, code: int
) -> None:
    cfg = dataclasses.replace(tiny_config, kimg=4.0, snapshot_ticks=1000)
    outdir = tmp_path / "r"
    process = subprocess.Popen(
        command(cfg, outdir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_ticks(process, outdir, 2)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and "run the same command again" in err and "Traceback" not in err
    assert len(checkpoint.list_checkpoints(outdir)) == 1
    resumed = run(cfg, outdir)
    straight = run(cfg, tmp_path / "straight")
    assert resumed.snapshot.read_bytes() == straight.snapshot.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--preset", "mnst"], 2, "did you mean mnist"),
        (["--preset", "mnist", "--r1-gama", "1"], 2, "--r1-gamma"),
        (["--preset", "mnist", "--batch", "many"], 2, "--batch"),
        (["--preset", "mnist", "--g-arch", "unet"], 2, "--g-arch unet"),
        (["--preset", "mnist", "--data", "no/such/folder"], 2, "no/such/folder"),
        (["--preset", "mnist", "--device", "tpu"], 2, "--device tpu"),
        (["--outdir", "x"], 2, "--preset is missing"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fact_train", *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_tick_line_shows_every_term_under_its_name() -> None:
    names = ("Loss/G", "Loss/D", "Loss/r1_penalty", "Path_length", "Augment/p", "Augment/r_t")
    names += ("Loss/rec", "Loss/kl", "Class/agreement")
    stats = {name: {"mean": i + 0.5} for i, name in enumerate(names)}
    timing = {"Timing/sec_per_kimg": 20.0, "Timing/img_per_sec": 50.0, "Resources/peak_mem_gb": 1.25}
    words = tick_line(7, 12_300, stats, timing).split()
    assert dict(zip(words[:-1:2], words[1:-1:2], strict=True)) == {
        "tick": "7", "kimg": "12.3", "sec/kimg": "20.00", "img/s": "50", "G": "0.500", "D": "1.500",
        "r1": "2.500", "pl": "3.500", "p": "4.500", "r_t": "5.500", "rec": "6.500", "kl": "7.500",
        "agree": "8.500", "mem": "1.25",
    }  # fmt: skip
    assert words[-1] == "GiB"
    assert tick_line(1, 40, {}, timing).split()[8:16] == ["G", "-", "D", "-", "r1", "-", "pl", "-"]


def test_a_run_uses_the_threads_it_is_told_to(tiny_config: TrainConfig, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run(tiny_config, tmp_path, kimg=0, threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_dry_run_and_list_presets_change_nothing(tmp_path: Path) -> None:
    flags = ["--preset", "mnist", "--r1-gamma", "3", "-n"]
    done = subprocess.run(
        [sys.executable, "-m", "fact_train", *flags], capture_output=True, text=True, cwd=tmp_path
    )
    shown = json.loads(done.stdout)
    assert shown["outdir"] == "runs/mnist-seed0-r1_gamma=3.0" and shown["config"]["r1_gamma"] == 3.0
    done = subprocess.run(
        [sys.executable, "-m", "fact_train", "--list-presets"], capture_output=True, text=True, cwd=tmp_path
    )
    assert "mnist-stylegan2" in done.stdout and os.listdir(tmp_path) == []


def test_two_processes_learn_what_one_with_the_same_batch_learns(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """One process takes as two micro-batches what the two take as one each: same draws, same gradients.

    Halves and sums of two are exact, so are the weights. w_avg is that of both processes' latents; one
    process moves it by both micro-batches in turn instead.
    """
    cfg = dataclasses.replace(tiny_config, mbstd_group_size=2, kimg=0.08, batch_gpu=4, style_mixing_prob=0.0)
    flags = command(cfg, tmp_path / "two")[2:]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, *flags], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in done.stderr
    one, means = Trainer(cfg, open_dataset(cfg.data), torch.device("cpu")), []
    one.model.gan.G.mapping.register_forward_hook(
        lambda module, z, ws: means.append(ws[:, 0].detach().mean(dim=0))
    )
    while one.nimg < 80:
        one.step()
    two = load_snapshot(list_snapshots(tmp_path / "two")[-1])
    assert two.nimg == 80
    for mine, net in ((one.model.gan.G_ema, two.G), (one.model.gan.D, two.D)):
        a, b = mine.state_dict(), net.state_dict()
        assert [name for name in a if name != "mapping.w_avg" and not torch.equal(a[name], b[name])] == []
    w_avg = torch.zeros(cfg.w_dim)
    for first, second in zip(means[::2], means[1::2], strict=True):
        w_avg = 0.995 * w_avg + 0.005 * (first + second) / 2
    torch.testing.assert_close(two.G.mapping.w_avg, w_avg)
