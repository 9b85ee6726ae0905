"""Builders of small datasets and of odd image files, made on the fly; imported by tests/test_data_*.py."""

import gzip
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 8


def gray(seed: int = 0, side: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8))


def rgb(seed: int = 0, side: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def encode(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def png_16bit(values: np.ndarray) -> bytes:
    """A 16-bit PNG of uint16 [H, W], [H, W, 3] or [H, W, 4]; by hand, because Pillow writes gray only."""
    colour_type = {1: 0, 3: 2, 4: 6}[values.reshape(*values.shape[:2], -1).shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def image_files(count: int = 4, make=rgb, prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}img{index}.png": encode(make(index)) for index in range(count)}


def labels_json(labels: dict[str, object] | None) -> bytes:
    return json.dumps(
        {"labels": None if labels is None else [list(item) for item in labels.items()]}
    ).encode()


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def idx_files(count: int = 20, side: int = 28, seed: int = 0) -> dict[str, bytes]:
    """A dataset like Fashion-MNIST: random images, labels 0..9 in turn, both splits, gzipped."""
    generator = np.random.default_rng(seed)
    files = {}
    for prefix in ("train", "t10k"):
        pixels = generator.integers(0, 256, (count, side, side), dtype=np.uint8)
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(idx(pixels))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.arange(count, dtype=np.uint8) % 10))
    return files
