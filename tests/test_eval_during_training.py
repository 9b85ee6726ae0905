"""Scoring while training: the records of scoring afterwards, the network of not scoring, nothing lost."""

import dataclasses
import multiprocessing
import os
import sys

import pytest
from eval_toys import make_data, register_toys
from test_eval_processes import free_port

import fact_metrics.registry
from fact_eval import cli
from fact_eval.scoring.during_training import SnapshotScorer, choose_due
from fact_leaderboard.records import RESULTS, read_records
from fact_metrics.base.errors import UsageError
from fact_train import cli as train_cli
from fact_train.settings.presets import PRESETS
from fact_train.training.loop import train

NAMES = ("toy_distance", "toy_path")


@pytest.fixture
def toys(monkeypatch, tmp_path):
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    register_toys(broken=True)


@pytest.fixture
def config(tiny_config, tmp_path):
    data = make_data(tmp_path / "data")
    fast = {"batch": 50, "mbstd_group_size": 5, "r1_gamma": 0.0, "pl_weight": 0.0}
    return dataclasses.replace(tiny_config, data=str(data), kimg=2, kimg_per_tick=1, **fast)


def run(config, outdir, scorer=None):
    return train(config, outdir, preset="toy", label="toy", after_snapshot=scorer)


def scored(folder):
    return sorted((r.kimg, r.metric) for r in read_records(folder / RESULTS) if r.status == "ok")


def values(folder):
    return {(r.kimg, r.metric): r.value for r in read_records(folder / RESULTS) if r.status == "ok"}


def test_due_is_the_first_snapshot_after_each_multiple_and_the_last():
    assert choose_due([1, 2, 3, 4], None, done=False) == {1, 2, 3, 4}
    assert choose_due([3, 6, 9, 12], 5, done=False) == {6, 12}
    assert choose_due([3, 6, 9, 12, 13], 5, done=True) == {6, 12, 13}
    assert choose_due([1, 20], 5, done=False) == {20}
    assert choose_due([], 5, done=True) == set()


def test_records_are_those_of_scoring_afterwards_and_the_network_that_of_not_scoring(tmp_path, config, toys):
    with_scores = run(config, tmp_path / "with", SnapshotScorer(NAMES, every_kimg=2))
    assert scored(tmp_path / "with") == [(2, name) for name in NAMES]
    without = run(config, tmp_path / "without")
    assert with_scores.snapshot.read_bytes() == without.snapshot.read_bytes()
    command = ["run", str(tmp_path / "without"), "--snapshot", "all", "--metrics", ",".join(NAMES)]
    assert cli._run(command) == 0
    afterwards = values(tmp_path / "without")
    assert len(afterwards) == 4
    for key, value in values(tmp_path / "with").items():
        assert value == afterwards[key]


def test_what_a_killed_run_left_unscored_is_scored_when_it_goes_on(tmp_path, config, toys):
    folder = tmp_path / "run"
    run(dataclasses.replace(config, kimg=1), folder)  # as if it were killed before it could score
    run(config, folder, SnapshotScorer(NAMES, every_kimg=1))
    assert scored(folder) == [(k, name) for k in (1, 2) for name in NAMES]
    before = (folder / RESULTS).read_bytes()
    result = run(config, folder, SnapshotScorer(NAMES, every_kimg=1))  # complete: nothing is done again
    assert not result.trained and (folder / RESULTS).read_bytes() == before


def test_a_failing_metric_is_told_and_training_goes_on(tmp_path, config, toys):
    scorer = SnapshotScorer(("toy_failing", "toy_distance"), every_kimg=None)
    result = run(config, tmp_path / "run", scorer)
    assert result.nimg == 2000 and len(scorer.problems) == 2
    assert "not scored: " in (tmp_path / "run" / "log.txt").read_text()
    assert len(scored(tmp_path / "run")) == 2


def test_broken_records_do_not_stop_training(tmp_path, config, toys):
    run(dataclasses.replace(config, kimg=1), tmp_path / "run")
    (tmp_path / "run" / RESULTS).write_text("no record\n")
    scorer = SnapshotScorer(NAMES, every_kimg=None)
    assert run(config, tmp_path / "run", scorer).nimg == 2000
    assert "line 1 is not a record" in scorer.problems[0]


def one_of_two(rank, port, config, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    run(config, folder, SnapshotScorer(NAMES, every_kimg=2))
    os._exit(0)


def test_two_training_processes_score_together(tmp_path, config, toys):
    port, start = free_port(), multiprocessing.get_context("fork").Process
    both = [start(target=one_of_two, args=(rank, port, config, tmp_path / "run")) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
        assert process.exitcode == 0
    assert scored(tmp_path / "run") == [(2, name) for name in NAMES]
    assert {r.provenance["world_size"] for r in read_records(tmp_path / "run" / RESULTS)} == {2}


def test_unknown_metrics_and_intervals_are_refused_before_training(tmp_path, toys):
    with pytest.raises(UsageError, match="metric 'fid5k': unknown family"):
        SnapshotScorer(["fid5k"], every_kimg=None)
    for names, kimg, message in [
        (None, 4.0, "--eval-kimg 4 needs --eval METRICS"),
        ("toy_distance", 0.0, "--eval-kimg 0: it must be positive"),
        ("toy_distanc", None, "did you mean toy_distance"),
    ]:
        with pytest.raises(UsageError, match=message):
            train_cli._scorer(names, kimg)


def test_the_flags_reach_the_run(tmp_path, config, toys, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "toy", dataclasses.replace(PRESETS["mnist"], config=config))
    monkeypatch.setattr(sys, "argv", ["fact-train", "--preset", "toy", "--eval", "toy_distance,toy_failing"])
    with pytest.raises(SystemExit) as ended:
        train_cli.main()
    assert ended.value.code == 1 and "but 2 scores failed; repeat: fact-eval run" in capsys.readouterr().err
    assert scored(tmp_path / "runs" / "toy-seed0") == [(1, "toy_distance"), (2, "toy_distance")]
