"""fp16 in the highest resolutions: which feature maps have it, where, and what happens to gradients."""

import dataclasses
import os
import subprocess
import sys

import pytest
import torch

from fact_train.data import open_dataset
from fact_train.networks.build import build_encoder, build_networks
from fact_train.settings.config import TrainConfig
from fact_train.training.precision import feature_maps, has_bf16, mend_gradients, precision_notes
from fact_train.training.preflight import start_notes
from fact_train.training.trainer import Trainer

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("resolution", "layers", "lowest"), [(1024, 4, 128), (256, 4, 32), (64, 4, 8), (32, 4, 8), (32, 1, 32)]
)
def test_the_highest_resolutions_are_those_of_stylegan2_ada(
    resolution: int, layers: int, lowest: int
) -> None:
    """max(2^(log2 R + 1 - layers), 8), networks.py of NVlabs/stylegan2-ada-pytorch @d72cc7d."""
    cfg = TrainConfig(fp16_layers=layers)
    assert feature_maps(cfg, GPU, resolution=resolution) == {"dtype": torch.float16, "dtype_from": lowest}


def test_a_cpu_computes_in_fp32_and_says_so() -> None:
    cfg = TrainConfig(fp16_layers=4)
    assert feature_maps(cfg, CPU, resolution=256) == {"dtype": torch.float32}
    assert precision_notes(cfg, CPU) == ("--fp16-layers 4: cpu computes in fp32; only a GPU uses fp16.",)
    assert precision_notes(cfg, GPU) == precision_notes(TrainConfig(), CPU) == ()


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_blocks_from_the_given_resolution_on_hold_fp16_and_all_others_fp32(architecture: str) -> None:
    cfg = TrainConfig(
        z_dim=8, w_dim=8, channel_base=256, channel_max=8, g_arch=architecture, d_arch=architecture
    )
    dataset = {"resolution": 32, "channels": 1, "classes": 0}
    (G, D), E = build_networks(cfg, dataset), build_encoder(cfg, dataset)
    found: dict = {}
    for name, net in (("G", G.synthesis), ("D", D), ("E", E)):
        for side in net.resolutions:
            layer = getattr(net, f"b{side}").conv1
            layer.register_forward_hook(lambda m, i, y, key=(name, side): found.update({key: y.dtype}))
    options = {"dtype": torch.float16, "dtype_from": 16}
    images = G.synthesis(G.mapping(torch.randn(2, 8), None), **options)
    scores, w = D(images, None, **options), E(images, **options)
    assert images.dtype == scores.dtype == w.dtype == torch.float32
    held = {key: torch.float16 if key[1] >= 16 else torch.float32 for key in found}
    assert found == held and len(found) == 4 + 3 + 3
    exact = G.synthesis(G.mapping(torch.zeros(2, 8), None), noise_mode="const")
    rounded = G.synthesis(G.mapping(torch.zeros(2, 8), None), noise_mode="const", **options)
    # 11 bits through two blocks
    assert 0 < (rounded - exact).abs().max() < 0.01 * exact.abs().max()


def test_gradients_of_fp16_that_are_not_finite_are_replaced_as_in_stylegan2_ada() -> None:
    p = torch.nn.Parameter(torch.zeros(5))
    p.grad = torch.tensor([torch.nan, torch.inf, -torch.inf, 2e5, -1.0])
    mend_gradients([p, torch.nn.Parameter(torch.zeros(2))])
    assert p.grad.tolist() == [0.0, 1e5, -1e5, 2e5, -1.0]


@pytest.mark.parametrize(("precision", "mended"), [("fp16", True), ("fp32", False)])
def test_only_fp16_mends_gradients(
    tiny_config: TrainConfig, precision: str, mended: bool, monkeypatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(
        "fact_train.training.trainer.mend_gradients", lambda params: calls.append(len(params))
    )
    cfg = dataclasses.replace(tiny_config, precision=precision)
    t = Trainer(cfg, open_dataset(cfg.data), CPU)
    t.step(regularise=True)
    assert len(calls) == (4 if mended else 0)  # G, path length, D, R1


def test_r1_auto_divides_by_the_batch_of_stylegan2_adas_configuration(tiny_config: TrainConfig) -> None:
    """Of one GPU, whatever --batch is; the notes ran on two: 64 images at 32 px, and gamma 0.0032."""
    dataset = open_dataset("mnist", max_images=8)

    def gamma(**changes) -> float:
        cfg = dataclasses.replace(tiny_config, data="mnist", batch=8, r1_gamma="auto", **changes)
        gan = Trainer(cfg, dataset, CPU).model.gan
        assert f"--r1-auto-batch {cfg.r1_auto_batch or 32}" in gan.notes[0]
        return gan.r1_gamma

    assert gamma() == pytest.approx(0.0064)
    assert gamma(r1_auto_batch=64) == pytest.approx(0.0032)


@pytest.mark.parametrize(
    ("precision", "native", "warning"),
    [
        ("bf16", False, "warning: --precision bf16 is about ten times slower than fp32 on this processor"),
        ("bf16", True, None),
        ("fp16", True, "warning: --precision fp16 is several times slower than fp32 on a CPU"),
        ("fp32", False, None),
    ],
)
def test_a_run_warns_of_a_precision_that_its_processor_lacks(
    tiny_config: TrainConfig, precision: str, native: bool, warning: str | None, monkeypatch
) -> None:
    monkeypatch.setattr("fact_train.training.precision.has_bf16", lambda: native)
    cfg = dataclasses.replace(tiny_config, precision=precision)
    notes = start_notes(Trainer(cfg, open_dataset(cfg.data), torch.device("cpu")))
    found = [note for note in notes if "--precision" in note]
    assert len(found) == (warning is not None)
    assert warning is None or found[0].startswith(warning)


def test_convolutions_without_avx512_have_no_bf16() -> None:
    """What is read is the answer of the library that convolves: it follows the library's instruction set."""
    code = "from fact_train.training.precision import has_bf16; print(has_bf16())"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]
    if "ONEDNN_MAX_CPU_ISA" not in os.environ:
        assert has_bf16() == torch.cpu._is_avx512_supported()
