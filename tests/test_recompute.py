"""`fact-eval recompute` makes records again, from snapshots or by training, and finds wrong ones."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from eval_toys import make_data, make_record, make_run
from typer.testing import CliRunner

from fact_eval.checks.claims import Claims, plan_claims, read_claims
from fact_eval.checks.recompute import draw, training_config
from fact_eval.checks.tolerance import from_snapshot, from_training
from fact_eval.cli import app
from fact_eval.features.store import FeatureCache
from fact_leaderboard import publish
from fact_leaderboard.intervals import t_quantile
from fact_leaderboard.publish import publish_records, published_records
from fact_leaderboard.records import read_records
from fact_leaderboard.verifications import append_verifications, read_verifications, verify
from fact_metrics.base.errors import UserError
from fact_metrics.registry import get_spec

METRICS = "fid30_full_pixels,kid30_test_pixels,precision1k3_full_pixels"
ROOT = Path(__file__).resolve().parent.parent
CLEAN = {"commit": "c" * 40, "dirty": False}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data")


@pytest.fixture
def scored(tmp_path, data):
    """A run folder with a snapshot and three scored records."""
    run = make_run(tmp_path / "runs", data)
    assert call("run", run, "--metrics", METRICS)[0] == 0
    return run


def call(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        if isinstance(done.exception, UserError):
            return done.exception.exit_code, "", str(done.exception)
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def rewrite(path, change):
    """Change every record of a file in place."""
    records = [change(record) for record in read_records(path)]
    path.write_text("".join(record.to_json() + "\n" for record in records))


def found_in(run):
    return read_verifications(run / "verifications.jsonl")


def test_records_are_made_again_from_the_runs_snapshot_and_the_outcome_stands_beside_them(scored):
    code, out, err = call("recompute", scored)
    assert code == 0 and out.count("yes") == 3, err
    assert {v.metric for v in found_in(scored)} == set(METRICS.split(","))
    for v in found_in(scored):
        assert (v.difference, v.holds, v.kind, v.basis) == (0.0, True, "snapshot", "the run's snapshot")
        assert v.provenance["git"]["commit"] and v.provenance["platform"] and v.provenance["finished"]
    call("recompute", scored)
    assert len(found_in(scored)) == 6  # history stays


def test_a_value_that_was_edited_is_found_and_is_exit_1(scored):
    def flatter(record):
        if record.metric != "fid30_full_pixels":
            return record
        return dataclasses.replace(record, value=record.value / 2, extras={})

    rewrite(scored / "results.jsonl", flatter)
    code, out, err = call("recompute", scored)
    assert code == 1 and out.count("NO") == 1 and "fid30_full_pixels is claimed as" in err
    assert [v.metric for v in found_in(scored) if not v.holds] == ["fid30_full_pixels"]


def test_features_in_the_store_are_not_believed(scored, monkeypatch):
    """The value of F1's trial: features of other code, or forged ones, lie in the store."""
    stored = []
    load = FeatureCache.load

    def loaded(self, *arguments, **options):
        stored.append(self)
        return load(self, *arguments, **options)

    monkeypatch.setattr(FeatureCache, "load", loaded)
    users = Path(scored.parent.parent / "cache" / "features").resolve()
    before = {path: path.stat().st_mtime_ns for path in users.rglob("*")}
    call("recompute", scored)
    assert before and stored and all(users not in Path(cache.root).resolve().parents for cache in stored)
    assert {path: path.stat().st_mtime_ns for path in users.rglob("*")} == before


def test_a_snapshot_that_was_exchanged_is_refused(scored):
    (snapshot,) = scored.glob("*.safetensors")
    other = make_run(scored.parent, scored.parent.parent / "data", name="other", seed=3)
    snapshot.write_bytes(next(other.glob("*.safetensors")).read_bytes())
    code, _, err = call("recompute", scored)
    assert code == 1 and "is not the snapshot that was scored" in err and not found_in(scored)


def test_published_records_are_made_again_from_published_snapshots_alone(scored, tmp_path, monkeypatch):
    rewrite(
        scored / "results.jsonl",
        lambda r: dataclasses.replace(
            r, training={**r.training, "git": CLEAN}, provenance={**r.provenance, "git": CLEAN}
        ),
    )
    results = tmp_path / "board" / "results"
    changed, refused = publish_records([scored], results, with_snapshots=True)
    assert changed and not refused
    for path in scored.iterdir():
        path.unlink()
    code, out, err = call("recompute", results)
    assert code == 0 and out.count("the published snapshot") == 3, err
    verifications = read_verifications(tmp_path / "board" / "verifications" / changed[0].name)
    assert [v.holds for v in verifications] == [True] * 3
    record = read_records(changed[0])[0]
    assert {v.snapshot_sha256 for v in verifications} == {record.snapshot_sha256}


def test_a_published_snapshot_of_another_run_is_refused(scored, tmp_path):
    other = make_run(scored.parent, tmp_path / "data", name="other", seed=3)
    call("run", other, "--metrics", METRICS)
    results = tmp_path / "board" / "results"
    publish_records([scored.parent], results, allow_dirty=True, with_snapshots=True)
    mine, theirs = (read_records(path)[0].training for path in sorted(results.glob("*.jsonl")))
    (path, _) = sorted(results.glob("*.jsonl"))
    rewrite(path, lambda r: dataclasses.replace(r, training={**mine, **{k: theirs[k] for k in theirs}}))
    (claims,) = read_claims([path])
    with pytest.raises(UserError, match="was not made from the snapshot that"):
        plan_claims(claims)


def test_control_rows_are_made_again_from_the_dataset(scored, data, tmp_path):
    call("ref", data, "--out", tmp_path / "runs", "--metrics", "fid20_test_pixels")
    files = sorted((tmp_path / "runs" / "controls").rglob("results.jsonl"))
    code, out, err = call("recompute", *files, "--data", data)
    assert code == 0 and out.count("the dataset") == 2, err
    other = make_data(tmp_path / "elsewhere" / "data", splits={"train": 20, "test": 20})
    code, _, err = call("recompute", *files, "--data", other)
    assert code == 1 and "holds other images" in err


def test_an_unknown_protocol_is_left_out_with_the_commit_that_scored_it(scored):
    def older(record):
        protocol = {**record.protocol, "settings": {"older": True}}
        from fact_metrics.base.canonical import canonical_sha256

        return dataclasses.replace(record, protocol=protocol, protocol_sha256=canonical_sha256(protocol))

    rewrite(scored / "results.jsonl", older)
    code, _, err = call("recompute", scored)
    assert code == 1 and err.count("another protocol than this code's; scored by commit") == 3
    assert "nothing could be made again" in err


def test_numbers_of_the_training_log_are_left_out(scored):
    spec = get_spec("seconds1k")
    of_the_log = dict(metric=spec.name, metric_version=spec.version)
    of_the_log |= dict(protocol=spec.protocol, protocol_sha256=spec.protocol_sha256)
    rewrite(scored / "results.jsonl", lambda record: dataclasses.replace(record, **of_the_log))
    code, _, err = call("recompute", scored)
    assert code == 1 and "seconds1k: measured from the log of the run, not from a snapshot" in err


def test_a_sample_is_drawn_at_random_and_has_the_size_asked_for():
    claims = [Claims(Path("x"), (make_record(run_id=str(i)),)) for i in range(30)]
    samples = {tuple(c.records[0].run_id for c in draw(claims, 5)) for _ in range(20)}
    assert len(samples) > 10 and {len(s) for s in samples} == {5}
    assert draw(claims, None) == draw(claims, 50) == claims


@pytest.mark.parametrize(
    ("paths", "said"), [(["no/such"], "does not exist"), ([], "no record"), (["--sample", "0"], "sample")]
)
def test_a_mistake_is_one_line_and_exit_2(tmp_path, paths, said):
    folder = [] if paths[:1] == ["no/such"] else [tmp_path]
    done = subprocess.run(
        [sys.executable, "-m", "fact_eval", "recompute", *map(str, folder), *paths],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


# From training.


@pytest.fixture
def trained(tiny_config, tmp_path):
    """A run that fact-train made, scored on two metrics."""
    from fact_train.training.loop import train

    cfg = dataclasses.replace(tiny_config, kimg=1.0, kimg_per_tick=1.0)
    train(cfg, tmp_path / "runs" / "t", preset="tiny", label="tiny")
    assert call("run", tmp_path / "runs" / "t", "--metrics", "fid30_full_pixels")[0] == 0
    return tmp_path / "runs" / "t"


def test_a_run_trained_again_here_has_the_same_bits_and_its_record_holds(trained, tmp_path, tiny_config):
    (record,) = read_records(trained / "results.jsonl")
    assert record.training["threads"] == 1 and record.training["device"] == "cpu"
    assert "seed" not in record.training["config"] and record.training["config"]["z_dim"] == 8
    again = ["recompute", trained, "--from-training", "--out", tmp_path / "again"]
    code, out, err = call(*again, "--data", tiny_config.data, "--threads", "2")
    assert code == 0 and "bitwise the same snapshot" in out, err
    (found,) = found_in(trained)
    assert (found.kind, found.difference, found.holds) == ("snapshot", 0.0, True)
    (snapshot,) = (tmp_path / "again").rglob("network-snapshot-000001.safetensors")
    assert snapshot.read_bytes() == (trained / snapshot.name).read_bytes()


def test_a_forged_record_does_not_survive_training(trained, tmp_path, tiny_config):
    rewrite(
        trained / "results.jsonl",
        lambda r: dataclasses.replace(r, value=0.01 * r.value, extras={}, snapshot_sha256="e" * 64),
    )
    again = ["recompute", trained, "--from-training", "--out", tmp_path / "again"]
    code, out, _ = call(*again, "--data", tiny_config.data)
    assert code == 0 and "undecided" in out  # another snapshot, and no spread of seeds to judge with
    (found,) = found_in(trained)
    assert (found.kind, found.holds, found.tolerance) == ("training", None, None)
    assert "publish more seeds" in found.reason


def test_the_configuration_is_certified_by_its_hash():
    for record in {r.run_id: r for r in published_records() if r.source == "run"}.values():
        assert training_config(record).sha256() == record.config_sha256
    wrong = dataclasses.replace(record, config_sha256="0" * 64)
    with pytest.raises(UserError, match="check out commit"):
        training_config(wrong)
    unknown = dataclasses.replace(record, training={"preset": "no-such"})
    with pytest.raises(UserError, match="no settings and no known preset"):
        training_config(unknown)


def draws(*values, config="b" * 64):
    records = [make_record(run_id=f"{config[0]}{i}", value=v, train_seed=i) for i, v in enumerate(values)]
    return [dataclasses.replace(record, config_sha256=config) for record in records]


def test_the_spread_of_training_seeds_is_pooled_without_the_claim():
    record, *others = draws(99.0, 1.0, 1.1, 0.9)
    second = draws(2.0, 2.4, config="c" * 64)
    tolerance, reason = from_training(record, 1.0, [record, *others, *second])
    squares = sum((x - 1) ** 2 for x in (1.0, 1.0, 1.1, 0.9)) + 2 * (0.2 / 2.2) ** 2
    assert tolerance == pytest.approx(t_quantile(0.975, 4) * (2 * squares / 4) ** 0.5)
    assert "from 6 seeds of 2 configurations" in reason
    wider, _ = from_training(record, 1.0, [record, *others, *second], of=13)
    assert wider == pytest.approx(tolerance * t_quantile(1 - 0.025 / 13, 4) / t_quantile(0.975, 4))


def test_two_seeds_of_one_configuration_agree_in_95_percent_of_runs_with_13_metrics():
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(400):
        sound = True
        for _ in range(13):
            values = (10 + torch.randn(12, generator=generator)).tolist()
            claim, *own = draws(*values[:3])
            known = [
                claim,
                *own,
                *draws(*values[3:6], config="c" * 64),
                *draws(*values[6:9], config="d" * 64),
            ]
            tolerance, _ = from_training(claim, values[9], known, of=13)
            sound &= abs(claim.value - values[9]) <= tolerance
        inside += sound
    assert 0.93 <= inside / 400 <= 1.0


def test_rounding_is_stated_by_family():
    record = make_record(metric="legible10k", value=0.5, n_effective=10_000, n_real=None)
    assert from_snapshot(get_spec("legible10k"), record)[0] == pytest.approx(2e-4)
    record = make_record(metric="fid10k_full_digits", value=4.0, n_effective=10_000)
    tolerance, reason = from_snapshot(get_spec("fid10k_full_digits"), record)
    assert tolerance == pytest.approx(4e-4) and "0.0001 of the value" in reason


def test_publishing_takes_the_verifications_of_published_records_along(scored, tmp_path):
    record = read_records(scored / "results.jsonl")[0]
    options = dict(
        kind="snapshot", tolerance=1.0, reason="-", by="ours", basis="-", provenance={"git": CLEAN}
    )
    foreign = verify(dataclasses.replace(record, metric="other"), record.value, **options)
    mine = verify(record, record.value, **options)
    append_verifications(scored / "verifications.jsonl", [mine, foreign])
    results = tmp_path / "board" / "results"
    changed, _ = publish_records([scored], results, allow_dirty=True)
    assert [path.parent.name for path in changed] == ["results", "verifications"]
    assert read_verifications(changed[1]) == [mine]
    assert publish_records([scored], results, allow_dirty=True) == ([], [])
    assert "Which numbers have been checked" not in publish.board_text(results)  # not a board column
