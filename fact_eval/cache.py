"""Content-addressed feature cache: one safetensors file per source x detector, atomic, verified when read.

The key is the hash of everything that decides the features: the images (snapshot or dataset hash, seed,
sampling), the detector's fingerprint and the code that makes both. Rows are in index order, so a longer
entry serves every shorter request. Never pickle.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from json import JSONDecodeError, loads
from pathlib import Path

from fact_eval.records import canonical_json
from fact_train.atomic import write_atomically
from metrics.folders import cache_folder

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One file of the cache; key, n and sha256 are None where the file cannot be read."""

    path: Path
    size: int
    key: dict | None
    n: int | None
    sha256: str | None

    def describe(self) -> dict:
        """What the entry holds, as JSON."""
        key = self.key or {"images": {"source": "damaged"}, "detector": {}}
        images = {k: v for k, v in key["images"].items() if k != "sampling"}
        of = images.get("snapshot") or images.get("dataset") or ""
        return {
            "source": images["source"],
            "of": of[:12],
            "seed": images.get("seed"),
            "detector": key["detector"].get("detector"),
            "rows": self.n,
            "MB": round(self.size / 1e6, 2),
            "entry": self.path.stem[:12],
        }


def code_sha256(*paths: Path) -> str:
    """Hash of the Python files at or under the paths: a cached result of other code is never read back."""
    digest = hashlib.sha256()
    for root in paths:
        for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root.parent).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


class FeatureCache:
    """Features by content. A damaged entry is said to `report` in one line, removed and made again."""

    def __init__(self, root: Path | None = None, *, report: Callable[[str], None] = lambda line: None):
        self.root = (Path(root) if root else cache_folder()) / "features"
        self._report = report

    def load(self, key: dict, count: int):
        """The first `count` rows [count, D] of an entry, float32; None where there is none that long."""
        from safetensors.torch import load

        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._report(f"cache {self.root} cannot be read: {error.strerror}")
            return None
        header = _header(data)
        if header is not None:
            if int(header["n"]) < count:
                return None
            if hashlib.sha256(_payload(data)).hexdigest() == header["sha256"]:
                return load(data)["features"][:count]
        self._report(f"cache entry {path.name} is damaged: removed, its features are made again")
        path.unlink(missing_ok=True)
        return None

    def store(self, key: dict, features) -> Path:
        """Write features [N, D], float32, atomically: a reader sees the old file, the new one, or none."""
        from safetensors.torch import save

        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        features = features.contiguous()
        digest = hashlib.sha256(features.numpy()).hexdigest()
        metadata = {
            "format": str(FORMAT),
            "n": str(len(features)),
            "sha256": digest,
            "key": canonical_json(key),
        }
        write_atomically(path, lambda partial: partial.write_bytes(save({"features": features}, metadata)))
        return path

    def entries(self) -> list[Entry]:
        """All entries, sorted by file name; only headers are read."""
        return [_entry(path) for path in sorted(self.root.glob("*/*.safetensors"))]

    def clear(self, entries: Iterable[Entry] | None = None) -> int:
        """Remove the given entries (or all) and leftovers of killed writers; returns the bytes freed."""
        paths = [entry.path for entry in (self.entries() if entries is None else entries)]
        paths += self.root.glob("*/.*.partial-*")
        freed = 0
        for path in paths:
            freed += path.stat().st_size
            path.unlink()
        return freed

    def _path(self, key: dict) -> Path:
        name = hashlib.sha256(canonical_json({"format": FORMAT, **key}).encode()).hexdigest()
        return self.root / name[:2] / f"{name}.safetensors"


def _payload(data: bytes) -> memoryview:
    (length,) = struct.unpack_from("<Q", data)
    return memoryview(data)[8 + length :]


def _header(data: bytes) -> dict | None:
    """Metadata of a safetensors file; None for anything else and where its header is cut short."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        metadata = loads(bytes(data[8 : 8 + length]))["__metadata__"]
        return metadata if {"n", "sha256", "key"} <= metadata.keys() else None
    except (struct.error, JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError):
        return None


def _entry(path: Path) -> Entry:
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        header = _header(start + file.read(min(length, 1 << 24)))
    size = path.stat().st_size
    if header is None:
        return Entry(path, size, None, None, None)
    return Entry(path, size, loads(header["key"]), int(header["n"]), header["sha256"])
