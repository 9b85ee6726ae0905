"""Training on several processes: the gradients, and so the weights, of one process with the same batch."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from group_toys import run_group

from fact_metrics.base.errors import UsageError
from fact_train import distributed
from fact_train.augment.adaptive import AdaptiveP
from fact_train.data import open_dataset
from fact_train.settings.config import TrainConfig
from fact_train.training import checkpoint
from fact_train.training.trainer import Trainer

CPU = torch.device("cpu")
TOLERANCE = 1e-5  # of losses over 50 steps; equal here, and rounding of 1e-7 a step elsewhere may add up


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


LOSSES = ("Loss/D", "Loss/G", "Loss/r1_penalty", "Path_length")


def curve(cfg: TrainConfig, steps: int) -> dict[str, list[tuple[int, float]]]:
    """(step, mean) of each loss over the images of this process."""
    trainer = Trainer(cfg, open_dataset(cfg.data), CPU)
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in LOSSES}
    for step in range(steps):
        trainer.step()
        stats = trainer.stats.collect()
        for name in LOSSES:
            if name in stats:
                found[name].append((step, stats[name]["mean"]))
    return found


def test_two_processes_have_the_loss_curve_of_one_over_50_steps(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """With the micro-batches of one process: two numbers have one sum in any order."""
    cfg = dataclasses.replace(tiny_config, batch_gpu=4, mbstd_group_size=4)
    alone = curve(cfg, steps=50)
    run_group(2, in_group(lambda r: torch.save(curve(cfg, steps=50), tmp_path / f"{r}.pt")), tmp_path / "log")
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name in LOSSES:
        assert len(alone[name]) >= 12
        together = [
            (first[1] + second[1]) / 2 for first, second in zip(*(h[name] for h in halves), strict=True)
        ]
        expected = [value for _, value in alone[name]]
        assert together == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE), name
        assert halves[0][name] != halves[1][name]  # each process has images of its own


def test_the_state_of_ada_holds_what_all_processes_saw(tmp_path: Path) -> None:
    """Rank 0 saves, and every process resumes from its state: the next r_t is that of the whole group."""

    def observe(rank: int) -> None:
        part = dict(target=0.6, interval=2, kimg=1.0, batch=8, ceiling=None, device=CPU)
        ada, resumed = AdaptiveP(0.0, **part), AdaptiveP(0.0, **part)
        ada.observe(torch.tensor([1.0, 1.0, 1.0, 1.0 if rank == 0 else -1.0]))
        ada.share()
        state = [ada.state_dict()]
        torch.distributed.broadcast_object_list(state, src=0)
        resumed.load_state_dict(state[0])
        for controller in (ada, resumed):
            controller.observe(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
        r_t = [float(controller.update(2)) for controller in (ada, resumed)]
        (tmp_path / f"{rank}.json").write_text(json.dumps(r_t))

    run_group(2, in_group(observe), tmp_path / "log")
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [[0.625, 0.625]] * 2


def test_a_run_shares_the_state_before_it_saves(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch
) -> None:
    events = []
    monkeypatch.setattr(AdaptiveP, "share", lambda ada: events.append("share"))
    save = checkpoint.save_checkpoint
    monkeypatch.setattr(checkpoint, "save_checkpoint", lambda *a: (events.append("save"), save(*a))[1])
    toy_train(dataclasses.replace(tiny_config, augment="ada", kimg=0.08), tmp_path / "r")
    assert events and events == ["share", "save"] * (len(events) // 2)


def toy_train(cfg: TrainConfig, outdir: Path):
    from fact_train.training.loop import train

    return train(cfg, outdir, preset="toy", label="toy")


def test_only_rank_0_writes_and_another_number_of_processes_is_refused(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch
) -> None:
    cfg = dataclasses.replace(tiny_config, mbstd_group_size=4, kimg=0.08)
    outdir = tmp_path / "r"

    def train_and_note_writes(rank: int) -> None:
        import builtins

        plain, written = builtins.open, []

        def noted(file, mode="r", *more, **named):
            if set("wax+") & set(mode) and str(outdir) in str(file):
                written.append(str(file))
            return plain(file, mode, *more, **named)

        builtins.open = noted
        toy_train(cfg, outdir)
        builtins.open = plain
        (tmp_path / f"{rank}.txt").write_text("\n".join(written))

    run_group(2, train_and_note_writes, tmp_path / "log")
    assert "log.txt" in (tmp_path / "0.txt").read_text() and (tmp_path / "1.txt").read_text() == ""
    (state,) = checkpoint.list_checkpoints(outdir)[-1:]
    assert checkpoint.read_checkpoint(state)["processes"] == 2
    before = sorted((p.name, p.stat().st_mtime_ns) for p in outdir.glob("*.pt"))
    longer = dataclasses.replace(cfg, kimg=0.16)
    with pytest.raises(
        UsageError, match=r"trained by 2 process\(es\) and would continue with 1, .*nproc_per_node=2"
    ):
        toy_train(longer, outdir)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in outdir.glob("*.pt")) == before


def test_the_same_number_of_processes_resumes_exactly(tiny_config: TrainConfig, tmp_path: Path) -> None:
    cfg = dataclasses.replace(tiny_config, mbstd_group_size=4)

    starts = (("halves", 0.08), ("halves", 0.16), ("whole", 0.16))
    for number, (folder, kimg) in enumerate(starts):
        part = dataclasses.replace(cfg, kimg=kimg)
        run_group(2, lambda rank, p=part, f=folder: toy_train(p, tmp_path / f), tmp_path / f"log{number}")
    assert "resuming at 0.08 kimg" in (tmp_path / "halves" / "log.txt").read_text()
    name = "network-snapshot-000000.safetensors"
    assert (tmp_path / "halves" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
