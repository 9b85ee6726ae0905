"""The reference networks and losses, from a checkout of NVlabs/stylegan2-ada-pytorch: `--peer DIR`.

Its own Generator, Discriminator and StyleGAN2Loss in the order of its phases: Adam with lazy regularisation,
moving average, cudnn.benchmark on, as its train.py sets them, without ADA and with the same random images.
Its CUDA kernels are compiled at the first step, which needs nvcc and ninja. Without them it falls back to its
slow operations, and the result says so.
"""

import copy
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import training
from benchmarks.gpu.process import figures_of
from benchmarks.gpu.report import Bench, Result, Skipped, fitting, markdown
from benchmarks.gpu.training import Case
from fact_train.settings.config import TrainConfig

CASES = [
    Case("auto", 256, "fp16", "reference", autotune=True),
    Case("auto", 256, "tf32", "reference", autotune=True),
    Case("auto", 128, "fp16", "reference", autotune=True),
    Case("auto", 1024, "fp16", "reference", autotune=True),
]
DRY_CASES = [Case("auto", 32, "fp32", "reference")]
FP16_RESOLUTIONS = 4


def measure(bench: Bench) -> Iterator[Result]:
    """A result per case; its kernels are compiled in the first one."""
    if bench.peer is None:
        raise Skipped("no --peer DIR")
    for i, case in enumerate(fitting(_cases(bench), bench, seconds=0 if bench.dry else 10)):
        arguments = [bench.device.type, str(bench.peer.resolve()), str(i)]
        yield {**dataclasses.asdict(case), **figures_of("benchmarks.gpu.peer", arguments, bench)}


def _cases(bench: Bench) -> list[Case]:
    return DRY_CASES if bench.dry else CASES


@dataclass
class Learner:
    """A network of the reference, its optimiser, and its phases: (name, interval)."""

    net: Any
    opt: torch.optim.Optimizer
    phases: tuple[tuple[str, int], ...]


class Reference:
    """The reference in training: `step()` is one batch."""

    def __init__(self, cfg: TrainConfig, device: torch.device) -> None:
        from torch_utils.ops import conv2d_gradfix
        from training.loss import StyleGAN2Loss
        from training.networks import Discriminator, Generator

        conv2d_gradfix.enabled = True
        self.cfg, self.device, self.steps = cfg, device, 0
        width = dict(channel_base=cfg.channel_base, channel_max=cfg.channel_max)
        if cfg.precision == "fp16":
            width |= dict(num_fp16_res=FP16_RESOLUTIONS, conv_clamp=256)
        shape = dict(c_dim=0, img_resolution=cfg.resolution, img_channels=3)
        latent = dict(z_dim=cfg.z_dim, w_dim=cfg.w_dim, mapping_kwargs=dict(num_layers=cfg.map_depth))
        self.G = Generator(**shape, **latent, synthesis_kwargs=width).to(device).requires_grad_(False)
        epilogue = dict(mbstd_group_size=cfg.mbstd_group_size)
        D = Discriminator(**shape, **width, epilogue_kwargs=epilogue).to(device).requires_grad_(False)
        self.G_ema = copy.deepcopy(self.G).eval()
        self.learners = [
            self._learner(self.G, cfg.g_lr, "G", cfg.pl_interval),
            self._learner(D, cfg.d_lr, "D", cfg.r1_interval),
        ]
        gamma = 0.0002 * cfg.resolution**2 / cfg.batch
        self.loss = StyleGAN2Loss(device, self.G.mapping, self.G.synthesis, D, r1_gamma=gamma)
        size = (64, 3, cfg.resolution, cfg.resolution)
        self.images = torch.randint(0, 256, size, dtype=torch.uint8)
        self.no_label = torch.zeros(cfg.batch, 0, device=device)

    def _learner(self, net: Any, lr: float, name: str, interval: int) -> Learner:
        c = interval / (interval + 1)
        opt = torch.optim.Adam(net.parameters(), lr=lr * c, betas=(0.0, 0.99**c), eps=1e-8)
        return Learner(net, opt, ((f"{name}main", 1), (f"{name}reg", interval)))

    def step(self, *, regularise: bool | None = None) -> None:
        """All phases that are due, then the moving average."""
        batch = self.images[torch.randint(len(self.images), [self.cfg.batch])]
        batch = batch if self.device.type == "cpu" else batch.pin_memory()
        real = batch.to(self.device, non_blocking=True).float() / 127.5 - 1
        for learner in self.learners:
            for phase, interval in learner.phases:
                if regularise or self.steps % interval == 0:
                    self._take(learner, phase, interval, real)
        with torch.no_grad():
            for average, now in zip(self.G_ema.parameters(), self.G.parameters(), strict=True):
                average.lerp_(now, 0.001)
        self.steps += 1

    def _take(self, learner: Learner, phase: str, interval: int, real: torch.Tensor) -> None:
        learner.opt.zero_grad(set_to_none=True)
        learner.net.requires_grad_(True)
        z = torch.randn(self.cfg.batch, self.cfg.z_dim, device=self.device)
        self.loss.accumulate_gradients(phase, real, self.no_label, z, self.no_label, sync=True, gain=interval)
        learner.net.requires_grad_(False)
        for p in learner.net.parameters():
            if p.grad is not None:
                torch.nan_to_num(p.grad, nan=0.0, posinf=1e5, neginf=-1e5, out=p.grad)
        learner.opt.step()


def work(device_name: str, folder: str, index: int) -> None:
    """One case in this process; the last line of the output is its figures."""
    import setuptools  # noqa: F401  gives new Pythons the module distutils, which the reference imports

    sys.path.insert(0, folder)
    bench = Bench(torch.device(device_name), Path("."))
    case = _cases(bench)[index]
    cuda = not bench.dry
    tf32 = cuda and case.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = case.autotune
    cfg = case.config(dry=bench.dry)
    reference = Reference(cfg, bench.device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(3):
        reference.step(regularise=True)
    bench.synchronize()
    warmed = time.perf_counter()
    reference.steps = 0
    cycle = 4 if bench.dry else cfg.r1_interval
    rates = training.rates_of_cycles(
        reference.step, cfg.batch, cycle, bench, seconds=0.1 if bench.dry else 2.5
    )
    found = training.summary(rates, cfg.batch, bench, warm_up_s=warmed - started)
    print(json.dumps({**found, "own_kernels": _own_kernels() if cuda else False}), flush=True)


def _own_kernels() -> bool:
    from torch_utils.ops import bias_act, upfirdn2d

    return bool(bias_act._init() and upfirdn2d._init())


def table(rows: list[Result]) -> str:
    """Beside the rows of part `training` with the same preset, resolution and precision."""
    kernels = {
        "its own kernels": lambda r: "–" if "error" in r else "yes" if r["own_kernels"] else "no, slow ones"
    }
    return markdown(training.COLUMNS | kernels, rows)


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
