"""Which commit the running code is, and whether it is that commit's code: what a number's reader checks out.

Code is what makes numbers: the packages, pyproject.toml and constraints.txt. Documents, boards, results and
papers' numbers are not. Files are compared with the commit by their content: neither `git add`, nor
.git/info/exclude, nor `git update-index --assume-unchanged` hides an edit. Only what the commit's own
.gitignore ignores, such as __pycache__, is no code.
"""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("metrics", "fact_train", "fact_eval", "baselines", "leaderboard", "pyproject.toml", "constraints.txt")
DATA = ("baselines/", "leaderboard/")  # beside their Python files: papers' numbers, records, boards
TIMEOUT = 20.0  # seconds; a network drive may be slow
REDIRECTING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set inside git hooks, for another repository

GitState = dict[str, str | bool | None]


def git_state(root: Path | None = None) -> GitState:
    """{"commit", "dirty"} of the checkout at `root`, by default the one that holds this code.

    dirty: a code file was edited, removed or added since the commit, whether git tracks it or not. Both are
    None where `root` is not the top of a checkout of this project.
    """
    root = Path(root or ROOT)
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None or _git(root, "ls-files", "--error-unmatch", "pyproject.toml") is None:
        return {"commit": None, "dirty": None}
    return {"commit": commit.strip(), "dirty": _is_dirty(root)}


def same_code(a: GitState | None, b: GitState | None, root: Path | None = None) -> bool:
    """Whether two recorded states are of equal code: equal states, or clean commits with equal code files."""
    if a == b:
        return True
    commits = [state["commit"] for state in (a, b) if state and state["commit"] and not state["dirty"]]
    if len(commits) < 2:
        return False
    trees = [_committed(Path(root or ROOT), commit) for commit in commits]
    return trees[0] is not None and trees[0] == trees[1]


def _is_dirty(root: Path) -> bool:
    committed = _committed(root, "HEAD")
    present = _present(root)
    if committed is None or present is None or committed.keys() != present:
        return True
    names = sorted(committed)
    hashes = _git(root, "hash-object", "--stdin-paths", stdin="".join(f"{name}\n" for name in names))
    return hashes is None or hashes.split() != [committed[name] for name in names]


def _committed(root: Path, commit: str) -> dict[str, str] | None:
    """Git's hash of every code file of a commit by its path; None where git does not know the commit."""
    listing = _git(root, "ls-tree", "-r", "-z", commit, "--", *CODE)
    if listing is None:
        return None
    entries = (entry.split("\t", 1) for entry in listing.split("\0") if entry)
    return {path: fields.split()[2] for fields, path in entries if _is_code(path)}


def _present(root: Path) -> set[str] | None:
    """Paths of the code files that lie in the checkout, tracked or not."""
    ignored = (_git(root, "show", "HEAD:.gitignore") or "").splitlines()
    listing = _git(
        root,
        *("ls-files", "-z", "--cached", "--others"),
        *(f"--exclude={pattern}" for pattern in ignored if pattern.strip() and not pattern.startswith("#")),
        *("--", *CODE),
    )
    if listing is None:
        return None
    paths = (path for path in listing.split("\0") if path and _is_code(path))
    return {path for path in paths if os.path.lexists(root / path)}


def _is_code(path: str) -> bool:
    return path.endswith(".py") or not (path.endswith(".md") or path.startswith(DATA))


def _git(root: Path, *arguments: str, stdin: str | None = None) -> str | None:
    """What a git command prints; None where it fails, takes too long, or there is no git."""
    environment = {name: value for name, value in os.environ.items() if name not in REDIRECTING}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=TIMEOUT,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
