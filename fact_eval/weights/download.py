"""Resumable downloads: a file gets its name only when it is complete and its hash is right.

The incomplete file `X.partial` survives a lost connection, Ctrl-C and kill -9; the next attempt appends to it
with an HTTP `Range` request.
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
# Errors of the network; other OSErrors come from the disk.
NETWORK = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def download(
    url: str,
    path: Path,
    *,
    sha256: str,
    progress: Callable[[int], None] = lambda done: None,
    timeout: float = TIMEOUT,
) -> None:
    """Download `url` to `path`, complete and with the right hash, or not at all; `progress` gets bytes.

    A lost connection is retried as long as every attempt brings bytes. UserError if an attempt brings none,
    if the hash is wrong (the partial file is then removed), or if the disk fails.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        resumed = partial.stat().st_size > 0
        _fetch(url, partial, progress, timeout)
        actual = _sha256(partial)
        if actual != sha256 and resumed:  # the partial file may have been damaged: restart once
            os.truncate(partial, 0)
            _fetch(url, partial, progress, timeout)
            actual = _sha256(partial)
        if actual != sha256:
            size = partial.stat().st_size
            partial.unlink()
            raise UserError(
                f"{url} gave {size:,} bytes with sha256 {actual}, not {sha256}: discarded. Try again later, "
                f"or copy the file from another machine: `fact-eval weights add FILE`"
            )
        os.replace(partial, path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; free space, or set FACT_WEIGHTS to a "
            f"folder that can be"
        ) from error


def _fetch(url: str, partial: Path, progress: Callable[[int], None], timeout: float) -> None:
    """Attempt until the file is complete; UserError after an attempt without new bytes."""
    while True:
        before = partial.stat().st_size
        try:
            return _attempt(url, partial, progress, timeout)
        except NETWORK as error:
            if partial.stat().st_size <= before:
                raise UserError(_lost(url, partial, error)) from error


def _attempt(url: str, partial: Path, progress: Callable[[int], None], timeout: float) -> None:
    """Append the rest of the file; start again if the server does not support ranges."""
    start = partial.stat().st_size
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # the partial file is complete or too long
            return
        raise
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise http.client.HTTPException(f"asked for bytes from {start}, got another range")
        done = start if resumed else 0
        expected = response.headers.get("Content-Length")
        total = None if expected is None else done + int(expected)
        with open(partial, "ab" if resumed else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                done += len(block)
                progress(done)
    if total is not None and done < total:  # urllib does not report a truncated body
        raise http.client.IncompleteRead(b"", total - done)


def _sha256(partial: Path) -> str:
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lost(url: str, partial: Path, error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        reason = f"HTTP {error.code} {error.reason}"
    else:
        reason = str(getattr(error, "reason", error))
    size = partial.stat().st_size
    if not size:
        partial.unlink()
    resumable = f"; the same command resumes after {size / 1e6:,.1f} MB" if size else ""
    return (
        f"{url} cannot be fetched: {reason}{resumable}. Without a network: copy the file from another "
        f"machine, then `fact-eval weights add FILE`"
    )
