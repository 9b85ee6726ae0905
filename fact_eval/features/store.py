"""Content-addressed store of features: a folder per source x detector, a verified safetensors file per chunk.

The key of a folder is the hash of everything that decides the features: the images (snapshot or dataset hash,
seed, sampling), the detector's fingerprint and the code that makes both. Rows are in index order, cut into
chunks of CHUNK images that are written as they are made: a killed process leaves whole chunks, and whoever
comes next makes only the others. Never pickle.
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
from fact_leaderboard.records import canonical_json
from fact_metrics.base.atomic import write_atomically, write_text
from fact_metrics.base.errors import UserError
from fact_metrics.base.fingerprints import modules_sha256
from fact_metrics.base.folders import cache_folder

FORMAT = 2
CHUNK = 256  # images: a multiple of usual batches, and little to lose where a network takes long
KEY_FILE = "key.json"

# The code that decides features, from a snapshot or a dataset to the stored row. Every module that these
# import must be listed too, or in tests/test_features_code.py with the reason why it changes no feature.
PACKAGES = {
    package.__name__: Path(package.__file__).parent
    for package in (fact_metrics, fact_train, fact_leaderboard, fact_eval)
}
FEATURE_MODULES = (
    # networks of a snapshot: their layers, and what builds them from a configuration
    "fact_train.networks",
    "fact_train.snapshot",
    "fact_train.training.trainer",
    "fact_train.training.stylex",
    "fact_train.classifiers.classifier",
    "fact_train.settings.config",
    # pictures
    "fact_train.data",
    "fact_eval.images.datasets",
    "fact_eval.scoring.reals",
    # images: latents, labels, noise, order, precision
    "fact_eval.images.sources",
    "fact_eval.images.sampling",
    "fact_eval.images.encoder",
    "fact_eval.scoring.evaluation",
    # features: detectors, batches, chunks
    "fact_metrics.features",
    "fact_metrics.base.tf32",
    "fact_eval.features.extract",
    "fact_eval.features.prefetch",
    "fact_eval.features.processes",
    "fact_eval.features.store",
    "fact_eval.features.save_reference",
)
FEATURE_LIBRARIES = ("torch", "torchvision", "numpy", "pillow")


@dataclass(frozen=True)
class Entry:
    """One folder of the store: all features of a source under a detector. `key` is None where unreadable."""

    path: Path
    key: dict | None
    rows: int  # in whole chunks
    chunks: int
    damaged: int  # chunks whose header cannot be read
    size: int  # bytes
    used: float  # when it was last written or read, seconds since the epoch

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
    """Features by content, shared between processes. A damaged chunk is said to `report` and made again."""

    chunk: ClassVar[int] = CHUNK

    def __init__(self, root: Path | None = None, *, report: Callable[[str], None] = lambda line: None):
        self.root = (Path(root) if root else cache_folder()) / "features"
        self._report = report

    def load(self, key: dict, count: int, *, skip: Collection[int] = ()) -> dict:
        """Rows of the first `count` images by chunk number, float32 [n, D], each whole and verified.

        Chunks of the numbers in `skip` are not read.
        """
        from safetensors.torch import load

        folder, found = self._folder(key), {}
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
                    f"cache chunk {folder.name[:12]}/{path.name} is damaged: removed, to be made again"
                )
                path.unlink(missing_ok=True)
            elif int(header["rows"]) >= rows:
                found[number] = load(data)["features"][:rows]
        if found:
            with contextlib.suppress(OSError):  # of another user: then it only looks older than it is
                os.utime(folder / KEY_FILE)
        return found

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
        """Hold the entries: who comes second waits, then finds the chunks. A killed holder frees them.

        Where a lock cannot be had (no such folder, no right to write) nothing is held: two processes may then
        make the same chunks, and neither harms the other.
        """
        with contextlib.ExitStack() as held:
            for folder in sorted({self._folder(key) for key in keys}):  # in one order: nobody waits in a ring
                with contextlib.suppress(OSError):
                    folder.mkdir(parents=True, exist_ok=True)
                    held.enter_context(self._waiting_lock(folder))
            yield

    def entries(self) -> list[Entry]:
        """All entries, sorted by name; only headers are read."""
        return [_entry(path) for path in sorted(self.root.glob("??/*")) if path.is_dir()]

    def damaged(self, entry: Entry) -> list[Path]:
        """Chunks of an entry that are not what was written: every byte is read and hashed."""
        chunks = sorted(entry.path.glob("*.safetensors"))
        contents = ((path, path.read_bytes()) for path in chunks)
        return [p for p, data in contents if not _is_sound(data, _header(data), entry.path, int(p.stem))]

    def remove(self, entries: Iterable[Entry]) -> int:
        """Remove entries that nobody is writing; returns the bytes freed."""
        from filelock import FileLock, Timeout

        freed = 0
        for entry in entries:
            try:
                with FileLock(entry.path / ".lock", timeout=0, mode=0o666):
                    shutil.rmtree(entry.path)
                freed += entry.size
            except Timeout:
                self._report(f"entry {entry.path.name[:12]} is being written: kept")
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
            self._report(f"another process makes features {folder.name[:12]}: waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _folder(self, key: dict) -> Path:
        text = canonical_json({"format": FORMAT, "chunk": self.chunk, **key})
        name = hashlib.sha256(text.encode()).hexdigest()
        return self.root / name[:2] / name


def garbage(
    entries: Iterable[Entry],
    *,
    code: str,
    now: float,
    days: float | None = None,
    max_bytes: float | None = None,
) -> dict[Path, str]:
    """Folders of the entries to remove and why: damaged, of other code, too long unused, beyond the size."""
    reasons: dict[Path, str] = {}
    kept = []
    for entry in entries:
        if entry.key is None or entry.damaged or not entry.chunks:
            reasons[entry.path] = "damaged or empty"
        elif entry.key.get("code") != code:
            reasons[entry.path] = "made by other code"
        elif days is not None and now - entry.used > days * 86400:
            reasons[entry.path] = f"not used for {(now - entry.used) / 86400:.0f} days"
        else:
            kept.append(entry)
    left = sum(entry.size for entry in kept)
    for entry in sorted(kept, key=lambda entry: entry.used):
        if max_bytes is None or left <= max_bytes:
            break
        left -= entry.size
        reasons[entry.path] = "least recently used, beyond the size"
    return reasons


def _chunk_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.safetensors"


def _is_sound(data: bytes, header: dict | None, folder: Path, number: int) -> bool:
    """Whether the file holds what was written, and is this chunk of this entry."""
    if header is None or (header["entry"], header["chunk"]) != (folder.name, str(number)):
        return False
    (length,) = struct.unpack_from("<Q", data)
    return hashlib.sha256(memoryview(data)[8 + length :]).hexdigest() == header["sha256"]


def _header(data: bytes) -> dict | None:
    """Metadata of a chunk; None for anything else and where its header is cut short."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        metadata = loads(bytes(data[8 : 8 + length]))["__metadata__"]
        return metadata if {"entry", "chunk", "rows", "sha256"} <= metadata.keys() else None
    except (struct.error, JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError):
        return None


def _entry(path: Path) -> Entry:
    chunks = list(path.glob("*.safetensors"))
    headers = [_header(_start(chunk)) for chunk in chunks]
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


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        return start + file.read(min(length, 1 << 24))
