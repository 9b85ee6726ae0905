"""Resumable downloads: half a file keeps its own name, and only one whose hash is right gets the real one.

urllib alone: the hash decides at the end, so all that is asked of HTTP is `Range`. The half file `X.partial`
outlives a lost connection, Ctrl-C and kill -9, and the next attempt goes on from its end.
"""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from fact_metrics.base.errors import UserError

BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte
# What fails where the network does; other OSErrors are the disk's.
NETWORK = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def download(
    url: str,
    path: Path,
    *,
    sha256: str,
    progress: Callable[[int], None] = lambda done: None,
    timeout: float = TIMEOUT,
) -> None:
    """Put the file at `url` to `path`, whole and with the right hash, or not at all; `progress` gets bytes.

    A connection that breaks is taken up again as long as every attempt brings something. UserError where
    nothing comes, the file is another one (the half file is then removed), or the disk refuses.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        resumed = partial.stat().st_size > 0
        _fetch(url, partial, progress, timeout)
        found = _sha256(partial)
        if found != sha256 and resumed:  # perhaps the half file was damaged: once more, from the start
            os.truncate(partial, 0)
            _fetch(url, partial, progress, timeout)
            found = _sha256(partial)
        if found != sha256:
            size = partial.stat().st_size
            partial.unlink()
            raise UserError(
                f"{url} gave {size:,} bytes with sha256 {found}, not {sha256}: not kept. Try again later, or "
                f"bring the file from elsewhere: `fact-eval weights add FILE`"
            )
        os.replace(partial, path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; free space, or set FACT_WEIGHTS to a "
            f"folder that can be"
        ) from error


def _fetch(url: str, partial: Path, progress: Callable[[int], None], timeout: float) -> None:
    """Attempts until the file is whole; UserError after one that brought nothing."""
    while True:
        before = partial.stat().st_size
        try:
            return _attempt(url, partial, progress, timeout)
        except NETWORK as error:
            if partial.stat().st_size <= before:
                raise UserError(_lost(url, partial, error)) from error


def _attempt(url: str, partial: Path, progress: Callable[[int], None], timeout: float) -> None:
    """Append what is missing of the file; a server that knows no ranges makes it start again."""
    start = partial.stat().st_size
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send, or the half file is longer than the file
            return
        raise
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise http.client.HTTPException(f"asked for bytes from {start}, got another range")
        done = start if resumed else 0
        expected = response.headers.get("Content-Length")
        whole = None if expected is None else done + int(expected)
        with open(partial, "ab" if resumed else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                done += len(block)
                progress(done)
    if whole is not None and done < whole:  # urllib says nothing where a body ends early
        raise http.client.IncompleteRead(b"", whole - done)


def _sha256(partial: Path) -> str:
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lost(url: str, partial: Path, error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        reason = f"HTTP {error.code} {error.reason}"
    else:
        reason = str(getattr(error, "reason", error))
    held = partial.stat().st_size
    if not held:
        partial.unlink()
    kept = f"; {held / 1e6:,.1f} MB are kept, the same command goes on from there" if held else ""
    return (
        f"{url} cannot be fetched: {reason}{kept}. Without a network: bring the file from elsewhere and "
        f"`fact-eval weights add FILE`"
    )
