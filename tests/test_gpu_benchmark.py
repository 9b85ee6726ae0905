"""The dry run of `python -m benchmarks gpu` leaves complete files, and one part's failure costs no other."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import checkout
from benchmarks.gpu import correctness, packing, peer, profile, report, training

ROOT = Path(__file__).resolve().parent.parent
SHORT = ("training", "packing", "profile", "scoring", "peer")  # the others start pytest and the compiler


def test_dry_run_measures_every_part_and_says_that_it_is_dry(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "STEPS", 2)
    result = report.run(minutes=3, out=tmp_path, parts=SHORT, device="cpu")
    assert result["dry_run"]
    for name, part in result["parts"].items():
        assert "failed" not in part, (name, part["failed"])
        assert part["results"] or name == "peer", (name, part)
        assert all("error" not in row for row in part["results"]), (name, part)
    assert result["parts"]["peer"]["skipped"] == "no --peer DIR"
    assert "no measurement" in (tmp_path / "gpu.md").read_text()
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"].keys() == result["parts"].keys()


class Broken:
    @staticmethod
    def measure(bench):
        yield {"what": "half"}
        raise RuntimeError("a kernel failed\nmore")

    @staticmethod
    def table(rows):
        raise KeyError("no such column")


class Lacking:
    @staticmethod
    def measure(bench):
        import no_such_package  # noqa: F401

        yield {}


def test_a_part_that_fails_or_lacks_a_package_is_named_and_the_next_one_runs(tmp_path, monkeypatch):
    modules = {"correctness": Broken, "training": Lacking}
    whole = report._module
    monkeypatch.setattr(report, "_module", lambda part: modules.get(part.name) or whole(part))
    result = report.run(minutes=0.3, out=tmp_path, parts=("correctness", "training", "scoring"), device="cpu")
    assert result["parts"]["correctness"]["failed"] == "RuntimeError: a kernel failed"
    assert result["parts"]["correctness"]["results"] == [{"what": "half"}]
    assert result["parts"]["training"]["skipped"] == "needs the package no_such_package"
    assert result["parts"]["scoring"]["results"]
    assert "no table: KeyError: 'no such column'" in (tmp_path / "gpu.md").read_text()


def test_what_has_no_time_is_named(tmp_path):
    result = report.run(minutes=0.0, out=tmp_path, device="cpu")
    assert {part["skipped"] for part in result["parts"].values()} == {"no time left"}
    bench = report.Bench(report.torch.device("cpu"), tmp_path, deadline=time.monotonic() + 60)
    assert list(report.fitting(training.CASES[:2], bench, seconds=1)) == training.CASES[:2]
    assert list(report.fitting(training.CASES[:2], bench, seconds=90)) == []
    assert bench.left_out == ["mnist-stylegan2 32 px fp32 eager", "mnist-stylegan2 32 px fp32 graphs"]


class Endless:
    @staticmethod
    def measure(bench):
        yield {"what": "first", "seconds": 1.0}
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    table = staticmethod(lambda rows: f"{len(rows)} rows")


def test_sigterm_leaves_the_table_of_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_module", lambda part: Endless)
    result = report.run(minutes=1, out=tmp_path, parts=("training", "packing"), device="cpu")
    assert result["interrupted"]
    assert list(result["parts"]) == ["training"]
    text = (tmp_path / "gpu.md").read_text()
    assert "1 rows" in text
    assert "Interrupted" in text
    assert json.loads((tmp_path / "gpu.json").read_text())["interrupted"]


FAILED = {"preset": "auto", "resolution": 256, "precision": "tf32", "mode": "graphs", "layout": "contiguous"}
FAILED |= {"autotune": False, "batch": None, "error": "OutOfMemoryError: a | b"}


@pytest.mark.parametrize("part", [training, peer])
def test_a_case_that_failed_has_a_row(part):
    assert "OutOfMemoryError: a \\| b" in part.table([FAILED])


def test_published_figures_stand_beside_the_same_batch_only():
    row = {**FAILED, "batch": 16}
    assert "12.53" in training.table([row])
    assert "12.53" not in training.table([{**row, "batch": 32}])
    assert "12.53" not in training.table([{**row, "preset": "paper256"}])


def test_packing_compares_with_one_process_of_the_same_mode():
    rows = [
        dict(mode=mode, processes=n, img_per_sec=rate, slowest=rate / n, mps=False)
        for mode, n, rate in (("eager", 1, 100.0), ("eager", 4, 300.0), ("graphs", 4, 900.0))
    ]
    lines = packing.table(rows).splitlines()
    assert [line.split("|")[5].strip() for line in lines[2:]] == ["1.00", "3.00", "–"]


WORKER = """
import sys
n = int(sys.argv[1])
if n == 1: sys.exit("cannot start")
print("ready eager" + " graphs" * (n != 2), flush=True)
for line in sys.stdin: print(float(n), flush=True)
"""


def test_packing_goes_on_with_the_processes_and_modes_that_started(tmp_path, monkeypatch):
    start, number = subprocess.Popen, iter(range(16))

    def popen(command, **options):
        return start([sys.executable, "-c", WORKER, str(next(number))], **options)

    monkeypatch.setattr(packing.subprocess, "Popen", popen)
    monkeypatch.setattr(packing, "CASES", [(1, "eager"), (2, "graphs"), (3, "eager"), (4, "eager")])
    bench = report.Bench(report.torch.device("cuda"), tmp_path, deadline=time.monotonic() + 60)
    rows = list(packing.measure(bench))
    assert [(row["processes"], row["mode"]) for row in rows] == [(1, "eager"), (3, "eager")]
    assert rows[1]["img_per_sec"] == 0 + 2 + 3  # the first did not start
    assert bench.left_out == ["2 x graphs", "4 x eager"]


TESTS = """
import pytest
pytestmark = pytest.mark.gpu
def test_good(): pass
def test_bad(): assert 1 == 2
@pytest.mark.skip(reason="no luck")
def test_left_out(): pass
@pytest.fixture
def broken(): raise OSError("no disk")
def test_set_up(broken): pass
def test_unmarked(): pass
"""


def test_correctness_reports_every_test_as_it_ends(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['gpu: x']\n")
    monkeypatch.setattr(correctness, "TESTS", tmp_path / "tests")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    bench = report.Bench(report.torch.device("cpu"), tmp_path, deadline=time.monotonic() + 60)
    found = {row["test"]: row["outcome"] for row in correctness.measure(bench)}
    assert found["test_good"] == "passed"
    assert found["test_bad"].startswith("failure: assert 1 == 2")
    assert found["test_left_out"] == "skipped: no luck"
    assert found["test_set_up"] == "error: OSError: no disk"
    bench.deadline = time.monotonic()
    assert [row["outcome"] for row in correctness.measure(bench)] == ["not run: no time left"]


def test_a_plain_checkout_needs_no_installation(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.setuptools.package-dir]\nfact_unheard = "unheard"\n')
    (tmp_path / "unheard").mkdir()
    (tmp_path / "unheard" / "__init__.py").write_text("VALUE = 7\n")
    code = (
        "import pathlib, subprocess, sys; from benchmarks.checkout import make_importable as m\n"
        "links = m(pathlib.Path(sys.argv[1])); import fact_unheard; print(fact_unheard.VALUE)\n"
        "subprocess.run([sys.executable, '-c', 'import fact_unheard as f; print(f.VALUE)'], check=True)\n"
        "print(m(pathlib.Path(sys.argv[1])), links)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *values, last = done.stdout.splitlines()
    again, links = last.split()
    assert sorted(values) == ["7", "7"]
    assert again == "None"
    assert not Path(links).exists()
    assert checkout.make_importable() is None


def test_the_detectors_that_are_timed_exist() -> None:
    from benchmarks.gpu.scoring import DETECTORS
    from fact_metrics.features import list_detectors

    assert set(DETECTORS) <= set(list_detectors())
