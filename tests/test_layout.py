"""The house stands as designed: rooms, import direction, file lengths, no forbidden names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("metrics", "fact_train", "fact_eval", "leaderboard", "baselines")
# A room may import itself and what stands here; command modules (cli.py, *_commands.py) may import upward.
MAY_IMPORT = {
    "metrics": set(),
    "fact_train": {"metrics"},
    "baselines": {"metrics", "fact_train"},
    "fact_eval": {"metrics", "fact_train", "baselines"},
    "leaderboard": {"metrics", "fact_train", "fact_eval", "baselines"},
}
# What fact_eval takes from fact_train: snapshots, data, and the small shared pieces they stand on.
FACT_EVAL_MAY_IMPORT = {"snapshot", "data", "atomic", "memory", "run_folder", "seeds", "grids", "progress"}


def python_files(*rooms: str) -> list[Path]:
    return [p for room in rooms for p in sorted((ROOT / room).rglob("*.py"))]


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.ImportFrom) and node.level:
            names.add("relative")
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_downward(room: str) -> None:
    wrong = []
    for path in python_files(room):
        if path.name in ("cli.py", "__main__.py") or path.stem.endswith("_commands"):
            continue
        for name in imported_modules(path):
            top = name.split(".")[0]
            assert top != "relative", f"{path}: imports are absolute here"
            if top in ROOMS and top != room and top not in MAY_IMPORT[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, wrong


def test_fact_eval_takes_only_snapshots_and_data_from_the_trainer() -> None:
    wrong = []
    for path in python_files("fact_eval"):
        for name in imported_modules(path):
            parts = name.split(".")
            if parts[0] == "fact_train" and len(parts) > 1 and parts[1] not in FACT_EVAL_MAY_IMPORT:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, wrong


def test_the_import_check_sees_a_forbidden_import(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from fact_eval import records\n")
    assert "fact_eval.records" in imported_modules(bad)


def test_no_file_is_much_longer_than_400_lines() -> None:
    long = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in python_files(*ROOMS, "tests")}
    assert {p: n for p, n in long.items() if n > 440} == {}


def test_no_room_for_miscellany() -> None:
    forbidden = ("utils", "helpers", "manager", "misc", "common")
    assert not [p for p in python_files(*ROOMS) if any(word == p.stem for word in forbidden)]


def test_top_level_is_the_fixed_one() -> None:
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True
    ).stdout
    top = {line.split("/")[0] for line in tracked.splitlines()}
    allowed = {
        *ROOMS,
        *("benchmarks", "tests", ".ci", ".gitignore", "pyproject.toml", "README.md", "CONTRIBUTING.md"),
        *("Makefile", "constraints.txt", "LICENSE", "docs", "mkdocs.yml"),
    }
    assert top <= allowed, top - allowed


@pytest.mark.parametrize("command", ["fact_train.cli", "fact_eval.cli"])
def test_help_needs_no_heavy_import(command: str) -> None:
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, {command}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
