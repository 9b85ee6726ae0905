"""Checkpoints: the full training state, saved atomically, verified on load, newest good one first."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from fact_metrics.base.atomic import write_torch
from fact_metrics.base.errors import UserError
from fact_train.training.trainer import Trainer

SCHEMA = 1
KEEP = 2  # checkpoints per run: the newest and the one before it


def checkpoint_name(nimg: int) -> str:
    """File name of the checkpoint at `nimg` images."""
    return f"training-state-{nimg // 1000:06d}.pt"


def list_checkpoints(outdir: Path) -> list[Path]:
    """Checkpoints of a run folder, oldest first."""
    return sorted(Path(outdir).glob("training-state-*.pt"))


def save_checkpoint(outdir: Path, trainer: Trainer) -> Path:
    """Write the whole state, then delete all but the newest KEEP. The previous file stays valid throughout.

    UserError where the disk has no room.
    """
    path = Path(outdir) / checkpoint_name(trainer.nimg)
    state = {"schema": SCHEMA, "config": trainer.cfg.science(), **trainer.state_dict()}
    write_torch(path, state)
    for old in list_checkpoints(outdir)[:-KEEP]:
        old.unlink()
    return path


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The saved state. UserError where the file is truncated, or a checksum of one of its parts is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"checksum of {damaged}")
        state = torch.load(path, map_location=device, weights_only=True)
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, KeyError) as error:
        raise UserError(f"checkpoint {path} is truncated or damaged ({error}).") from error
    if state["schema"] != SCHEMA:
        raise UserError(f"checkpoint {path} has schema {state['schema']}; this version reads {SCHEMA}.")
    return state


def load_latest(outdir: Path, trainer: Trainer) -> Path | None:
    """Load the newest good checkpoint into the trainer; returns its path, or None in a new folder.

    A warning names a damaged newest file, and the file before it is loaded. UserError where all are damaged.
    """
    paths = list_checkpoints(outdir)
    problems = []
    for path in reversed(paths):
        try:
            state = read_checkpoint(path, trainer.device)
        except UserError as error:
            problems.append(str(error))
            continue
        trainer.load_state_dict(state)
        for problem in problems:
            warnings.warn(f"{problem} Going on from {path.name}.", stacklevel=2)
        return path
    if paths:
        raise UserError(f"{problems[0]} No good checkpoint is left in {outdir}; choose another --outdir.")
    return None
