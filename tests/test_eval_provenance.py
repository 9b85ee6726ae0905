"""Where a number comes from: commit and dirtiness of the code that makes numbers, no absolute paths."""

import subprocess
import sys
from pathlib import Path

import pytest

from fact_metrics.base.provenance import collect, git_state, portable_argv


@pytest.fixture
def checkout(tmp_path):
    """A git checkout that looks like this project, with one commit."""
    for name in ("metrics/families/fid.py", "pyproject.toml", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def git(folder, *arguments):
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_a_clean_checkout_is_its_commit(checkout):
    state = git_state(checkout)
    assert len(state["commit"]) == 40 and state["dirty"] is False


@pytest.mark.parametrize(
    ("edit", "dirty"),
    [
        ("metrics/families/fid.py", True),
        ("metrics/new.py", True),
        ("pyproject.toml", True),
        ("README.md", False),
        ("leaderboard/results/run.jsonl", False),
    ],
)
def test_only_code_that_makes_numbers_makes_a_checkout_dirty(checkout, edit, dirty):
    (checkout / edit).parent.mkdir(parents=True, exist_ok=True)
    (checkout / edit).write_text("x = 2\n")
    assert git_state(checkout)["dirty"] is dirty


def test_outside_a_checkout_there_is_no_commit(tmp_path):
    assert git_state(tmp_path) == {"commit": None, "dirty": None}


def test_a_package_inside_somebody_elses_checkout_is_not_its_commit(checkout):
    inner = checkout / "site-packages"
    inner.mkdir()
    assert git_state(inner) == {"commit": None, "dirty": None}


def test_the_recorded_command_names_no_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [
        f"{tmp_path}/bin/fact-eval",
        "all",
        f"{tmp_path}/runs",
        "--data=/elsewhere/mnist",
        "--seeds",
        "0-2",
    ]
    assert portable_argv(argv) == ["fact-eval", "all", "runs", "--data=mnist", "--seeds", "0-2"]
    assert portable_argv([]) == []


def test_provenance_names_packages_python_device_and_command():
    origin = collect(device="cpu", threads=2, argv=["fact-eval", "all", "runs"])
    assert {"torch", "numpy", "safetensors"} <= origin["packages"].keys()
    assert origin["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert (origin["device"], origin["threads"], origin["world_size"]) == ("cpu", 2, 1)
    assert origin["argv"] == ["fact-eval", "all", "runs"]
    assert str(Path.home()) not in str(origin)
