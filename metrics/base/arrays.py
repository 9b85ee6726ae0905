"""npy arrays, alone or in npz archives: headers are checked before memory is taken, rows are streamed."""

import lzma
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from fact_metrics.base.errors import UserError
from fact_metrics.base.limits import check_unpacked

BLOCK = 16 << 20  # bytes of rows in memory at once
LONGEST_HEADER = 10_000
# What a damaged archive makes its readers raise, also where a name is no UTF-8 or the version unknown.
UNREADABLE = (OSError, EOFError, RuntimeError, UnicodeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
# The same of an array; numpy's tokenizer of headers included.
DAMAGED = (*UNREADABLE, ValueError, tokenize.TokenError, SyntaxError)


@dataclass(frozen=True)
class ArrayHeader:
    """What an npy file promises, held against its size: plain numbers in C or Fortran order."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Archive:
    """An open npz of plain arrays, or one npy, then called arr_0.

    All methods raise UserError with the file's name for what is damaged.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile | None):
        self.path, self._archive = path, archive
        if archive is None:
            self.names = ["arr_0"]
            return
        self.names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]

    def header(self, name: str) -> ArrayHeader:
        """Shape and dtype of an array; its size is that of its member."""
        with self._member(name) as (_, header):
            return header

    def read(self, name: str) -> np.ndarray:
        """A whole array; check its header first."""
        with self._member(name) as (stream, header):
            array = np.frombuffer(_exactly(stream, header.bytes), header.dtype)
            return array.reshape(header.shape, order="F" if header.fortran else "C")

    def rows(self, name: str) -> Iterator[np.ndarray]:
        """The array in blocks of rows, in order; of a Fortran array, all of it."""
        with self._member(name) as (stream, header):
            if header.fortran:
                yield self.read(name)
                return
            row = math.prod(header.shape[1:]) * header.dtype.itemsize
            count = max(1, BLOCK // max(1, row))
            for start in range(0, header.shape[0], count):
                n = min(count, header.shape[0] - start)
                block = np.frombuffer(_exactly(stream, n * row), header.dtype)
                yield block.reshape(n, *header.shape[1:])

    @contextmanager
    def _member(self, name: str) -> Iterator[tuple[BinaryIO, ArrayHeader]]:
        try:
            if self._archive is None:
                with open(self.path, "rb") as stream:
                    yield stream, _read_header(stream, os.fstat(stream.fileno()).st_size)
                return
            member = self._archive.getinfo(f"{name}.npy")
            check_unpacked(member.file_size, member.compress_size, f"{self.path}: {name}")
            with self._archive.open(member) as stream:
                yield stream, _read_header(stream, member.file_size)
        except DAMAGED as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"{self.path}: {name} is not a readable array of plain numbers ({reason}); save it again"
            ) from error


@contextmanager
def open_npz(path: Path) -> Iterator[Archive]:
    """An npz or npy file, open while the block runs. UserError if it is not one."""
    if path.suffix.lower() == ".npy":
        yield Archive(path, None)
        return
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        raise UserError(f"{path}: not a readable npz of plain arrays ({error}); save it again") from error
    with archive:
        yield Archive(path, archive)


def _read_header(stream: BinaryIO, size: int) -> ArrayHeader:
    """The header of an npy stream of `size` bytes. Raises ValueError if it promises another size."""
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy version {version[0]}.{version[1]}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream, max_header_size=LONGEST_HEADER)
    if dtype.kind not in "fiu" or dtype.itemsize > 8 or dtype.hasobject:
        raise ValueError(f"dtype {str(dtype)[:40]}; only floats and integers are read")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("its shape is not one")
    header = ArrayHeader(tuple(shape), dtype, bool(fortran))
    held = size - stream.tell()
    if header.bytes != held:
        raise ValueError(f"its header promises {header.bytes:,} bytes and {held:,} follow")
    return header


def _exactly(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) != size:
        raise EOFError(f"ends after {len(content):,} of {size:,} bytes")
    return content
