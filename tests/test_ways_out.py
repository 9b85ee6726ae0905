"""Messages that used to advise the wrong thing, or nothing: each names what to do."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import encode, image_files, rgb, write_files
from eval_toys import make_data, make_record, make_run, register_toys
from PIL import Image

import fact_metrics.registry
from fact_eval.compare.folders import compare_folders
from fact_eval.images.reals import RealImages
from fact_eval.jobs.plan import Request, plan_run, unwritable
from fact_eval.jobs.runs import read_run
from fact_leaderboard.records import read_records
from fact_metrics.base.atomic import write_text
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.registry import get_spec, list_specs
from fact_train.data import open_dataset


def test_a_record_of_a_newer_version_is_not_to_be_removed(tmp_path):
    newer = json.loads(make_record().to_json()) | {"schema": 99}
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(newer) + "\n")
    with pytest.raises(UserError, match=r"line 1 was written by a newer version .*: update fact-stylegan$"):
        read_records(path)
    path.write_text(json.dumps(newer | {"schema": 0}) + "\n")
    with pytest.raises(UserError, match="remove the line"):
        read_records(path)


def test_a_run_of_a_newer_version_asks_for_an_update(tmp_path):
    run = make_run(tmp_path, make_data(tmp_path / "data"))
    options = run / "training_options.json"
    newer = json.loads(options.read_text()) | {"schema": 99, "dataset": "of another shape"}
    options.write_text(json.dumps(newer))
    with pytest.raises(UserError, match=r"written by a newer version \(schema 99\); update fact-stylegan\.$"):
        read_run(run)
    options.write_text(json.dumps(newer | {"schema": 1}))
    with pytest.raises(UserError, match=r"cannot be read \(dataset: .*restore it"):
        read_run(run)


def test_the_missing_folder_of_two_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        compare_folders(tmp_path / "a", tmp_path / "nowhere")


def test_real_images_that_are_not_there_say_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=rf"not there: .*'d/gray'.*\(a path below {tmp_path}\); .* with --data"
    ):
        RealImages("d/gray", train={}).dataset("train")


def test_an_unfinished_metric_name_is_completed():
    with pytest.raises(
        UsageError, match=r"'fid10k': the split is missing: .*, such as fid10k_full_\w+$"
    ) as found:
        get_spec("fid10k")
    completed = str(found.value).rpartition(" ")[2]
    assert get_spec(completed).name == completed


def test_records_that_cannot_be_written_are_known_before_measuring(tmp_path, monkeypatch):
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    register_toys()
    data = make_data(tmp_path / "data")
    run = make_run(tmp_path / "runs", data)
    (job,) = plan_run(read_run(run), Request(tuple(list_specs())))
    assert unwritable(job) is None
    job = dataclasses.replace(job, results=tmp_path / "not" / "yet" / "results.jsonl")
    assert unwritable(job) is None
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"{tmp_path} is read-only; make it writable, or copy the run" in unwritable(job)


def test_a_missing_folder_is_no_full_disk(tmp_path):
    with pytest.raises(UserError, match=r"No such file or directory\. Create its folder first\."):
        write_text(tmp_path / "no" / "a.txt", "x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.png", r"a\.png: a single picture; give the folder that holds it \(.*\)"),
        ("stats.npz", "feature statistics, no images; give the images"),
        ("a.safetensors", "tensors, no images; give a folder"),
    ],
)
def test_a_file_that_is_no_dataset_says_what_to_give(tmp_path, name, message):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    np.savez(tmp_path / "stats.npz", mu=np.zeros(3), sigma=np.eye(3))
    (tmp_path / "a.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match=message):
        open_dataset(tmp_path / name)


def test_a_line_end_in_a_file_name_does_not_break_the_message(tmp_path):
    write_files(tmp_path, {"bad\nline\x1b.png": b"text"})
    with pytest.raises(UserError, match=r"bad\\nline\\x1b\.png: not a PNG"):
        open_dataset(tmp_path)


def fact(command, *arguments, cwd):
    call = f"import sys; from {command}.cli import main; sys.argv[0] = 'x'; main()"
    argv = [sys.executable, "-c", call, *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, cwd=cwd, timeout=60, check=False)


def test_pillows_own_warnings_are_not_shown(tmp_path):
    """A picture above Pillow's warning limit and ours: one line, and no warning of Python's."""
    large = Image.new("1", (10_000, 10_000))
    path = write_files(tmp_path / "set", image_files(1) | {"large.png": encode(large)})
    found = fact("fact_eval", "audit", path, cwd=tmp_path)
    assert found.returncode == 1 and "100,000,000 pixels" in found.stdout
    assert "Warning" not in found.stderr and "Traceback" not in found.stderr


def test_mistakes_are_told_before_the_configuration_and_without_torch(tmp_path):
    """What is cheap to know is known first: the paths, the device, the resolution, a folder's other run."""
    taken = tmp_path / "taken"
    taken.mkdir()
    start = ["--preset", "mnist-stylegan2", "--outdir", "r"]
    for arguments, message in (
        (["--data", "nowhere"], "unknown dataset or path 'nowhere'"),
        (["--device", "tpu"], "--device tpu: use auto"),
        (["--resolution", "4"], "--resolution 4: the networks need"),
        (["--kimg", "nan"], "--kimg nan: it must be a finite number"),
    ):
        code = "import sys; sys.modules['torch'] = None; from fact_train.cli import main; main()"
        found = subprocess.run(
            [sys.executable, "-c", code, *start, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        assert found.returncode == 2, found.stderr
        assert found.stderr.startswith(f"fact-train: {message}") and found.stderr.count("\n") == 1


def test_cond_without_labels_is_refused_before_any_image_is_decoded(tmp_path, monkeypatch):
    from fact_train.data import folder

    monkeypatch.setattr(folder, "decode", lambda *_, **__: pytest.fail("decoded"))
    monkeypatch.setattr(folder, "read_header", lambda *_: pytest.fail("read"))
    path = write_files(tmp_path, {f"{kind}/{i}.png": encode(rgb(i)) for i in range(2) for kind in "ab"})
    with pytest.raises(UsageError, match=r"--cond: .* or add --labels folders for its folders a, b"):
        open_dataset(path, need_labels=True)
    np.savez(tmp_path / "a.npz", np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match=r"--cond: .* save class indices"):
        open_dataset(tmp_path / "a.npz", need_labels=True)


FULL = """
import errno, sys
from pathlib import Path
from fact_train.training import stats
from fact_train.training.run_log import RunLog
def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device", "stats.jsonl")
stats.StatsWriter.write = full
from fact_train.cli import main
main()
"""


def test_a_disk_that_fills_during_training_is_one_line(tmp_path, tiny_images: Path):
    small = ["--channel-base", "64", "--channel-max", "8", "--z-dim", "8", "--w-dim", "8", "--batch", "8"]
    argv = ["--preset", "mnist-stylegan2", "--data", tiny_images, "--resolution", "8", "--kimg", "0.02"]
    argv += [*small, "--kimg-per-tick", "0.01", "--device", "cpu", "--threads", "1", "--outdir", "r"]
    found = subprocess.run(
        [sys.executable, "-c", FULL, *map(str, argv)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert found.returncode == 1 and "Traceback" not in found.stderr, found.stderr
    assert found.stderr.splitlines()[-1].startswith(
        "fact-train: stats.jsonl: No space left on device; run the"
    )
