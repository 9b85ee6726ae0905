"""Checkpoints of other programs as our snapshots. One file per format, chosen by content: IMPORTERS.

Every importer module has FORMAT, the name that records carry; `recognises(content)`; and
`convert(content) -> Imported`, which raises Unrepresentable where a network has no counterpart here.
Nothing of a file runs: `fact_metrics.base.checkpoints` reads tensors, plain values and inert records.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fact_metrics.base.checkpoints import read_checkpoint
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.file_hashes import file_sha256
from fact_metrics.base.plain_text import is_file_name
from fact_train.imports import lucidrains, rosinality, stylegan2_ada
from fact_train.imports.imported import Unrepresentable
from fact_train.snapshot import Snapshot, load_snapshot, rebuild

IMPORTERS = (stylegan2_ada, rosinality, lucidrains)
WAY_OUT = "export it to ONNX, or score a folder of its images"


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> Snapshot:
    """The networks of a snapshot of ours, or of a checkpoint that an importer knows.

    The origin of imported weights is in `Snapshot.origin`. UsageError where the file is missing; UserError
    where it is damaged, or names what is wrong or has no counterpart here.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"checkpoint {path} does not exist; give a file")
    if is_safetensors(path) or path.suffix == ".safetensors":  # a torn snapshot is named as one
        return load_snapshot(path, device)
    meta, tensors = read_foreign(path)
    return rebuild(path, meta, tensors, file_sha256=meta["origin"]["file_sha256"], device=device)


def read_foreign(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The metadata and tensors of the snapshot that a foreign checkpoint becomes. Errors as above."""
    content = read_checkpoint(path)
    for importer in IMPORTERS:
        if importer.recognises(content):
            break
    else:
        known = ", ".join(importer.FORMAT for importer in IMPORTERS)
        raise UserError(f"{path} is of no known format ({known}); {WAY_OUT}")
    try:
        imported = importer.convert(content)
        tensors = imported.tensors()
    except Unrepresentable as error:
        raise UserError(f"{path} ({importer.FORMAT}) cannot be imported: {error}; {WAY_OUT}") from error
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:  # shapes of a damaged file
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} ({importer.FORMAT}) is damaged ({reason}); fetch it again") from error
    name = path.name if is_file_name(path.name) else "checkpoint"
    try:
        meta = imported.metadata(tensors, format=importer.FORMAT, file=name, file_sha256=file_sha256(path))
    except UserError as error:  # a setting that ours does not have: --w-dim 0, ...
        raise UserError(f"{path} ({importer.FORMAT}) cannot be imported: {error}") from error
    return meta, tensors


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors does: the length of a header, and JSON."""
    with open(path, "rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and start[:4] != b"PK\x03\x04"
