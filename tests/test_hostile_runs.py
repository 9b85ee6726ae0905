"""Run folders of strangers: states, snapshots, records and shared trust, one small test a kind."""

import dataclasses
import hashlib
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from eval_toys import make_record
from safetensors.torch import load_file, save_file
from weight_toys import publish, save_state, use_empty_folders

from benchmarks.hostile import files
from benchmarks.hostile.runner import Case, run_case
from benchmarks.hostile.texts import read_metadata
from fact_eval.weights.files import add_weights
from fact_leaderboard.publish import publish_records
from fact_leaderboard.record_shape import check_shape, parse_line
from fact_leaderboard.records import RESULTS, Record, read_records
from fact_metrics.base.errors import UserError
from fact_metrics.features.weight_store import look_up
from fact_train.data import open_dataset
from fact_train.settings.config import TrainConfig
from fact_train.snapshot import load_snapshot
from fact_train.training import checkpoint
from fact_train.training.loop import train
from fact_train.training.trainer import Trainer

GIT = {"commit": "c" * 40, "dirty": False}


@pytest.fixture(scope="module")
def trained(tiny_images, tmp_path_factory) -> tuple[TrainConfig, Path]:
    """A tiny run with two states and its last snapshot."""
    cfg = TrainConfig(
        data=str(tiny_images), z_dim=8, w_dim=8, map_depth=2, channel_base=64, channel_max=8, batch=8,
        kimg=0.032, kimg_per_tick=0.016, snapshot_ticks=1, device="cpu", threads=1,
    )  # fmt: skip
    outdir = tmp_path_factory.mktemp("runs") / "run"
    train(cfg, outdir, preset="mnist-stylegan2", label="toy")
    return cfg, outdir


# Training states


def spoilt_states(good: dict) -> dict[str, object]:
    moments = {**good["G_opt"]["state"][0], "exp_avg": torch.zeros(2)}
    return {
        "a function": {"x": files.Call(print, "ran")},
        "an object": {"a": 1},
        "a schema alone": {"schema": 1},
        "a list": [1],
        "a tensor": torch.zeros(2),
        "text": "x",
        "text for steps": {**good, "steps": "x"},
        "negative steps": {**good, "steps": -8},
        "no weights": {**good, "G": {}},
        "text for an optimiser": {**good, "G_opt": "x"},
        "moments of another shape": {**good, "G_opt": {**good["G_opt"], "state": {0: moments}}},
        "other statistics": {**good, "stats": {"Loss/G": torch.zeros(2)}},
        "no statistics": {name: value for name, value in good.items() if name != "stats"},
    }


KINDS = [*spoilt_states({"G_opt": {"state": {0: {}}}}), "not a file", "compressed"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_cannot_be_read_is_said_and_the_older_one_taken(trained, tmp_path, kind: str) -> None:
    cfg, outdir = trained
    (newest,) = checkpoint.list_checkpoints(outdir)[-1:]
    good = torch.load(newest, weights_only=True)
    shutil.copy(newest, tmp_path / "training-state-000001.pt")
    bad = tmp_path / "training-state-000002.pt"
    if kind == "not a file":
        bad.mkdir()
    elif kind == "compressed":
        _recompress(newest, bad)
    else:
        torch.save(spoilt_states(good)[kind], bad)
    trainer = Trainer(cfg, open_dataset(cfg.data), torch.device("cpu"), threads=1)
    with pytest.warns(UserWarning, match=r"training-state-000002\.pt .*Going on from training-state-000001"):
        assert checkpoint.load_latest(tmp_path, trainer).name == "training-state-000001.pt"
    assert trainer.steps == good["steps"]
    for name, value in trainer.model.gan.G.state_dict().items():
        assert torch.equal(value, good["G"][name])
    trainer.step()


def _recompress(source: Path, target: Path) -> None:
    """The same zip with compressed entries: what unpacks to gigabytes would look like this."""
    import zipfile

    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))


# Snapshots


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"map_depth": 10**9}}, "1,000,000,000 layers"),
        ({"config": {"channel_max": 10**9, "channel_base": 10**12}}, "1,000,000,000 channels"),
        ({"config": {"channel_max": 2**15, "channel_base": 2**20}}, "has shape"),
        ({"config": {"map_depth": 3}}, "differ in"),
        ({"config": {"map_depth": "x"}}, "whole number"),
        ({"dataset": {"resolution": 2**40}}, "from 4 to 16384"),
        ({"dataset": {"classes": 10**15}}, "no images"),
        ({"dataset": {"name": "../x"}}, "cannot name a file"),
        ({"schema": "a"}, "schema: expected int"),
        ({"nimg": "x"}, "nimg: expected int"),
        ({"config": None}, "config: expected object"),
    ],
)
def test_a_snapshot_asks_for_no_more_than_it_holds(trained, tmp_path, change: dict, message: str) -> None:
    _, outdir = trained
    (source,) = sorted(outdir.glob("network-snapshot-*.safetensors"))[-1:]
    meta = read_metadata(source)
    for name, value in change.items():
        meta[name] = {**meta[name], **value} if isinstance(value, dict) else value
    save_file(load_file(source), tmp_path / "x.safetensors", {"fact": json.dumps(meta)})
    with pytest.raises(UserError, match=message) as error:
        load_snapshot(tmp_path / "x.safetensors")
    assert "\n" not in str(error.value) and "x.safetensors" in str(error.value)


# Records


def line(**changes) -> str:
    return json.dumps({**json.loads(make_record().to_json()), **changes})


@pytest.mark.parametrize(
    "name", ["../x", "/x", "..", ".", "a/b", "a\\b", "a\0b", "", ".x", "a\nb", "\x1b[2J"]
)
def test_a_run_id_that_is_no_file_name_is_refused_at_reading_and_making(name: str) -> None:
    with pytest.raises(ValueError, match=r"run_id .*cannot name"):
        Record.from_json(line(run_id=name))
    with pytest.raises(ValueError, match=r"run_id .*cannot name"):
        dataclasses.replace(make_record(), run_id=name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("run_id", []), ("label", 5), ("metric", 5), ("kimg", "x"), ("train_seed", 1.5), ("dataset", {}),
        ("training", None), ("provenance", None), ("protocol", []), ("extras", [1]), ("ci", {"low": "x"}),
        ("value", "x"), ("seed", "0"), ("summary", None), ("n_real", 1.5), ("snapshot", "a/b"),
        ("training", {"resumed": [{}]}), ("provenance", {"git": {"commit": 5}}),
        ("protocol", {"detectors": {"a": 5}}),
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        check_shape(parse_line(line(**{field: value})))


def test_all_published_records_fit_the_shape() -> None:
    from fact_leaderboard.publish import RESULTS as PUBLISHED

    lines = [text for path in PUBLISHED.glob("*.jsonl") for text in path.read_bytes().splitlines()]
    assert len(lines) > 100
    for text in lines:
        data = parse_line(text)
        check_shape(data)
        assert data == json.loads(text)


def test_one_broken_file_of_records_stops_no_other(tmp_path: Path) -> None:
    good = dataclasses.replace(make_record(), training={"git": GIT}, provenance={"git": GIT})
    for name, text in (("a", good.to_json()), ("b", files.brackets()), ("c", line(run_id="../../../out"))):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / RESULTS).write_text(f"{text}\n")
    (tmp_path / "results").mkdir()
    changed, refused = publish_records([tmp_path / "runs"], tmp_path / "results")
    assert changed == [tmp_path / "results" / f"{good.run_id}.jsonl"] and len(refused) == 2
    assert read_records(changed[0]) == [good]
    assert "nested too deeply" in refused[0] and "cannot name" in refused[1]
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "results"}


# Weights


def test_a_shared_manifest_trusts_nothing_and_the_users_word_counts(tmp_path, monkeypatch) -> None:
    use_empty_folders(monkeypatch, tmp_path)
    monkeypatch.setenv("FACT_CONFIG", str(tmp_path / "config"))
    publish(monkeypatch, "toy", save_state(tmp_path / "toy-1.pth"))
    mine = save_state(tmp_path / "shared" / "mine.pth", seed=2)
    status = mine.stat()
    entry = {
        "filename": mine.name, "sha256": hashlib.sha256(mine.read_bytes()).hexdigest(),
        "format": "state_dict", "bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "trusted": True,
    }  # fmt: skip
    manifest = json.dumps({"schema": 1, "files": {"toy": entry}})
    (tmp_path / "shared" / "manifest.json").write_text(manifest)
    monkeypatch.setenv("FACT_WEIGHTS_SHARED", str(tmp_path / "shared"))
    installed, problems = look_up("toy")
    assert installed is None and "--as toy --trust" in problems[0]
    own = tmp_path / "weights"
    shutil.copytree(tmp_path / "shared", own, copy_function=shutil.copy2)
    assert look_up("toy")[0] is None  # nor does a manifest that somebody put into the user's own folder
    add_weights(mine, "toy", trust=True)
    assert look_up("toy")[0].trusted
    monkeypatch.setenv("FACT_CONFIG", str(tmp_path / "another user"))
    assert look_up("toy")[0] is None


# Commands


def test_a_sample_of_hostile_commands_has_no_fault() -> None:
    """Every 27th of `python -m benchmarks hostile`, with bombs of 300 MB, in a process of its own."""
    code = "import json; from benchmarks import hostile; "
    code += "print(json.dumps(hostile.run(size=300 << 20, every=27)))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["faulty"] == [] and result["commands"] >= 20
    # commands are forked, so their peak begins at what this process has held
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert result["refused"] > 10 and result["peak_mb"] < 1000 + held


def test_the_runner_sees_every_fault(tmp_path: Path, monkeypatch) -> None:
    """Commands that misbehave on purpose, so that a zero in the table means something."""
    import os

    from benchmarks.hostile import runner

    harmful = {
        "traceback": lambda: 1 / 0,
        "crash": lambda: os.abort(),
        "execution": lambda: os.mkdir("harm"),
        "write outside": lambda: Path("../outside").write_text("x"),
        "raw text": lambda: print("\x1b[2J"),
        "accepted": lambda: print("fine"),
    }
    for fault, act in harmful.items():
        monkeypatch.setattr(runner, "_main", lambda argv, act=act: (act() and 0) or 0)
        case = Case(fault, ("x",), lambda at: None, refused=fault == "accepted")
        assert fault in run_case(case, tmp_path / fault).faults
    monkeypatch.setattr(runner, "SECONDS", 0.5)
    monkeypatch.setattr(runner, "_main", lambda argv: __import__("time").sleep(60))
    assert "hang" in run_case(Case("hang", ("x",), lambda at: None), tmp_path / "hang").faults
