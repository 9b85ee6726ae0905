"""Where image files lie: a folder, a zip or a tar (WebDataset), all as names and a way to open one.

Hidden files and `__MACOSX` are passed over, and so is whatever is not a regular file: FIFOs, sockets,
devices. Symbolic links are followed, each real folder and file once. A folder that encloses everything is
entered. A compressed tar is unpacked into a nameless file under TMPDIR, for reading anywhere in it. Files and
archives beyond the limits of metrics/base/limits.py are refused before they are read.
"""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from fact_metrics.base.arrays import DAMAGED, UNREADABLE
from fact_metrics.base.errors import UserError
from fact_metrics.base.fingerprints import Stamp, stamp
from fact_metrics.base.limits import FILE_BYTES, IMAGE_FILE, check_unpacked
from fact_metrics.base.plain_text import for_terminal
from fact_train.data.decode import EXTENSIONS, extension, is_image_name
from fact_train.data.errors import UnusableFiles
from fact_train.data.listing import KINDS, Members, list_folder
from fact_train.data.parallel import ProgressCallback, for_each_image

Result = TypeVar("Result")

# first bytes of a compressed file -> what opens it
COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


LABEL_FILE = "dataset.json"
LONGEST_PATH = 4096  # bytes, as in Linux
NOWHERE = "/"  # leads out of every archive


class Files(NamedTuple):
    """A folder or archive: its path, the names of the files in it (relative, with "/"), and by name how to
    open one, its size in bytes, and what changes when it does (of an archive, when the archive does).
    `skipped` counts what is passed over, by reason."""

    path: Path
    names: list[str]
    open: Callable[[str], BinaryIO]
    size: Callable[[str], int]
    stamp: Callable[[str], Stamp]
    skipped: Counter[str]


@contextmanager
def image_files(path: Path) -> Iterator[Files]:
    """The files of a folder, zip or tar, open while the block runs. UserError where it is none of these."""
    path = Path(path)
    with ExitStack() as stack:
        if path.is_dir():
            files = _folder(path)
        elif not path.is_file():
            kind = KINDS.get(stat.S_IFMT(path.stat().st_mode), "special file")
            raise UserError(f"{path}: a {kind}, never opened; give a folder, a zip or a tar of images")
        elif path.suffix.lower() in EXTENSIONS:
            raise UserError(f"{path}: a single picture; give the folder that holds it ({path.parent})")
        elif path.suffix.lower() == ".safetensors":
            raise UserError(f"{path}: tensors, no images; give a folder, a zip or a tar of images")
        elif _is_tar(path):
            files = _tar(path, stack)
        else:
            files = _zip(path, stack)
        yield _enter(files)


def use(files: Files, name: str, function: Callable[[BinaryIO, str], Result]) -> Result:
    """function(stream, path) of a file. UserError beginning with its path where it cannot be read."""
    path = for_terminal(files.path / name)
    try:
        size = files.size(name)
        IMAGE_FILE.check(size, path, "replace or remove it")
        with FILE_BYTES.reserve(size), files.open(name) as stream:
            return function(stream, path)
    except UNREADABLE as error:
        raise UserError(f"{path}: cannot be read ({error}); repair or remove it") from error


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
        try:
            return use(files, names[position], lambda stream, path: function(position, stream, path))
        except UserError as error:
            return error

    return for_each_image(attempt, len(names), progress)


def raise_first(results: Sequence[object]) -> None:
    """Raise UnusableFiles if there is a UserError among the results."""
    problems = [result for result in results if isinstance(result, UserError)]
    if problems:
        raise UnusableFiles(problems, len(results)) from problems[0]


def _folder(path: Path) -> Files:
    skipped: Counter[str] = Counter()
    names = list_folder(path, skipped)
    return Files(
        path,
        names,
        lambda name: (path / name).open("rb"),
        lambda name: (path / name).stat().st_size,
        lambda name: stamp(path / name),
        skipped,
    )


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except UNREADABLE:  # compressed, and damaged at once: `_tar` says how
        return True


def _link_target(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    """Where a link leads; to nothing if its member is damaged or too long for a path."""
    try:
        with archive.open(info) as stream:
            target = stream.read(LONGEST_PATH + 1)
    except DAMAGED:
        return NOWHERE
    return target.decode(errors="replace") if len(target) <= LONGEST_PATH else NOWHERE


def _zip(path: Path, stack: ExitStack) -> Files:
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except DAMAGED as error:
        raise UserError(
            f"{path}: not a readable zip or tar ({error}); give a folder, a zip or a tar of images"
        ) from error
    members = Members(path)
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")  # as some programs on Windows write them
        if stat.S_ISLNK(info.external_attr >> 16):
            members.add_link(name, _link_target(archive, info))
        elif not name.endswith("/"):
            members.add(name, info)
    members.resolve_links()
    return Files(
        path,
        list(members.found),
        lambda name: archive.open(members.get(name)),
        lambda name: members.get(name).file_size,
        lambda name: stamp(path),
        members.skipped,
    )


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
        members = Members(path)
        with tarfile.open(fileobj=plain, mode="r:") as archive:
            for member in archive:
                _add_tar_member(members, member)
        members.resolve_links()
    except (*UNREADABLE, MemoryError, tarfile.TarError) as error:
        raise UserError(f"{path}: not a readable tar ({error}); create it again") from error

    def open_member(name: str) -> BinaryIO:
        offset, size = members.get(name)
        return io.BytesIO(os.pread(plain.fileno(), size, offset))

    return Files(
        path,
        list(members.found),
        open_member,
        lambda name: members.get(name)[1],
        lambda name: stamp(path),
        members.skipped,
    )


def _add_tar_member(members: "Members", member: tarfile.TarInfo) -> None:
    name = member.name.removeprefix("./")
    if member.isfile():
        members.add(name, (member.offset_data, member.size))
    elif member.islnk():  # a second name of a file, as it is in a folder
        members.add(name, members.found.get(member.linkname.removeprefix("./")))
    elif member.issym():
        members.add_link(name, member.linkname)
    elif not member.isdir():
        members.skipped["FIFO" if member.isfifo() else "device"] += 1


def _unpack(packed: BinaryIO, plain: BinaryIO, path: Path) -> None:
    """Copy unpacked content; UserError once it is implausibly long."""
    done, size = 0, path.stat().st_size
    while block := packed.read(1 << 20):
        done += len(block)
        check_unpacked(done, size, path)
        plain.write(block)
    plain.seek(0)


def _enter(files: Files) -> Files:
    """The files, seen from inside the folders that enclose all images and labels."""
    names = sorted(files.names)
    used = [name for name in names if is_image_name(name) or name.endswith(LABEL_FILE)] or names
    tops = {name.partition("/")[0] for name in used}
    if len(tops) != 1 or not all("/" in name for name in used):
        return files._replace(names=names)
    (top,) = tops
    inner = [name.removeprefix(f"{top}/") for name in names if name.startswith(f"{top}/")]
    beside = Counter(
        extension(name) or "without extension" for name in names if not name.startswith(f"{top}/")
    )
    inside = (
        lambda name, function=function: function(f"{top}/{name}")
        for function in (files.open, files.size, files.stamp)
    )
    return _enter(Files(files.path / top, inner, *inside, files.skipped + beside))
