"""Specs of metrics: published protocols stay what they are, to the hash, on every committed record."""

import json
from pathlib import Path

import pytest

from fact_eval.jobs.catalog import load_cards
from fact_leaderboard.records import protocol_sha256

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = json.loads((ROOT / "tests" / "golden" / "protocols.json").read_text())
NEED = ("detector", "side", "split", "count")


def golden_protocol(name):
    """The protocol of a metric as it was when the golden file was written."""
    stored = GOLDEN["metrics"][name]
    return {
        "metric": name,
        "version": stored["version"],
        "needs": [dict(zip(NEED, need, strict=True)) for need in stored["needs"]],
        "detectors": {detector: GOLDEN["detectors"][detector] for detector in stored["detectors"]},
        "settings": stored["settings"],
        "sampling": GOLDEN["sampling"],
    }


@pytest.mark.parametrize("name", GOLDEN["metrics"])
def test_a_published_metric_keeps_its_protocol_to_the_hash(name):
    (spec,) = load_cards([name])
    assert spec.protocol == golden_protocol(name)
    assert spec.protocol_sha256 == GOLDEN["metrics"][name]["protocol_sha256"]
    assert protocol_sha256(golden_protocol(name)) == spec.protocol_sha256


# Records of the floor and ceiling rows from before the protocol named its standard error. Both metrics were
# measured again since; the old lines stay, as records are only ever appended.
SUPERSEDED = {
    "5b6820826c24cd075329f191ae505e5e04919f12b5177957c1943a2b6300009f": "fid10k_full_digits",
    "b251e38da842c486332b51c02ad7fc7dc42a51d7f7d018db59598eaba1f7f3e4": "fid10k_test_efficientnet_lite0",
}


def committed_protocols():
    """(metric, version, protocol hash) of every committed record, each once."""
    found = set()
    for path in sorted((ROOT / "leaderboard" / "results").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            found.add((record["metric"], record["metric_version"], record["protocol_sha256"]))
    return sorted(found)


@pytest.mark.parametrize(("name", "version", "sha256"), committed_protocols())
def test_a_committed_record_was_measured_by_the_protocol_its_metric_has_now(name, version, sha256):
    (spec,) = load_cards([name])
    if SUPERSEDED.get(sha256) == name:
        assert (name, version, spec.protocol_sha256) in committed_protocols()
    else:
        assert (spec.version, spec.protocol_sha256) == (version, sha256)


def test_the_superseded_protocols_are_still_among_the_records():
    committed = {sha256: name for name, _, sha256 in committed_protocols()}
    assert SUPERSEDED.items() <= committed.items()
