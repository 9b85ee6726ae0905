"""The tensors of a TorchScript archive, read without running it.

An archive is a zip: `data.pkl` describes the module tree, `data/0`, `data/1`, ... hold the storages, `code/`
the program. The pickle is read by the restricted reader (metrics/base/pickles.py): modules become their
attributes and tensors views of their storages. The program is never compiled; of its text only the names of
parameters and buffers are read.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fact_metrics.base.errors import UserError
from fact_metrics.base.limits import PICKLE
from fact_metrics.base.pickles import Call, Refused, read_pickle
from fact_metrics.base.storages import STORAGES, no_hooks, rebuild_tensor

MOST_MODULES = 100_000  # visited in all; a module may stand in several places
DEEPEST = 100  # modules inside modules


class ScriptModule:
    """A module of an archive: its qualified name and attributes. Nothing of it can be called."""

    name = ""

    def __init__(self) -> None:
        self.attributes: Mapping[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, dict) and all(isinstance(key, str) for key in state)):
            raise Refused("holds a module whose state is made by its own code, which is not run")
        self.attributes = state


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of a TorchScript archive by their names in `state_dict`, on the CPU.

    UserError if the file is not an archive whose tensors can be read without running code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(path, archive).tensors()
    except (zipfile.BadZipFile, EOFError, KeyError, RuntimeError, NotImplementedError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is not a torchscript weight file: {reason}") from error


class _Archive:
    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self._path, self._archive = path, archive
        packed = [info.filename for info in archive.infolist() if info.file_size != info.compress_size]
        packed = [name for name in packed if "/code/" not in name and "/extra/" not in name]
        if packed:
            raise ValueError(f"{packed[0]} is compressed; torch stores it")
        roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1 or f"{roots[0]}/constants.pkl" not in archive.namelist():
            raise ValueError("it has no data.pkl and constants.pkl")
        self._root = roots[0]
        if self._member("byteorder", b"little").strip() != b"little":
            raise ValueError("its numbers are big-endian")
        self._storages: dict[str, Tensor] = {}
        self._names: dict[str, set[str] | None] = {}
        self._visited = 0

    def tensors(self) -> dict[str, Tensor]:
        size = self._archive.getinfo(f"{self._root}/data.pkl").file_size
        PICKLE.check(size, self._path, "save its state dict as safetensors")
        top = read_pickle(
            self._member("data.pkl"),
            source=self._path,
            find_class=_find_class,
            persistent_load=self._storage,
        )
        if not isinstance(top, ScriptModule):
            raise ValueError(f"it holds {type(top).__name__}, not a module")
        found: dict[str, Tensor] = {}
        self._collect(top, "", found, depth=0)
        return found

    def _collect(self, module: ScriptModule, prefix: str, found: dict[str, Tensor], *, depth: int) -> None:
        self._visited += 1
        if depth > DEEPEST or self._visited > MOST_MODULES:
            raise ValueError("it has too many modules inside modules")
        if module.name not in self._names:
            self._names[module.name] = self._state_names(module.name)
        known = self._names[module.name]
        for name, value in module.attributes.items():
            if isinstance(value, Tensor) and (known is None or name in known):
                found[prefix + name] = value
            elif isinstance(value, ScriptModule):
                self._collect(value, f"{prefix}{name}.", found, depth=depth + 1)

    def _state_names(self, qualified: str) -> set[str] | None:
        """Names of a class's parameters and buffers; None if its text does not list both."""
        *folders, name = qualified.split(".")
        try:
            text = self._member("/".join(["code", *folders]) + ".py").decode()
        except (KeyError, UnicodeDecodeError):
            return None
        block = re.search(rf"^class {re.escape(name)}\(Module\):\n((?:  .*\n|\n)*)", text, re.MULTILINE)
        listed = dict(re.findall(r"^  __(parameters|buffers)__ = \[(.*)\]$", block[1] if block else "", re.M))
        if listed.keys() != {"parameters", "buffers"}:
            return None
        return {name for names in listed.values() for name in re.findall(r'"([^"]*)"', names)}

    def _member(self, name: str, default: bytes | None = None) -> bytes:
        try:
            info = self._archive.getinfo(f"{self._root}/{name}")
        except KeyError:
            if default is None:
                raise
            return default
        PICKLE.check(info.file_size, f"{self._path}: {name}", "save its state dict as safetensors")
        return self._archive.read(info)

    def _storage(self, reference: Any) -> Tensor:
        """The flat tensor that ('storage', type, key, device, count) refers to."""
        if not (isinstance(reference, tuple) and len(reference) == 5 and reference[0] == "storage"):
            raise Refused("refers to something other than a storage")
        _, dtype, key, _, count = reference
        if not (isinstance(dtype, torch.dtype) and isinstance(key, str) and type(count) is int):
            raise Refused("refers to a storage of unknown form")
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}/data/{key}"))
            if count * dtype.itemsize != len(data):
                raise Refused(
                    f"promises {count:,} values in data/{key[:20]}, which holds {len(data):,} bytes"
                )
            flat = torch.frombuffer(data, dtype=dtype) if count else torch.empty(0, dtype=dtype)
            self._storages[key] = flat
        if self._storages[key].dtype != dtype:
            raise Refused(f"reads data/{key[:20]} as two types")
        return self._storages[key]


def _find_class(module: str, name: str) -> Any:
    if module == "__torch__" or module.startswith("__torch__."):
        return type("ScriptModule", (ScriptModule,), {"name": f"{module}.{name}"})
    if module == "torch" and name in STORAGES:
        return STORAGES[name]
    return _FUNCTIONS.get((module, name))


_FUNCTIONS = {
    ("torch._utils", "_rebuild_tensor_v2"): Call(rebuild_tensor),
    ("collections", "OrderedDict"): Call(no_hooks),
    ("torch.jit._pickle", "restore_type_tag"): Call(lambda value, *_: value),
    **{
        ("torch.jit._pickle", f"build_{kind}list"): Call(lambda value, *_: value)
        for kind in ("int", "double", "bool", "tensor")
    },
}
