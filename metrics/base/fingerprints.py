"""Whether code and files are still what they were: hashes of Python files, stamps of any file."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

SETTLED = 2.0  # seconds: two changes within one tick of a file system's clock look like one


def code_sha256(*paths: Path) -> str:
    """Hash of the Python files at or under the paths: a cached result of other code is never read back.

    FileNotFoundError where a path does not exist, or is a folder without Python files.
    """
    digest = hashlib.sha256()
    for root in paths:
        for path in _python_files(root):
            digest.update(f"{path.relative_to(root.parent).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def module_files(modules: Iterable[str], packages: Mapping[str, Path]) -> dict[str, Path]:
    """Python files of modules by dotted name, sorted.

    A module such as `fact_metrics.base.tf32` may be a file or a package; a package stands for everything in
    it. The packages that a module lies in run when it is imported, so their `__init__` is always included.
    `packages` maps the first part of the names to folders. FileNotFoundError where a module does not exist.
    """
    files = {}
    for module in modules:
        top, *inner = module.split(".")
        for depth in range(len(inner)):
            files[".".join([top, *inner[:depth]])] = packages[top].joinpath(*inner[:depth], "__init__.py")
        root = packages[top].joinpath(*inner)
        for path in _python_files(root if root.is_dir() else root.with_suffix(".py")):
            parts = path.relative_to(packages[top]).with_suffix("").parts
            files[".".join([top, *parts]).removesuffix(".__init__")] = path
    return dict(sorted(files.items()))


def modules_sha256(modules: Iterable[str], packages: Mapping[str, Path]) -> str:
    """Hash of the names and the content of `module_files`, with its arguments and errors."""
    digest = hashlib.sha256()
    for name, path in module_files(modules, packages).items():
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


class Stamp(NamedTuple):
    """What changes when a file does; times are in ns.

    `changed` no program can set: what was written again, or put in a file's place with an old date, has
    another.
    """

    device: int
    inode: int
    size: int
    written: int
    changed: int


def stamp(path: Path) -> Stamp:
    """The stamp of a file. OSError where there is none."""
    stat = path.stat()
    return Stamp(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _python_files(root: Path) -> list[Path]:
    files = [root] if root.is_file() else sorted(root.rglob("*.py"))
    if not files:
        raise FileNotFoundError(f"{root}: no Python code there, so its hash would be blind to every edit")
    return files
