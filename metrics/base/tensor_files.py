"""safetensors files with one JSON text in their metadata: the header is checked before a tensor is read."""

import os
from pathlib import Path
from typing import Any

import msgspec

from fact_metrics.base.errors import UserError
from fact_metrics.base.limits import DOCUMENT
from fact_metrics.base.schema import BadDocument, decode, parse_document


class _HeaderShape(msgspec.Struct):
    metadata: dict[str, str] = msgspec.field(name="__metadata__", default_factory=dict)


def read_metadata(path: Path, key: str, shape: type, *, what: str, way_out: str) -> dict[str, Any]:
    """The JSON text under `key` in the metadata of a file, checked against `shape`; tensors are not read.

    UserError naming the file where it is damaged, has no such text, or the text is of another shape. Does not
    import torch.
    """
    text = _read_header(path, what, way_out).metadata.get(key)
    if text is None:
        raise UserError(f"{path} is not a {what} (its metadata lacks {key!r}); {way_out}")
    return parse_document(text, shape, f"{what} {path}", way_out=way_out)


def read_tensors(path: Path, *, what: str, way_out: str) -> dict[str, Any]:
    """All tensors of a file, on the CPU. UserError naming the file where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{what} {path} is truncated or damaged ({reason}); {way_out}") from error


def _read_header(path: Path, what: str, way_out: str) -> _HeaderShape:
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= os.fstat(file.fileno()).st_size - 8:
                raise UserError(f"{what} {path} is truncated or damaged (no header); {way_out}")
            DOCUMENT.check(length, f"{what} {path}", way_out)
            return decode(file.read(length), _HeaderShape, f"{what} {path}", way_out=way_out)
    except BadDocument as error:
        raise UserError(f"{what} {path} is truncated or damaged ({error.reason}); {way_out}") from error
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read ({error.strerror}); {way_out}") from error
