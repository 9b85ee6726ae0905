"""JSON that others wrote, checked against a declared shape before any of it is used.

A shape is a `msgspec.Struct`: required and optional fields with types; fields that it does not name are
ignored. Text that does not fit, is nested too deeply or is too long is one UserError that names the file, the
field and the way out.
"""

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fact_metrics.base.errors import UserError
from fact_metrics.base.image_size import ImageSize
from fact_metrics.base.limits import DOCUMENT, Limit
from fact_metrics.base.plain_text import check_file_name, for_terminal

Shape = TypeVar("Shape")

LEVELS = 100  # of lists and objects inside each other: recursive readers stay far from Python's limit


class BadDocument(UserError):
    """JSON that is not what it should be; `reason` is why, without the file."""

    def __init__(self, source: object, reason: str, way_out: str):
        super().__init__(f"{source} cannot be read ({reason}); {way_out}")
        self.reason = reason


def read_document(path: Path, shape: type[Shape], *, way_out: str, limit: Limit = DOCUMENT) -> Any:
    """The JSON of a file, as plain dictionaries and lists that fit `shape`. OSError if it cannot be read."""
    with open(path, "rb") as file:
        text = file.read(limit.most + 1)
    return parse_document(text, shape, path, way_out=way_out, limit=limit)


def parse_document(
    text: bytes | str, shape: type[Shape], source: object, *, way_out: str, limit: Limit = DOCUMENT
) -> Any:
    """JSON text as plain dictionaries and lists that fit `shape`. BadDocument names `source`."""
    return _checked(text, shape, source, way_out, limit)[0]


def decode(
    text: bytes | str, shape: type[Shape], source: object, *, way_out: str, limit: Limit = DOCUMENT
) -> Shape:
    """JSON text as an instance of `shape`. BadDocument names `source`."""
    return _checked(text, shape, source, way_out, limit)[1]


def fits(value: object, shape: type[Shape]) -> Shape:
    """A JSON value as an instance of `shape`. Raises ValueError with the field and the reason."""
    try:
        return msgspec.convert(value, shape)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(_reason(error)) from error


def parse_json(text: bytes | str) -> Any:
    """JSON text as plain dictionaries, lists, texts and numbers. Raises ValueError for anything else."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(_reason(error)) from error
    brackets = (b"[", b"{") if isinstance(text, bytes) else ("[", "{")
    if sum(map(text.count, brackets)) > LEVELS and _depth(value) > LEVELS:
        raise ValueError("nested too deeply")
    return value


class GitShape(msgspec.Struct):
    """Commit and state of the code."""

    commit: str | None = None
    dirty: bool | None = None


class StartShape(msgspec.Struct, kw_only=True):
    """Code and packages of a start of a program."""

    git: GitShape | None = None
    packages: dict[str, str] | None = None
    started: str | None = None


class DatasetShape(msgspec.Struct, kw_only=True):
    """What `Dataset.describe()` says, as far as other code reads it."""

    name: str
    split: str
    sha256: str
    resolution: int | str | None
    channels: int | None
    n: int | None = None

    def __post_init__(self) -> None:
        for field in ("name", "split", "sha256"):
            check_file_name(getattr(self, field), field)


class TrainingSetShape(DatasetShape, kw_only=True):
    """A training set: its shape is known, and networks are built for it."""

    n: int
    resolution: int | str
    channels: int
    classes: int

    def __post_init__(self) -> None:
        super().__post_init__()
        ImageSize.of(self.resolution)
        if not (self.channels in (1, 3) and 0 <= self.classes <= 2**20):
            raise ValueError(f"no images: {self.channels} channels, {self.classes} classes")


def _checked(text: bytes | str, shape: type[Shape], source: object, way_out: str, limit: Limit):
    limit.check(len(text), source, way_out)
    try:
        value = parse_json(text)
        return value, fits(value, shape)
    except ValueError as error:
        raise BadDocument(source, str(error), way_out) from error


def _depth(value: Any) -> int:
    """How deeply lists and objects are nested; stops beyond LEVELS."""
    depth, level = 0, [value]
    while level and depth <= LEVELS:
        inner = [v for v in level if isinstance(v, dict | list)]
        level = [item for v in inner for item in (v.values() if isinstance(v, dict) else v)]
        depth += bool(inner)
    return depth


def _reason(error: Exception) -> str:
    """msgspec's message in our words: `$.ci.low: expected float, got str`."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    message, _, where = for_terminal(error).partition(" - at ")
    message = re.sub(r"`([^`]*)`", r"\1", message)
    message = message if message.startswith("JSON") else message[:1].lower() + message[1:]
    where = where.strip("`").removeprefix("$").removeprefix(".")
    return f"{where}: {message}" if where else message
