"""The dry run of `python -m benchmarks gpu` leaves complete files, and one part's failure costs no other."""

import json

import pytest

from benchmarks.gpu import report


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(report.torch.cuda, "is_available", lambda: False)


def test_dry_run_measures_every_part_and_says_that_it_is_dry(on_cpu, tmp_path):
    result = report.run(minutes=3, out=tmp_path, parts=("training", "packing", "profile", "scoring"))
    assert result["dry_run"]
    for name, part in result["parts"].items():
        assert part["results"], (name, part)
        assert "failed" not in part, (name, part["failed"])
    assert all("error" not in row for row in result["parts"]["training"]["results"])
    assert "no measurement" in (tmp_path / "gpu.md").read_text()
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"].keys() == result["parts"].keys()


def test_a_part_that_fails_or_lacks_a_package_is_named_and_the_next_one_runs(on_cpu, tmp_path, monkeypatch):
    class Broken:
        @staticmethod
        def measure(bench):
            yield {"what": "half"}
            raise RuntimeError("a kernel failed\nmore")

    class Lacking:
        @staticmethod
        def measure(bench):
            import no_such_package  # noqa: F401

            yield {}

    modules = {"correctness": Broken, "training": Lacking}
    whole = report._module
    monkeypatch.setattr(report, "_module", lambda part: modules.get(part.name) or whole(part))
    monkeypatch.setattr(report, "table", lambda result: "")
    result = report.run(minutes=0.3, out=tmp_path, parts=("correctness", "training", "scoring"))
    assert result["parts"]["correctness"]["failed"] == "RuntimeError: a kernel failed"
    assert result["parts"]["correctness"]["results"] == [{"what": "half"}]
    assert result["parts"]["training"]["skipped"] == "needs the package no_such_package"
    assert result["parts"]["scoring"]["results"]
