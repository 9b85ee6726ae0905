"""--cuda-graphs without a GPU: what it rejects. tests/test_gpu.py compares the bits."""

import dataclasses

import pytest
import torch

from fact_metrics.base.errors import UsageError
from fact_train.data import open_dataset
from fact_train.settings.presets import get_preset
from fact_train.training.cuda_graphs import why_not
from fact_train.training.trainer import Trainer

PLAIN = dataclasses.replace(get_preset("mnist-stylegan2").config, r1_gamma_final=None)
GPU = torch.device("cuda")


def test_graphs_need_a_gpu():
    with pytest.raises(UsageError, match="--cuda-graphs: needs a CUDA device"):
        Trainer(
            dataclasses.replace(PLAIN, cuda_graphs=True),
            open_dataset("mnist", max_images=64),
            torch.device("cpu"),
        )


def test_the_baseline_with_constant_gamma_can_be_captured():
    assert why_not(PLAIN, GPU) is None


@pytest.mark.parametrize(
    "field, value, flag",
    [
        ("style_mixing_prob", 0.9, "--style-mixing-prob 0.9"),
        ("cond", True, "--cond True"),
        ("augment", "ada", "--augment ada"),
        ("r1_gamma_final", 0.5, "--r1-gamma-final 0.5"),
        ("schedule", "top_k=cosine:0.5:10", "--schedule top_k=cosine:0.5:10"),
    ],
)
def test_settings_that_change_between_steps_are_named(field, value, flag):
    assert flag in why_not(dataclasses.replace(PLAIN, **{field: value}), GPU)


def test_graphs_do_not_define_the_experiment():
    assert dataclasses.replace(PLAIN, cuda_graphs=True).sha256() == PLAIN.sha256()
