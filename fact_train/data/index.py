"""The dataset index: what decoding all files of a dataset found out, saved until a file changes.

Decoding and hashing 70,000 pictures takes minutes. Scoring one more checkpoint mostly needs their hash, as
their features are cached. An entry is valid for the names, sizes, times and inodes of all files, the options
that the dataset is opened with, and the code and the Pillow that decode it. It is signed with the user's key.
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

from fact_metrics.base.errors import UserError
from fact_metrics.base.fingerprints import SETTLED, Stamp, code_sha256
from fact_metrics.base.folders import cache_folder
from fact_metrics.base.signing import read_signed, write_signed
from fact_train.data.files import Files
from fact_train.data.processing import Processing, Selection

T = TypeVar("T")


class DatasetIndex:
    """Named values (JSON) of a dataset: in memory, and in the file `path` if one is given.

    `entries` holds the values by name. `stamps` are those of the dataset's files when it was opened; entries
    that were saved for other stamps do not count.
    """

    def __init__(self, path: Path | None = None, stamps: dict[str, Stamp] | None = None):
        self.stamps, self.entries = stamps or {}, {}
        self._path = path
        self._state = hashlib.sha256(json.dumps(self.stamps).encode()).hexdigest()

    @classmethod
    def of_files(
        cls, files: Files, split: str, processing: Processing, selection: Selection
    ) -> "DatasetIndex":
        """The index of these files with these options; it has no file where one was changed just now."""
        began = time.time()
        try:
            stamps = {name: files.stamp(name) for name in files.names}
        except OSError:  # opening them says what is wrong
            return cls()
        if began - max((stamp.changed for stamp in stamps.values()), default=0) / 1e9 < SETTLED:
            return cls()
        options = dataclasses.asdict(processing) | selection.describe()
        opened = [str(files.path.resolve()), split, options, _decoders()]
        name = hashlib.sha256(json.dumps(opened).encode()).hexdigest()
        return cls(cache_folder() / "datasets" / f"{name}.json", stamps)

    def load(self) -> bool:
        """Read the saved entries of these files; returns whether there are any."""
        if self._path is not None:
            saved = read_signed(self._path)
            if isinstance(saved, dict) and saved.get("state") == self._state:
                self.entries = dict(saved["entries"])
        return bool(self.entries)

    def get(self, name: str, compute: Callable[[], T]) -> T:
        """An entry; computed and saved if it is missing."""
        if name not in self.entries:
            self.entries[name] = compute()
            self._save()
        return self.entries[name]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the file: of processes that open one dataset the first decodes it; the others wait, then load.

        Where no lock can be had, every process decodes for itself.
        """
        with contextlib.ExitStack() as stack:
            if self._path is not None:
                with contextlib.suppress(OSError):
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(FileLock(self._path.with_suffix(".lock")))
            yield

    def _save(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError, UserError):  # without room for it, files are decoded again
                write_signed(self._path, {"state": self._state, "entries": self.entries})


@functools.cache
def _decoders() -> list[str | None]:
    """Versions of everything between a file and its pixels."""
    libraries = [PIL.features.version(name) for name in ("pil", "jpg", "zlib", "webp", "libtiff", "avif")]
    return [code_sha256(Path(__file__).parent), *libraries]
