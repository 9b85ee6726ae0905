"""The house stands as designed: import direction between and inside rooms, names, lengths, packages.

Every rule is a function of a root folder, so each is also tested on a copy of the tree with a violation.
"""

import ast
import functools
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
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
    "benchmarks": "benchmarks",
}
# Sub-rooms from the ground up: a module imports from its own sub-room and from those above it in this list.
# An entry is a module or a package with all that is in it; the longest one that fits a module counts.
# `fact_train.cli` is last but for the benchmarks because of `fact-train --eval`.
ORDER = [
    "fact_metrics.base",
    "fact_metrics.images",
    "fact_metrics.features",
    "fact_metrics.spec",
    "fact_metrics.inputs",
    "fact_metrics.family",
    "fact_metrics.engines",
    "fact_metrics.families",
    "fact_metrics.registry",
    "fact_metrics.api",
    "fact_train.settings",
    "fact_train.seeds",
    "fact_train.distributed",
    "fact_train.run_folder",
    "fact_train.datasets",
    "fact_train.sweeps.study_values",
    "fact_train.sweeps.study",
    "fact_train.data",
    "fact_train.networks.ops",
    "fact_train.networks.injection",
    "fact_train.networks",
    "fact_train.augment",
    "fact_train.classifiers",
    "fact_train.snapshot",
    "fact_train.imports",
    "fact_train.bake",
    "fact_train.onnx_export",
    "fact_train.cost",
    "fact_train.training.losses",
    "fact_train.training.precision",
    "fact_train.training.trackers",
    "fact_train.training.stats",
    "fact_train.training.run_log",
    "fact_train.training.signals",
    "fact_train.training.thread_pool",
    "fact_train.training.step",
    "fact_train.training.real_images",
    "fact_train.training.averages",
    "fact_train.training.grids",
    "fact_train.training.models",
    "fact_train.training",
    "fact_train.commands",
    "fact_baselines",
    "fact_leaderboard",
    "fact_train.sweeps",
    "fact_eval.images",
    "fact_eval.features",
    "fact_eval.jobs",
    "fact_eval.scoring",
    "fact_eval.explain",
    "fact_eval.compare",
    "fact_eval.checks",
    "fact_eval.reports",
    "fact_eval.weights",
    "fact_eval.commands",
    "fact_eval.cli",
    "fact_eval.__main__",
    "fact_train.commands.sweep",
    "fact_train.commands.tune",
    "fact_train.cli",
    "fact_train.__main__",
    "benchmarks",
]
LONGEST_FILE = 440  # lines; aim at 400
MOST_ENTRIES = 13  # at the top of fact_eval/
FORBIDDEN_NAMES = {"utils", "util", "helpers", "manager", "misc", "common"}
TOP_LEVEL = {
    *ROOMS,
    *("tests", "docs", ".ci", ".gitignore", "pyproject.toml", "README.md", "CONTRIBUTING.md"),
    *("Makefile", "constraints.txt", "LICENSE", "mkdocs.yml"),
}


# The import graph


def module_files(root: Path) -> dict[str, Path]:
    """Every module of every room by its installed name; a package is its `__init__.py`."""
    files = {}
    for folder, name in ROOMS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = [name, *path.relative_to(root / folder).with_suffix("").parts]
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def import_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All imports and calls under a node, in functions too; not those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).split(".")[-1] == "TYPE_CHECKING":
            yield from import_nodes(ast.Module(child.orelse, []))
            continue
        if isinstance(child, ast.Import | ast.ImportFrom | ast.Call):
            yield child
        yield from import_nodes(child)


def imported_names(path: Path) -> list[str]:
    """Dotted names that a file imports; `from a import b` is a.b. import_module("a.b") counts as well."""
    return names_in(path.read_text(encoding="utf-8"))


@functools.cache  # the copies of the tree are alike
def names_in(code: str) -> list[str]:
    names = []
    for node in import_nodes(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names += [f"{module}.{alias.name}" for alias in node.names]
        elif node.args and ast.unparse(node.func).split(".")[-1] == "import_module":
            text = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                names.append(text.value.rstrip("."))
    return names


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module -> modules of ours that it imports. A name inside a module stands for the module."""
    files = module_files(root)
    graph = {}
    for module, path in files.items():
        graph[module] = set()
        for name in imported_names(path):
            while name and name not in files:
                name = name.rpartition(".")[0]
            graph[module] |= {name} - {"", module}
    return graph


def level(module: str) -> int | None:
    """Place in ORDER; None without one. A room's own package is the ground: it must import nothing."""
    if module in ROOMS.values() and module != "benchmarks":
        return -1
    fitting = [entry for entry in ORDER if f"{module}.".startswith(f"{entry}.")]
    return ORDER.index(max(fitting, key=len)) if fitting else None


# Rules: a root folder -> what is wrong in it, one line each


def every_module_has_a_place(root: Path) -> list[str]:
    modules = module_files(root)
    lost = [f"{module} is in no sub-room of ORDER" for module in modules if level(module) is None]
    used = {level(module) for module in modules}
    return lost + [f"{entry} has no module" for i, entry in enumerate(ORDER) if i not in used]


def imports_point_down(root: Path) -> list[str]:
    wrong = []
    for module, imported in import_graph(root).items():
        here = level(module)
        for name in sorted(imported):
            if here is not None and level(name) is not None and level(name) > here:
                wrong.append(f"{module} imports {name}")
    return wrong


def imports_have_no_cycle(root: Path) -> list[str]:
    graph, cycles = import_graph(root), []
    while True:
        try:
            TopologicalSorter(graph).prepare()
            return cycles
        except CycleError as error:  # imported first; the first and the last are the same
            cycle = error.args[1][::-1]
            cycles.append(" imports ".join(cycle))
            graph[cycle[0]].discard(cycle[1])


def imports_are_absolute(root: Path) -> list[str]:
    return [
        f"{module} imports {name}"
        for module, path in module_files(root).items()
        for name in imported_names(path)
        if name.startswith(".")
    ]


def fact_eval_has_few_entries(root: Path) -> list[str]:
    entries = [p.name for p in (root / "fact_eval").iterdir() if p.name != "__pycache__"]
    return [] if len(entries) <= MOST_ENTRIES else [f"fact_eval/ has {len(entries)}: {sorted(entries)}"]


def python_files(root: Path) -> list[Path]:
    return [path for room in (*ROOMS, "tests") for path in sorted((root / room).rglob("*.py"))]


def files_are_short(root: Path) -> list[str]:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(root)}
    return [f"{path.relative_to(root)}: {n} lines" for path, n in lengths.items() if n > LONGEST_FILE]


def names_say_what_is_inside(root: Path) -> list[str]:
    paths = [path.relative_to(root) for path in python_files(root)]
    return [str(path) for path in paths if FORBIDDEN_NAMES & set(path.with_suffix("").parts)]


def build_options(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]


def installed_packages(root: Path) -> dict[str, Path]:
    """Every folder with Python files that is installed, by the name it gets."""
    folders = {path.parent for room in ROOMS if room != "benchmarks" for path in (root / room).rglob("*.py")}
    names = {}
    for folder in folders:
        room, *inside = folder.relative_to(root).parts
        names[".".join([ROOMS[room], *inside])] = folder
    return names


def every_package_is_built(root: Path) -> list[str]:
    listed = build_options(root)["setuptools"]["packages"]
    packages = installed_packages(root)
    return [
        *(f"{name} is not in pyproject's packages" for name in sorted(packages.keys() - set(listed))),
        *(f"{name} is in pyproject's packages and has no folder" for name in listed if name not in packages),
        *(f"{name} has no __init__.py" for name in packages if not (packages[name] / "__init__.py").exists()),
        *(f"{name} is listed twice" for name in sorted(set(listed)) if listed.count(name) > 1),
    ]


def every_data_file_is_built(root: Path) -> list[str]:
    """Each pattern of package-data fits a file; each file but documents fits a pattern."""
    packages, built, idle = installed_packages(root), set(), []
    for name, patterns in build_options(root)["setuptools"]["package-data"].items():
        for pattern in patterns:
            files = {path for path in packages[name].glob(pattern) if path.is_file()}
            built |= files
            idle += [] if files else [f"{name}: no file fits {pattern}"]
    rooms = [root / room for room in ROOMS if room != "benchmarks"]
    files = [path for room in rooms for path in room.rglob("*") if path.is_file()]
    return idle + [
        f"{path.relative_to(root)} fits no pattern of package-data"
        for path in files
        if path.suffix not in {".py", ".pyc", ".md", ".png"} and path not in built
    ]


def ruff_knows_every_package(root: Path) -> list[str]:
    known = set(build_options(root)["ruff"]["lint"]["isort"]["known-first-party"])
    return sorted(known ^ {*ROOMS.values(), "tests"})


RULES = [
    every_module_has_a_place,
    imports_point_down,
    imports_have_no_cycle,
    imports_are_absolute,
    fact_eval_has_few_entries,
    files_are_short,
    names_say_what_is_inside,
    every_package_is_built,
    every_data_file_is_built,
    ruff_knows_every_package,
]


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_its_rules(rule: Callable[[Path], list[str]]) -> None:
    assert rule(ROOT) == []


# (rule, file of a copied tree, text added to it or (old, new) in it, what the rule must say)
PLANTED = [
    (every_module_has_a_place, "fact_eval/attic.py", "", "fact_eval.attic is in no sub-room of ORDER"),
    (
        imports_point_down,  # between rooms
        "metrics/base/errors.py",
        "def f():\n    from fact_leaderboard import records\n",
        "fact_metrics.base.errors imports fact_leaderboard.records",
    ),
    (
        imports_point_down,  # inside a room
        "fact_eval/images/sampling.py",
        "import fact_eval.jobs.plan\n",
        "fact_eval.images.sampling imports fact_eval.jobs.plan",
    ),
    (
        imports_point_down,  # commands are no exception
        "fact_train/commands/style.py",
        "from fact_eval.jobs import plan\n",
        "fact_train.commands.style imports fact_eval.jobs.plan",
    ),
    (
        imports_point_down,  # by name, at run time
        "fact_train/seeds.py",
        "import importlib\n\nimportlib.import_module(f'fact_eval.jobs.{name}')\n",
        "fact_train.seeds imports fact_eval.jobs",
    ),
    (
        imports_point_down,  # a room's own package
        "leaderboard/__init__.py",
        "from fact_leaderboard.records import Record\n",
        "fact_leaderboard imports fact_leaderboard.records",
    ),
    (
        imports_have_no_cycle,
        "leaderboard/records.py",
        "def f():\n    from fact_leaderboard.build import build_board\n",
        "fact_leaderboard.records imports fact_leaderboard.build",
    ),
    (imports_are_absolute, "baselines/load.py", "from .x import y\n", "fact_baselines.load imports .x.y"),
    (fact_eval_has_few_entries, "fact_eval/{}.txt", "", "0.txt"),
    (files_are_short, "baselines/load.py", "\n" * LONGEST_FILE, "baselines/load.py"),
    (names_say_what_is_inside, "fact_train/utils/shapes.py", "", "fact_train/utils/shapes.py"),
    (names_say_what_is_inside, "tests/helpers.py", "", "tests/helpers.py"),
    (every_package_is_built, "fact_eval/attic/x.py", "", "fact_eval.attic is not in pyproject's packages"),
    (every_package_is_built, "fact_eval/attic/x.py", "", "fact_eval.attic has no __init__.py"),
    (
        every_package_is_built,
        "pyproject.toml",
        ('"fact_baselines",\n', '"fact_baselines",\n"fact_attic",\n'),
        "fact_attic is in pyproject's packages and has no folder",
    ),
    (
        every_data_file_is_built,
        "fact_eval/jobs/attic.json",
        "{}",
        "fact_eval/jobs/attic.json fits no pattern",
    ),
    (
        every_data_file_is_built,
        "pyproject.toml",
        ("fact_baselines = [", 'fact_baselines = ["*.csv", '),
        "fact_baselines: no file fits *.csv",
    ),
    (ruff_knows_every_package, "pyproject.toml", ('"fact_baselines", "', '"'), "fact_baselines"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of all rooms, tests and build options; files that are no code are empty."""

    def copy(source: str, target: str) -> None:
        Path(target).write_bytes(Path(source).read_bytes() if source.endswith(".py") else b"")

    for folder in (*ROOMS, "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored, copy_function=copy)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("rule", "file", "change", "message"),
    PLANTED,
    ids=[f"{rule.__name__}-{file}" for rule, file, *_ in PLANTED],
)
def test_a_planted_violation_is_seen(
    tree: Path, rule: Callable, file: str, change: str | tuple[str, str], message: str
) -> None:
    before = rule(tree)
    for number in range(MOST_ENTRIES if "{}" in file else 1):
        path = tree / file.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(old + change if isinstance(change, str) else old.replace(*change))
    assert [line for line in rule(tree) if line not in before and message in line]


def test_imports_for_type_checkers_alone_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("if TYPE_CHECKING:\n    import a\nelse:\n    import b\n\ndef f():\n    import c\n")
    assert imported_names(path) == ["b", "c"]


def test_top_level_is_the_fixed_one() -> None:
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True
    ).stdout
    top = {line.split("/")[0] for line in tracked.splitlines()}
    assert top <= TOP_LEVEL, top - TOP_LEVEL


@pytest.mark.parametrize("command", ["fact_train.cli", "fact_eval.cli"])
def test_help_needs_no_heavy_import(command: str) -> None:
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, {command}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
