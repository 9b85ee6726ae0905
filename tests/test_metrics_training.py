"""Metrics of how a run was trained: values by hand, of a run's own files, and what is missing."""

import json

import pytest
from eval_toys import make_data, make_record, make_run
from metric_toys import ToyInputs

from fact_eval.jobs.history import read_history, read_ticks
from fact_eval.jobs.pictures import _obstacle
from fact_eval.jobs.plan import Request, plan_controls, plan_run
from fact_eval.jobs.runs import read_run
from fact_eval.scoring.evaluation import Evaluation
from fact_leaderboard.records import append_records, read_records
from fact_metrics.base.errors import UserError
from fact_metrics.inputs import Tick, TrainingHistory, UndeclaredNeed
from fact_metrics.registry import compute_metric, get_spec
from fact_train.run_folder import list_snapshots, snapshot_nimg

TICKS = (Tick(2.0, 6.0, 100, 1.0), Tick(4.0, 18.0, 300, 5.0))
NAMES = ("legiblekimg10k", "legibleseconds10k")


def value(name, history):
    return compute_metric(get_spec(name), ToyInputs(training=history))


def scored(*shares):
    """A history whose snapshots at 2 and 4 kimg have these shares of legible digits."""
    scores = {kimg: share for kimg, share in zip((2.0, 4.0), shares, strict=True) if share is not None}
    return TrainingHistory(TICKS, (2.0, 4.0), {"legible10k": scores})


def test_seconds_are_those_of_all_ticks_over_all_images():
    assert value("seconds1k", TrainingHistory(TICKS)).value == 18 / 4
    assert value("seconds500", TrainingHistory(TICKS)).value == 18 / 8


def test_spikes_are_counted_over_all_encoder_turns_with_a_poisson_error():
    found = value("spikes1k", TrainingHistory(TICKS))
    assert found.value == 1000 * 6 / 400 and found.stderr == pytest.approx(1000 * 6**0.5 / 400)
    assert found.extras == {"encoder_turns": 400}
    assert value("spikes1k", TrainingHistory((Tick(2.0, 6.0),))).value is None


@pytest.mark.parametrize(
    ("shares", "kimg", "seconds"),
    [((0.8, 0.9), 2.0, 6.0), ((0.79, 0.9), 4.0, 18.0), ((0.9, 0.1), 2.0, 6.0), ((0.5, 0.7), None, None)],
)
def test_the_way_to_legible_digits_ends_at_the_first_snapshot_with_80_percent(shares, kimg, seconds):
    assert [value(name, scored(*shares)).value for name in NAMES] == [kimg, seconds]


@pytest.mark.parametrize("name", NAMES)
def test_a_snapshot_without_score_is_an_error_with_the_command_that_scores_it(name):
    """A later snapshot may be legible although an earlier one was not scored: no value would be right."""
    with pytest.raises(UserError) as missing:
        value(name, scored(None, 0.9))
    assert str(missing.value) == (
        "1 of 2 snapshots have no legible10k; `fact-eval run RUN --snapshot all --metrics legible10k` scores "
        "them"
    )


def test_a_metric_without_the_need_cannot_read_the_training():
    spec = get_spec("seconds1k")
    assert spec.needs_training and not get_spec("legible10k").needs_training
    from fact_metrics.inputs import DeclaredInputs

    with pytest.raises(UndeclaredNeed, match="the training"):
        DeclaredInputs(get_spec("legible10k"), ToyInputs(training=scored(1, 1))).training  # noqa: B018


@pytest.fixture
def run(tmp_path):
    """A run with one snapshot, and ticks at half of it, at it and beyond it."""
    folder = make_run(tmp_path / "runs", make_data(tmp_path / "data"))
    nimg = snapshot_nimg(list_snapshots(folder)[-1])
    lines = [
        {"nimg": nimg * i // 2, "Timing/sec_per_kimg": float(i), "Rec/spikes": {"mean": 0.5, "num": 4 * i}}
        for i in (1, 2, 4)
    ]
    (folder / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_run(folder), nimg / 1000


def test_history_is_that_of_the_files_up_to_the_snapshot(run):
    run, kimg = run
    spec = get_spec("legible10k")
    common = dict(run_id=run.run_id, metric=spec.name, kimg=kimg, higher_is_better=True)
    append_records(
        run.folder / "results.jsonl",
        [
            make_record(**common, value=0.7, protocol=spec.protocol),
            make_record(**common, value=0.1, protocol=spec.protocol, seed=1),
            make_record(**common, value=0.2, protocol={"older": True}),
        ],
    )
    history = read_history(run.folder, kimg=kimg)
    assert history.ticks == (Tick(kimg / 2, kimg / 2, 4, 2.0), Tick(kimg, kimg / 2 + kimg, 8, 4.0))
    assert history.snapshots == (kimg,) and history.scores == {"legible10k": {kimg: 0.7}}
    assert read_history(run.folder, kimg=kimg, seed=1).scores == {"legible10k": {kimg: 0.1}}
    assert len(read_ticks(run.folder)) == 3


def test_a_scored_snapshot_has_a_record_and_controls_and_pictures_have_none(run, tmp_path):
    run, kimg = run
    request = Request((get_spec("seconds1k"),))
    jobs = plan_run(run, request)
    assert not Evaluation().run(jobs).failures
    (record,) = read_records(run.folder / "results.jsonl")
    assert record.value == pytest.approx(1.5) and record.metric == "seconds1k" and record.kimg == kimg
    assert [job.missing for job in plan_controls([jobs[0].reference], tmp_path, request)] == [(), ()]
    assert _obstacle(get_spec("seconds1k")) == "needs a training run, not pictures"


def test_without_ticks_the_record_says_so(run):
    run, _ = run
    (run.folder / "stats.jsonl").unlink()
    outcome = Evaluation().run(plan_run(run, Request((get_spec("seconds1k"),))))
    ((_, metric, problem),) = outcome.failures
    assert metric == "seconds1k" and "stats.jsonl cannot be read" in problem
