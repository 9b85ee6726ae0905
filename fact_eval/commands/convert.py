"""`fact-eval convert`: options and printing, no logic."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fact_eval.commands.options import say
from fact_metrics.base.errors import UsageError


def convert(
    file: Annotated[Path, typer.Argument(help="A checkpoint of another program, or a snapshot.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="File to write. [default: FILE with the ending .safetensors]"),
    ] = None,
    to: Annotated[
        Literal["snapshot", "stylegan2-ada"],
        typer.Option(
            metavar="FORMAT",
            help="snapshot (of this program), or stylegan2-ada: safetensors with the names of StyleGAN2-ADA.",
        ),
    ] = "snapshot",
) -> None:
    """Convert a checkpoint to a snapshot, or a snapshot to StyleGAN2-ADA's names.

    The metadata of a snapshot names its origin: file, hash, format, and the hash of every tensor. No code of
    the file runs.
    """
    from fact_metrics.base.atomic import write_safetensors
    from fact_train.imports import is_safetensors, load_checkpoint, read_foreign
    from fact_train.imports.export import to_stylegan2_ada
    from fact_train.snapshot import rebuild, write_snapshot

    if not file.is_file():
        raise UsageError(f"checkpoint {file} does not exist; give a file")
    path = out or file.with_suffix(".safetensors")
    if path.exists():
        raise UsageError(f"--out {path} exists; give another name, or remove it")
    if to == "stylegan2-ada":
        snapshot = load_checkpoint(file)
        tensors, metadata = to_stylegan2_ada(snapshot)
        write_safetensors(path, tensors, metadata)
    elif is_safetensors(file):
        raise UsageError(f"{file} is a snapshot already; --to stylegan2-ada exports it")
    else:
        meta, tensors = read_foreign(file)
        snapshot = rebuild(file, meta, tensors, file_sha256=meta["origin"]["file_sha256"])
        write_snapshot(path, meta, tensors)
    for note in (snapshot.origin or {}).get("notes", []):
        say(f"note: {note}")
    say(f"next: fact-eval run {path if to == 'snapshot' else file} --data NAME|PATH")
    print(path)
