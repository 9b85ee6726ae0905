"""The ways in: a good file of every kind, how a seed spoils it, and the commands that read it."""

import io
import json
import pickle
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.faults import mutate
from benchmarks.hostile import files
from benchmarks.hostile.given import Given, write
from benchmarks.hostile.runner import Case

Mutation = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Source:
    """A good file, where it goes in a folder, and how it is spoilt; `make` adds what belongs around it."""

    name: str
    content: bytes
    spoil: Mutation
    commands: tuple[tuple[str, ...], ...]
    make: Callable[[Path], object] = lambda at: None
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Entry:
    """One kind of file. Input i of a seed is always the same."""

    name: str
    sources: tuple[Source, ...]

    def case(self, number: int, seed: int) -> Case:
        """The n-th bad input of a seed and the command that reads it."""
        random_ = random.Random(f"{seed} {self.name} {number}")
        source = self.sources[number % len(self.sources)]
        command = source.commands[number // len(self.sources) % len(source.commands)]
        content = source.spoil(source.content, random_)

        def make(at: Path) -> None:
            source.make(at)
            write(at / source.name, content)

        name = f"{self.name} {number}: {source.name}: {' '.join(command[:2])}"
        return Case(name, command, make, refused=False, environment=dict(source.environment))


def make_entries(given: Given, *, only: Collection[str] = ()) -> list[Entry]:
    """All entries, or these, of the files of a small run."""
    return [Entry(name, make(given)) for name, make in ENTRIES.items() if not only or name in only]


def _reading(name: str) -> tuple[tuple[str, ...], ...]:
    save = ("--save", "s.safetensors", "--detector", "pixels", "--device", "cpu", "--threads", "1")
    return (("fact-eval", "audit", name), ("fact-eval", "ref", name, *save))


def _images(given: Given) -> tuple[Source, ...]:
    picture = Image.open(given.pictures / "000.png")
    kinds = {"png": mutate.of_png, "jpg": mutate.of_bytes, "webp": mutate.of_bytes}
    sources = []
    for ending, spoil in kinds.items():
        packed = io.BytesIO()
        picture.save(packed, {"jpg": "jpeg"}.get(ending, ending))
        content = packed.getvalue()

        def around(at: Path) -> None:
            shutil.copytree(given.pictures, at / "data", ignore=shutil.ignore_patterns("*.json"))

        sources.append(Source(f"data/x.{ending}", content, spoil, _reading("data"), around))
    labels = (given.pictures / "dataset.json").read_bytes()
    around = lambda at: shutil.copytree(given.pictures, at / "data")  # noqa: E731
    train = (*given.training("run", data="data"), "--cond")
    train = (*train[: train.index("--kimg")], "--kimg", "0", *train[train.index("--kimg") + 2 :])
    return (*sources, Source("data/dataset.json", labels, mutate.of_json, (train,), around))


def _archives(given: Given) -> tuple[Source, ...]:
    members = [(path.name, path.read_bytes()) for path in sorted(given.pictures.iterdir())][-6:]
    labels = {"labels": [[name, 0] for name, _ in members if name != "dataset.json"]}
    members = [(n, json.dumps(labels).encode() if n == "dataset.json" else data) for n, data in members]
    zipped, arrays, plain = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.savez(arrays, images=pixels, labels=np.arange(6) % 2)
    np.save(plain, pixels)
    samples = [(name, data) for name, data in members if name != "dataset.json"]
    samples += [(name.replace(".png", ".cls"), b"1") for name, _ in samples]
    return (
        Source("x.zip", zipped.getvalue(), mutate.of_zip, _reading("x.zip")),
        Source("x.tar", _tar(members), mutate.of_tar, _reading("x.tar")),
        Source("x.npz", arrays.getvalue(), mutate.of_zip, _reading("x.npz")[1:]),
        Source("x.npy", plain.getvalue(), mutate.of_bytes, _reading("x.npy")),
        Source("w.tar", _tar(samples), mutate.of_tar, _reading("w.tar")),  # a WebDataset
    )


def _tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def _configurations(given: Given) -> tuple[Source, ...]:
    options = (given.run / "training_options.json").read_bytes()
    commands = (
        ("fact-eval", "run", "run", "--metrics", "kid4_full_pixels", "--device", "cpu", "--threads", "1"),
        given.training("run"),
        ("fact-eval", "explain", "run"),
    )
    around = lambda at: shutil.copytree(given.run, at / "run")  # noqa: E731
    study = (Path(__file__).parents[2] / "leaderboard/studies/batch-size.toml").read_bytes()
    sweep = (("fact-train", "sweep", "--study", "study.toml", "--dry-run"),)
    return (
        Source("run/training_options.json", options, mutate.of_json, commands, around),
        Source("study.toml", study, mutate.of_bytes, sweep),
    )


def _snapshots(given: Given) -> tuple[Source, ...]:
    commands = (
        ("fact-eval", "fused", "x.safetensors", "--device", "cpu"),
        ("fact-train", "bake", "x.safetensors", "--out", "b.safetensors"),
    )
    return (Source("x.safetensors", given.snapshot.read_bytes(), mutate.of_safetensors, commands),)


def _states(given: Given) -> tuple[Source, ...]:
    newest = sorted(given.run.glob("training-state-*.pt"))[-1]
    command = given.training("run")
    command = (*command[: command.index("--kimg")], "--kimg", "0.04", *command[command.index("--kimg") + 2 :])

    def around(at: Path) -> None:
        shutil.copytree(given.run, at / "run")

    def alone(at: Path) -> None:
        around(at)
        for path in (at / "run").glob("training-state-*.pt"):
            path.unlink()

    name = f"run/{newest.name}"  # where an older one can stand in, and where none can
    return tuple(
        Source(name, newest.read_bytes(), mutate.of_zip, (command,), make) for make in (around, alone)
    )


def _records(given: Given) -> tuple[Source, ...]:
    record = json.dumps(given.record) + "\n"
    lines = (record + json.dumps({**given.record, "seed": 1}) + "\n").encode()
    board = ("fact-eval", "leaderboard", "--results", "published")
    local = (("fact-eval", "show", "run"), ("fact-eval", "compare", "run", "run"))
    local += (("fact-eval", "publish", "run", "--results", "p", "--allow-dirty"),)
    public = ((*board, "--out", "board.md"), (*board, "--check"))
    check = json.dumps(given.verification).encode() + b"\n"

    def around(at: Path) -> None:
        given.with_records(at, [record.strip()])

    return (
        Source("run/results.jsonl", lines, mutate.of_lines, local),
        Source("published/x.jsonl", lines, mutate.of_lines, public),
        Source("run/verifications.jsonl", check, mutate.of_lines, local[2:], around),
        Source("verifications/x.jsonl", check, mutate.of_lines, public, around),
    )


def _statistics(given: Given) -> tuple[Source, ...]:
    mean, cov = np.zeros(8), np.eye(8)
    arrays = io.BytesIO()
    np.savez(arrays, mu=mean, sigma=cov)
    metadata = {"format": "fact-stylegan reference statistics", "schema": "1", "n": "9", "correction": "1"}
    detector = {"detector": "pixels", "width": 8}
    dataset = {"name": "x", "split": "train", "sha256": "a" * 64, "resolution": 8, "channels": 1, "n": 9}
    metadata |= {"detector": json.dumps(detector), "dataset": json.dumps(dataset), "sha256": "0" * 64}
    tensors = {"mean": torch.zeros(8, dtype=torch.float64), "cov": torch.eye(8, dtype=torch.float64)}
    from safetensors.torch import save

    known = pickle.dumps({"mu": mean, "sigma": cov})
    cached = io.BytesIO()  # as torch-fidelity does
    torch.save({"mu": mean, "sigma": cov}, cached)
    hostile = pickle.dumps({"mu": mean, "sigma": cov, "x": files.Call(exec, "import os; os.mkdir('harm')")})
    contents = {
        "x.npz": (arrays.getvalue(), mutate.of_zip),
        "x.pkl": (known, mutate.of_bytes),
        "y.pkl": (hostile, mutate.of_bytes),
        "z.pkl": (files.pointers(), mutate.of_bytes),
        "x.safetensors": (save(tensors, metadata), mutate.of_safetensors),
        "x.pt": (cached.getvalue(), mutate.of_zip),
    }
    return tuple(
        Source(name, content, spoil, (("fact-eval", "ref", name),))
        for name, (content, spoil) in contents.items()
    )


def _weights(given: Given) -> tuple[Source, ...]:
    packed = io.BytesIO()
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}, packed)
    add = ("fact-eval", "weights", "add", "x.pt", "--as", "vgg16_torchvision")
    stylex = (*given.training("run"), "--model", "stylex", "--classifier", "c.safetensors", "--w-lpips", "0")
    stylex = (*stylex[: stylex.index("--kimg")], "--kimg", "0", *stylex[stylex.index("--kimg") + 2 :])
    where = (("FACT_WEIGHTS", "weights"),)
    entry = {
        "filename": "x.pt",
        "sha256": "0" * 64,
        "bytes": 1,
        "mtime_ns": 1,
        "format": "pth",
        "trusted": True,
    }
    manifest = json.dumps({"schema": 1, "files": {"vgg16_torchvision": entry}}).encode()
    listed = (("fact-eval", "weights", "list"), ("fact-eval", "weights", "check"))
    return (
        Source("x.pt", packed.getvalue(), mutate.of_zip, ((*add, "--trust"), add), environment=where),
        Source("c.safetensors", given.classifier.read_bytes(), mutate.of_safetensors, (stylex,)),
        Source("weights/manifest.json", manifest, mutate.of_json, listed, environment=where),
    )


ENTRIES: dict[str, Callable[[Given], tuple[Source, ...]]] = {
    "images": _images,
    "archives": _archives,
    "configurations": _configurations,
    "snapshots": _snapshots,
    "states": _states,
    "records": _records,
    "statistics": _statistics,
    "weights": _weights,
}
