"""SHA-256 of files, remembered except for small ones: 50 snapshots of 256 px are 10 GB to read.

A file is known again by its path and its stamp. What is remembered is signed with the user's key.
"""

import contextlib
import hashlib
import time
from pathlib import Path

from fact_metrics.base.errors import UserError
from fact_metrics.base.fingerprints import SETTLED, stamp
from fact_metrics.base.folders import cache_folder
from fact_metrics.base.signing import read_signed, write_signed

LARGE = 1 << 20  # bytes; below it, reading takes 1 ms and is about as quick as looking up


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes. OSError where it cannot be read."""
    path = Path(path)
    now = stamp(path)
    if now.size < LARGE:
        return _read(path)
    where = str(path.resolve())
    state = [where, *now]
    memo = cache_folder() / "hashes" / f"{hashlib.sha256(where.encode()).hexdigest()}.json"
    known = read_signed(memo)
    if isinstance(known, dict) and known.get("state") == state:
        return known["sha256"]
    found = _read(path)
    if time.time() - now.changed / 1e9 > SETTLED and stamp(path) == now:
        with contextlib.suppress(OSError, UserError):  # a shortcut: without room for it the file is read
            write_signed(memo, {"state": state, "sha256": found})
    return found


def _read(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
