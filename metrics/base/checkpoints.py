"""Checkpoints of other programs, read without running anything: tensors, plain values and inert records.

Three kinds, told apart by content: a zip of torch.save, the older torch.save before it, and a pickle of a
module tree (StyleGAN2-ADA's `.pkl`, whose storages are older torch.save files inside). Storages are views of
the file, and all tensors together hold a few times its bytes at most. An object becomes a Record of its
attributes if its class is known here; source text inside a pickle is an attribute like any other.
"""

import io
import mmap
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.limits import CHECKPOINT, PICKLE
from fact_metrics.base.pickles import Call, Refused, check_plain_keys, read_pickle
from fact_metrics.base.storages import STORAGES, rebuild_tensor

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file of torch.save before 1.6
LARGEST_DIRECTORY = 4 << 20  # bytes of a zip's table of contents; 50,000 storages take it
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip entry: its mark, the lengths of name and extra field
MOST_STORAGES = 20_000
MOST_TENSORS = 50_000
MOST_MEMBERS = 50_000  # of all sets
SHARED = 4  # bytes of all tensors per byte of the file; they share storages where weights are tied
WAY_OUT = "save its state dicts as safetensors"
DTYPES = {str(dtype).removeprefix("torch."): str(dtype) for dtype in STORAGES.values()}  # as plain texts
REFUSED = {
    ("dnnlib.tflib.network", "Network"): "is a TensorFlow network; legacy.py of StyleGAN2-ADA converts it",
}


class Record:
    """An object of a known class: its name and attributes. Nothing of it can be called."""

    __slots__ = ("name", "state")

    def __new__(cls, name: str = "") -> "Record":  # a pickle makes instances without __init__
        if not isinstance(name, str):
            raise Refused("holds an object without a name")
        made = super().__new__(cls)
        made.name, made.state = name or cls.__name__, {}
        return made

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, dict) and all(isinstance(key, str) for key in state)):
            raise Refused("holds an object whose attributes are not named")
        self.state = state


class Namespace(Record):
    """argparse.Namespace: what a program was started with."""

    __slots__ = ()


class PlainDict(dict):
    """An OrderedDict or EasyDict of a pickle: its items alone; attributes such as `_metadata` are dropped."""

    __slots__ = ()

    def __init__(self) -> None:  # no content: a pickle calls this with what it likes, and keys are checked
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


CLASSES = {("argparse", "Namespace"): Namespace, ("dnnlib.util", "EasyDict"): PlainDict}


def read_checkpoint(path: Path) -> Any:
    """The content of a checkpoint: containers, numbers, texts, tensors on the CPU, arrays and Records.

    UsageError where the file is missing; UserError, in one line, for anything that is not read.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"checkpoint {path} does not exist; give a file")
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        CHECKPOINT.check(size, path, WAY_OUT)
        if not size:
            raise UserError(f"{path} is empty; {WAY_OUT}")
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # lives as long as a tensor of it
        try:
            if content[:4] == b"PK\x03\x04":
                return _Zip(path, content, _directory(file)).read()
            if content[257:262] == b"ustar":
                raise UserError(f"{path} is a tar of a torch before 0.1; save it again with a newer torch")
            return _read_stream(path, content)
        except (zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, ValueError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{path} is not a checkpoint of tensors ({reason})") from error


def _directory(file: Any) -> zipfile.ZipFile:
    """The zip's table of contents, whose size is checked before it is read."""
    end = zipfile._EndRecData(file)
    if end is None:
        raise ValueError("its zip has no end")
    if end[5] > LARGEST_DIRECTORY:
        raise ValueError(f"its zip has a table of contents of {end[5]:,} bytes")
    return zipfile.ZipFile(file)


class _Zip:
    """An archive of torch.save: data.pkl, and a stored entry per storage."""

    def __init__(self, path: Path, content: mmap.mmap, archive: zipfile.ZipFile):
        self._path, self._content = path, content
        self._entries = {info.filename: info for info in archive.infolist()}
        self._storages: dict[str, Tensor] = {}
        roots = [name.removesuffix("/data.pkl") for name in self._entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("its zip holds no data.pkl")
        self._root = roots[0]

    def read(self) -> Any:
        if f"{self._root}/constants.pkl" in self._entries:
            raise Refused(f"{self._path} is TorchScript, a program; only its author can save its state dict")
        if f"{self._root}/byteorder" in self._entries and bytes(self._entry("byteorder")) != b"little":
            raise ValueError("its numbers are big-endian")
        program = self._entry("data.pkl")
        PICKLE.check(len(program), f"{self._path}: data.pkl", WAY_OUT)
        return read_pickle(
            bytes(program),
            source=self._path,
            find_class=_Names(self._path, _Views(len(self._content))),
            persistent_load=self._storage,
            way_out=WAY_OUT,
        )

    def _entry(self, name: str) -> memoryview:
        """The bytes of an entry in the file, checked against its CRC."""
        info = self._entries[f"{self._root}/{name}"]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"{name[:40]} is compressed; torch stores it")
        start = info.header_offset
        header = self._content[start : start + LOCAL_HEADER.size]
        if len(header) < LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise ValueError(f"{name[:40]} is not where the zip says")
        _, *lengths = LOCAL_HEADER.unpack(header)
        start += LOCAL_HEADER.size + sum(lengths)
        found = memoryview(self._content)[start : start + info.file_size]
        if len(found) != info.file_size or zlib.crc32(found) != info.CRC:
            raise ValueError(f"{name[:40]} is truncated or damaged")
        return found

    def _storage(self, reference: Any) -> Tensor:
        key, dtype, count = _storage_reference(reference)
        if key not in self._storages:
            self._storages[key] = _flat(self._entry(f"data/{key}"), dtype, count, key)
        if self._storages[key].dtype != dtype:
            raise Refused(f"reads storage {key[:20]} as two types")
        return self._storages[key]


def _read_stream(path: Path, content: mmap.mmap) -> Any:
    """A pickle, or the older torch.save, which begins with a pickle of LEGACY_MAGIC."""
    names = _Names(path, _Views(len(content)))
    first = read_pickle(content, source=path, find_class=names, limit=CHECKPOINT, way_out=WAY_OUT)
    if type(first) is int and first == LEGACY_MAGIC:
        return _Legacy(path, content, content).read()
    return first


class _Legacy:
    """The older torch.save: five pickles, of which the fourth is the content, then every storage.

    A storage is a count and its values; only the fourth pickle says of which type. So it is read twice: for
    the types, and with the storages.
    """

    def __init__(self, path: object, stream: BinaryIO, content: bytes | mmap.mmap):
        self._path, self._stream, self._content = path, stream, content

    def read(self) -> Any:
        self._stream.seek(0)
        magic, version, system = (self._pickle() for _ in range(3))
        little = isinstance(system, dict) and system.get("little_endian") is True
        if (magic, version) != (LEGACY_MAGIC, 1001) or not little:
            raise ValueError("its numbers are big-endian, or it is of an unknown version of torch.save")
        start = self._stream.tell()
        claims: dict[str, tuple[torch.dtype, int]] = {}

        def note(reference: Any) -> None:
            key, dtype, count = _storage_reference(reference)
            if claims.setdefault(key, (dtype, count)) != (dtype, count):
                raise Refused(f"reads storage {key[:20]} as two types")

        self._pickle(note)
        keys = self._pickle()
        if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
            raise ValueError("it does not list its storages")
        if set(keys) != claims.keys() or len(keys) != len(claims):
            raise ValueError("its storages are not those that its tensors name")
        storages = self._storages(keys, claims)
        self._stream.seek(start)
        views = _Views(len(self._content))
        return self._pickle(lambda reference: storages[_storage_reference(reference)[0]], views)

    def _pickle(self, persistent_load: Any = None, rebuild: Any = lambda *_: None) -> Any:
        return read_pickle(
            self._stream,
            source=self._path,
            find_class=_Names(self._path, rebuild),
            persistent_load=persistent_load,
            limit=CHECKPOINT,
            way_out=WAY_OUT,
        )

    def _storages(self, keys: list[str], claims: dict[str, tuple[torch.dtype, int]]) -> dict[str, Tensor]:
        whole, at, found = memoryview(self._content), self._stream.tell(), {}
        for key in keys:
            dtype, count = claims[key]
            held = int.from_bytes(whole[at : at + 8], "little")
            if held != count:
                raise Refused(f"promises {count:,} values in storage {key[:20]}, which holds {held:,}")
            at += 8
            found[key] = _flat(whole[at : at + count * dtype.itemsize], dtype, count, key)
            at += count * dtype.itemsize
        return found


class _Views:
    """Rebuilds tensors as views of storages, and counts what they would take if each had its own memory."""

    def __init__(self, file_size: int):
        self._left, self._made = SHARED * file_size, 0

    def __call__(self, *arguments: Any) -> Tensor:
        tensor = rebuild_tensor(*arguments)
        self._left -= tensor.numel() * tensor.element_size()
        self._made += 1
        if self._made > MOST_TENSORS:
            raise Refused(f"holds more than {MOST_TENSORS:,} tensors")
        if self._left < 0:
            raise Refused("holds tensors that share memory, many times the file")
        return tensor


class _Names:
    """What the names in a pickle stand for; None for those that only `read_pickle` knows."""

    def __init__(self, path: object, rebuild: Any):
        self._path, self._members = path, 0
        self._storages: dict[int, tuple[bytes, Any]] = {}  # with its bytes, so that their id stays theirs
        self._functions = {
            ("torch._utils", "_rebuild_tensor_v2"): rebuild,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch.storage", "_load_from_bytes"): self._embedded,
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
            ("collections", "OrderedDict"): _ordered,
            ("builtins", "set"): self._set,
            ("__builtin__", "set"): self._set,
            ("torch", "Size"): _size,
            ("torch", "device"): lambda *_: "device",
        }

    def __call__(self, module: str, name: str) -> Any:
        if (module, name) in REFUSED:
            raise Refused(REFUSED[module, name])
        if (module, name) in self._functions:
            return Call(self._functions[module, name])
        if (module, name) in CLASSES:
            return CLASSES[module, name]
        if module == "torch":
            return STORAGES.get(name) or DTYPES.get(name)
        return None

    def _embedded(self, data: Any) -> Any:
        """A storage inside a pickle of modules: a file of the older torch.save."""
        if not isinstance(data, bytes):
            raise Refused("holds a storage of unknown form")
        if id(data) not in self._storages:
            if len(self._storages) >= MOST_STORAGES:
                raise Refused(f"holds more than {MOST_STORAGES:,} storages")
            inside = f"a storage in {self._path}"
            self._storages[id(data)] = data, _Legacy(inside, io.BytesIO(data), data).read()
        return self._storages[id(data)][1]

    def _set(self, items: Any = ()) -> set:
        if not isinstance(items, list | tuple):
            raise Refused("holds a set of unknown form")
        self._members += len(items)
        if self._members > MOST_MEMBERS:
            raise Refused(f"holds sets of more than {MOST_MEMBERS:,} values")
        check_plain_keys(items)
        return set(items)


def _persistent(meta: Any) -> Record:
    """A module of StyleGAN2-ADA: its source text is dropped, its state becomes a Record."""
    if not (
        isinstance(meta, dict) and meta.get("type") == "class" and isinstance(meta.get("class_name"), str)
    ):
        raise Refused("holds a module of unknown form")
    record = Record(meta["class_name"])
    record.__setstate__(meta.get("state"))
    return record


def _ordered(*arguments: Any) -> PlainDict:
    if arguments:
        raise Refused("holds an OrderedDict of unknown form")
    return PlainDict()


def _size(numbers: Any = ()) -> tuple:
    if not (isinstance(numbers, list | tuple) and len(numbers) <= 64):
        raise Refused("holds a torch.Size of unknown form")
    return tuple(numbers)


def _storage_reference(reference: Any) -> tuple[str, torch.dtype, int]:
    """Key, type and count of ('storage', type, key, device, count), with more behind it in older files."""
    if not (isinstance(reference, tuple) and len(reference) in (5, 6) and reference[0] == "storage"):
        raise Refused("refers to something other than a storage")
    _, dtype, key, _, count, *view = reference
    if not (isinstance(dtype, torch.dtype) and isinstance(key, str) and type(count) is int and count >= 0):
        raise Refused("refers to a storage of unknown form")
    if view not in ([], [None]):
        raise Refused("refers to a view of a storage; save its state dicts with a torch from 0.4 on")
    return key, dtype, count


def _flat(content: memoryview, dtype: torch.dtype, count: int, key: str) -> Tensor:
    """Bytes of the file as a flat tensor, not copied."""
    if count * dtype.itemsize != len(content):
        raise Refused(f"promises {count:,} values in storage {key[:20]}, which holds {len(content):,} bytes")
    if not count:
        return torch.empty(0, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bytes are not writable; nothing here writes to them
        return torch.frombuffer(content, dtype=dtype)
