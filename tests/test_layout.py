"""The house stands as designed: rooms, import direction, file lengths, no forbidden names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Folder -> installed name.
ROOMS = {
    "metrics": "fact_metrics",
    "fact_train": "fact_train",
    "baselines": "fact_baselines",
    "leaderboard": "fact_leaderboard",
    "fact_eval": "fact_eval",
}
# Imports point down this list only; command modules (cli.py, commands/) may import upward.
ORDER = list(ROOMS.values())


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
        if path.name in ("cli.py", "__main__.py") or path.parent.name == "commands":
            continue
        for name in imported_modules(path):
            top = name.split(".")[0]
            assert top != "relative", f"{path}: imports are absolute here"
            if top in ORDER and ORDER.index(top) > ORDER.index(ROOMS[room]):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, wrong


def test_the_import_check_sees_a_forbidden_import(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from fact_leaderboard import records\n")
    assert "fact_leaderboard.records" in imported_modules(bad)


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
