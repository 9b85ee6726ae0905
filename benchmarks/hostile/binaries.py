"""Cases of binary files: statistics, pictures and archives, training states, weights, the feature store."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.hostile import files
from benchmarks.hostile.given import KEY, Given, write
from benchmarks.hostile.runner import Case


def statistics(given: Given) -> Iterator[Case]:
    """Files of reference statistics."""
    harm = files.Call(os.mkdir, "harm")
    small = {"mu": np.zeros(3), "sigma": np.eye(3)}
    pickles = {
        "addresses": files.pointers(),
        "a function": pickle.dumps({**small, "x": harm}),
        "eval": pickle.dumps({**small, "x": files.Call(eval, "__import__('os').mkdir('harm')")}),
        "objects": pickle.dumps({"mu": np.array([harm], dtype=object), "sigma": np.eye(1)}),
        "memo": b"\x80\x02}r\xff\xff\xff\xff.",
        "bytes of 2^56": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x00.",
        "a list": pickle.dumps([1]),
        "NaN": pickle.dumps({"mu": np.full(3, np.nan), "sigma": np.eye(3)}),
        "n of 0": pickle.dumps({"raw_mean": np.zeros(3), "raw_cov": np.eye(3), "num_items": 0}),
        "n of text": pickle.dumps({"raw_mean": np.zeros(3), "raw_cov": np.eye(3), "num_items": "x"}),
        "cut": files.pointers()[:40],
        "empty": b"",
    }
    for kind, content in pickles.items():
        for name in ("x.pkl", "x.pickle"):
            yield Case(
                f"{name}: {kind}",
                ("fact-eval", "ref", name),
                lambda at, n=name, c=content: write(at / n, c),
            )
        command = (
            "fact-eval",
            "images",
            "pictures",
            "--reference",
            "x.pkl",
            "--metrics",
            "fid10k_full_digits",
        )
        yield Case(f"images against x.pkl: {kind}", command, partial(given.beside, content))
    square = files.lying_npy((10**6, 10**6), "<f8")
    lies = {
        "lying shapes": {"mu": files.lying_npy((10**6,), "<f8"), "sigma": square},
        "lying sigma": {"mu": _npy(np.zeros(3)), "sigma": square},
        "objects": {"mu": _npy(np.array([harm], dtype=object)), "sigma": _npy(np.eye(1))},
        "a negative shape": {"mu": files.lying_npy((-1,), "<f8"), "sigma": square},
        "a code shape": {"mu": _bad_header("__import__('os').mkdir('harm')"), "sigma": square},
        "text": {"mu": _npy(np.array(["a"])), "sigma": _npy(np.eye(1))},
        "three axes": {"mu": _npy(np.zeros((3, 1, 1))), "sigma": _npy(np.eye(3))},
    }
    for kind, arrays in lies.items():
        yield Case(
            f"x.npz: {kind}",
            ("fact-eval", "ref", "x.npz"),
            lambda at, a=arrays: files.npz(at / "x.npz", a),
        )

    def wide(at: Path) -> None:
        count = given.size // 8
        files.zeros_npy(at / "x.npz", "mu", (count,), "<f8")
        import zipfile

        with zipfile.ZipFile(at / "x.npz", "a") as archive:
            archive.writestr("sigma.npy", _npy(np.eye(3)))

    yield Case("x.npz: a mean of zeros", ("fact-eval", "ref", "x.npz"), wide)
    states = {"a function": {"mu": harm}, "a tensor": torch.zeros(3), "a module": torch.nn.Linear(2, 2)}
    for kind, state in states.items():
        yield Case(
            f"x.pt: {kind}", ("fact-eval", "ref", "x.pt"), lambda at, s=state: torch.save(s, at / "x.pt")
        )


def images(given: Given) -> Iterator[Case]:
    """Pictures and archives that take more than they should."""
    size, side = given.size, 13_000
    save = ("--save", "s.safetensors", "--detector", "pixels", "--device", "cpu")
    commands = {
        "audit": lambda name: ("fact-eval", "audit", name),
        "images": lambda name: ("fact-eval", "images", name, "--reference", name),
        "ref": lambda name: ("fact-eval", "ref", name, *save),
        "train": lambda name: given.training("x", data=name),
    }

    def two_large(at: Path) -> None:
        content = files.png(side, side)
        for name in ("a.png", "b.png"):
            write(at / "data" / name, content)

    bombs: dict[str, tuple[str, Callable[[Path], object]]] = {
        "a PNG with a tail": ("x.zip", lambda at: files.png_with_tail(at / "x.zip", size)),
        "two large PNG": ("data", two_large),
        "a tar.gz of zeros": ("x.tar.gz", lambda at: files.tar_of_zeros(at / "x.tar.gz", size)),
        "an npz of zeros": (
            "x.npz",
            lambda at: files.zeros_npy(at / "x.npz", "arr_0", (size // (3 << 20), 1024, 1024, 3), "|u1"),
        ),
        "an npz that lies": (
            "x.npz",
            lambda at: files.npz(at / "x.npz", {"arr_0": files.lying_npy((10**6, 10**6, 10**6, 3))}),
        ),
        "an npz of objects": (
            "x.npz",
            lambda at: files.npz(
                at / "x.npz", {"arr_0": _npy(np.array([files.Call(os.mkdir, "harm")], dtype=object))}
            ),
        ),
        "idx files of zeros": ("data", lambda at: _idx(at / "data", size)),
        "links out of a tar": ("x.tar", _links),
        "paths out of a zip": ("x.zip", _traversal),
    }
    for kind, (name, make) in bombs.items():
        for command, argv in commands.items():
            if command == "audit" and (name.endswith(".npz") or "idx" in kind):
                continue
            yield Case(f"{kind}: {command}", argv(name), make, refused="out of" not in kind)


def states(given: Given) -> Iterator[Case]:
    """Training states: the older one is taken, whatever is wrong with the newest."""
    good = torch.load(sorted(given.run.glob("training-state-*.pt"))[-1], weights_only=True)
    exp_avg = {**good["G_opt"], "state": {0: {**good["G_opt"]["state"][0], "exp_avg": torch.zeros(2)}}}
    spoilt = {
        "a function": {"a": files.Call(os.mkdir, "harm")},
        "an object": {"a": 1},
        "a schema": {"schema": 1},
        "a list": [1],
        "a tensor": torch.zeros(2),
        "text for steps": {**good, "steps": "x"},
        "other weights": {**good, "G": {}},
        "text for an optimiser": {**good, "G_opt": "x"},
        "other moments": {**good, "G_opt": exp_avg},
        "statistics": {**good, "stats": {"Loss/G": torch.zeros(2)}},
    }
    for kind, state in spoilt.items():

        def make(at: Path, state: object = state) -> None:
            shutil.copytree(given.run, at / "run")
            torch.save(state, at / "run" / "training-state-999999.pt")

        command = given.training("run")
        yield Case(f"state: {kind}", command, make, refused=False)


def checkpoints(given: Given) -> Iterator[Case]:
    """Checkpoints of other programs; tests/hostile_checkpoints.py has one file for each attack."""
    harm = files.Call(os.mkdir, "harm")
    contents = {
        "a function": pickle.dumps({"G_ema": harm}),
        "eval": pickle.dumps({"G_ema": files.Call(eval, "__import__('os').mkdir('harm')")}),
        "nested keys": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
        "a class called": b"\x80\x02cdnnlib.util\nEasyDict\n(](X\x01\x00\x00\x00a)\x86etR.",
        "a cut zip": b"PK\x03\x04" + bytes(64),
        "empty": b"",
    }
    for kind, content in contents.items():
        for argv in (("convert", "x.pkl"), ("run", "x.pkl", "--data", "mnist")):

            def make(at: Path, content: bytes = content) -> None:
                write(at / "x.pkl", content)

            yield Case(f"{argv[0]} x.pkl: {kind}", ("fact-eval", *argv), make)
    for kind, state in {"a function": {"g_ema": harm}, "a module": {"g_ema": torch.nn.Linear(2, 2)}}.items():

        def save(at: Path, state: object = state) -> None:
            torch.save(state, at / "x.pt")

        yield Case(f"convert x.pt: {kind}", ("fact-eval", "convert", "x.pt"), save)


def generators(given: Given) -> Iterator[Case]:
    """Files that are sampled, fine-tuned or scored as a graph."""
    harm = files.Call(os.mkdir, "harm")
    init = (*given.training("out"), "--init")
    for kind, content in {"a function": pickle.dumps({"G_ema": harm}), "empty": b"", "junk": b"junk"}.items():
        for name, argv in {
            "generate": ("fact-eval", "generate", "x.pkl", "--out", "images"),
            "export": ("fact-eval", "export", "x.pkl", "--out", "g.onnx"),
            "--init": (*init, "x.pkl"),
        }.items():

            def make(at: Path, content: bytes = content) -> None:
                write(at / "x.pkl", content)

            yield Case(f"{name} x.pkl: {kind}", argv, make)
    state = "training-state-000001.pt"
    yield Case("--init state: a function", (*init, state), lambda at: torch.save({"G": harm}, at / state))
    graphs = {
        "empty": b"",
        "junk": b"junk" * 1000,
        "a pickle": pickle.dumps(harm),
        "long": b"\x0a\xff\xff\xff\xff\x7f",
    }
    for kind, content in graphs.items():
        argv = ("fact-eval", "run", "x.onnx", "--data", "mnist")
        yield Case(f"run x.onnx: {kind}", argv, lambda at, c=content: write(at / "x.onnx", c))


def weights(given: Given) -> Iterator[Case]:
    """TorchScript that runs code when it is loaded, under a manifest that calls it trusted."""

    def shared(at: Path, *, code: bool = True) -> None:
        path = at / "shared" / "vgg.pt"
        path.parent.mkdir()
        _script(path, at / "harm")
        status = path.stat()

        entry = {
            "filename": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "format": "torchscript",
            "trusted": True,
        }  # fmt: skip
        manifest = {"schema": 1, "files": {"vgg16_torchvision": entry}}
        write(at / "shared" / "manifest.json", json.dumps(manifest))
        shutil.copytree(given.run, at / "run")

    environment = {"FACT_WEIGHTS_SHARED": "shared", "FACT_WEIGHTS": "weights"}
    for command in (
        ("fact-eval", "run", "run", "--metrics", "precision50k3_full"),
        ("fact-eval", "weights", "where", "vgg16_torchvision"),
    ):
        yield Case(f"shared TorchScript: {command[1]}", command, shared, environment=environment)
    trust = ("fact-eval", "weights", "add", "shared/vgg.pt", "--as", "vgg16_torchvision", "--trust")
    yield Case("TorchScript added on trust", trust, shared, environment=environment)
    zipped = {"junk.pth": b"junk", "junk.pt": b"PK\x03\x04junk", "junk.safetensors": b"\xff" * 64}
    for name, content in zipped.items():
        argv = ("fact-eval", "weights", "add", name, "--as", "vgg16_torchvision", "--trust")
        make = lambda at, n=name, c=content: write(at / n, c)  # noqa: E731
        yield Case(f"weights add {name}", argv, make, environment=environment)


def cache(given: Given) -> Iterator[Case]:
    """Chunks and files in the store that are not ours."""
    chunks = {
        "foreign": b"not a chunk",
        "rows of text": files.safetensors({"entry": "e", "chunk": "0", "rows": "x", "sha256": "0"}),
        "huge header": b"\xff" * 16,
        "no tensor": files.safetensors({"entry": "e", "chunk": "0", "hmac": "0"}),
    }
    for kind, content in chunks.items():
        for name in ("000000.safetensors", "xyz.safetensors", "²²²²²².safetensors"):
            for command in ("ls", "gc", "verify"):

                def make(at: Path, name: str = name, content: bytes = content) -> None:
                    given.with_key(at, json.dumps(KEY))
                    write(at / "cache" / "features" / "aa" / ("a" * 64) / name, content)

                environment = {"FACT_CACHE": "cache"}
                argv = ("fact-eval", "cache", command)
                title = f"cache {kind} {name}: {command}"
                yield Case(title, argv, make, refused=False, environment=environment)


def _npy(array: np.ndarray) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def _bad_header(expression: str) -> bytes:
    text = ("{'descr': '<f8', 'fortran_order': False, 'shape': (" + expression + ",)}").ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def _idx(folder: Path, size: int) -> None:
    import gzip

    folder.mkdir()
    side = 1024
    count = size // side**2
    with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (count, side, side)))
        for _ in range(count):
            file.write(bytes(side**2))
    with gzip.open(folder / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(count))


def _links(at: Path) -> None:
    import tarfile

    with tarfile.open(at / "x.tar", "w") as archive:
        for name, target in (("a.png", "/etc/passwd"), ("../../out.png", "x")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)


def _traversal(at: Path) -> None:
    import zipfile

    with zipfile.ZipFile(at / "x.zip", "w") as archive:
        for name in ("../../out.png", "/out.png"):
            archive.writestr(name, files.png(8, 8, color_type=2))


def _script(path: Path, harm: Path) -> None:
    """TorchScript that writes `harm` when it is loaded."""
    import warnings

    from benchmarks.hostile.script import Writes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Writes(str(harm))).save(str(path))
