"""What only a CUDA device can show. `python -m benchmarks gpu` runs these tests too."""

import copy
import dataclasses
import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fact_metrics.base.pixels import to_signed
from fact_train.data import open_dataset
from fact_train.networks.injection import STYLE_INJECTIONS, StyleOptions
from fact_train.networks.injection.convolve import per_sample_conv
from fact_train.settings.config import TrainConfig
from fact_train.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]

# Narrow networks, every regulariser and a random noise.
NARROW = TrainConfig(
    data="mnist",
    max_images=256,
    z_dim=32,
    w_dim=32,
    map_depth=2,
    channel_base=256,
    channel_max=32,
    batch=8,
    mbstd_group_size=4,
    r1_gamma=1.0,
    r1_interval=2,
    pl_interval=2,
    kimg=0.2,
)
# Largest relative difference of two orders of summation. float32 has 24 bits, TF32 and fp16 11, bfloat16 8.
# A convolution of some hundred products loses two to three more.
TOLERANCE = {"fp32": 2e-5, "tf32": 1e-2, "fp16": 1e-2, "bf16": 6e-2}
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """||a - b|| / ||b|| in float64."""
    a, b = a.double().cpu(), b.double().cpu()
    return float((a - b).norm() / b.norm())


@pytest.fixture(autouse=True)
def full_float32():
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield
    for backend, value in zip(backends, before, strict=True):
        backend.allow_tf32 = value


TRAIN = [sys.executable, "-m", "fact_train", "--preset", "mnist-stylegan2", "--device", "cuda"]
SMALL = ["--channel-base", "256", "--channel-max", "32", "--kimg", "1.6", "--kimg-per-tick", "0.4"]


def start(outdir: Path) -> subprocess.Popen:
    return subprocess.Popen([*TRAIN, *SMALL, "--snapshot-ticks", "1", "--outdir", str(outdir)])


def final_snapshot(outdir: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(sorted(outdir.glob("network-snapshot-*.safetensors"))[-1])


def test_a_run_that_was_stopped_goes_on_with_the_bits_of_an_uninterrupted_one(tmp_path):
    # First because it takes longest.
    straight, stopped = start(tmp_path / "straight"), start(tmp_path / "stopped")
    try:
        ticks = tmp_path / "stopped" / "stats.jsonl"
        while stopped.poll() is None and not (ticks.exists() and ticks.read_text()):
            time.sleep(0.02)
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(timeout=120) == 75, "the run ended before it could be stopped"
        resumed = start(tmp_path / "stopped")
        assert resumed.wait(timeout=120) == 0
        assert straight.wait(timeout=120) == 0
    finally:
        straight.kill()
        stopped.kill()
    other = final_snapshot(tmp_path / "stopped")
    for name, weights in final_snapshot(tmp_path / "straight").items():
        assert torch.equal(weights, other[name]), name


def trained(steps: int, state: dict | None = None) -> Trainer:
    trainer = Trainer(NARROW, open_dataset("mnist", max_images=256), torch.device("cuda"))
    if state is not None:
        trainer.load_state_dict(state)
    for _ in range(steps):
        trainer.step()
    return trainer


@pytest.mark.parametrize("saved_after", [None, 3])
def test_equal_runs_have_equal_bits_also_from_a_saved_state(saved_after):
    whole = trained(6)
    if saved_after is None:
        other = trained(6)
    else:
        stream = io.BytesIO()
        torch.save(trained(saved_after).state_dict(), stream)
        stream.seek(0)
        other = trained(6 - saved_after, torch.load(stream, map_location="cuda", weights_only=True))
    assert other.steps == whole.steps == 6
    for name, net in whole.model.networks.items():
        for (key, a), b in zip(net.named_parameters(), other.model.networks[name].parameters(), strict=True):
            assert torch.equal(a, b), f"{name}.{key}"


@pytest.mark.parametrize("up", [1, 2])
def test_per_sample_convolution_has_the_cpus_derivatives(up):
    # float64 on both sides: 1e-10 leaves six digits for another order of summation.
    x = torch.randn(3, 4, 8, 8, dtype=torch.float64)
    w = torch.randn(3, 5, 4, 3, 3, dtype=torch.float64)
    found = []
    for device in ("cpu", "cuda"):
        a, b = (t.detach().to(device).requires_grad_() for t in (x, w))
        y = per_sample_conv(a, b, bias=None, up=up)
        first = torch.autograd.grad(y.square().sum(), (a, b), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (a, b))
        found.append([y, *first, *second])
    for cpu, gpu in zip(*found, strict=True):
        assert relative(gpu.detach(), cpu.detach()) < 1e-10


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("injection", sorted(STYLE_INJECTIONS))
def test_fused_and_unfused_agree_in_every_precision(injection, precision):
    torch.manual_seed(0)
    k = {"vectors": 4, "matrix": 16}.get(injection, 1)
    style = dataclasses.replace(StyleOptions(), style_vectors=k)
    layer = STYLE_INJECTIONS[injection](16, 16, 3, w_dim=32, demodulate=True, style=style)
    exact = copy.deepcopy(layer).double()
    shape = (4, 32) if k == 1 else (4, k, 32)
    x, w, bias = torch.randn(4, 16, 16, 16), torch.randn(shape), torch.randn(16)
    truth = exact(x.double(), w.double(), bias=bias.double(), fused=False)
    layer, x, w, bias = layer.cuda(), x.cuda(), w.cuda(), bias.cuda()
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    for fused in (True, False):
        y = layer(x.to(DTYPES[precision]), w, bias=bias, fused=fused)
        assert relative(y.detach(), truth.detach()) < TOLERANCE[precision], f"fused={fused}"


@pytest.mark.parametrize("precision", TOLERANCE)
def test_training_steps_stay_finite_in_every_precision(precision):
    clamp = 256.0 if precision == "fp16" else None
    cfg = dataclasses.replace(NARROW, precision=precision, conv_clamp=clamp)
    trainer = Trainer(cfg, open_dataset("mnist", max_images=256), torch.device("cuda"))
    for _ in range(8):
        trainer.step()
    assert trainer.stats.first_non_finite() is None
    assert trainer.weights_finite()


def test_fp16_layers_hold_the_highest_resolutions_in_fp16_and_training_stays_finite():
    cfg = dataclasses.replace(NARROW, fp16_layers=2, conv_clamp=256.0)
    trainer = Trainer(cfg, open_dataset("mnist", max_images=256), torch.device("cuda"))
    gan = trainer.model.gan
    assert gan.feature_maps == {"dtype": torch.float16, "dtype_from": 16} and trainer.in_fp16
    ws = gan.G.mapping(torch.randn(4, *gan.G.z_shape, device="cuda"), None)
    exact = gan.G.synthesis(ws, noise_mode="const")
    held = gan.G.synthesis(ws, noise_mode="const", **gan.feature_maps)
    assert 0 < relative(held.detach(), exact.detach()) < TOLERANCE["fp16"]
    for _ in range(8):
        trainer.step()
    assert trainer.stats.first_non_finite() is None and trainer.weights_finite()


def test_images_and_image_gradients_are_those_of_the_cpu():
    # Random streams differ between devices, so both take the latents and images of the CPU. float32 through
    # ten layers loses two to three of its seven digits.
    dataset = open_dataset("mnist", max_images=256)
    cfg = dataclasses.replace(NARROW, noise="off")
    real = to_signed(dataset.images(range(8)))
    found = []
    for name in ("cpu", "cuda"):
        gan = Trainer(cfg, dataset, torch.device(name)).model.gan
        torch.manual_seed(0)
        images = gan.G_ema(torch.randn(8, *gan.G.z_shape).to(name))
        reals = real.to(name).requires_grad_()
        (slope,) = torch.autograd.grad(gan.D(reals, None).sum(), reals)
        found.append((images, slope))
    for cpu, gpu in zip(*found, strict=True):
        assert relative(gpu, cpu) < 1e-4


GRAPHED = {
    "stylegan2": dataclasses.replace(NARROW, style_mixing_prob=0.0),
    "noise off, no path length": dataclasses.replace(
        NARROW, style_mixing_prob=0.0, noise="off", pl_weight=0.0
    ),
    "gamma and rates change": dataclasses.replace(
        NARROW,
        style_mixing_prob=0.0,
        r1_gamma_final=0.1,
        r1_decay_kimg=0.05,
        r2_gamma=2.0,
        schedule="r2_gamma=cosine:0.5:0.05,g_lr=cosine:0.001:0.05",
    ),
    "two micro-batches": dataclasses.replace(NARROW, style_mixing_prob=0.0, batch_gpu=4),
    "16 vectors": dataclasses.replace(
        NARROW, style_mixing_prob=0.0, injection="vectors", style_vectors=16, fused_modconv="always"
    ),
    "stylex": dataclasses.replace(
        NARROW,
        style_mixing_prob=0.0,
        model="stylex",
        classifier="mnist",
        branches="both",
        alternation="step",
        rec_in_d_phase=True,
        w_lpips=0.0,
    ),
}


@pytest.mark.parametrize("name", GRAPHED)
def test_cuda_graphs_change_no_bit(name):
    dataset = open_dataset("mnist", max_images=256)
    trainers = [
        Trainer(dataclasses.replace(GRAPHED[name], cuda_graphs=graphs), dataset, torch.device("cuda"))
        for graphs in (False, True)
    ]
    for trainer in trainers:
        for _ in range(12):
            trainer.step()
        assert trainer.weights_finite()
    for net, plain in trainers[0].model.networks.items():
        graphed = trainers[1].model.networks[net]
        for (key, a), b in zip(plain.named_parameters(), graphed.parameters(), strict=True):
            assert torch.equal(a, b), f"{net}.{key}"
    assert trainers[0].stats.collect() == trainers[1].stats.collect()


def test_scores_on_the_gpu_are_those_of_the_cpu():
    import fact_metrics

    dataset = open_dataset("mnist", max_images=600)
    real, generated = dataset.images(range(300)), dataset.images(range(300, 600))
    names = ["fid10k_full_digits", "kid10k_full_digits", "precision10k3_full_pixels"]
    cpu, gpu = (
        fact_metrics.compute(generated, real, names, count=300, device=device) for device in ("cpu", "cuda")
    )
    for name in names:
        # Features agree to float32's rounding through a small network; FID and KID are smooth in them.
        assert gpu[name].value == pytest.approx(cpu[name].value, rel=1e-3, abs=1e-4)
