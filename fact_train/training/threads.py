"""The CPU threads of a run: chosen by its own steps, and compared with what they promised."""

import torch

from fact_metrics.base.threads import Choice, choose
from fact_train import distributed
from fact_train.training.probe import rehearsal, seconds_per_step
from fact_train.training.trainer import Trainer

FELL = 0.5  # of the probe's img/s: a tick below it was slowed down by others


def choose_threads(trainer: Trainer, *, most: int) -> Choice:
    """Choose by plain steps of the trainer, whose state stays; it uses the chosen threads from now on."""

    def seconds_of(threads: int) -> float:
        trainer.use_threads(threads)
        return seconds_per_step(trainer, regularise=False)

    with rehearsal(trainer):
        choice = choose(most, seconds_of)
    trainer.use_threads(choice.threads)
    return choice


def may_choose(device: torch.device) -> bool:
    """Whether a run may choose its threads: on a CPU that it need not share with its own other processes."""
    return device.type == "cpu" and distributed.world_size() == 1


def fell(img_per_sec: float, *, promised: float, threads: int) -> str | None:
    """A warning where several threads train at less than half the speed that the probe measured."""
    if threads == 1 or img_per_sec >= FELL * promised:
        return None
    return (
        f"warning: {img_per_sec:.0f} img/s instead of {promised:.0f}: other programs use the cores. If they "
        "stay, stop this run and continue it with --follow-load or --threads 1, which is faster beside them"
    )
