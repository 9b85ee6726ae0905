"""Where image files lie: a folder, a zip or a tar (WebDataset), all as names and a way to open one.

Hidden files and `__MACOSX` are passed over; symbolic links are followed. A folder that encloses everything is
entered. A compressed tar is unpacked into a nameless file under TMPDIR, for reading anywhere in it. Files
and archives beyond the limits of metrics/base/limits.py are refused before they are read.
"""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, TypeVar

from fact_metrics.base.errors import UserError
from fact_metrics.base.fingerprints import Stamp, stamp
from fact_metrics.base.limits import FILE_BYTES, IMAGE_FILE, check_unpacked
from fact_train.data.errors import UnusableFiles
from fact_train.data.parallel import ProgressCallback, for_each_image

Result = TypeVar("Result")

# first bytes of a compressed file -> what opens it
COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


class Files(NamedTuple):
    """A folder or archive: its path, the names of the files in it (relative, with "/"), and by name how to
    open one, its size in bytes, and what changes when it does (of an archive, when the archive does)."""

    path: Path
    names: list[str]
    open: Callable[[str], BinaryIO]
    size: Callable[[str], int]
    stamp: Callable[[str], Stamp]


@contextmanager
def image_files(path: Path) -> Iterator[Files]:
    """The files of a folder, zip or tar, open while the block runs. UserError where it is none of these."""
    path = Path(path)
    with ExitStack() as stack:
        if path.is_dir():
            files = _folder(path)
        elif tarfile.is_tarfile(path):
            files = _tar(path, stack)
        else:
            files = _zip(path, stack)
        yield _enter(files)


def attempt_all(
    files: Files,
    names: Sequence[str],
    function: Callable[[int, BinaryIO, str], Result],
    progress: ProgressCallback | None = None,
) -> list[Result | UserError]:
    """function(position, stream, path) of every file, in order; for an unusable file, its UserError.

    Files that all threads read at once are FILE_BYTES at most.
    """

    def attempt(position: int) -> Result | UserError:
        path = str(files.path / names[position])
        try:
            size = files.size(names[position])
            IMAGE_FILE.check(size, path, "replace or remove it")
            with FILE_BYTES.reserve(size), files.open(names[position]) as stream:
                return function(position, stream, path)
        except UserError as error:
            return error
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            return UserError(f"{path}: cannot be read ({error}); repair or remove it")

    return for_each_image(attempt, len(names), progress)


def raise_first(results: Sequence[object]) -> None:
    """Raise UnusableFiles if there is a UserError among the results."""
    problems = [result for result in results if isinstance(result, UserError)]
    if problems:
        raise UnusableFiles(problems, len(results)) from problems[0]


def _folder(path: Path) -> Files:
    def unreadable(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror})") from error

    names = []
    for folder, subfolders, files in os.walk(path, onerror=unreadable, followlinks=True):
        here = Path(folder).resolve()
        subfolders[:] = [
            name
            for name in subfolders
            if _is_visible(name) and not here.is_relative_to((here / name).resolve())  # not a link upwards
        ]
        names += [Path(folder, name).relative_to(path).as_posix() for name in files]
    return Files(
        path,
        names,
        lambda name: (path / name).open("rb"),
        lambda name: (path / name).stat().st_size,
        lambda name: stamp(path / name),
    )


def _zip(path: Path, stack: ExitStack) -> Files:
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not a readable zip or tar ({error}); give a folder, a zip or a tar of images"
        ) from error
    names = [name for name in archive.namelist() if not name.endswith("/")]
    size = {info.filename: info.file_size for info in archive.infolist()}
    return Files(path, names, archive.open, size.__getitem__, lambda name: stamp(path))


def _tar(path: Path, stack: ExitStack) -> Files:
    """Members are read at their offsets: threads share no position in the file."""
    try:
        plain = stack.enter_context(path.open("rb"))
        start = plain.read(6)
        plain.seek(0)
        for magic, unpack in COMPRESSIONS.items():
            if start.startswith(magic):
                packed, plain = plain, stack.enter_context(tempfile.TemporaryFile())
                _unpack(unpack(packed), plain, path)
        with tarfile.open(fileobj=plain, mode="r:") as archive:
            members = {m.name.removeprefix("./"): (m.offset_data, m.size) for m in archive if m.isfile()}
    except (OSError, EOFError, MemoryError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path}: not a readable tar ({error}); create it again") from error

    def open_member(name: str) -> BinaryIO:
        offset, size = members[name]
        return io.BytesIO(os.pread(plain.fileno(), size, offset))

    return Files(path, list(members), open_member, lambda name: members[name][1], lambda name: stamp(path))


def _unpack(packed: BinaryIO, plain: BinaryIO, path: Path) -> None:
    """Copy unpacked content; UserError once it is implausibly long."""
    done, size = 0, path.stat().st_size
    while block := packed.read(1 << 20):
        done += len(block)
        check_unpacked(done, size, path)
        plain.write(block)
    plain.seek(0)


def _is_visible(name: str) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _enter(files: Files) -> Files:
    """The visible files, seen from inside the folders that enclose all of them."""
    names = sorted({name for name in files.names if _is_visible(name)})
    tops = {name.partition("/")[0] for name in names}
    if len(tops) != 1 or not all("/" in name for name in names):
        return files._replace(names=names)
    (top,) = tops
    inner = [name.removeprefix(f"{top}/") for name in names]
    inside = (
        lambda name, function=function: function(f"{top}/{name}")
        for function in (files.open, files.size, files.stamp)
    )
    return _enter(Files(files.path / top, inner, *inside))
