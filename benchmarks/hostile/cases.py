"""The hostile commands: every kind of file that a command reads, spoilt in every way we know of."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.hostile import files
from benchmarks.hostile.runner import Case

EVIL = "\x1b[2J\u202e<script>alert(1)</script>|a\n# H1 `b` <img src=x onerror=y>"
DOCUMENTS = {
    "brackets": files.brackets(),
    "brackets inside": '{"schema": 1, "files": ' + files.brackets(900) + "}",
    "braces": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "object": "{}",
    "list": "[]",
    "text": '"x"',
    "number": "5",
    "null": "null",
    "NaN": '{"schema": NaN}',
    "other schema": '{"schema": "a"}',
    "schema alone": '{"schema": 1}',
    "cut": '{"schema": 1, "run_id',
    "surrogate": '{"schema": 1, "run_id": "\\ud800"}',
    "huge number": '{"schema": ' + "9" * 10_000 + "}",
    "not text": "\udcff\udcfe",
    "empty": "",
}


def write(path: Path, content: bytes | str) -> Path:
    """Write a file with its folders; lone surrogates stand for bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return path


class Cases:
    """All cases, from a good run, its records and a folder of pictures. `size` is that of a bomb in bytes."""

    def __init__(self, run: Path, pictures: Path, classifier: Path, *, size: int):
        self.run, self.pictures, self.classifier, self.size = run, pictures, classifier, size
        self.options = json.loads((run / "training_options.json").read_text())
        self.record = json.loads((run / "results.jsonl").read_text().splitlines()[0])
        (self.snapshot,) = sorted(run.glob("network-snapshot-*.safetensors"))[-1:]

    def all(self) -> Iterator[Case]:
        """Every case; names are unique."""
        yield from self.documents()
        yield from self.fields()
        yield from self.names()
        yield from self.texts()
        yield from self.statistics()
        yield from self.images()
        yield from self.states()
        yield from self.weights()
        yield from self.cache()

    def documents(self) -> Iterator[Case]:
        """JSON that is not what it should be, in every place where JSON is read."""
        small = ("--metrics", "legible10k", "--device", "cpu")
        places: dict[str, tuple[Callable[[Path, str], object], list[tuple[str, ...]]]] = {
            "options": (
                self._with_options,
                [
                    ("fact-eval", "run", "run", *small),
                    ("fact-eval", "all", ".", *small),
                    ("fact-eval", "explain", "."),
                    self._training("run"),
                ],
            ),
            "records": (
                lambda at, text: self._with_records(at, [text]),
                [
                    ("fact-eval", "show", "run"),
                    ("fact-eval", "compare", "run", "run"),
                    ("fact-eval", "publish", "run", "--results", "published"),
                    ("fact-eval", "leaderboard", "--results", "published", "--out", "board.md"),
                ],
            ),
            "manifest": (
                lambda at, text: write(at / "weights" / "manifest.json", text),
                [("fact-eval", "weights", "list"), ("fact-eval", "weights", "check")],
            ),
            "key": (
                self._with_key,
                [
                    ("fact-eval", "cache", "ls"),
                    ("fact-eval", "cache", "gc"),
                    ("fact-eval", "cache", "verify"),
                ],
            ),
            "snapshot": (
                lambda at, text: write(at / "x.safetensors", _metadata(self.snapshot, "fact", text)),
                [
                    ("fact-eval", "fused", "x.safetensors", "--device", "cpu"),
                    ("fact-train", "bake", "x.safetensors", "--out", "b.safetensors"),
                ],
            ),
            "classifier": (
                lambda at, text: write(at / "c.safetensors", _metadata(self.classifier, "classifier", text)),
                [
                    (
                        *self._training("x"),
                        "--model",
                        "stylex",
                        "--classifier",
                        "c.safetensors",
                        "--outdir",
                        "x",
                    )
                ],
            ),
            "statistics": (
                lambda at, text: write(at / "s.safetensors", _statistics(text)),
                [("fact-eval", "ref", "s.safetensors")],
            ),
            "labels": (
                self._with_labels,
                [("fact-train", "classifier", "--data", "pictures", "--out", "c.safetensors")],
            ),
        }
        lenient = ("weights list", "cache ls", "cache gc", "cache verify", "show run")
        for place, (make, commands) in places.items():
            for kind, text in DOCUMENTS.items():
                for command in commands:
                    refused = not any(name in " ".join(command) for name in lenient)
                    refused = refused and not (place in ("records", "labels") and kind in ("empty", "null"))
                    yield Case(
                        f"{place}: {kind}: {' '.join(command[:2])}",
                        command,
                        partial(_call, make, text),
                        refused=refused,
                        environment={"FACT_WEIGHTS": "weights"},
                    )

    def fields(self) -> Iterator[Case]:
        """Fields of records, options and snapshots with values of another type."""
        wrong: dict[str, Any] = {
            "run_id": [], "label": 5, "metric": 5, "kimg": "x", "train_seed": "x", "dataset": {},
            "training": None, "provenance": None, "protocol": [], "extras": [1], "ci": {"low": "x"},
            "value": "x", "seed": "x", "config_sha256": 5, "summary": None, "n_real": 1.5,
        }  # fmt: skip
        for name, value in wrong.items():
            line = json.dumps({**self.record, name: value})
            for command in (
                ("fact-eval", "show", "run"),
                ("fact-eval", "compare", "run", "run"),
                ("fact-eval", "publish", "run", "--results", "published"),
            ):
                yield Case(
                    f"record with {name} {value!r}: {command[1]}",
                    command,
                    lambda at, line=line: self._with_records(at, [line, ""]),
                )
        wrong = {
            "run_id": 5, "label": [], "config": {"data": 5}, "dataset": {}, "seed": "x", "argv": 5,
            "resumed": [5], "git": "x", "config_sha256": None, "preset": [],
        }  # fmt: skip
        for name, value in wrong.items():
            text = json.dumps({**self.options, name: value})
            for command in (("fact-eval", "run", "run"), self._training("run")):
                yield Case(
                    f"options with {name} {value!r}: {command[0]}",
                    command,
                    lambda at, text=text: self._with_options(at, text),
                )
        meta = _read_metadata(self.snapshot)
        wrong = {
            "config": {**meta["config"], "map_depth": 10**9},
            "config of wide layers": {
                "config": {**meta["config"], "channel_max": 10**9, "channel_base": 10**12}
            },
            "config of another network": {"config": {**meta["config"], "w_dim": 9}},
            "dataset": {**meta["dataset"], "resolution": 2**40},
            "dataset of classes": {"dataset": {**meta["dataset"], "classes": 10**15}},
            "nimg": "x",
            "schema": "a",
            "weights_sha256": 5,
        }
        for name, value in wrong.items():
            changed = {**meta, **(value if " " in name else {name: value})}
            content = _metadata(self.snapshot, "fact", json.dumps(changed))
            yield Case(
                f"snapshot with another {name}",
                ("fact-eval", "fused", "x.safetensors", "--device", "cpu"),
                lambda at, content=content: write(at / "x.safetensors", content),
            )

    def names(self) -> Iterator[Case]:
        """Names in records that lead out of the folder."""
        for name in (
            "../../out",
            "/OUT/out",
            "..",
            ".",
            "a/b",
            "a\\b",
            "x\0y",
            "",
            ".hidden",
            "a\nb",
            "\x1b[2J",
        ):
            for where in ("run_id", "dataset"):

                def make(at: Path, name: str = name, where: str = where) -> None:
                    name = name.replace("/OUT", str(at.parent / "outside"))
                    value = name if where == "run_id" else {**self.record["dataset"], "name": name}
                    self._with_records(at, [json.dumps({**self.record, where: value}), ""])

                command = ("fact-eval", "publish", "run", "--results", "p", "--allow-dirty")
                fine = where == "dataset" and name == ".hidden"
                yield Case(f"{where} {name!r}: publish", command, make, refused=not fine)
        for name in ("../../out", "/OUT/out", "a/b", "x\0y"):

            def make(at: Path, name: str = name) -> None:
                name = name.replace("/OUT", str(at.parent / "outside"))
                self._with_options(
                    at, json.dumps({**self.options, "dataset": {**self.options["dataset"], "name": name}})
                )

            yield Case(f"dataset of options {name!r}: all", ("fact-eval", "all", "."), make)

    def texts(self) -> Iterator[Case]:
        """Text from runs, shown on a terminal and written into boards and CSV files."""
        for name in ("label", "error", "summary", "citation"):
            changed = {**self.record, name: EVIL}
            for command, shown in (
                (("fact-eval", "show", "run"), ()),
                (("fact-eval", "show", "run", "--json"), ()),
                (("fact-eval", "leaderboard", "--results", "published", "--out", "board.md"), ("board.md",)),
                (("fact-eval", "publish", "run", "--results", "p", "--allow-dirty"), ()),
            ):

                def make(at: Path, changed: dict = changed) -> None:
                    self._with_records(at, [json.dumps(changed), ""])

                yield Case(
                    f"{name} of markup: {' '.join(command[1:4])}", command, make, refused=False, shown=shown
                )

        def formulas(at: Path) -> None:
            for name in ("=cmd|calc!A0", "+1", "@SUM(1)", "-2", "\x1b[2Jx"):
                for folder in ("a", "b"):
                    write(at / folder / f"{name}.png", files.png(8, 8, color_type=2))

        command = ("fact-eval", "reconstruct", "a", "b", "--out", "pairs.csv", "--measures", "mse")
        yield Case("formulas in CSV", command, formulas, refused=False)
        yield Case(
            "file names of escapes: audit",
            ("fact-eval", "audit", "a"),
            lambda at: write(at / "a" / "\x1b[2J\u202e.png", b"junk"),
        )
        yield Case(
            "a folder with markup of rich",
            ("fact-eval", "images", "[/red]", "--reference", "[/red]"),
            lambda at: write(at / "[/red]" / "a.png", b"junk"),
        )

    def statistics(self) -> Iterator[Case]:
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
            yield Case(f"images against x.pkl: {kind}", command, partial(self._beside, content))
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
            count = self.size // 8
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

    def images(self) -> Iterator[Case]:
        """Pictures and archives that take more than they should."""
        size, side = self.size, 13_000
        commands = {
            "audit": lambda name: ("fact-eval", "audit", name),
            "images": lambda name: ("fact-eval", "images", name, "--reference", name),
            "ref": lambda name: ("fact-eval", "ref", name),
            "train": lambda name: self._training("x", data=name),
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

    def states(self) -> Iterator[Case]:
        """Training states: the older one is taken, whatever is wrong with the newest."""
        good = torch.load(sorted(self.run.glob("training-state-*.pt"))[-1], weights_only=True)
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
                shutil.copytree(self.run, at / "run")
                torch.save(state, at / "run" / "training-state-999999.pt")

            command = self._training("run")
            yield Case(f"state: {kind}", command, make, refused=False)

    def weights(self) -> Iterator[Case]:
        """TorchScript that runs code when it is loaded, under a manifest that calls it trusted."""

        def shared(at: Path, *, code: bool = True) -> None:
            path = at / "shared" / "vgg.pt"
            path.parent.mkdir()
            _script(path, at / "harm")
            status = path.stat()
            import hashlib

            entry = {
                "filename": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "format": "torchscript",
                "trusted": True,
            }  # fmt: skip
            manifest = {"schema": 1, "files": {"vgg16_torchvision": entry}}
            write(at / "shared" / "manifest.json", json.dumps(manifest))
            shutil.copytree(self.run, at / "run")

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

    def cache(self) -> Iterator[Case]:
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
                        self._with_key(at, json.dumps(KEY))
                        write(at / "cache" / "features" / "aa" / ("a" * 64) / name, content)

                    environment = {"FACT_CACHE": "cache"}
                    argv = ("fact-eval", "cache", command)
                    title = f"cache {kind} {name}: {command}"
                    yield Case(title, argv, make, refused=False, environment=environment)

    def _training(self, outdir: str, *, data: str | None = None) -> tuple[str, ...]:
        config = self.options["config"]
        kept = (
            "z_dim",
            "w_dim",
            "map_depth",
            "channel_base",
            "channel_max",
            "batch",
            "kimg",
            "device",
            "threads",
        )
        kept += ("kimg_per_tick", "snapshot_ticks")
        flags = [text for name in kept for text in (f"--{name.replace('_', '-')}", str(config[name]))]
        source = ("--data", data or config["data"], "--outdir", outdir)
        return ("fact-train", "--preset", "mnist-stylegan2", *source, *flags)

    def _with_options(self, at: Path, text: str) -> None:
        shutil.copytree(self.run, at / "run")
        write(at / "run" / "training_options.json", text)

    def _with_records(self, at: Path, lines: list[str]) -> None:
        text = "\n".join(lines)
        text += "" if text.endswith("\n") else "\n"
        write(at / "run" / "results.jsonl", text)
        write(at / "published" / "x.jsonl", text)

    def _with_key(self, at: Path, text: str) -> None:
        write(at / "cache" / "features" / "aa" / ("a" * 64) / "key.json", text)

    def _with_labels(self, at: Path, text: str) -> None:
        shutil.copytree(self.pictures, at / "pictures")
        write(at / "pictures" / "dataset.json", text)

    def _beside(self, content: bytes, at: Path) -> None:
        shutil.copytree(self.pictures, at / "pictures")
        write(at / "x.pkl", content)


KEY = {"images": {"source": "noise"}, "detector": {"detector": "pixels"}, "code": "c", "device": "cpu"}


def _call(make: Callable[[Path, str], object], text: str, at: Path) -> None:
    make(at, text)


def _read_metadata(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return json.loads(file.metadata()["fact"])


def _metadata(path: Path, key: str, text: str) -> bytes:
    """A safetensors file with its tensors and another metadata text; bytes that are no text stay."""
    from safetensors.torch import load_file, save

    try:
        return save(load_file(path), {key: text})
    except (UnicodeEncodeError, ValueError):
        return files.safetensors({key: "?"}).replace(b"?", text.encode("utf-8", "surrogateescape"))


def _statistics(text: str) -> bytes:
    from safetensors.torch import save

    texts = {"schema": "1", "n": "5", "correction": "1", "sha256": "0"}
    metadata = {"format": "fact-stylegan reference statistics", **texts, "detector": text, "dataset": text}
    try:
        return save({"mean": torch.zeros(3), "cov": torch.eye(3)}, metadata)
    except (UnicodeEncodeError, ValueError):
        return b"\xff" * 32


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
