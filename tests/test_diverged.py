"""A run that diverges leaves a record, which is published and counted; records hold the time of training."""

import json
import sys
from pathlib import Path

import pytest
from board_toys import DIRTY, record, toy_columns  # noqa: F401
from eval_toys import make_data, make_run

from fact_eval.jobs.plan import describe_training
from fact_eval.jobs.runs import read_run
from fact_eval.scoring.diverged import record_divergence
from fact_leaderboard.build import build_board
from fact_leaderboard.publish import publish_records
from fact_leaderboard.records import DIVERGED, read_records
from fact_leaderboard.render import board_json, render_board, seeds_text
from fact_metrics.base.errors import UserError
from fact_train import cli


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs fact-train in this process on toy pictures; returns its exit code and run folder."""
    data = make_data(tmp_path / "data", splits={"train": 16})

    def run(*flags: str) -> tuple[int, Path]:
        small = "--channel-base 64 --channel-max 8 --z-dim 8 --w-dim 8 --batch 8 --kimg 0.2 --threads 1"
        argv = ["--preset", "cifar", "--data", str(data / "train"), "--resolution", "8", *small.split()]
        monkeypatch.setattr(sys, "argv", ["fact-train", *argv, "--outdir", str(tmp_path / "run"), *flags])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, tmp_path / "run"

    return run


def test_a_run_that_diverges_leaves_one_record(train, tmp_path: Path) -> None:
    for _ in range(2):  # the same command diverges again
        code, folder = train("--g-lr", "1e30", "--d-lr", "1e30")
        assert code == 1
        (record,) = read_records(folder / "results.jsonl")
    options = json.loads((folder / "training_options.json").read_text())
    assert (record.metric, record.value, record.status) == (DIVERGED, 1.0, "ok")
    assert (record.config_sha256, record.train_seed) == (options["config_sha256"], 0)
    assert record.kimg < 0.2 and record.extras["step"] == round(record.kimg * 1000 / 8)
    changed, refused = publish_records([folder], tmp_path / "results", allow_dirty=True)
    assert len(changed) == 1 and not refused
    assert build_board(read_records(changed[0])) == []  # no row on a board


@pytest.mark.parametrize("text", ["{}", "[" * 100_000, '{"kimg": "x"}', ""])
def test_a_broken_diverged_json_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    folder = make_run(tmp_path, make_data(tmp_path / "data"))
    (folder / "diverged.json").write_text(text)
    with pytest.raises(UserError, match=r"diverged\.json cannot be read .*delete it") as error:
        record_divergence(folder)
    assert "\n" not in str(error.value) and not (folder / "results.jsonl").exists()


def test_a_run_that_trains_leaves_no_record(train) -> None:
    code, folder = train()
    assert code == 0 and not (folder / "results.jsonl").exists()


def test_the_time_of_training_is_the_sum_of_the_ticks_up_to_the_snapshot(tmp_path: Path) -> None:
    folder = make_run(tmp_path, make_data(tmp_path / "data"))
    ticks = [(2000, 3.0), (4000, 5.0), (6000, 7.0)]
    lines = [json.dumps({"nimg": nimg, "Timing/sec_per_kimg": s}) for nimg, s in ticks]
    (folder / "stats.jsonl").write_text("\n".join([*lines, '{"nimg": 80']))  # a torn last line
    run = read_run(folder)
    assert describe_training(run, kimg=4)["seconds"] == 2 * 3.0 + 2 * 5.0
    assert describe_training(run, kimg=6)["seconds"] == 2 * 3.0 + 2 * 5.0 + 2 * 7.0
    (folder / "stats.jsonl").unlink()
    assert "seconds" not in describe_training(run, kimg=4)


def test_a_row_says_how_many_of_its_seeds_diverged() -> None:
    """Of the same configuration, from clean code, and not trained with success later."""
    common = dict(metric=DIVERGED, kimg=1.0, snapshot=None, protocol={"metric": DIVERGED})
    trained = [record("a", seed=seed, value=2.0) for seed in (0, 1, 2)]
    (section,) = build_board(trained)
    assert section.ranked[0].diverged == () and seeds_text(section.ranked[0]) == "3"
    lost = [
        record("a", seed=4, run_id="a-seed4", **common),
        record("a", seed=3, run_id="a-seed3", **common),
        record("a", seed=2, run_id="a-seed2", **common),  # seed 2 has a value
        record("a", seed=5, run_id="a-seed5", **common, training={"preset": "toy", "git": DIRTY}),
        record("b", seed=6, run_id="b-seed6", **common),
    ]
    (section,) = build_board([*trained, *lost])
    assert [row.label for row in section.ranked] == ["a"] and section.ranked[0].train_seeds == (0, 1, 2)
    assert section.ranked[0].diverged == (3, 4) and seeds_text(section.ranked[0]) == "3 of 5, 2 diverged"
    assert "3 of 5, 2 diverged" in render_board([section])
    assert board_json([section])[0]["ranked"][0]["diverged_seeds"] == [3, 4]
