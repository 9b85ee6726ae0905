"""Checkpoints that attack their reader, by name: (writer of the file, what the one line must say)."""

import copyreg
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from foreign_checkpoints import Persistent, rosinality, stylegan2_ada, toy_networks, write_pickle

from benchmarks.hostile.files import Call
from fact_metrics.base.checkpoints import LEGACY_MAGIC

HARM = "__import__('os').mkdir('harm')"
MANY = 1_000_000
DEEP = 200_000  # enough to overflow the stack of a recursive reader


def _zip(
    path: Path, data_pkl: bytes, storages: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED
) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)


def _legacy(path: Path, content: bytes, storages: bytes = b"", keys: list[str] | None = None) -> None:
    system = dict(protocol_version=1001, little_endian=True, type_sizes={})
    head = b"".join(pickle.dumps(value, protocol=2) for value in (LEGACY_MAGIC, 1001, system))
    path.write_bytes(head + content + pickle.dumps(keys or [], protocol=2) + storages)


def _tensors(count: int, size: tuple, stride: tuple, *, views: int = 1) -> bytes:
    """A pickle of tensors in a storage '0' that is said to hold `count` floats."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self):
            arguments = (storage, 0, size, stride, False, {})
            return torch._utils._rebuild_tensor_v2, arguments

    storage = Storage()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if value is storage else None

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump({"g_ema": [Tensor() for _ in range(views)]})
    return stream.getvalue()


def _persistent_id(reference: Any) -> bytes:
    stream, marker = io.BytesIO(), object()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any):
            return reference if value is marker else None

    Pickler(stream, protocol=2).dump({"g_ema": marker})
    return stream.getvalue()


def _flipped(path: Path) -> None:
    _zip(path, _tensors(4, (2,), (1,)), {"0": b"sixteen bytes ok"})
    path.write_bytes(path.read_bytes().replace(b"sixteen bytes ok", b"sixteen bytes Ok"))


def _large_directory(path: Path) -> None:
    """A zip whose table of contents is said to take 17 MiB."""
    size = 17 << 20
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, size, 4, 0)
    path.write_bytes(b"PK\x03\x04" + bytes(size) + end)


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("storages")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"0000"))


def _module_cycle(path: Path) -> None:
    """A module whose children hold the module."""
    children: dict[str, Any] = {}
    children["a"] = Persistent("SynthesisNetwork", {"_modules": children})
    write_pickle(path, {"G_ema": Persistent("Generator", {"_modules": children})})


def _module_bush(path: Path) -> None:
    """Eight levels of modules, each with the next one 300 times: 300^8 in all."""
    level = Persistent("FullyConnectedLayer", {"_modules": {}})
    for _ in range(7):
        level = Persistent("SynthesisNetwork", {"_modules": {f"m{i}": level for i in range(300)}})
    write_pickle(path, {"G_ema": level})


def _doubling(times: int, *, at: int = 500_000) -> bytes:
    """Steps that leave a tuple of two equal tuples of two ... on the stack; `at`: in the memo."""
    numbers = (struct.pack("<L", at + i) for i in range(times))
    return b")" + b"".join(b"r" + n + b"0j" + n + b"j" + n + b"\x86" for n in numbers)


def _setting(path: Path, first: bytes, second: bytes) -> None:
    """Two layers whose clamp is a value that takes forever to compare; spliced into a good pickle."""
    cfg, G, D = toy_networks(conv_clamp=256.0)
    changes = {"synthesis.b8.conv0": {"conv_clamp": "FIRST"}, "synthesis.b8.conv1": {"conv_clamp": "SECOND"}}
    write_pickle(path, stylegan2_ada(cfg, G, D, **changes), protocol=2)
    data = path.read_bytes()
    for text, steps in (("FIRST", first), ("SECOND", second)):
        spelled = b"X" + struct.pack("<L", len(text)) + text.encode()
        assert data.count(spelled) == 1
        data = data.replace(spelled, steps)
    path.write_bytes(data)


def _source(path: Path) -> None:
    """A good file whose embedded source text would do harm. It must load."""
    cfg, G, D = toy_networks()
    content = stylegan2_ada(cfg, G, D)
    for name in ("G", "G_ema", "D"):
        content[name].source = "import os\nos.mkdir('harm')"
    write_pickle(path, content)


def _namespace(path: Path) -> None:
    """A good file beside whose weights an unknown object lies."""
    _, G, D = toy_networks()
    torch.save(rosinality(G, D) | {"extra": Call(os.mkdir, "harm")}, path)


FUNCTIONS = {
    "os.system": (pickle.dumps({"g_ema": Call(os.system, "mkdir harm")}), "names posix.system"),
    "builtins.eval": (pickle.dumps({"g_ema": Call(eval, HARM)}), "names builtins.eval"),
    "a chain of getattr": (
        b"\x80\x02cbuiltins\ngetattr\n(cbuiltins\n__import__\n(X\x02\x00\x00\x00ostR"
        b"X\x05\x00\x00\x00mkdirtR(X\x04\x00\x00\x00harmtR.",
        "names builtins.getattr",
    ),
    "copyreg": (
        pickle.dumps({"g_ema": Call(copyreg._reconstructor, Path, object, None)}, protocol=2),
        "names copyreg._reconstructor|names copy_reg._reconstructor",
    ),
    "nested reduce": (b"\x80\x02ccollections\nOrderedDict\n)R(S'mkdir harm'\ntR.", "not a readable pickle"),
    "functools.partial": (
        b"\x80\x02cfunctools\npartial\n(cos\nmkdir\nS'harm'\ntR)R.",
        "names functools.partial",
    ),
    "a class called": (
        b"\x80\x02cdnnlib.util\nEasyDict\n(](X\x01\x00\x00\x00a)\x86etR.",
        "not a readable pickle",
    ),
    "attributes of a class": (
        b"\x80\x02cdnnlib.util\nEasyDict\n}X\x01\x00\x00\x00aK\x01sb.",
        "not a readable",
    ),
}

CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    **{
        f"{kind} in a {container}": (lambda path, d=data, w=write: w(path, d), message)
        for kind, (data, message) in FUNCTIONS.items()
        for container, write in (
            ("pickle", Path.write_bytes),
            ("zip", lambda path, data: _zip(path, data, {})),
            ("legacy file", _legacy),
        )
    },
    "an unknown object beside good weights": (_namespace, "names posix.mkdir"),
    "a persistent id that is no storage": (
        lambda path: _zip(path, _persistent_id(("eval", HARM)), {}),
        "refers to something other than a storage",
    ),
    "a persistent id of other types": (
        lambda path: _zip(path, _persistent_id(("storage", "x", "0", "cpu", 1)), {"0": b"0000"}),
        "a storage of unknown form",
    ),
    "a persistent id in a pickle": (
        lambda path: path.write_bytes(_persistent_id(("eval", HARM))),
        "outside itself",
    ),
    "a storage of 10 GB in a zip": (
        lambda path: _zip(path, _tensors(2_500_000_000, (2,), (1,)), {"0": bytes(16)}),
        "promises 2,500,000,000 values in storage 0",
    ),
    "a storage of 10 GB in a legacy file": (
        lambda path: _legacy(
            path, _tensors(2_500_000_000, (2,), (1,)), struct.pack("<Q", 2_500_000_000), ["0"]
        ),
        "promises 2,500,000,000 values in storage 0",
    ),
    "another count in a legacy file": (
        lambda path: _legacy(path, _tensors(4, (2,), (1,)), struct.pack("<Q", 2**60) + bytes(16), ["0"]),
        "promises 4 values in storage 0, which holds 1,152,921,504,606,846,976$",
    ),
    "a tensor of 10 GB in 4 values": (
        lambda path: _zip(path, _tensors(4, (50_000, 50_000), (0, 0)), {"0": bytes(16)}),
        "promises a tensor of shape",
    ),
    "thousands of views of a storage": (
        lambda path: _zip(path, _tensors(250_000, (250_000,), (1,), views=3000), {"0": bytes(10**6)}),
        "share memory, many times the file",
    ),
    "a flipped bit in a zip": (_flipped, "data/0 is truncated or damaged"),
    "a zip bomb": (
        lambda path: _zip(path, pickle.dumps({}), {"0": bytes(50 << 20)}, compression=zipfile.ZIP_DEFLATED),
        "data.pkl is compressed",
    ),
    "a zip with a huge table of contents": (_large_directory, "a table of contents of 17,825,792 bytes"),
    "a zip without data.pkl": (
        lambda path: zipfile.ZipFile(path, "w").writestr("x", "y"),
        "holds no data.pkl",
    ),
    "a legacy tar": (_tar, "is a tar of a torch before 0.1"),
    "a list that holds itself": (
        lambda path: path.write_bytes(b"\x80\x02]q\x00h\x00a."),
        "of no known format",
    ),
    "a table that holds itself": (
        lambda path: path.write_bytes(b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s."),
        "of no known format",
    ),
    "modules in a cycle": (_module_cycle, "nested too deeply"),
    "300^8 modules": (_module_bush, "too many modules"),
    "10^6 nested tuples": (
        lambda path: path.write_bytes(b"\x80\x02)" + b"\x85" * MANY + b"."),
        "no known format",
    ),
    "nested tuples as a key": (
        lambda path: path.write_bytes(b"\x80\x02})" + b"\x85" * DEEP + b"Ns."),
        "a tuple as the key of a table",
    ),
    "nested lists": (
        lambda path: path.write_bytes(b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b"."),
        "no known format",
    ),
    "2^60 tuples as a key": (
        lambda path: path.write_bytes(b"\x80\x02}" + _doubling(60) + b"Ns."),
        "a tuple as the key of a table",
    ),
    "2^60 tuples in a set": (
        lambda path: path.write_bytes(b"\x80\x04\x8f(" + _doubling(60) + b"\x90."),
        "a tuple as the key of a table",
    ),
    "2^60 tuples as a setting": (
        lambda path: _setting(path, _doubling(60), _doubling(60, at=600_000)),
        "conv_clamp is no plain value",
    ),
    "more steps than any checkpoint": (
        lambda path: path.write_bytes(b"\x80\x02" + b"N0" * MANY + b"N."),
        "has more than",
    ),
    "an empty file": (lambda path: path.write_bytes(b""), "is empty"),
    "a cut file": (
        lambda path: (_source(path), path.write_bytes(path.read_bytes()[:5000])),
        "not a readable pickle",
    ),
    "noise": (lambda path: path.write_bytes(bytes(range(1, 256)) * 99), "pickle"),
    "TorchScript": (
        lambda path: torch.jit.script(torch.nn.Linear(2, 2)).save(str(path)),
        "is TorchScript",
    ),
    "a network of TensorFlow": (
        lambda path: path.write_bytes(b"\x80\x02cdnnlib.tflib.network\nNetwork\n)\x81."),
        "is a TensorFlow network",
    ),
    "harmful source text": (_source, "loaded"),
}
