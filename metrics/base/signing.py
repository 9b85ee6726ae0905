"""A key of the user alone, and files signed with it: what others write into a shared cache does not count.

The key lies in the user's own folder (`folders.config_folder`) and is made at first use. Users or machines
that trust each other can share one: $FACT_CACHE_KEY names its file.
"""

import contextlib
import functools
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Any

import msgspec

from fact_metrics.base.atomic import write_text
from fact_metrics.base.canonical import canonical_json
from fact_metrics.base.errors import UserError
from fact_metrics.base.folders import config_folder
from fact_metrics.base.schema import BadDocument, parse_document

ENVIRONMENT = "FACT_CACHE_KEY"
KEY_FILE = "cache.key"
BYTES = 32


class SignedShape(msgspec.Struct):
    """A signed file: any JSON value and its signature."""

    value: Any
    hmac: str


def sign(purpose: str, content: bytes | memoryview) -> str:
    """HMAC-SHA256 of a content under the user's key; one purpose's signature does not serve another.

    UserError if the key cannot be read or made.
    """
    code = hmac.new(user_key(), f"{len(purpose)}:{purpose}".encode(), hashlib.sha256)
    code.update(content)
    return code.hexdigest()


def is_signed(signature: str, purpose: str, content: bytes | memoryview) -> bool:
    """Whether the signature is that of `sign`."""
    return hmac.compare_digest(sign(purpose, content).encode(), signature.encode())


def key_name() -> str:
    """A public name of the user's key: equal names, equal keys. UserError as `sign`."""
    return hashlib.sha256(b"name of " + user_key()).hexdigest()[:16]


def write_signed(path: Path, value: Any) -> None:
    """Write a JSON value with its signature, atomically. UserError without a key or room."""
    text = canonical_json(value)
    document = {"value": value, "hmac": sign(path.name, text.encode())}
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_public(path.parent)
    write_text(path, canonical_json(document))


def read_signed(path: Path) -> Any:
    """The value of `write_signed`; None if the file is absent, damaged or not signed with the user's key."""
    with contextlib.suppress(OSError, BadDocument, UserError):
        document = parse_document(path.read_bytes(), SignedShape, path, way_out="remove it")
        if is_signed(document["hmac"], path.name, canonical_json(document["value"]).encode()):
            return document["value"]
    return None


def refuse_public(folder: Path) -> None:
    """UserError if everybody can write a folder or the one that holds it: links in it would be followed."""
    for one in (folder, folder.parent):
        with contextlib.suppress(OSError):  # what cannot be seen cannot be used either
            mode = one.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                raise UserError(
                    f"everybody can write {one}; chmod o-w {one}, or set FACT_CACHE to a folder of your own"
                )


def user_key() -> bytes:
    """The user's key. UserError if it cannot be read or made, or if others can read it."""
    shared = os.environ.get(ENVIRONMENT)
    path = Path(shared).expanduser() if shared else config_folder() / KEY_FILE
    return _read_key(path, shared is not None and bool(shared))


@functools.cache
def _read_key(path: Path, is_shared: bool) -> bytes:
    try:
        if not is_shared:
            _make_key(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            _check_private(path, os.fstat(descriptor), is_shared)
            text = file.read(4 * BYTES)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"key {path} cannot be used: {reason}; {_way_out(is_shared)}") from error
    try:
        key = bytes.fromhex(text.decode())
    except ValueError:
        key = b""
    if len(key) != BYTES:
        raise UserError(f"key {path} is damaged; {_way_out(is_shared)}")
    return key


def _make_key(path: Path) -> None:
    """Write a new key unless there is one; of several processes one wins."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w") as file:
            file.write(secrets.token_hex(BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)  # fails where the name is taken; a rename would replace the winner's
    finally:
        os.unlink(partial)


def _check_private(path: Path, status: os.stat_result, is_shared: bool) -> None:
    forbidden = 0o027 if is_shared else 0o077
    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & forbidden:
        raise UserError(f"key {path} can be read by others; chmod {'640' if is_shared else '600'} {path}")
    if not is_shared and status.st_uid != os.getuid():
        raise UserError(f"key {path} belongs to another user; {_way_out(is_shared)}")


def _way_out(is_shared: bool) -> str:
    if is_shared:
        return f"set {ENVIRONMENT} to a readable key file, or unset it"
    return "remove it to get another, or set FACT_CONFIG to a folder of your own"
