"""Commit and dirtiness of the code behind a number: one definition for training and for scoring."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest
from eval_toys import make_record

from fact_metrics.base import git_state as module
from fact_metrics.base import provenance
from fact_metrics.base.git_state import CODE, git_state, same_code
from fact_train import run_folder
from fact_train.settings.config import TrainConfig

FILES = (
    *(
        "metrics/families/fid.py",
        "metrics/README.md",
        "fact_train/training/losses.py",
        "fact_eval/jobs/plan.py",
    ),
    *("fact_train/data/mnist/train.gz", "leaderboard/build.py", "leaderboard/LEADERBOARD.md"),
    *("leaderboard/results/a.jsonl", "baselines/load.py", "baselines/mnist/x.json"),
    *("pyproject.toml", "constraints.txt", "README.md", "docs/metrics.md", "tests/test_fid.py"),
)
DATASET = {"name": "toy", "split": "train", "sha256": "d" * 64, "n": 8, "resolution": 32, "channels": 1}
DATASET["classes"] = 10


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def write(path: Path, text: str = "x = 2\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A git checkout that looks like this project, with one commit."""
    root = tmp_path / "checkout"
    for name in FILES:
        write(root / name, "x = 1\n")
    write(root / ".gitignore", "# built\n__pycache__/\n/runs/\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    return root


def trained(tmp_path: Path, name: str = "run") -> dict:
    """What a training run records of its code."""
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    run_folder.prepare(folder, TrainConfig(), preset="toy", label="toy", dataset=DATASET)
    run_folder.note_start(folder, nimg=0, machine={})
    return run_folder.read_options(folder)


CALLERS = {
    "training": lambda tmp_path: trained(tmp_path)["git"],
    "scoring": lambda tmp_path: provenance.collect(device="cpu", threads=1, argv=[])["git"],
}


@pytest.fixture(params=CALLERS)
def recorded(request, checkout, tmp_path, monkeypatch):
    """Calls training or scoring for what it records of the checkout's state."""
    monkeypatch.setattr(module, "ROOT", checkout)
    return lambda: CALLERS[request.param](tmp_path)


def edit(name: str):
    return lambda root: write(root / name)


def hidden_by_exclude(root: Path) -> None:
    write(root / "fact_train/losses/__init__.py")
    write(root / ".git/info/exclude", "fact_train/losses/\n")


def hidden_by_a_gitignore_of_its_own(root: Path) -> None:
    write(root / "fact_train/losses/__init__.py")
    write(root / "fact_train/losses/.gitignore", "*\n")


def hidden_by_an_edited_gitignore(root: Path) -> None:
    write(root / "fact_train/losses/__init__.py")
    write(root / ".gitignore", "__pycache__/\n/fact_train/losses/\n")


def hidden_by_a_repository_of_its_own(root: Path) -> None:
    write(root / "fact_train/losses/__init__.py")
    git(root / "fact_train/losses", "init", "-q")
    git(root / "fact_train/losses", "add", ".")
    git(root / "fact_train/losses", "commit", "-qm", "theirs")


def hidden_by_the_index(flag: str):
    def hide(root: Path) -> None:
        git(root, "update-index", flag, "fact_train/training/losses.py")
        write(root / "fact_train/training/losses.py")

    return hide


def added(root: Path) -> None:
    write(root / "fact_train/new.py")
    git(root, "add", ".")


def staged(root: Path) -> None:
    write(root / "fact_train/training/losses.py")
    git(root, "add", ".")


def same_size_and_time(root: Path) -> None:
    path = root / "fact_train/training/losses.py"
    before = path.stat()
    path.write_text("x = 3\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


DIRTY = {
    "edited": edit("metrics/families/fid.py"),
    "edited board code": edit("leaderboard/build.py"),
    "edited importer": edit("baselines/load.py"),
    "edited bundled data": edit("fact_train/data/mnist/train.gz"),
    "edited requirements": edit("pyproject.toml"),
    "edited constraints": edit("constraints.txt"),
    "edited, same size and time": same_size_and_time,
    "removed": lambda root: (root / "fact_eval/jobs/plan.py").unlink(),
    "untracked module": edit("fact_eval/new.py"),
    "untracked package that shadows a module": edit("fact_train/losses/__init__.py"),
    "untracked compiled module": edit("fact_train/losses.so"),
    "staged": staged,
    "added": added,
    "untracked, in .git/info/exclude": hidden_by_exclude,
    "untracked, with a .gitignore of its own": hidden_by_a_gitignore_of_its_own,
    "untracked, in an edited .gitignore": hidden_by_an_edited_gitignore,
    "untracked, with a repository of its own": hidden_by_a_repository_of_its_own,
    "edited, --assume-unchanged": hidden_by_the_index("--assume-unchanged"),
    "edited, --skip-worktree": hidden_by_the_index("--skip-worktree"),
}
CLEAN = {
    "nothing": lambda root: None,
    "documents": lambda root: [write(root / n) for n in ("README.md", "metrics/README.md", "docs/x.md")],
    "results": edit("leaderboard/results/a.jsonl"),
    "new results": edit("leaderboard/results/b.jsonl"),
    "board": edit("leaderboard/LEADERBOARD.md"),
    "papers' numbers": edit("baselines/mnist/y.json"),
    "tests": edit("tests/test_fid.py"),
    "runs": edit("runs/a/losses.py"),
    "byte code": edit("metrics/__pycache__/fid.cpython-311.pyc"),
}


@pytest.mark.parametrize("change", DIRTY)
def test_code_that_is_not_the_commits_is_dirty(checkout, recorded, change: str) -> None:
    DIRTY[change](checkout)
    state = recorded()
    assert state["dirty"] is True and len(state["commit"]) == 40


@pytest.mark.parametrize("change", CLEAN)
def test_what_makes_no_number_leaves_a_checkout_clean(checkout, recorded, change: str) -> None:
    CLEAN[change](checkout)
    state = recorded()
    assert state["dirty"] is False and len(state["commit"]) == 40


def test_outside_a_checkout_there_is_no_commit(recorded, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert recorded() == {"commit": None, "dirty": None}


def test_a_package_inside_somebody_elses_checkout_is_not_its_commit(checkout, recorded, monkeypatch) -> None:
    monkeypatch.setattr(module, "ROOT", checkout / "site-packages")
    (checkout / "site-packages").mkdir()
    assert recorded() == {"commit": None, "dirty": None}


def test_a_git_hooks_environment_does_not_lead_to_another_repository(checkout, monkeypatch, tmp_path) -> None:
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert git_state(checkout)["dirty"] is False


def test_the_code_is_all_that_gets_installed() -> None:
    root = module.ROOT
    setuptools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    top = {package.split(".")[0] for package in setuptools["packages"]}
    assert {setuptools["package-dir"].get(name, name) for name in top} == {n for n in CODE if "." not in n}
    assert all((root / name).exists() for name in CODE)


def test_a_run_resumed_with_the_same_code_records_one_start(checkout, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(module, "ROOT", checkout)
    first = trained(tmp_path)
    write(checkout / "README.md")
    git(checkout, "commit", "-qam", "a document")
    assert git_state()["commit"] != first["git"]["commit"]
    assert trained(tmp_path) == first


def test_a_run_resumed_with_edited_code_says_so(checkout, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(module, "ROOT", checkout)
    first = trained(tmp_path)["git"]
    write(checkout / "fact_train/training/losses.py")
    options = trained(tmp_path)
    assert options["git"] == first and [start["git"]["dirty"] for start in options["resumed"]] == [True]
    git(checkout, "commit", "-qam", "other losses")
    states = [start["git"] for start in trained(tmp_path)["resumed"]]
    assert [state["dirty"] for state in states] == [True, False] and states[1]["commit"] != first["commit"]


def test_a_run_resumed_with_other_packages_says_so(checkout, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(module, "ROOT", checkout)
    trained(tmp_path)
    monkeypatch.setattr(run_folder.metadata, "version", lambda name: "9.9")
    (start,) = trained(tmp_path)["resumed"]
    assert set(start["packages"].values()) == {"9.9"}


def test_a_snapshot_is_judged_by_the_starts_before_it(checkout, monkeypatch, tmp_path) -> None:
    """The everyday case: a run killed at 1.5 kimg, its losses edited, resumed to 2."""
    from fact_eval.jobs.plan import describe_training
    from fact_eval.jobs.runs import Run
    from fact_leaderboard.gate import git_problem

    monkeypatch.setattr(module, "ROOT", checkout)
    trained(tmp_path)
    write(checkout / "fact_train/training/losses.py")
    run_folder.note_start(tmp_path / "run", nimg=1500, machine={})
    options = run_folder.read_options(tmp_path / "run")
    before, after = (describe_training(Run(tmp_path / "run", options), kimg=kimg) for kimg in (1, 2))
    assert "resumed" not in before and after["resumed"][0]["kimg"] == 1.5
    assert git_problem(make_record(training=before)) is None
    assert git_problem(make_record(training=after)) == "trained with uncommitted code"


def test_equal_code_is_told_from_other_code(checkout) -> None:
    one = git_state(checkout)
    write(checkout / "README.md")
    git(checkout, "commit", "-qam", "a document")
    two = git_state(checkout)
    write(checkout / "metrics/families/fid.py")
    git(checkout, "commit", "-qam", "code")
    three = git_state(checkout)
    assert same_code(one, two, checkout) and not same_code(two, three, checkout)
    assert not same_code(one, {**two, "dirty": True}, checkout)
    assert not same_code(one, {"commit": "0" * 40, "dirty": False}, checkout)
    assert not same_code(one, None, checkout) and same_code(None, None, checkout)
