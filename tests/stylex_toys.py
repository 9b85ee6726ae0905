"""A StylEx trainer in its tests: build one, look at its weights, compare states."""

import dataclasses

import torch

from fact_train.data import open_dataset
from fact_train.settings.config import TrainConfig
from fact_train.training.step import Phase, StepInputs, Work
from fact_train.training.trainer import Trainer

CPU = torch.device("cpu")


def trainer_of(cfg: TrainConfig, **changes) -> Trainer:
    cfg = dataclasses.replace(cfg, **changes)
    return Trainer(cfg, open_dataset(cfg.data, resolution=cfg.resolution), CPU)


def work_of(t: Trainer, name: str = "G", *, index: int = 0, inputs: StepInputs | None = None) -> Work:
    """A micro-batch of a phase of the next step; its loss is not called."""
    phase = Phase(name, t.model.gan.G_opt, lambda work: None)
    return t.work(inputs or t.inputs(), phase, index)


def copies(t: Trainer) -> dict[str, torch.Tensor]:
    """All trained weights; G's mapping and synthesis apart."""
    nets = {
        "mapping": t.model.gan.G.mapping,
        "synthesis": t.model.gan.G.synthesis,
        "D": t.model.gan.D,
        "E": t.model.E,
    }
    return {n: torch.cat([p.detach().flatten() for p in net.parameters()]) for n, net in nets.items()}


def moved(t: Trainer, steps: int) -> set[str]:
    """Networks whose weights change over some steps."""
    before = copies(t)
    for _ in range(steps):
        t.step()
    return {name for name, after in copies(t).items() if not torch.equal(after, before[name])}


def flat(state, prefix="") -> dict[str, torch.Tensor]:
    if isinstance(state, dict):
        return {k: v for key, x in state.items() for k, v in flat(x, f"{prefix}/{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for i, x in enumerate(state) for k, v in flat(x, f"{prefix}/{i}").items()}
    return {prefix: state} if torch.is_tensor(state) else {prefix: torch.tensor(hash(state) % 2**31)}


def differing(a: dict, b: dict) -> list[str]:
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    return [k for k in a if not torch.equal(a[k], b[k])]


EVERYTHING = {"mapping", "synthesis", "D", "E"}
