"""Training on several processes: the gradients, and so the weights, of one process with the same batch."""

import dataclasses
from pathlib import Path

import pytest
import torch
from group_toys import run_group

from fact_train import distributed
from fact_train.data import open_dataset
from fact_train.settings.config import TrainConfig
from fact_train.training.trainer import Trainer

CPU = torch.device("cpu")


def in_group(function):
    """function(rank) inside the training group."""

    def run(rank: int) -> None:
        distributed.init(CPU)
        function(rank)
        distributed.shutdown()

    return run


def test_gradients_are_averaged_over_the_group_and_missing_ones_stay_missing(tmp_path: Path) -> None:
    def average(rank: int) -> None:
        params = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (5,))]
        params[0].grad = torch.arange(6.0).reshape(2, 3) * (rank + 1)
        params[2].grad = torch.full((5,), 10.0 * rank)
        distributed.average_gradients(params)
        torch.save([p.grad for p in params], tmp_path / f"{rank}.pt")

    run_group(3, in_group(average), tmp_path / "log")
    for rank in range(3):
        first, missing, last = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(first, torch.arange(6.0).reshape(2, 3) * 2) and missing is None
        assert torch.equal(last, torch.full((5,), 10.0))


def train(cfg: TrainConfig, steps: int) -> dict[str, torch.Tensor]:
    """Gradients of the last step, and weights after all steps, by name."""
    trainer = Trainer(cfg, open_dataset(cfg.data), CPU)
    for _ in range(steps):
        trainer.step()
    nets = {"G": trainer.model.gan.G, "D": trainer.model.gan.D}
    named = [(f"{name}.{p_name}", p) for name, net in nets.items() for p_name, p in net.named_parameters()]
    gradients = {f"grad {name}": p.grad for name, p in named if p.grad is not None}
    return gradients | {f"weight {name}": p.detach() for name, p in named}


@pytest.fixture
def cfg(tiny_config: TrainConfig) -> TrainConfig:
    """Micro-batches of 4, which two processes or one can make; G and D both learn from the first weights."""
    return dataclasses.replace(
        tiny_config, batch=8, batch_gpu=4, updates="simultaneous", pl_weight=0.0, r1_gamma=0.0
    )


def test_two_processes_have_the_gradients_of_one_with_the_same_global_batch(
    cfg: TrainConfig, tmp_path: Path
) -> None:
    alone = train(cfg, steps=1)
    run_group(
        2, in_group(lambda rank: torch.save(train(cfg, steps=1), tmp_path / f"{rank}.pt")), tmp_path / "log"
    )
    together = torch.load(tmp_path / "0.pt", weights_only=True)
    assert together.keys() == alone.keys()
    gradients = [name for name in alone if name.startswith("grad")]
    largest = max(float(alone[name].abs().max()) for name in gradients)
    differing = [n for n in gradients if (together[n] - alone[n]).abs().max() > 1e-6 * largest]
    assert differing == [] and len(gradients) > 20


def test_two_processes_keep_equal_weights(tiny_config: TrainConfig, tmp_path: Path) -> None:
    """With all four phases, and images of their own in each."""
    cfg = dataclasses.replace(tiny_config, mbstd_group_size=4)
    run_group(
        2, in_group(lambda rank: torch.save(train(cfg, steps=3), tmp_path / f"{rank}.pt")), tmp_path / "log"
    )
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
