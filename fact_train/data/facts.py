"""What a look at all files of a dataset found, kept until one of them changes.

To decode and hash 70,000 pictures takes minutes; who scores one more checkpoint needs little of them but
their hash, as their features are in the store. A dataset is known again by the names, sizes, times and inodes
of all its files, by the options it is opened with, and by the code and the Pillow that decode it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import PIL.features
from filelock import FileLock

from fact_metrics.base.atomic import write_text
from fact_metrics.base.errors import UserError
from fact_metrics.base.fingerprints import SETTLED, Stamp, code_sha256
from fact_metrics.base.folders import cache_folder
from fact_train.data.files import Files
from fact_train.data.processing import Processing

T = TypeVar("T")


class Facts:
    """Named facts (JSON) of a dataset. In memory alone, or also in a file where `path` is given.

    `known` holds them by name. `stamps` are those of the dataset's files when it was opened; what is kept of
    others does not count.
    """

    def __init__(self, path: Path | None = None, stamps: dict[str, Stamp] | None = None):
        self.stamps, self.known = stamps or {}, {}
        self._path = path
        self._state = hashlib.sha256(json.dumps(self.stamps).encode()).hexdigest()

    @classmethod
    def of_files(cls, files: Files, split: str, processing: Processing) -> "Facts":
        """Facts of what these files become with these options. Kept where no file was changed just now."""
        began = time.time()
        try:
            stamps = {name: files.stamp(name) for name in files.names}
        except OSError:  # opening them says what is wrong
            return cls()
        if began - max((stamp.changed for stamp in stamps.values()), default=0) / 1e9 < SETTLED:
            return cls()
        opened = [str(files.path.resolve()), split, dataclasses.asdict(processing), _decoders()]
        name = hashlib.sha256(json.dumps(opened).encode()).hexdigest()
        return cls(cache_folder() / "datasets" / f"{name}.json", stamps)

    def recall(self) -> bool:
        """Take over what is kept of these files; whether there is anything."""
        if self._path is not None:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # absent, or cut short
                kept = json.loads(self._path.read_text(encoding="utf-8"))
                if kept["state"] == self._state:
                    self.known = dict(kept["facts"])
        return bool(self.known)

    def find(self, name: str, make: Callable[[], T]) -> T:
        """A fact, made by `make` and kept where it is not known."""
        if name not in self.known:
            self.known[name] = make()
            self._keep()
        return self.known[name]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the file: of processes that open one dataset the first decodes it, the others wait and know.

        Where no lock can be had nothing is held, and each decodes for itself.
        """
        with contextlib.ExitStack() as held:
            if self._path is not None:
                with contextlib.suppress(OSError):
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    held.enter_context(FileLock(self._path.with_suffix(".lock"), mode=0o666))
            yield

    def _keep(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError, UserError):  # a shortcut: without room for it files are decoded
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_text(self._path, json.dumps({"state": self._state, "facts": self.known}))


@functools.cache
def _decoders() -> list[str | None]:
    """Everything between a file and its pixels."""
    libraries = [PIL.features.version(name) for name in ("pil", "jpg", "zlib", "webp")]
    return [code_sha256(Path(__file__).parent), *libraries]
