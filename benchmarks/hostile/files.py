"""Small files that attack a reader: what `python -m benchmarks hostile` and tests feed to commands."""

import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


class ObjectDtype:
    """numpy's dtype of Python objects, with the flags that say so cleared: its bytes become addresses."""

    def __reduce__(self):
        return np.dtype, ("O", False, True), (3, "|", None, None, None, -1, -1, 0)


def pointers() -> bytes:
    """A pickle whose arrays are addresses of the file's choice: reading them crashes the process."""
    array = Call(np._core.numeric._frombuffer, b"A" * 32, ObjectDtype(), (4,), "C")
    return pickle.dumps({"mu": array, "sigma": array}, protocol=2)


def brackets(depth: int = 100_000) -> str:
    """JSON that is nested too deeply for any recursive reader."""
    return "[" * depth + "]" * depth


def lying_npy(shape: tuple[int, ...], dtype: str = "|u1", held: int = 64) -> bytes:
    """An npy file whose header promises more than it holds."""
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape})
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(held)


def npz(path: Path, arrays: dict[str, bytes]) -> Path:
    """An npz of npy files given as bytes, compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return path


def zeros_npy(path: Path, name: str, shape: tuple[int, ...], dtype: str) -> Path:
    """An npz of zeros that packs a thousand times; written in blocks."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())
            _write_zeros(file, size)
    return path


def png(width: int, height: int, *, color_type: int = 6) -> bytes:
    """A PNG of zeros: RGBA (6), transparent throughout, or RGB (2)."""
    row = 1 + width * {2: 3, 6: 4}[color_type]
    packer, packed = zlib.compressobj(9), io.BytesIO()
    for _ in range(height):
        packed.write(packer.compress(bytes(row)))
    packed.write(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed.getvalue()), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def png_with_tail(path: Path, tail: int) -> Path:
    """A zip of one small PNG with zeros behind it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.png", "w", force_zip64=True) as file:
            file.write(png(8, 8, color_type=2))
            _write_zeros(file, tail)
    return path


def tar_of_zeros(path: Path, size: int) -> Path:
    """A tar.gz of one file of zeros."""
    import tarfile

    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = size
        archive.addfile(member, _Zeros(size))
    return path


def safetensors(metadata: dict[str, str], tensors: bytes = b"", entries: dict | None = None) -> bytes:
    """A safetensors file with any metadata."""
    header = json.dumps({"__metadata__": metadata, **(entries or {})}).encode()
    return struct.pack("<Q", len(header)) + header + tensors


class _Zeros(io.RawIOBase):
    def __init__(self, size: int):
        self._left = size

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        self._left -= size
        return bytes(size)


def _write_zeros(file, size: int) -> None:
    block = bytes(1 << 20)
    while size > 0:
        size -= file.write(block[: min(size, len(block))])
