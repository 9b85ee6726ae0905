"""The figures of docs/explanations.md on sufficiency are those that the command wrote."""

import json
from pathlib import Path

import pytest

from benchmarks import sufficiency

ROOT = Path(__file__).parents[1]


@pytest.fixture
def result() -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / "sufficiency.json").read_text())


def test_the_table_in_the_docs_is_the_one_that_was_printed(result) -> None:
    text = (ROOT / "docs" / "explanations.md").read_text()
    printed, said = sufficiency.table(result).split("\n\n")
    assert printed in text
    for value in ("needed", "joint"):
        assert f"{result['singles'][value]:.1f}" in text and f"{result['singles'][value]:.1f}" in said
    for part in result["parts"].values():
        assert f"{100 * part:.0f} %" in text


def test_the_snapshot_is_the_published_one(result) -> None:
    assert sufficiency.SNAPSHOT.is_file() and result["snapshot"] == sufficiency.SNAPSHOT.name
