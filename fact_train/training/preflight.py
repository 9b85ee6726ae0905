"""What a run says before its first step about its data and settings, and the room it needs on the disk."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from fact_metrics.base.errors import UserError
from fact_train.training.precision import slow_on_cpu
from fact_train.training.trainer import Trainer

HANDFUL = 100  # images; the smallest published StyleGAN2-ADA data have 1,336 (MetFaces)


def start_notes(trainer: Trainer) -> list[str]:
    """Lines about the data and settings that a user may not expect."""
    cfg, dataset = trainer.cfg, trainer.dataset
    notes = [f"data: {note}" for note in dataset.notes]
    if dataset.num_classes and cfg.model == "stylegan2" and not (cfg.cond or cfg.balance):
        notes.append(f"labels of {dataset.num_classes:,} classes are not used; --cond conditions on them")
    if len(dataset) < cfg.batch:
        few = f"{len(dataset):,} images are fewer than a batch of {cfg.batch}"
        notes.append(f"warning: {few}; batches repeat them")
    elif len(dataset) < HANDFUL:
        notes.append(f"warning: D can learn {len(dataset):,} images by heart; --augment ada delays that")
    if trainer.device.type == "cpu" and (slower := slow_on_cpu(cfg.precision)):
        notes.append(f"warning: --precision {cfg.precision} is {slower}")
    return notes


def refuse_full_disk(outdir: Path, trainer: Trainer) -> None:
    """Raise UserError where the disk has no room for one snapshot and one training state."""
    needed = room(trainer)
    free = shutil.disk_usage(outdir).free
    if free < needed:
        raise UserError(
            f"{outdir}: a snapshot and a training state take {needed / 2**20:,.0f} MiB, "
            f"{free / 2**20:,.0f} MiB are free. Free some space or choose another --outdir."
        )


def room(trainer: Trainer) -> int:
    """Bytes of the tensors in a snapshot and in a training state; the files are a little larger."""
    model = trainer.model
    averages = [average for average, _ in model.averages]
    # Adam holds two moments of every weight.
    return _size(model.snapshot_networks.values()) + 3 * _size(model.networks.values()) + _size(averages)


def _size(networks: Iterable[nn.Module]) -> int:
    """Bytes of all tensors of networks."""
    return sum(
        value.numel() * value.element_size()
        for network in networks
        for value in network.state_dict().values()
    )
