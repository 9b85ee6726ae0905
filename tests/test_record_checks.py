"""`fact-eval leaderboard --check` names a record that contradicts itself, its file or its verifications."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from eval_toys import make_record
from typer.testing import CliRunner

from fact_eval.cli import app
from fact_leaderboard.gate import git_problem
from fact_leaderboard.publish import RESULTS, publish_records
from fact_leaderboard.records import append_records, read_records
from fact_leaderboard.self_check import check_record, check_results
from fact_leaderboard.snapshots import LARGEST_TOTAL, MEGABYTE, snapshots_folder
from fact_leaderboard.verifications import (
    Verification,
    agreeing_digits,
    append_verifications,
    beside,
    of_records,
    read_verifications,
    verify,
)
from fact_leaderboard.verified import render_verified, table
from fact_metrics.base.canonical import canonical_sha256
from fact_metrics.base.errors import UserError
from fact_metrics.engines.overlap import binomial_stderr
from fact_train.data import open_dataset
from fact_train.datasets import DATASETS

FILE = "mnist-seed0-77b89667.jsonl"
ORIGIN = {
    "git": {"commit": "e" * 40, "dirty": False},
    "packages": {"torch": "2.15.0"},
    "platform": "Linux-x86_64",
    "device": "cpu",
    "finished": "2026-01-02T00:00:00Z",
}


@pytest.fixture
def results(tmp_path):
    """A copy of the published records of one run and of the control rows."""
    folder = tmp_path / "results"
    folder.mkdir()
    for name in (FILE, "noise-mnist-32px-8629d600.jsonl", "reals-mnist-32px-8629d600.jsonl"):
        shutil.copy(RESULTS / name, folder)
    snapshots_folder(folder).mkdir()
    for path in snapshots_folder(RESULTS).glob(f"{Path(FILE).stem}-*"):
        shutil.copy(path, snapshots_folder(folder))
    return folder


def edit(results, metric, change, *, file=FILE, renew_hash=False):
    """Change the last record of a metric in place, as someone with an editor would; its line number."""
    path = results / file
    lines = path.read_text().splitlines()
    number = max(i for i, line in enumerate(lines) if json.loads(line)["metric"] == metric)
    data = json.loads(lines[number])
    change(data)
    if renew_hash:
        data["protocol_sha256"] = canonical_sha256(data["protocol"])
    lines[number] = json.dumps(data)
    path.write_text("\n".join(lines) + "\n")
    return number + 1


def verified(record, found, **changes):
    options = dict(
        kind="snapshot", tolerance=1e-3, reason="rounding", by="fact-eval recompute", basis="a file"
    )
    return verify(record, found, **{**options, "provenance": ORIGIN, **changes})


def test_the_published_records_contradict_nothing():
    assert check_results(RESULTS) == []


def test_a_value_edited_beside_its_raw_value_fails_the_check_of_a_rebuilt_board(results, tmp_path):
    number = edit(
        results,
        "fid10k_full_digits",
        lambda r: r.update(value=0.123, extras={**r["extras"], "raw": 999.0}),
    )
    where = ["--results", str(results), "--out", str(tmp_path / "BOARD.md")]
    runner = CliRunner()
    assert runner.invoke(app, ["leaderboard", *where]).exit_code == 0
    checked = runner.invoke(app, ["leaderboard", *where, "--check"])
    assert checked.exit_code == 1
    (line,) = [line for line in checked.stderr.splitlines() if "failed" in line]
    assert f"{FILE} line {number}: value: 0.123, but extras.raw is 999.0" in line


FAULTS = {
    "value below its range": ("fid10k_full_digits", "value", lambda r: r.update(value=-1.0, extras={})),
    "share above 1": ("recall10k3_test_pixels", "value", lambda r: r.update(value=1.2)),
    "share beside its binomial error": ("legible10k", "stderr", lambda r: r.update(stderr=0.1)),
    "share beside its counts": ("legible10k", "value", lambda r: r.update(value=0.99, stderr=None)),
    "classes beside their counts": ("covered10k", "value", lambda r: r.update(value=9.0)),
    "sharpness beside its ratio": ("sharpness10k_test", "value", lambda r: r.update(value=0.01)),
    "ratio beside its shares": (
        "sharpness10k_test",
        "extras.ratio",
        lambda r: r["extras"].update(share_generated=0.2),
    ),
    "interval without its value": ("ppl2k_wend_stlpips_vgg", "ci", lambda r: r["ci"].update(high=0.18)),
    "interval wider than its error": (
        "ppl2k_wend_stlpips_vgg",
        "ci",
        lambda r: r["ci"].update(low=-9.0, high=9.0),
    ),
    "negative error": ("wgap10k_frechet", "stderr", lambda r: r.update(stderr=-0.1)),
    "fewer images asked for": ("legible10k", "n_requested", lambda r: r.update(n_requested=100)),
    "more images than asked for": ("covered10k", "n_effective", lambda r: r.update(n_effective=20000)),
    "other number of reals": ("fid10k_full_digits", "n_real", lambda r: r.update(n_real=100)),
    "a metric under another's protocol": (
        "recon10k_mse",
        "metric",
        lambda r: r.update(metric="recon10k_ssim"),
    ),
    "a direction turned round": (
        "recon10k_mse",
        "higher_is_better",
        lambda r: r.update(higher_is_better=True),
    ),
    "unknown dataset": (
        "legible10k",
        "dataset.sha256",
        lambda r: r["dataset"].update(sha256="0" * 64),
    ),
    "a run under another name": ("legible10k", "run_id", lambda r: r.update(run_id="mnist-seed7-77b89667")),
    "another configuration": ("legible10k", "config_sha256", lambda r: r.update(config_sha256="f" * 64)),
    "a failure with a value": ("legible10k", "value", lambda r: r.update(status="failed")),
    "a hash that is none": ("legible10k", "snapshot_sha256", lambda r: r.update(snapshot_sha256="x" * 64)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_contradiction_is_one_line_with_file_line_and_field(results, name):
    metric, field, change = FAULTS[name]
    number = edit(results, metric, change)
    faults = check_results(results)
    where = f"{results / FILE} line {number}: {field}: "
    assert any(fault.startswith(where) for fault in faults), faults
    assert all("\n" not in fault for fault in faults)


@pytest.mark.parametrize("hits", [0, 2, 9987, 10_000])
def test_the_error_of_a_share_near_none_or_all_is_that_of_its_metric(results, hits):
    stderr = binomial_stderr(hits, 10_000)
    edit(results, "precision10k3_test_pixels", lambda r: r.update(value=hits / 10_000, stderr=stderr))
    assert check_results(results) == []
    edit(results, "precision10k3_test_pixels", lambda r: r.update(stderr=2 * stderr))
    assert any("stderr" in fault for fault in check_results(results))


def test_a_protocol_edited_without_its_hash_is_no_record(results):
    number = edit(results, "legible10k", lambda r: r["protocol"]["settings"].update(legible=">= 0.1"))
    assert check_results(results) == [
        f"{results / FILE} line {number}: not a record: protocol_sha256 is not the hash of protocol"
    ]


def test_two_values_under_one_key_are_a_fault_and_two_equal_ones_are_not(results):
    (first, *others) = read_records(results / FILE)
    append_records(results / FILE, [first], again=True)
    assert check_results(results) == []
    append_records(
        results / FILE, [dataclasses.replace(first, value=0.5, stderr=None, extras={})], again=True
    )
    (fault,) = check_results(results)
    last = 1 + len(others) + 2
    assert f"line {last}: value: 0.5" in fault and f"line 1 has {first.value} under the same key" in fault


def test_the_known_hashes_are_those_of_the_bundled_images():
    for (split, resolution), sha256 in DATASETS["mnist"].sha256.items():
        assert open_dataset("mnist", split=split, resolution=resolution).sha256 == sha256


def test_a_good_record_of_any_metric_has_no_fault():
    assert check_record(make_record(config_sha256=None)) == []


# Verifications.


def test_a_verification_says_only_what_its_numbers_say(results):
    record = read_records(results / FILE)[0]
    good = verified(record, record.value + 1e-4)
    assert good.holds and Verification.from_json(good.to_json()) == good
    assert not verified(record, record.value + 1e-2).holds
    assert verified(record, 5.0, tolerance=None).holds is None
    for change in (
        {"holds": False},
        {"difference": 0.0},
        {"kind": "faith"},
        {"claimed": "1"},
        {"seed": True},
    ):
        with pytest.raises(ValueError):
            dataclasses.replace(good, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run_id": "../x"}, "cannot name a file"),
        ({"claimed": "1"}, "claimed: expected float"),
        ({"provenance": {"git": {"commit": 5}}}, "provenance.git.commit: expected str"),
        ({"schema": 2}, "schema 2"),
        ({"more": 1}, "'more' is unknown"),
        ({"by": "x" * 2**20}, "at most"),
    ],
)
def test_a_verification_of_a_stranger_is_checked_before_it_is_used(results, change: dict, message: str):
    record = read_records(results / FILE)[0]
    line = json.dumps({**json.loads(verified(record, record.value).to_json()), **change})
    with pytest.raises(ValueError, match=message):
        Verification.from_json(line)
    with pytest.raises(ValueError, match="nested too deeply"):
        Verification.from_json("[" * 100_000 + "]" * 100_000)


def test_text_of_verifications_is_no_markup_on_the_board():
    lines = table([{"by": "<script>|x\n# H1", "holds": "**no**"}], ours=["holds"]).splitlines()
    assert lines[2] == r"| &lt;script>&#124;x\n# H1 | **no** |" and len(lines) == 3


def test_digits_count_the_leading_decimals_that_agree():
    assert [agreeing_digits(1.0, x) for x in (1.0, 1.001, 1.0000001, 2.5, -1.0)] == [15, 3, 7, 0, 0]
    assert agreeing_digits(0.0, 0.0) == 15 and agreeing_digits(0.0, 1e-9) == 0


def test_a_record_edited_after_it_was_verified_no_longer_fits_and_is_no_longer_shown(results):
    path = results / FILE
    record = next(r for r in read_records(path) if r.metric == "recon10k_mse")
    append_verifications(beside(path), [verified(record, record.value)])
    assert check_results(results) == [] and len(of_records(read_verifications(beside(path)), [record])) == 1
    edit(results, "recon10k_mse", lambda r: r.update(value=0.001))
    (fault,) = check_results(results)
    assert fault.startswith(f"{beside(path)} line 1: claimed: {record.value}")
    edited = read_records(path)
    assert of_records(read_verifications(beside(path)), edited) == []


def test_a_torn_verification_is_skipped_and_removed_by_the_next(tmp_path):
    record, path = make_record(), tmp_path / "verifications.jsonl"
    append_verifications(path, [verified(record, 1.5)])
    path.write_text(path.read_text() + '{"kind": "snap')
    assert len(read_verifications(path)) == 1
    append_verifications(path, [verified(record, 1.6)])
    assert [v.found for v in read_verifications(path)] == [1.5, 1.6]
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(UserError, match="line 1 is not a verification"):
        read_verifications(path)


def test_the_board_shows_clean_checks_with_commit_date_and_digits(monkeypatch):
    from board_toys import only, toy_columns  # noqa: F401
    from board_toys import record as toy_record

    from fact_leaderboard import columns
    from fact_leaderboard.columns import Column

    monkeypatch.setattr(columns, "COLUMNS", (Column("toy_distance", "distance", ".2f"),))
    record = toy_record("a|<b>", value=2.0)
    dirty = verified(record, 2.0, provenance={**ORIGIN, "git": {"commit": "e" * 40, "dirty": True}})
    assert render_verified(only([record]), [dirty]) == []
    second = verified(record, 2.00001, kind="crosscheck", by="scikit-learn 1.9", tolerance=1e-3)
    text = "\n".join(render_verified(only([record]), [verified(record, 2.0005), second]))
    assert "verified: 1 of 1 values" in text and "eeeeeeeeeeee" in text and "2026-01-02" in text
    assert "| toy_distance | scikit-learn 1.9 | 1 | 5 |" in text
    worse = "\n".join(render_verified(only([record]), [verified(record, 2.5)]))
    assert "1 differ: 0 of 1 values" in worse and "**no**" in worse


# The gate and published snapshots.


def test_packages_that_change_while_a_run_trains_keep_it_off_the_ranks():
    git = {"commit": "c" * 40, "dirty": False}
    start = {"git": git, "packages": {"torch": "2.6.0"}}
    assert git_problem(make_record(training={**start, "resumed": [start]})) is None
    other = {**start, "packages": {"torch": "2.7.0"}}
    problem = git_problem(make_record(training={**start, "resumed": [other]}))
    assert problem == "trained with several versions of torch"


@pytest.fixture
def scored(tmp_path):
    """A run folder with a snapshot and one record of it, of committed code."""
    from eval_toys import CLEAN, make_data, make_run

    from fact_eval.jobs.runs import read_run

    run = make_run(tmp_path / "runs", make_data(tmp_path / "data"))
    (snapshot,) = read_run(run).snapshots()
    record = make_record(
        snapshot=snapshot.path.name, snapshot_sha256=snapshot.sha256(), training={"git": CLEAN}
    )
    append_records(run / "results.jsonl", [record])
    return run


def test_a_published_snapshot_has_all_but_the_discriminator_and_its_hash_in_the_record(scored, tmp_path):
    import torch

    from fact_train.snapshot import load_snapshot

    results = tmp_path / "board" / "results"
    changed, refused = publish_records([scored], results, with_snapshots=True)
    (record,) = read_records(changed[0])
    named = record.training["published_snapshot"]
    path = snapshots_folder(results) / named["file"]
    assert not refused and named["bytes"] == path.stat().st_size
    whole, small = load_snapshot(scored / record.snapshot), load_snapshot(path)
    z = torch.randn(2, *whole.G.z_shape)
    assert torch.equal(whole.G(z, noise_mode="const"), small.G(z, noise_mode="const")) and small.D is None
    assert path.stat().st_size < 0.7 * whole.path.stat().st_size
    publish_records([scored], results)  # without snapshots: what was published stays
    assert read_records(changed[0]) == [record]
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert any("does not have the hash that the record names" in fault for fault in check_results(results))
    path.unlink()
    assert any("is missing; restore it" in fault for fault in check_results(results))


def test_a_snapshot_over_the_limits_is_refused_and_its_records_are_published(scored, tmp_path):
    results = tmp_path / "board" / "results"
    changed, (refused,) = publish_records([scored], results, with_snapshots=True, largest_snapshot=0.001)
    assert "--largest-snapshot is 0.001 MB" in refused and len(changed) == 1
    folder = snapshots_folder(results)
    assert not any(folder.iterdir())
    (folder / "other.safetensors").write_bytes(b"")
    with open(folder / "other.safetensors", "r+b") as file:
        file.truncate(int(LARGEST_TOTAL * MEGABYTE))
    _, (refused,) = publish_records([scored], results, with_snapshots=True)
    assert "its limit is 25 MB" in refused and len(list(folder.iterdir())) == 1


def test_a_snapshot_that_is_not_the_scored_one_is_not_published(scored, tmp_path):
    (snapshot,) = scored.glob("*.safetensors")
    snapshot.write_bytes(snapshot.read_bytes()[:-1] + b"\1")
    _, (refused,) = publish_records([scored], tmp_path / "board" / "results", with_snapshots=True)
    assert "is not the snapshot that was scored" in refused


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "x.pt", 5, None])
def test_a_record_cannot_name_a_snapshot_outside_the_folder(results, name):
    edit(results, "legible10k", lambda r: r["training"].update(published_snapshot={"file": name}))
    assert any("is not a file name" in fault for fault in check_results(results))
