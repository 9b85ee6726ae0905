"""--cuda-graphs without a GPU: what it rejects. tests/test_gpu.py compares the bits."""

import dataclasses

import pytest
import torch
from stylex_toys import work_of

from fact_metrics.base.errors import UsageError
from fact_train.data import open_dataset
from fact_train.settings.presets import get_preset
from fact_train.training.cuda_graphs import why_not
from fact_train.training.trainer import Trainer

PLAIN = get_preset("mnist-stylegan2").config
GPU = torch.device("cuda")


def test_graphs_need_a_gpu():
    with pytest.raises(UsageError, match="--cuda-graphs: needs a CUDA device"):
        Trainer(
            dataclasses.replace(PLAIN, cuda_graphs=True),
            open_dataset("mnist", max_images=64),
            torch.device("cpu"),
        )


@pytest.mark.parametrize("schedule", [None, "r2_gamma=cosine:1:4,g_lr=cosine:0.001:4,beta2=geometric:0.9:4"])
def test_the_baseline_can_be_captured_while_gamma_and_rates_change(schedule):
    assert PLAIN.r1_gamma_final is not None
    assert why_not(dataclasses.replace(PLAIN, r2_gamma=2.0, schedule=schedule), GPU) is None


def test_penalties_read_their_weights_in_place(tiny_config):
    """A graph keeps the addresses of what it reads, and what the host decided in its first step."""
    settings = dict(r1_gamma_final=0.5, r1_decay_kimg=0.016, r2_gamma=3.0, schedule="r2_gamma=cosine:1:0.016")
    cfg = dataclasses.replace(tiny_config, r1_gamma=5.0, r1_interval=4, **settings)
    trainer = Trainer(cfg, open_dataset(cfg.data), torch.device("cpu"))
    gan, inputs = trainer.model.gan, trainer.inputs(regularise=True)
    at = {name: weight.data_ptr() for name, weight in gan.penalty_weights.items()}
    losses = {"r1_loss": [], "r2_loss": []}
    for nimg in (0, 8, 16):
        gan.follow_schedules(nimg)
        for name, values in losses.items():
            values.append(getattr(gan, name)(work_of(trainer, "R1", inputs=inputs)).item())
    assert {name: weight.data_ptr() for name, weight in gan.penalty_weights.items()} == at
    first = {name: values[0] for name, values in losses.items()}
    # 5 to 0.5 by equal factors; 3 to 1 along half a cosine. float32 has 24 bits.
    assert losses["r1_loss"] == pytest.approx([first["r1_loss"] * f for f in (1, 0.1**0.5, 0.1)], rel=1e-6)
    assert losses["r2_loss"] == pytest.approx([first["r2_loss"] * f for f in (1, 2 / 3, 1 / 3)], rel=1e-6)
    assert float(gan.penalty_weights["r1_gamma"]) == pytest.approx(0.5 / 2 * 4)


@pytest.mark.parametrize(
    "field, value, flag",
    [
        ("style_mixing_prob", 0.9, "--style-mixing-prob 0.9"),
        ("cond", True, "--cond True"),
        ("augment", "ada", "--augment ada"),
        ("schedule", "top_k=cosine:0.5:10", "--schedule top_k=cosine:0.5:10"),
    ],
)
def test_settings_that_change_between_steps_are_named(field, value, flag):
    assert flag in why_not(dataclasses.replace(PLAIN, **{field: value}), GPU)


def test_graphs_do_not_define_the_experiment():
    assert dataclasses.replace(PLAIN, cuda_graphs=True).sha256() == PLAIN.sha256()
