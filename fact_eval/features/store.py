"""Content-addressed store of features: a folder per source x detector, a verified safetensors file per chunk.

A folder is named by the hash of everything that determines the features: the images (hash of the snapshot or
dataset, seed, sampling), the detector's fingerprint and the code of both. Rows are in index order, in chunks
of CHUNK images. A chunk is written once it is complete, so after a kill only the missing chunks are computed.
Nothing is pickled.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import shutil
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from json import JSONDecodeError, loads
from pathlib import Path
from typing import ClassVar

import fact_eval
import fact_leaderboard
import fact_metrics
import fact_train
from fact_metrics.base.atomic import write_atomically, write_text
from fact_metrics.base.canonical import canonical_json, canonical_sha256
from fact_metrics.base.errors import UserError
from fact_metrics.base.fingerprints import modules_sha256
from fact_metrics.base.folders import cache_folder

FORMAT = 2
CHUNK = 256  # images: a multiple of usual batch sizes, and a small loss after a kill
KEY_FILE = "key.json"

# The code that decides features, from a snapshot or a dataset to the stored row. Every module that these
# import must be listed too, or in tests/test_features_code.py with the reason why it changes no feature.
PACKAGES = {
    package.__name__: Path(package.__file__).parent
    for package in (fact_metrics, fact_train, fact_leaderboard, fact_eval)
}
FEATURE_MODULES = (
    # a snapshot: its file, its networks, and what builds them from a configuration
    "fact_train.snapshot",
    "fact_train.networks",
    "fact_train.classifiers.classifier",
    "fact_train.settings.config",
    # images
    "fact_train.data",
    "fact_eval.images",
    "fact_metrics.base.pixels",
    # features
    "fact_eval.features",
    "fact_metrics.features",
    "fact_metrics.base.tf32",
)
FEATURE_LIBRARIES = ("torch", "torchvision", "numpy", "pillow")


@dataclass(frozen=True)
class Entry:
    """One folder of the store: all features of a source under a detector. `key` is None if unreadable."""

    path: Path
    key: dict | None
    rows: int  # in complete chunks
    chunks: int
    damaged: int  # chunks whose header cannot be read
    size: int  # bytes
    used: float  # last write or read, seconds since the epoch

    def describe(self) -> dict:
        """What the entry holds, as JSON."""
        key = self.key or {"images": {"source": "damaged"}, "detector": {}}
        images = key["images"]
        return {
            "source": images["source"],
            "of": (images.get("snapshot") or images.get("dataset") or "")[:12],
            "seed": images.get("seed"),
            "detector": key["detector"].get("detector"),
            "rows": self.rows,
            "chunks": self.chunks,
            "MB": round(self.size / 1e6, 2),
            "code": "current" if key.get("code") == features_code() else "another",
            "entry": self.path.name[:12],
        }


@functools.cache
def features_code() -> str:
    """Hash of the code that makes images and features, read once per process."""
    return hash_features_code(PACKAGES)


def hash_features_code(packages: Mapping[str, Path]) -> str:
    """Hash of the modules and library versions that make images and features; `packages` as PACKAGES.

    FileNotFoundError where a module does not exist.
    """
    versions = {name: importlib.metadata.version(name) for name in FEATURE_LIBRARIES}
    text = canonical_json([modules_sha256(FEATURE_MODULES, packages), versions])
    return hashlib.sha256(text.encode()).hexdigest()


class FeatureCache:
    """The store on disk, shared by processes. Damaged chunks are removed and reported to `report`."""

    chunk: ClassVar[int] = CHUNK

    def __init__(self, root: Path | None = None, *, report: Callable[[str], None] = lambda line: None):
        self.root = (Path(root) if root else cache_folder()) / "features"
        self._report = report

    def load(self, key: dict, count: int, *, skip: Collection[int] = ()) -> dict:
        """Rows of the first `count` images by chunk number, float32 [n, D]: complete, verified chunks.

        Chunks whose number is in `skip` are not read.
        """
        from safetensors.torch import load

        folder, chunks = self._folder(key), {}
        for number in range(-(-count // self.chunk)):
            if number in skip:
                continue
            rows = min(self.chunk, count - number * self.chunk)
            path = _chunk_path(folder, number)
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                self._report(f"cache {self.root} cannot be read: {error.strerror}")
                break
            header = _header(data)
            if not _is_sound(data, header, folder, number):
                self._report(
                    f"cache chunk {folder.name[:12]}/{path.name} is damaged: removed, to be recomputed"
                )
                path.unlink(missing_ok=True)
            elif int(header["rows"]) >= rows:
                chunks[number] = load(data)["features"][:rows]
        if chunks:
            with contextlib.suppress(OSError):  # another user's entry then looks older than it is
                os.utime(folder / KEY_FILE)
        return chunks

    def store(self, key: dict, number: int, rows) -> Path:
        """Write chunk `number`, float32 [n, D]; atomic: readers see the old file, the new one, or none."""
        from safetensors.torch import save

        folder = self._folder(key)
        path = _chunk_path(folder, number)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / KEY_FILE).exists():
            write_text(folder / KEY_FILE, canonical_json(key))
        rows = rows.contiguous()
        metadata = {
            "entry": folder.name,
            "chunk": str(number),
            "rows": str(len(rows)),
            "sha256": hashlib.sha256(rows.numpy()).hexdigest(),
        }
        content = save({"features": rows}, metadata)
        write_atomically(path, lambda partial: partial.write_bytes(content) and None, flush=False)
        return path

    @contextlib.contextmanager
    def locked(self, keys: Iterable[dict]) -> Iterator[None]:
        """Lock the entries; a second process waits, then reads the chunks. A killed process frees its locks.

        Entries that cannot be locked (no folder, no write permission) stay unlocked. Two processes may then
        compute the same chunks, which harms neither.
        """
        with contextlib.ExitStack() as locks:
            for folder in sorted({self._folder(key) for key in keys}):  # a fixed order prevents deadlocks
                with contextlib.suppress(OSError):
                    folder.mkdir(parents=True, exist_ok=True)
                    locks.enter_context(self._waiting_lock(folder))
            yield

    def entries(self) -> list[Entry]:
        """All entries, sorted by name; only headers are read."""
        return [_entry(path) for path in sorted(self.root.glob("??/*")) if path.is_dir()]

    def damaged(self, entry: Entry) -> list[Path]:
        """Chunks of an entry that differ from what was written; reads and hashes every byte."""
        chunks = sorted(entry.path.glob("*.safetensors"))
        contents = ((path, path.read_bytes()) for path in chunks)
        return [p for p, data in contents if not _is_sound(data, _header(data), entry.path, int(p.stem))]

    def remove(self, entries: Iterable[Entry]) -> int:
        """Remove entries that no process is writing; returns the bytes freed."""
        from filelock import FileLock, Timeout

        freed = 0
        for entry in entries:
            try:
                with FileLock(entry.path / ".lock", timeout=0, mode=0o666):
                    shutil.rmtree(entry.path)
                freed += entry.size
            except Timeout:
                self._report(f"entry {entry.path.name[:12]} is being written: not removed")
            except OSError as error:
                raise UserError(f"{entry.path} cannot be removed: {error.strerror}") from error
        return freed

    def remove_leftovers(self, *, dry_run: bool = False) -> int:
        """Remove files of killed writers and of older formats; returns the bytes freed."""
        paths = [*self.root.glob("??/*/.*.partial-*"), *self.root.glob("??/*.safetensors")]
        paths += self.root.glob("??/.*.partial-*")
        size = sum(path.stat().st_size for path in paths)
        for path in paths if not dry_run else ():
            path.unlink(missing_ok=True)
        return size

    @contextlib.contextmanager
    def _waiting_lock(self, folder: Path) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(folder / ".lock", mode=0o666)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._report(f"another process computes features {folder.name[:12]}: waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _folder(self, key: dict) -> Path:
        name = canonical_sha256({"format": FORMAT, "chunk": self.chunk, **key})
        return self.root / name[:2] / name


def garbage(
    entries: Iterable[Entry],
    *,
    code: str,
    now: float,
    days: float | None = None,
    max_bytes: float | None = None,
) -> dict[Path, str]:
    """Folders of entries to remove and why: damaged, other code, unused for long, beyond the size limit."""
    reasons: dict[Path, str] = {}
    usable = []
    for entry in entries:
        if entry.key is None or entry.damaged or not entry.chunks:
            reasons[entry.path] = "damaged or empty"
        elif entry.key.get("code") != code:
            reasons[entry.path] = "computed by other code"
        elif days is not None and now - entry.used > days * 86400:
            reasons[entry.path] = f"not used for {(now - entry.used) / 86400:.0f} days"
        else:
            usable.append(entry)
    left = sum(entry.size for entry in usable)
    for entry in sorted(usable, key=lambda entry: entry.used):
        if max_bytes is None or left <= max_bytes:
            break
        left -= entry.size
        reasons[entry.path] = "least recently used, beyond the size limit"
    return reasons


def _chunk_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.safetensors"


def _is_sound(data: bytes, header: dict | None, folder: Path, number: int) -> bool:
    """Whether the file is this chunk of this entry and has the content that was written."""
    if header is None or (header["entry"], header["chunk"]) != (folder.name, str(number)):
        return False
    (length,) = struct.unpack_from("<Q", data)
    return hashlib.sha256(memoryview(data)[8 + length :]).hexdigest() == header["sha256"]


def _header(data: bytes) -> dict | None:
    """Metadata of a chunk; None if the file is something else or its header is truncated."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        metadata = loads(bytes(data[8 : 8 + length]))["__metadata__"]
        return metadata if {"entry", "chunk", "rows", "sha256"} <= metadata.keys() else None
    except (struct.error, JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError):
        return None


def _entry(path: Path) -> Entry:
    chunks = list(path.glob("*.safetensors"))
    headers = [_header(_read_header(chunk)) for chunk in chunks]
    try:
        key, used = loads((path / KEY_FILE).read_bytes()), (path / KEY_FILE).stat().st_mtime
    except (OSError, ValueError):
        key, used = None, path.stat().st_mtime
    return Entry(
        path=path,
        key=key,
        rows=sum(int(header["rows"]) for header in headers if header),
        chunks=len(chunks),
        damaged=headers.count(None),
        size=sum(chunk.stat().st_size for chunk in chunks),
        used=used,
    )


def _read_header(path: Path) -> bytes:
    with open(path, "rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        return prefix + file.read(min(length, 1 << 24))
