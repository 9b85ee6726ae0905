"""fact-eval on checkpoint files: convert, run, what records say of them, and what is refused."""

import dataclasses
import json

import pytest
import torch
from eval_toys import make_data, make_run, register_toys
from foreign_checkpoints import rosinality, stylegan2_ada, toy_networks, write_pickle

import fact_metrics.registry
from fact_leaderboard import columns
from fact_leaderboard.build import build_board
from fact_leaderboard.gate import git_problem
from fact_leaderboard.records import RESULTS, read_records
from fact_train.snapshot import load_snapshot

TINY = dict(resolution=8, channel_base=64, channels=1, map_depth=1)


@pytest.fixture
def place(monkeypatch, tmp_path):
    """Toy metrics, a gray 8x8 dataset with three labels, and a working folder of this test."""
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    register_toys()
    names = ("toy_distance", "toy_path")
    monkeypatch.setattr(columns, "COLUMNS", tuple(columns.Column(name, name) for name in names))
    make_data(tmp_path / "toy", labelled=True)
    return tmp_path


def write(place, name="faces.pkl", **fields):
    return write_pickle(place / name, stylegan2_ada(*toy_networks(**{**TINY, **fields})))


def score(call, file, *more):
    named = ("--metrics", "toy_distance,toy_path", "--device", "cpu", "--data", "toy")
    return call("run", file, *named, *more)


def test_a_checkpoint_scores_as_its_snapshot_does_and_its_rows_say_where_it_is_from(place, call):
    write(place)
    code, out, err = score(call, "faces.pkl", "--json")
    assert code == 0, err
    labels = {json.loads(line)["label"] for line in out.splitlines()}
    assert labels == {"faces (imported from stylegan2-ada-pytorch)"}
    records = read_records(place / "runs" / "imported-faces" / RESULTS)
    assert {r.metric for r in records} == {"toy_distance", "toy_path"}
    for record in records:
        assert record.source == "imported" and record.snapshot == "faces.pkl" and record.kimg is None
        assert record.training["imported"]["file"] == "faces.pkl"
        assert record.training["imported"]["file_sha256"] == record.snapshot_sha256
    assert "nothing left to do" in score(call, "faces.pkl")[2]
    code, _, err = call("recompute", "runs/imported-faces", "--device", "cpu")
    assert code == 1 and "score faces.pkl with fact-eval run" in err
    assert call("convert", "faces.pkl", "--out", "ours.safetensors")[:2] == (0, "ours.safetensors\n")
    assert score(call, "ours.safetensors", "--out", "other")[0] == 0
    again = read_records(place / "other" / "imported-ours" / RESULTS)
    assert {r.metric: r.value for r in again} == {r.metric: r.value for r in records}
    assert again[0].label == "ours (imported from stylegan2-ada-pytorch)"


def test_an_imported_row_needs_no_training_commit_and_stands_on_the_board(place, call):
    write(place)
    score(call, "faces.pkl")
    records = read_records(place / "runs" / "imported-faces" / RESULTS)
    clean = {**records[0].provenance, "git": {"commit": "a" * 40, "dirty": False}}
    assert git_problem(dataclasses.replace(records[0], provenance=clean)) is None
    assert "scored" in git_problem(dataclasses.replace(records[0], provenance=clean | {"git": None}))
    rows = [row for section in build_board([], local=records) for row in section.ranked]
    assert [row.label for row in rows] == ["faces (imported from stylegan2-ada-pytorch)"]


def test_labels_of_the_data_condition_an_imported_network(place, call):
    write(place, classes=3)
    assert score(call, "faces.pkl")[0] == 0
    write(place, "five.pkl", classes=5)
    code, _, err = score(call, "five.pkl")
    assert code == 1 and "is conditional on 5 classes, toy has 3" in err


def test_a_snapshot_of_a_run_scores_on_its_own_as_in_its_run(place, call):
    run = make_run(place / "runs", place / "toy")
    snapshot = next(run.glob("*.safetensors"))
    assert call("run", run, "--metrics", "toy_distance", "--device", "cpu")[0] == 0
    assert call("run", snapshot, "--metrics", "toy_distance", "--device", "cpu", "--data", "toy")[0] == 0
    alone = read_records(place / "runs" / f"imported-{snapshot.stem}" / RESULTS)[0]
    assert alone.value == read_records(run / RESULTS)[0].value and alone.kimg == 4
    assert "imported from fact-stylegan" in alone.label


def test_a_file_of_statistics_stands_for_the_images(monkeypatch, tmp_path, call):
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path / "toy"), write(tmp_path)
    code, _, err = call("ref", "toy", "--save", "s.safetensors", "--detector", "pixels", "--device", "cpu")
    assert code == 0, err
    for data, out in (("toy", "a"), ("s.safetensors", "b")):
        named = ("--metrics", "fid30_full_pixels", "--device", "cpu")
        assert call("run", "faces.pkl", "--data", data, "--out", out, *named)[0] == 0
    a, b = (read_records(tmp_path / out / "imported-faces" / RESULTS)[0].value for out in "ab")
    assert a == pytest.approx(b, rel=1e-5)  # moments of float64 rows, saved as float64
    refused = call("run", "faces.pkl", "--data", "s.safetensors", "--metrics", "kid30_full_pixels")
    assert refused[0] == 1 and "s.safetensors" in refused[2]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "faces.pkl"], "add --data NAME|PATH"),
        (["run", "faces.pkl", "--data", "toy", "--snapshot", "all"], "faces.pkl is one file"),
        (["run", "rgb.pkl", "--data", "toy"], "has channels 3, toy has 1"),
        (["run", "large.pkl", "--data", "toy"], "has resolution 16, toy has 8"),
        (["run", "runs/toy-seed0", "--out", "x"], "--out x is for a checkpoint file"),
        (["convert", "none.pkl"], "does not exist"),
        (["convert", "faces.pkl", "--out", "rgb.pkl"], "rgb.pkl exists"),
        (
            ["convert", "runs/toy-seed0/network-snapshot-000004.safetensors", "--out", "x"],
            "is a snapshot already",
        ),
        (["convert", "harm.pkl", "--out", "x"], "names posix.mkdir"),
        (["run", "harm.pkl", "--data", "toy"], "names posix.mkdir"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(place, call, argv, message):
    import os
    import pickle

    from benchmarks.hostile.files import Call

    make_run(place / "runs", place / "toy")
    write(place), write(place, "rgb.pkl", channels=3), write(place, "large.pkl", resolution=16)
    (place / "harm.pkl").write_bytes(pickle.dumps({"G_ema": Call(os.mkdir, "harm")}))
    code, out, err = call(*argv, *(["--metrics", "toy_distance"] if argv[0] == "run" else []))
    lines = [line for line in err.splitlines() if line.startswith("fact-eval:")]
    assert code in (1, 2) and out == "" and len(lines) == 1 and message in lines[0], err
    assert "Traceback" not in err and not (place / "harm").exists() and not (place / "x").exists()


def test_convert_tells_what_was_assumed_and_exports(place, call):
    _, G, D = toy_networks(**{**TINY, "channels": 3})
    torch.save(rosinality(G, D), place / "r.pt")
    code, out, err = call("convert", "r.pt")
    assert (code, out) == (0, "r.safetensors\n")
    assert "note: lr_mlp is taken as 0.01" in err and "note: w_avg is the mean w" in err
    loaded = load_snapshot(place / "r.safetensors")
    assert loaded.origin["format"] == "rosinality/stylegan2-pytorch"
    assert call("convert", "r.safetensors", "--to", "stylegan2-ada", "--out", "e.safetensors")[0] == 0
    from safetensors.torch import load_file

    exported = load_file(place / "e.safetensors")
    assert torch.equal(exported["G_ema.synthesis.b8.conv0.weight"], G.synthesis.b8.conv0.inject.weight)
