"""Comparisons: paired where latents are shared, honest without an error, corrected for many metrics."""

import dataclasses

import pytest
from eval_toys import DATASET, make_record

from fact_eval.compare.folders import compare_folders
from fact_eval.compare.records import compare
from fact_leaderboard.records import append_records
from fact_metrics.base.canonical import canonical_sha256
from fact_metrics.base.errors import UsageError, UserError


def runs(values, *, label="a", metric="toy", **changes):
    """Records of one metric: values[training seed][evaluation seed]."""
    return [
        make_record(run_id=f"{label}-seed{t}", train_seed=t, seed=s, value=v, metric=metric, **changes)
        for t, row in enumerate(values)
        for s, v in enumerate(row)
    ]


def test_one_run_each_is_paired_over_shared_evaluation_seeds():
    a, b = runs([[1.0, 2.0, 3.0]]), runs([[1.5, 2.5, 3.6]], label="b")
    ((comparison,), left_out) = compare(a, b)
    assert comparison.difference.method == "paired t, n=3" and not left_out
    assert comparison.difference.value == pytest.approx(0.5333, abs=1e-4)
    assert comparison.better == "A"  # lower is better, and B - A is 0.5 within 0.03


def test_higher_is_better_turns_the_verdict_round():
    a = runs([[1.0, 2.0, 3.0]], higher_is_better=True)
    b = runs([[1.5, 2.5, 3.6]], label="b", higher_is_better=True)
    assert compare(a, b)[0][0].better == "B"


def test_one_evaluation_seed_uses_the_standard_errors_of_the_metric():
    a, b = runs([[10.0]], stderr=0.3), runs([[11.0]], label="b", stderr=0.4)
    comparison = compare(a, b)[0][0]
    assert comparison.difference.stderr == pytest.approx(0.5)
    assert comparison.p == pytest.approx(0.0455, abs=1e-3) and comparison.better == "A"


def test_without_any_error_there_is_a_difference_and_no_verdict():
    comparison = compare(runs([[10.0]]), runs([[11.0]], label="b"))[0][0]
    assert (comparison.difference.value, comparison.p, comparison.better) == (1.0, None, "")


def test_several_training_seeds_are_compared_by_their_means():
    a, b = runs([[1.0, 1.2], [2.0, 2.2], [3.0, 3.2]]), runs([[1.1], [2.1], [3.3]], label="b")
    comparison = compare(a, b)[0][0]
    assert comparison.difference.method == "Welch, n=3+3" and comparison.better == "tie"
    assert comparison.a == pytest.approx(2.1) and comparison.b == pytest.approx(2.1667, abs=1e-4)


def test_many_metrics_make_a_single_small_p_value_less_surprising():
    def pair(metric, shift):
        return runs([[10.0]], metric=metric, stderr=0.3), runs(
            [[10.0 + shift]], label="b", metric=metric, stderr=0.4
        )

    alone = compare(*pair("m0", 1.0))[0][0]
    pairs = [pair("m0", 1.0)] + [pair(f"m{i}", 0.1) for i in range(1, 6)]
    among = compare([r for a, _ in pairs for r in a], [r for _, b in pairs for r in b])[0][0]
    assert alone.better == "A" and among.better == "tie" and among.p == pytest.approx(6 * alone.p)


def test_what_cannot_be_compared_is_left_out_with_the_reason():
    other = {"k": 9}
    a = runs([[1.0]], metric="x") + runs([[1.0]], metric="y") + runs([[1.0]], metric="z")
    b = runs([[1.0]], label="b", metric="x", protocol=other, protocol_sha256=canonical_sha256(other))
    b += runs([[1.0]], label="b", metric="y", dataset={**DATASET, "sha256": "e" * 64})
    comparisons, left_out = compare(a, b)
    assert not comparisons
    assert left_out == [
        "x: other protocol or other images",
        "y: other protocol or other images",
        "z: measured on one side only",
    ]


def test_folders_are_compared_by_the_newest_snapshot_of_each_run(tmp_path):
    old = [dataclasses.replace(r, kimg=1.0, snapshot_sha256="0" * 64, value=99.0) for r in runs([[1.0]])]
    append_records(tmp_path / "a" / "results.jsonl", [*old, *runs([[1.0]])])
    append_records(tmp_path / "b" / "results.jsonl", runs([[2.0]], label="b"))
    ((comparison,), _) = compare_folders(tmp_path / "a", tmp_path / "b")
    assert (comparison.a, comparison.b) == (1.0, 2.0)
    with pytest.raises(UsageError, match="is not a folder"):
        compare_folders(tmp_path / "a", tmp_path / "c")
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="has no records"):
        compare_folders(tmp_path / "a", tmp_path / "c")
