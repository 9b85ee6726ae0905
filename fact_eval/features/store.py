"""Content-addressed store of features: a folder per source x detector, a verified safetensors file per chunk.

A folder is named by the hash of everything that determines the features: the images (hash of the snapshot or
dataset, seed, sampling), the detector's fingerprint, the kind of device, the code, and the user's key. Rows
are in index order, in chunks of CHUNK images. A chunk is written once it is complete, so after a kill only
the missing chunks are computed.

Chunks are signed with the user's key (metrics/base/signing.py). Users of one folder therefore do not read
each other's chunks unless they share a key, and nobody without the key can forge one. A folder that everybody
can write is not used at all.
"""

import contextlib
import math
import os
import shutil
import stat
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from fact_eval.features.code_key import features_code
from fact_metrics.base.atomic import write_atomically, write_text
from fact_metrics.base.canonical import canonical_json, canonical_sha256
from fact_metrics.base.errors import UserError
from fact_metrics.base.folders import cache_folder
from fact_metrics.base.limits import FEATURE_CHUNK
from fact_metrics.base.schema import BadDocument, decode, read_document
from fact_metrics.base.signing import is_signed, key_name, refuse_public, sign

FORMAT = 3
CHUNK = 256  # images: a multiple of usual batch sizes, and a small loss after a kill
KEY_FILE = "key.json"

LONGEST_HEADER = 1 << 12  # bytes; ours take 300


class KeyShape(msgspec.Struct):
    """key.json of an entry: what determines its features."""

    images: dict[str, Any]
    detector: dict[str, Any]
    code: str
    device: str | None = None  # earlier formats had none

    def __post_init__(self) -> None:
        for text in (self.images.get("source"), self.detector.get("detector")):
            if not isinstance(text, str):
                raise ValueError("it names no source and detector")
        named = [self.images.get(field) for field in ("snapshot", "dataset")]
        if not all(isinstance(text, str | None) for text in named):
            raise ValueError("its images have no hash")


class MetadataShape(msgspec.Struct):
    """What a chunk says of itself; safetensors stores texts only."""

    entry: str
    chunk: str
    hmac: str


class RowsShape(msgspec.Struct):
    """The one tensor of a chunk."""

    dtype: Literal["F32"]
    shape: tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]]
    data_offsets: tuple[Literal[0], int]


class HeaderShape(msgspec.Struct, forbid_unknown_fields=True):
    """The header of a chunk."""

    metadata: MetadataShape = msgspec.field(name="__metadata__")
    features: RowsShape

    def __post_init__(self) -> None:
        if self.features.data_offsets[1] != 4 * math.prod(self.features.shape):
            raise ValueError("its shape and its size differ")


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
            "device": key.get("device"),
            "rows": self.rows,
            "chunks": self.chunks,
            "MB": round(self.size / 1e6, 2),
            "code": "current" if key.get("code") == features_code() else "another",
            "entry": self.path.name[:12],
        }


class FeatureCache:
    """The store on disk, shared by processes. Chunks that do not count are removed and reported."""

    chunk: ClassVar[int] = CHUNK

    def __init__(self, root: Path | None = None, *, report: Callable[[str], None] = lambda line: None):
        self.root = (Path(root) if root else cache_folder()) / "features"
        self._report_line, self._reported = report, set()

    def load(
        self, key: dict, count: int, *, skip: Collection[int] = (), width: int | None = None
    ) -> dict[int, Any]:
        """Rows of the first `count` images by chunk number, float32 [n, D]: complete, verified chunks.

        Chunks whose number is in `skip` are not read. Chunks of another width than `width` do not count.
        """
        try:
            folder, chunks = self._folder(key), {}
        except UserError as error:
            self._report(f"no features are cached: {error}")
            return {}
        for number in range(-(-count // self.chunk)):
            if number in skip:
                continue
            rows = min(self.chunk, count - number * self.chunk)
            path = _chunk_path(folder, number)
            try:
                found = _read_chunk(path, folder.name, number)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._report(f"cache {self.root} cannot be read: {error.strerror}")
                break
            if found is None or width not in (None, found.shape[1]):
                self._report(
                    f"cache chunk {folder.name[:12]}/{path.name} is damaged: removed, to be recomputed"
                )
                with contextlib.suppress(OSError):  # writing it again replaces it
                    path.unlink(missing_ok=True)
            elif len(found) >= rows:
                chunks[number] = found[:rows]
        if chunks:
            with contextlib.suppress(OSError):  # another user's entry then looks older than it is
                os.utime(folder / KEY_FILE)
        return chunks

    def store(self, key: dict, number: int, rows) -> Path:
        """Write chunk `number`, float32 [n, D]; atomic: readers see the old file, the new one, or none.

        UserError if the rows are not finite, or if nothing can be stored here.
        """
        from safetensors.torch import save

        if not rows.isfinite().all():
            raise UserError("they are not finite")
        folder = self._folder(key)
        path = _chunk_path(folder, number)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / KEY_FILE).exists():
            write_text(folder / KEY_FILE, canonical_json(key))
        rows = rows.contiguous()
        purpose = _purpose(folder.name, number, tuple(rows.shape))
        metadata = {
            "entry": folder.name,
            "chunk": str(number),
            "hmac": sign(purpose, rows.numpy().reshape(-1).view("uint8").data),
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
            folders = set()
            with contextlib.suppress(UserError):  # nothing is stored; `load` has said so
                folders = {self._folder(key) for key in keys}
            for folder in sorted(folders):  # a fixed order prevents deadlocks
                with contextlib.suppress(OSError):
                    folder.mkdir(parents=True, exist_ok=True)
                    locks.enter_context(self._waiting_lock(folder))
            yield

    def entries(self) -> list[Entry]:
        """All entries, sorted by name; only headers are read."""
        return [_entry(path) for path in sorted(self.root.glob("??/*")) if path.is_dir()]

    def damaged(self, entry: Entry) -> list[Path]:
        """Files of an entry that are not chunks signed with the user's key; reads every byte."""
        damaged = []
        for path in sorted(entry.path.glob("*.safetensors")):
            number = int(path.stem) if path.stem.isdecimal() and path.stem.isascii() else -1
            if _chunk_path(entry.path, number) != path or _read_chunk(path, entry.path.name, number) is None:
                damaged.append(path)
        return damaged

    def is_own(self, entry: Entry) -> bool:
        """Whether an entry was stored under the user's key. UserError if there is no key."""
        return entry.key is not None and self._folder(entry.key) == entry.path

    def remove(self, entries: Iterable[Entry]) -> int:
        """Remove entries that no process is writing; returns the bytes freed."""
        from filelock import FileLock, Timeout

        freed = 0
        for entry in entries:
            try:
                with FileLock(entry.path / ".lock", timeout=0):
                    shutil.rmtree(entry.path)
                freed += entry.size
            except Timeout:
                self._report(f"entry {entry.path.name[:12]} is being written: not removed")
            except OSError as error:
                self._report(f"{entry.path} cannot be removed: {error.strerror}")
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

        lock = FileLock(folder / ".lock")
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
        """The folder of an entry. UserError without a user key, or if everybody can write the store."""
        refuse_public(self.root)
        name = canonical_sha256({"format": FORMAT, "chunk": self.chunk, "signed": key_name(), **key})
        return self.root / name[:2] / name

    def _report(self, line: str) -> None:
        """Report a line once."""
        if line not in self._reported:
            self._reported.add(line)
            self._report_line(line)


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


def _purpose(entry: str, number: int, shape: tuple[int, ...]) -> str:
    return f"features {entry} chunk {number} of shape {list(shape)}"


def _read_chunk(path: Path, entry: str, number: int):
    """The rows of a chunk, float32 [n, D]; None if it is not this chunk of this entry as the user signed it.

    OSError if the file cannot be opened.
    """
    from safetensors.torch import load

    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > FEATURE_CHUNK.most:
            return None
        data = file.read()
    header = _header(data)
    if header is None or (header.metadata.entry, header.metadata.chunk) != (entry, str(number)):
        return None
    shape, start = header.features.shape, 8 + struct.unpack_from("<Q", data)[0]
    content = memoryview(data)[start:]
    try:
        known = len(content) == 4 * math.prod(shape) and is_signed(
            header.metadata.hmac, _purpose(entry, number, shape), content
        )
    except UserError:  # without a key nothing is known
        return None
    return load(data)["features"] if known else None


def _header(data: bytes) -> HeaderShape | None:
    """The header of a chunk; None if the file is something else or its header is truncated."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        if length > LONGEST_HEADER:
            return None
        return decode(bytes(data[8 : 8 + length]), HeaderShape, "chunk", way_out="remove it")
    except (struct.error, BadDocument):
        return None


def _entry(path: Path) -> Entry:
    chunks = [chunk for chunk in path.glob("*.safetensors") if chunk.is_file()]
    headers = [_read_header(chunk) for chunk in chunks]
    try:
        key = read_document(path / KEY_FILE, KeyShape, way_out="fact-eval cache gc removes it")
        used = (path / KEY_FILE).stat().st_mtime
    except (OSError, UserError):
        key, used = None, path.stat().st_mtime
    return Entry(
        path=path,
        key=key,
        rows=sum(header.features.shape[0] for header in headers if header),
        chunks=len(chunks),
        damaged=headers.count(None),
        size=sum(chunk.stat().st_size for chunk in chunks),
        used=used,
    )


def _read_header(path: Path) -> HeaderShape | None:
    try:
        with open(path, "rb") as file:
            return _header(file.read(8 + LONGEST_HEADER))
    except OSError:
        return None
