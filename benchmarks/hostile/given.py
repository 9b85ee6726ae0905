"""The good files that hostile ones are made of, as cases use them, and what may be wrong with any JSON."""

import json
import shutil
from pathlib import Path

from benchmarks.hostile import files

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


KEY = {"images": {"source": "noise"}, "detector": {"detector": "pixels"}, "code": "c", "device": "cpu"}


def verification_of(record: dict) -> dict:
    """A good check of a record."""
    names = ("run_id", "snapshot_sha256", "metric", "metric_version", "protocol_sha256", "seed")
    same = {"claimed": record["value"], "found": record["value"], "difference": 0.0, "tolerance": 0.0}
    said = {"reason": "equal code", "by": "fact-eval", "basis": "snapshot", "kind": "snapshot"}
    origin = {name: record["provenance"][name] for name in ("git", "argv", "packages", "device")}
    return {name: record[name] for name in names} | {**same, **said, "holds": True, "schema": 1} | {
        "provenance": {**origin, "platform": "Linux", "finished": "2026-01-02T00:00:00Z"}
    }  # fmt: skip


class Given:
    """A good run with records, pictures, a classifier; `size` is that of a bomb in bytes."""

    def __init__(self, run: Path, pictures: Path, classifier: Path, *, size: int):
        self.run, self.pictures, self.classifier, self.size = run, pictures, classifier, size
        self.options = json.loads((run / "training_options.json").read_text())
        self.record = json.loads((run / "results.jsonl").read_text().splitlines()[0])
        self.verification = verification_of(self.record)
        (self.snapshot,) = sorted(run.glob("network-snapshot-*.safetensors"))[-1:]

    def training(self, outdir: str, *, data: str | None = None) -> tuple[str, ...]:
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

    def with_options(self, at: Path, text: str) -> None:
        shutil.copytree(self.run, at / "run")
        write(at / "run" / "training_options.json", text)

    def with_records(self, at: Path, lines: list[str]) -> None:
        text = "\n".join(lines)
        text += "" if text.endswith("\n") else "\n"
        write(at / "run" / "results.jsonl", text)
        write(at / "published" / "x.jsonl", text)

    def with_verifications(self, at: Path, text: str) -> None:
        """The good record, in a run and published, and a line that claims to be a check of it."""
        self.with_records(at, [json.dumps(self.record)])
        line = text if text.endswith("\n") else text + "\n"
        write(at / "run" / "verifications.jsonl", line)
        write(at / "verifications" / "x.jsonl", line)

    def with_key(self, at: Path, text: str) -> None:
        write(at / "cache" / "features" / "aa" / ("a" * 64) / "key.json", text)

    def with_answers(self, at: Path, text: str) -> None:
        question = dict(id="q01", kind="description", method="random", class_index=0, class_name="a")
        key = dict(schema=1, pack="x", run_id="x", snapshot="x", snapshot_sha256="x", classifier="x", seed=0)
        write(at / "key.json", json.dumps({**key, "questions": [{**question, "attribute": "x"}]}))
        write(at / "answers.csv", text)

    def with_attributes(self, at: Path, text: str) -> None:
        shutil.copytree(self.run, at / "run")
        write(at / "run" / "explanations" / self.snapshot.stem / "mnist" / "attributes.json", text)

    def with_labels(self, at: Path, text: str) -> None:
        shutil.copytree(self.pictures, at / "pictures")
        write(at / "pictures" / "dataset.json", text)

    def beside(self, content: bytes, at: Path) -> None:
        shutil.copytree(self.pictures, at / "pictures")
        write(at / "x.pkl", content)
