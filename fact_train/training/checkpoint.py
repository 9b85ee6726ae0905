"""Checkpoints: the full training state, saved atomically, verified on load, newest good one first."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from fact_metrics.base.atomic import write_torch
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.torch_files import load_torch
from fact_train.run_folder import checkpoint_name, list_checkpoints
from fact_train.training.trainer import Trainer

SCHEMA = 1
KEEP = 2  # checkpoints per run: the newest and the one before it


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
    """The saved state. UserError where the file is damaged, or is not a training state."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"checksum of {damaged}")
        state = load_torch(path, device)
    except Exception as error:  # whatever a foreign file makes its readers raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"checkpoint {path} is truncated or damaged ({reason}).") from error
    if not isinstance(state, dict):
        raise UserError(f"checkpoint {path} holds no training state but {type(state).__name__}.")
    if state.get("schema") != SCHEMA:
        shown = str(state.get("schema"))[:20]
        newer = type(state.get("schema")) is int and state["schema"] > SCHEMA
        way_out = "; update fact-stylegan." if newer else "."
        raise UserError(f"checkpoint {path} has schema {shown}, this version reads {SCHEMA}{way_out}")
    return state


def load_latest(outdir: Path, trainer: Trainer) -> Path | None:
    """Load the newest good checkpoint into the trainer; returns its path, or None in a new folder.

    A warning names a file that cannot be loaded, whatever the reason, and the file before it is loaded.
    UserError where none can be.
    """
    paths = list_checkpoints(outdir)
    problems = []
    for path in reversed(paths):
        try:
            _load(path, trainer)
        except UsageError:  # another classifier or number of processes: an older state has the same
            raise
        except UserError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem} Going on from {path.name}.", stacklevel=2)
        return path
    if paths:
        raise UserError(f"{problems[0]} No good checkpoint is left in {outdir}; choose another --outdir.")
    return None


def _load(path: Path, trainer: Trainer) -> None:
    """Load a checkpoint into the trainer. UserError, whatever makes that fail.

    A state that fails half-way leaves some of it behind; the next file that is loaded replaces all of it.
    """
    state = read_checkpoint(path, trainer.device)
    try:
        trainer.load_state_dict(state)
        _check_fits(trainer)
    except UserError:
        raise
    except Exception as error:  # a state of other tensors, fields or types fails anywhere
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"checkpoint {path} does not fit this run ({type(error).__name__}: {reason})."
        ) from error


def _check_fits(trainer: Trainer) -> None:
    """Raise ValueError where a loaded counter, optimiser or statistic would fail at the next step only."""
    if type(trainer.steps) is not int or trainer.steps < 0:
        raise ValueError(f"{str(trainer.steps)[:20]} steps")
    parts = [value for owner in (trainer.model, trainer.model.gan) for value in vars(owner).values()]
    for optimiser in (part for part in parts if isinstance(part, torch.optim.Optimizer)):
        for parameter, moments in optimiser.state.items():
            for name, value in moments.items():
                if name.startswith("exp_avg") and value.shape != parameter.shape:
                    raise ValueError(f"{name} of shape {list(value.shape)}, not {list(parameter.shape)}")
