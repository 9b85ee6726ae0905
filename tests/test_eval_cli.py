"""The command line: data on stdout, one line per mistake on stderr, the exit codes of the house."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import typer
from eval_toys import COUNT, TRAIN, make_data, make_pictures, make_record, make_run, register_toys
from PIL import Image

import fact_metrics.registry
from fact_eval.commands.options import finish
from fact_eval.jobs.plan import Request, plan_run
from fact_eval.jobs.runs import read_run
from fact_leaderboard import columns
from fact_leaderboard.records import RESULTS, append_records, read_records
from fact_leaderboard.self_check import check_results
from fact_metrics.registry import list_specs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture
def toys(monkeypatch, tmp_path):
    """Toy metrics, which are the board's columns; the working folder and the cache are this test's own."""
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    register_toys()
    names = ("toy_distance", "toy_distance_test", "toy_sharpness", "toy_path")
    monkeypatch.setattr(columns, "COLUMNS", tuple(columns.Column(name, name) for name in names))
    monkeypatch.setattr("fact_leaderboard.publish.RESULTS", tmp_path / "published")
    (tmp_path / "published").mkdir()


def error_line(result):
    """The one line that a mistake leaves: nothing on stdout, no traceback."""
    _, out, err = result
    lines = [line for line in err.splitlines() if line]
    assert out == "" and len(lines) == 1 and lines[0].startswith("fact-eval: "), (out, err)
    return lines[0]


def test_all_scores_prints_a_board_and_then_does_nothing(tmp_path, data, toys, call):
    make_run(tmp_path / "runs", data), make_run(tmp_path / "runs", data, seed=1)
    code, out, err = call("all", "runs", "--device", "cpu")
    assert code == 0
    assert out.startswith("toy, 8x8, gray") and "not published" in out and "uniform noise" in out
    board = (tmp_path / "runs" / "LEADERBOARD.md").read_text()
    assert board.startswith("# Leaderboard") and "Made by `fact-eval all runs`" in board
    assert "14 records written, 0 failed" in err and "next: fact-eval publish runs" in err
    code, again, err = call("all", "runs")
    assert (code, again) == (0, out) and "nothing left to do" in err


def test_published_control_rows_are_shown_and_not_measured_again(tmp_path, data, toys, call):
    make_run(tmp_path / "runs", data)
    call("all", "runs")
    call("publish", "runs/controls", "--allow-dirty")
    shutil.rmtree(tmp_path / "runs" / "controls")
    code, out, err = call("all", "runs")
    assert code == 0 and "nothing left to do" in err
    assert "uniform noise" in out and "real images, held out" in out
    assert "6 records written" in call("all", "runs", "--force", "--metrics", "toy_distance,toy_sharpness")[2]


def test_all_prints_the_tables_that_the_runs_are_in_and_names_the_others(
    tmp_path, data, toys, call, monkeypatch
):
    from fact_leaderboard import publish

    make_run(tmp_path / "runs", data)
    own = publish.write_local_board

    def with_a_published_table(root, **options):
        sections, path = own(root, **options)
        (section,) = sections
        rows = [dataclasses.replace(row, label="elsewhere", local=False) for row in section.ranked]
        other = dataclasses.replace(section, ranked=tuple(rows), controls=(), unranked=())
        return [*sections, other], path

    monkeypatch.setattr(publish, "write_local_board", with_a_published_table)
    code, out, err = call("all", "runs")
    assert code == 0 and "elsewhere" not in out and "results alone, left out here: 1" in err
    assert "elsewhere" in call("all", "runs", "--json")[1]


def test_all_prints_the_board_as_json_when_asked(tmp_path, data, toys, call):
    make_run(tmp_path / "runs", data)
    code, out, _ = call("all", "runs", "--json", "--no-controls")
    (section,) = json.loads(out)
    assert code == 0 and section["controls"] == []
    (row,) = section["ranked"]
    assert set(row["metrics"]) == {"toy_distance", "toy_distance_test", "toy_sharpness", "toy_path"}
    assert row["published"] is False and row["train_seeds"] == [0]


def test_a_failure_is_summed_up_and_exits_with_1(tmp_path, data, toys, call):
    make_run(tmp_path / "runs", data)
    bad = make_run(tmp_path / "runs", data, seed=1)
    snapshot = bad / "network-snapshot-000004.safetensors"
    snapshot.write_bytes(snapshot.read_bytes()[:1000])
    code, out, err = call("all", "runs")
    assert code == 1 and "not published" in out
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1 and "4 metrics" in failed[0] and "truncated or damaged" in failed[0]


def test_runs_that_cannot_be_read_stop_no_other_and_are_summed_up(tmp_path, data, toys, call):
    runs = tmp_path / "runs"
    make_run(runs, data)
    (make_run(runs, data, seed=1) / "training_options.json").write_text("{")
    (make_run(runs, data, seed=2) / "network-snapshot-000004.safetensors").write_bytes(b"torn")
    (make_run(runs, data, seed=3) / "network-snapshot-000004.safetensors").unlink()
    (make_run(runs, data, seed=4) / RESULTS).write_text("no record\n")
    code, out, err = call("all", "runs", "--no-controls")
    assert code == 1 and "4 records written, 4 failed in 1 of 2 sources" in err
    assert len([r for r in read_records(runs / "toy-seed0" / RESULTS) if r.status == "ok"]) == 4
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 4
    for seed, why in enumerate(("cannot be read", "truncated or damaged", "no snapshot yet", "line 1 is"), 1):
        assert any(f"toy-seed{seed}" in line and why in line for line in failed), (seed, failed)
    assert "toy" in out and "toy" in (runs / "LEADERBOARD.md").read_text()
    code, out, err = call("show", "runs")
    assert code == 1 and "toy-seed0" in out and err.count("line 1 is") == 1


def test_run_prints_records_and_takes_metrics_and_seeds(tmp_path, data, toys, call):
    folder = make_run(tmp_path / "runs", data)
    code, out, _ = call("run", folder, "--metrics", "toy_path,toy_sharpness", "--seeds", "0-2", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {(r["metric"], r["seed"]) for r in records} == {
        (m, s) for m in ("toy_path", "toy_sharpness") for s in range(3)
    }
    code, out, _ = call("show", folder)
    assert code == 0 and out.count("toy_path") == 3


def test_force_measures_again_and_keeps_history(tmp_path, data, toys, call):
    folder = make_run(tmp_path / "runs", data)
    for extra in ((), ("--force",)):
        assert call("run", folder, "--metrics", "toy_path", *extra)[0] == 0
    assert len(read_records(folder / RESULTS)) == 2


def test_images_scores_a_folder_and_ref_its_controls(tmp_path, data, toys, call):
    make_pictures(tmp_path / "mine", COUNT)
    code, out, err = call("images", "mine", "--reference", data)
    assert code == 0 and "images-mine" in out and "left out: toy_path needs a generator" in err
    code, out, _ = call("ref", data)
    assert code == 0 and "reals-toy" in out and "noise-toy" in out


def test_compare_says_which_is_better_and_why_it_cannot(tmp_path, data, toys, call):
    a, b = make_run(tmp_path / "runs", data), make_run(tmp_path / "runs", data, seed=1)
    call("run", a, "--seeds", "0-3")
    call("run", b, "--seeds", "0-3")
    code, out, _ = call("compare", a, b, "--json")
    compared = {c["metric"]: c for c in json.loads(out)}
    assert code == 0 and compared["toy_sharpness"]["difference"]["method"] == "paired t, n=4"
    assert compared["toy_sharpness"]["better"] in ("A", "B", "tie")
    assert call("compare", a, a)[1].count("tie") == 4


def test_publish_refuses_uncommitted_code_and_the_board_lists_it_unranked(
    tmp_path, data, toys, call, monkeypatch
):
    monkeypatch.setattr("fact_metrics.base.provenance.git_state", lambda: {"commit": "c" * 40, "dirty": True})
    make_run(tmp_path / "runs", data)
    call("all", "runs")
    published = tmp_path / "published"
    code, out, err = call("publish", "runs", "--results", published)
    assert code == 1 and "uncommitted code" in err and out == "" and not list(published.iterdir())
    code, out, _ = call("publish", "runs", "--results", published, "--allow-dirty")
    assert code == 0 and len(out.splitlines()) == 3
    board = tmp_path / "BOARD.md"
    assert call("leaderboard", "--results", published, "--out", board)[0] == 0
    unranked = board.read_text().split("Not ranked:")[1]
    assert "scored with uncommitted code" in unranked


def test_the_board_is_checked_and_stale_after_an_edit(tmp_path, toys, call):
    board, published = tmp_path / "BOARD.md", tmp_path / "published"
    where = ("--results", published, "--out", board)
    assert call("leaderboard", *where, "--check")[0] == 1
    assert call("leaderboard", *where)[0] == 0
    assert call("leaderboard", *where, "--check")[0] == 0
    assert "nothing left to do" in call("leaderboard", *where)[2]
    board.write_text(board.read_text() + "\n")
    code, out, err = call("leaderboard", *where, "--check")
    assert code == 1 and out == "" and "is stale" in err


def test_list_names_metrics_and_detectors_with_direction_and_source(toys, call):
    code, out, _ = call("list")
    assert code == 0 and "toy_path ↓" in out and "toy_sharpness ↑" in out and "spectrum" in out
    listed = json.loads(call("list", "--json")[1])
    assert {m["name"] for m in listed["metrics"]} == set(fact_metrics.registry.FAMILIES)
    assert all(d["fingerprint"] for d in listed["detectors"])


def test_the_cache_is_listed_verified_and_cleared(tmp_path, data, toys, call):
    make_run(tmp_path / "runs", data)
    call("run", tmp_path / "runs" / "toy-seed0")
    assert {row["detector"] for row in json.loads(call("cache", "ls", "--json")[1])} == {"pixels", "spectrum"}
    assert "generator" in call("cache", "ls")[1]
    assert call("cache", "gc", "--max-gb", "0", "--dry-run")[0] == 0
    assert len(json.loads(call("cache", "ls", "--json")[1])) == 4
    assert call("cache", "verify")[0] == 0
    oldest, damaged, *_ = sorted((tmp_path / "cache" / "features").rglob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    code, _, err = call("cache", "verify")
    assert code == 1 and str(damaged) in err and str(oldest) not in err
    os.utime(oldest.with_name("key.json"), (0, 0))
    for days, going in (("100000", []), ("1", [oldest.parent.name[:12]])):
        out = call("cache", "gc", "--days", days, "--dry-run")[1]
        assert [line.split()[0] for line in out.splitlines()] == going
    assert call("cache", "gc", "--max-gb", "0")[0] == 0
    assert json.loads(call("cache", "ls", "--json")[1]) == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["al"], "Did you mean 'all'"),
        (["all", "runs", "--metric", "toy_path"], "--metrics"),
        (["all", "runs", "--batch", "0"], "--batch"),
        (["all"], "runs"),
        (["all", "nowhere"], "nowhere does not exist"),
        (["all", "empty"], "no run in empty"),
        (
            ["all", "runs", "--metrics", "toy_pth"],
            "metric 'toy_pth': unknown family 'toy_pth'; did you mean toy_path",
        ),
        (["all", "runs", "--seeds", "x"], "--seeds 'x'"),
        (["all", "runs", "--seeds", "429"], "between 0 and 428"),
        (["run", "empty"], "no run in empty"),
        (["images", "nowhere", "--reference", "mnist"], "nowhere does not exist"),
        (["images", "mine", "--reference", "minst"], "did you mean mnist"),
        (["show", "nowhere"], "nowhere is not a folder"),
        (["compare", "nowhere", "runs"], "nowhere is not a folder"),
        (["publish", "nowhere"], "nowhere is not a folder"),
        (["leaderboard", "--results", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(tmp_path, data, toys, call, argv, message):
    (tmp_path / "empty").mkdir()
    make_run(tmp_path / "runs", data)
    make_pictures(tmp_path / "mine", 4)
    result = call(*argv)
    assert result[0] == 2
    assert message in error_line(result)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["images", "empty", "--reference", "DATA"], "empty: holds no"),
        (["images", "few", "--reference", "DATA"], "few holds 3 pictures, too few for every metric: "),
        (
            ["images", "few", "--reference", "DATA", "--metrics", "toy_distance"],
            "needs 30 pictures, there are 3",
        ),
        (
            ["images", "few", "--reference", "s.npz"],
            "s.npz: no metric takes it: toy_distance needs 30 pictures, there are 3",
        ),
        (["images", "large", "--reference", "DATA"], "holds 16x16 pictures"),
        (["images", "oblong", "--reference", "DATA"], "not square; save the pictures at 8x8"),
        (["compare", "runs", "runs"], "runs has no records"),
    ],
)
def test_pictures_that_cannot_be_scored_are_one_line_and_leave_nothing(
    tmp_path, data, toys, call, argv, message
):
    (tmp_path / "empty").mkdir()
    make_run(tmp_path / "runs", data)
    make_pictures(tmp_path / "few", 3)
    make_pictures(tmp_path / "large", TRAIN, side=16)
    (tmp_path / "oblong").mkdir()
    Image.new("L", (16, 8)).save(tmp_path / "oblong" / "a.png")
    np.savez(tmp_path / "s.npz", mu=np.zeros(8), sigma=np.eye(8))
    before = sorted(tmp_path.rglob("*.jsonl"))
    result = call(*(data if a == "DATA" else a for a in argv))
    assert result[0] == 1
    assert message in error_line(result)
    assert sorted(tmp_path.rglob("*.jsonl")) == before


def test_a_broken_results_file_is_named_and_stops_no_other_run(tmp_path, data, toys, call):
    good, bad = make_run(tmp_path / "runs", data), make_run(tmp_path / "runs", data, seed=1)
    (bad / RESULTS).write_text("{broken}\n{broken}\n")
    code, out, err = call("run", bad)
    assert code == 1 and "results.jsonl line 1 is not a record" in error_line((code, out, err))
    assert call("run", good)[0] == 0


def test_a_damaged_options_file_is_named(tmp_path, data, toys, call):
    folder = make_run(tmp_path / "runs", data)
    (folder / "training_options.json").write_text("{")
    result = call("all", "runs")
    assert result[0] == 1 and "training_options.json cannot be read" in error_line(result)


def test_a_run_without_snapshot_fails_and_the_others_are_scored(tmp_path, data, toys, call):
    make_run(tmp_path / "runs", data), make_run(tmp_path / "runs", data, seed=1, kimgs=())
    code, out, err = call("all", "runs", "--no-controls")
    assert code == 1 and "4 records written" in err and "has no snapshot yet" in err and "toy" in out


def test_without_arguments_the_help_is_shown(call):
    code, out, _ = call()
    assert code == 0 and "leaderboard" in out and out == call("--help")[1]


def test_finding_nothing_to_do_needs_no_torch(tmp_path, data):
    # The planned records are made up here: scoring them for real takes minutes.
    folder = make_run(tmp_path / "runs", data)
    request = Request(tuple(list_specs()), defaults=columns.metrics_for)
    (job,) = plan_run(read_run(folder), request)
    assert len(job.missing) >= 8
    for spec, seed in job.missing:
        identity = {"run_id": job.run_id, "snapshot_sha256": job.content_sha256, "seed": seed}
        protocol = {"protocol": spec.protocol, "protocol_sha256": spec.protocol_sha256}
        metric = {"metric": spec.name, "metric_version": spec.version}
        append_records(folder / RESULTS, [make_record(**identity, **protocol, **metric)])
    environment = {**os.environ, "FACT_CACHE": str(tmp_path / "cache")}

    def python(code):
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    again = python(
        f"import sys; from fact_eval import cli; code = cli._run(['run', {str(folder)!r}]);"
        "print(code, 'torch' in sys.modules, file=sys.stderr)"
    )
    assert "nothing left to do" in again.stderr and again.stderr.splitlines()[-1] == "0 False", again.stderr
    board = python(
        "import sys; from fact_eval import cli;"
        f"code = cli._run(['all', {str(folder.parent)!r}, '--no-controls']);"
        "print(code, 'torch' in sys.modules, file=sys.stderr)"
    )
    assert "nothing left to do" in board.stderr and board.stderr.splitlines()[-1] == "0 False", board.stderr


def wait_for(path, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists(), process.communicate()


SLOW = """
import sys, time, pathlib
sys.path.insert(0, sys.argv[1])
import torch, fact_metrics.registry
from eval_toys import register_toys
from metric_toys import toy_metric
fact_metrics.registry.FAMILIES.clear()
@toy_metric(needs_generator=True)
def slow(inputs):
    "Waits."
    pathlib.Path("started").touch()
    time.sleep(60)
register_toys()
from fact_eval.cli import main
main(["run", sys.argv[2], "--metrics", "toy_path,slow,toy_distance", "--device", "cpu"])
"""


def test_sigterm_keeps_what_is_done_and_says_to_run_again(tmp_path, data):
    folder = make_run(tmp_path / "runs", data)
    command = [sys.executable, "-c", SLOW, os.path.dirname(__file__), str(folder)]
    environment = {**os.environ, "FACT_CACHE": str(tmp_path / "cache")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)
    wait_for(tmp_path / "started", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert err.splitlines()[-1].endswith("run the same command again") and "Traceback" not in err
    statuses = {r.metric: r.status for r in read_records(folder / RESULTS)}
    assert statuses == {"toy_path": "ok", "slow": "cancelled"}


def test_ctrl_c_says_to_run_again(tmp_path, data, toys, call):
    def interrupted(spec, inputs):
        raise KeyboardInterrupt

    toy = fact_metrics.registry.FAMILIES["toy_path"]
    fact_metrics.registry.FAMILIES["toy_path"] = dataclasses.replace(toy, compute=interrupted)
    folder = make_run(tmp_path / "runs", data)
    code, _, err = call("run", folder)
    assert (
        code == 130 and err.splitlines()[-1].endswith("run the same command again") and "Traceback" not in err
    )
    assert {r.metric: r.status for r in read_records(folder / RESULTS)}["toy_path"] == "cancelled"


def test_a_refusal_has_twenty_lines_and_counts_the_others(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text("no record\n" * 50)
    with pytest.raises(typer.Exit) as end:
        finish(check_results(tmp_path))
    lines = capsys.readouterr().err.splitlines()
    assert end.value.exit_code == 1 and len(lines) == 20
    assert "a.jsonl line 19: not a record" in lines[18]
    assert lines[19] == "failed: 31 more; fix those above first"
