"""Whether code and files are still what they were: hashes of Python files, stamps of any file."""

import hashlib
from pathlib import Path
from typing import NamedTuple

SETTLED = 2.0  # seconds: two changes within one tick of a file system's clock look like one


def code_sha256(*paths: Path) -> str:
    """Hash of the Python files at or under the paths: a cached result of other code is never read back."""
    digest = hashlib.sha256()
    for root in paths:
        for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root.parent).as_posix()}\0".encode())
            digest.update(path.read_bytes())
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
