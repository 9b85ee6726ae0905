"""The code part of a feature's key: every byte of code that makes images and features counts."""

import ast
import shutil
from pathlib import Path

import pytest

from fact_eval.features.code_key import FEATURE_MODULES, PACKAGES, features_code, hash_features_code
from fact_metrics.base.fingerprints import code_sha256, module_files

CHOICE = "chooses what is scored and writes it down; the images' part of the key says what was chosen"
# Imported by the modules of the key, and without effect on images or features. A name stands for all in it.
HARMLESS = {
    "fact_metrics.base.atomic": "writes files whole",
    "fact_metrics.base.canonical": "spells what is hashed",
    "fact_metrics.base.devices": CHOICE,
    "fact_metrics.base.processes": "who computes a chunk; features do not depend on it",
    "fact_train.settings.fields": "describes fields to users",
    "fact_train.settings.checks": "refuses configurations, changes none",
    "fact_metrics.base.progress": "bars and lines",
    "fact_train.settings.stylex_checks": "refuses configurations, changes none",
    "fact_metrics.base.tensors": "the hash that a snapshot's weights are checked against",
    "fact_metrics.base.file_hashes": CHOICE,
    "fact_metrics.base.interruption": "how threads and programs end",
    "fact_metrics.base.limits": "refuses files, changes none",
    "fact_metrics.base.plain_text": "spells text for people",
    "fact_metrics.base.schema": "refuses documents, changes none",
    "fact_metrics.base.signing": "tells our files from others'",
    "fact_metrics.base.errors": "exceptions",
    "fact_metrics.base.extras": "names a package that is missing",
    "fact_metrics.base.fingerprints": "hashes code and stamps files",
    "fact_metrics.base.folders": "where the store lies",
    "fact_metrics.engines.frechet": "takes finished features",
    "fact_metrics.inputs": "what metrics read of finished features",
    "fact_metrics.spec": "what metrics are; the key holds SAMPLING itself",
    "fact_train.datasets": CHOICE,
}


def files_of(package: str) -> dict[str, Path]:
    """Every module of a package, by its dotted name."""
    return module_files([package], PACKAGES)


FILES = {name: path for package in PACKAGES for name, path in files_of(package).items()}


def imports_of(path: Path) -> set[str]:
    """Our modules that a file imports anywhere in it, and the packages these lie in."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = [name.split(".") for name in names]
    return {".".join(p[:n]) for p in parts for n in range(1, len(p) + 1)} & FILES.keys()


def has_code(path: Path) -> bool:
    """Whether a file holds more than its docstring."""
    return len(ast.parse(path.read_text(encoding="utf-8")).body) > 1


def is_under(name: str, modules) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules if "." in module)


@pytest.fixture
def copy(tmp_path) -> dict[str, Path]:
    """A copy of our packages' code."""
    for name, folder in PACKAGES.items():
        shutil.copytree(folder, tmp_path / name, ignore=lambda at, names: _no_code(Path(at), names))
    return {name: tmp_path / name for name in PACKAGES}


def _no_code(folder: Path, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".py") and not (folder / name).is_dir()]


def test_a_copy_of_the_code_has_the_same_key_wherever_it_lies(copy) -> None:
    assert hash_features_code(copy) == features_code()


def test_one_byte_more_in_any_file_that_makes_images_or_features_gives_another_key(copy) -> None:
    files = module_files(FEATURE_MODULES, copy)
    assert {
        "fact_train.networks.injection.modconv",
        "fact_train.snapshot",
        "fact_eval.images.encoder",
    } <= files.keys()
    blind = []
    for name, path in files.items():
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        if hash_features_code(copy) == features_code():
            blind.append(name)
        path.write_bytes(content)
    assert blind == [] and hash_features_code(copy) == features_code()


def test_a_file_added_to_a_package_or_moved_into_one_gives_another_key(copy) -> None:
    keys = {hash_features_code(copy)}
    (copy["fact_train"] / "networks" / "extra.py").write_text("")
    keys.add(hash_features_code(copy))
    inner = copy["fact_eval"] / "images" / "sampling"
    inner.mkdir()
    inner.with_suffix(".py").rename(inner / "__init__.py")
    assert "fact_eval.images.sampling" in module_files(FEATURE_MODULES, copy)
    (inner / "more.py").write_text("")
    assert len(keys | {hash_features_code(copy)}) == 3


@pytest.mark.parametrize("module", FEATURE_MODULES)
def test_a_module_that_is_gone_raises(copy, module: str) -> None:
    top, *inner = module.split(".")
    path = copy[top].joinpath(*inner)
    shutil.rmtree(path) if path.is_dir() else path.with_suffix(".py").unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        hash_features_code(copy)


def test_a_path_without_code_raises(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no Python code"):
        code_sha256(tmp_path / "gone.py")
    with pytest.raises(FileNotFoundError, match="no Python code"):
        code_sha256(tmp_path)


def test_every_module_imported_on_the_way_to_a_feature_is_hashed_or_argued_to_be_harmless() -> None:
    seen, following = set(), list(module_files(FEATURE_MODULES, PACKAGES))
    while following:
        name = following.pop()
        if name not in seen:
            seen.add(name)
            following += imports_of(FILES[name])
    hashed = module_files(FEATURE_MODULES, PACKAGES).keys()
    unknown = {name for name in seen - hashed if not is_under(name, HARMLESS) and has_code(FILES[name])}
    assert unknown == set(), "hash it (FEATURE_MODULES), or argue that it changes no image and no feature"
    stale = {name for name in HARMLESS if name in hashed or not any(is_under(m, [name]) for m in seen)}
    assert stale == set()


def test_the_import_check_sees_imports_inside_functions_and_of_packages(tmp_path) -> None:
    (tmp_path / "x.py").write_text(
        "def f():\n    from fact_train.networks import ops\n    import fact_metrics.base.tf32\n"
    )
    expected = {
        "fact_train",
        "fact_train.networks",
        "fact_train.networks.ops",
        "fact_metrics",
        "fact_metrics.base",
        "fact_metrics.base.tf32",
    }
    assert imports_of(tmp_path / "x.py") == expected


def test_another_version_of_torch_gives_another_key(monkeypatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    assert hash_features_code(PACKAGES) != features_code()
