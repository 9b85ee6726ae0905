"""`fact-eval all --executor`: one run a task, with the records of a single process."""

import os
import sys
from pathlib import Path

import pytest
from eval_toys import make_data, make_run
from test_eval_cli import error_line, toys  # noqa: F401

from fact_eval.scoring import tasks
from fact_leaderboard.records import RESULTS, read_records
from fact_train.sweeps import sweep

# fact-eval in a process that knows the toy metrics.
PROGRAM = (
    "import sys, fact_metrics.registry as registry; registry.FAMILIES = {}\n"
    "from eval_toys import register_toys; register_toys(broken='broken' in sys.argv[2])\n"
    "from fact_eval.cli import main; main(sys.argv[1:])"
)


@pytest.fixture
def commands(monkeypatch, toys):  # noqa: F811
    """The arguments of every task; tasks run the toys."""
    given: list[list[str]] = []

    def worker(module: str, arguments: list[str]) -> tuple[str, ...]:
        assert module == "fact_eval"
        given.append(list(arguments))
        return (sys.executable, "-c", PROGRAM, *arguments)

    monkeypatch.setattr(tasks, "worker_command", worker)
    monkeypatch.setattr(sweep, "LOOK", 0.1)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return given


def values(root: Path) -> dict:
    return {
        (record.run_id, record.metric, record.seed): (record.value, record.status)
        for path in root.rglob(RESULTS)
        for record in read_records(path)
    }


def test_tasks_write_the_records_of_one_process(tmp_path, commands, call) -> None:
    data = make_data(tmp_path / "toy")
    for root in ("alone", "tasks"):
        for seed in (0, 1):
            make_run(tmp_path / root, data, seed=seed)
    options = ("--device", "cpu", "--seeds", "0,1", "--metrics", "toy_distance,toy_sharpness")
    assert call("all", "alone", *options)[0] == 0
    code, out, err = call("all", "tasks", *options, "--executor", "local", "--jobs", "2")
    assert code == 0 and "2 of 2 finished" in err and "uniform noise" in out
    assert len(commands) == 2 and all("--seeds=0,1" in given for given in commands)
    assert values(tmp_path / "tasks") == values(tmp_path / "alone") and len(values(tmp_path / "alone")) == 16
    code, again, err = call("all", "tasks", *options, "--executor", "local")
    assert (code, again) == (0, out) and "nothing left to do" in err and len(commands) == 2


def test_a_run_that_fails_is_named_and_stops_no_other(tmp_path, commands, call) -> None:
    data = make_data(tmp_path / "toy")
    good, bad = (make_run(tmp_path / "runs", data, seed=seed) for seed in (0, 1))
    snapshot = next(bad.glob("*.safetensors"))
    snapshot.write_bytes(snapshot.read_bytes()[:200])
    argv = ("all", "runs", "--device", "cpu", "--metrics", "toy_sharpness", "--no-controls")
    code, _, err = call(*argv, "--executor", "local")
    assert code == 1 and f"failed: {bad.relative_to(tmp_path)}: " in err
    assert [record.status for record in read_records(good / RESULTS)] == ["ok"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--jobs", "2"), "--jobs 2 needs --executor"),
        (("--executor", "locl"), "unknown executor 'locl'; did you mean local"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, toys, call, argv, message) -> None:  # noqa: F811
    result = call("all", "runs", *argv)
    assert result[0] == 2 and message in error_line(result)
