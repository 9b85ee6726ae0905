"""Moving averages of weights, which snapshots hold."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fact_train.settings.config import TrainConfig
from fact_train.settings.schedules import value_at


@torch.no_grad()
def move_averages(averages: Iterable[tuple[nn.Module, nn.Module]], cfg: TrainConfig, *, nimg: int) -> None:
    """Move the parameters of every (average, network) towards the network after one step.

    The half-life is ema_kimg; with ema_rampup it is at most that share of the `nimg` images before the step.
    """
    half_life = value_at(cfg, "ema_kimg", nimg=nimg) * 1000
    if cfg.ema_rampup is not None:
        half_life = min(half_life, nimg * cfg.ema_rampup)
    update = get_ema_multi_avg_fn(0.5 ** (cfg.batch / max(half_life, 1e-8)))
    for average, net in averages:
        update(list(average.parameters()), list(net.parameters()), None)
