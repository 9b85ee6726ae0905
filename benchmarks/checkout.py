"""Runs the benchmarks from a plain checkout, where nothing is installed: no network, no pip.

Three packages are installed under other names than their folders have (`package-dir` in pyproject.toml).
`make_importable` gives them these names in a temporary folder of links, for this process and its children.
"""

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def make_importable(root: Path = ROOT) -> Path | None:
    """Put the packages of a checkout on sys.path and PYTHONPATH; None if they are installed already."""
    folders = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    if all(importlib.util.find_spec(name) for name in folders):
        return None
    links = Path(tempfile.mkdtemp(prefix="fact-stylegan-"))
    atexit.register(_remove, links, os.getpid())
    for name, folder in folders.items():
        (links / name).symlink_to(root / folder, target_is_directory=True)
    sys.path[:0] = [str(links), str(root)]
    paths = [str(links), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    return links


def _remove(links: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child leaves it
        shutil.rmtree(links, ignore_errors=True)
