"""The reference in training: networks and losses of a checkout of NVlabs/stylegan2-ada-pytorch.

Its own Generator, Discriminator and StyleGAN2Loss in the order of its phases: Adam with lazy regularisation
and moving average, as its train.py sets them, without ADA. The checkout has to be on sys.path.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch

from fact_train.settings.config import TrainConfig

FP16_RESOLUTIONS = 4


@dataclass
class Learner:
    """A network of the reference, its optimiser, and its phases: (name, interval)."""

    net: Any
    opt: torch.optim.Optimizer
    phases: tuple[tuple[str, int], ...]


class Reference:
    """The reference in training on random images: `step()` is one batch."""

    def __init__(self, cfg: TrainConfig, device: torch.device, *, channels: int = 3) -> None:
        from torch_utils.ops import conv2d_gradfix
        from training.loss import StyleGAN2Loss
        from training.networks import Discriminator, Generator

        conv2d_gradfix.enabled = True
        self.cfg, self.device, self.steps = cfg, device, 0
        width = dict(channel_base=cfg.channel_base, channel_max=cfg.channel_max)
        if cfg.precision == "fp16":
            width |= dict(num_fp16_res=FP16_RESOLUTIONS, conv_clamp=256)
        shape = dict(c_dim=0, img_resolution=cfg.resolution, img_channels=channels)
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
        size = (64, channels, cfg.resolution, cfg.resolution)
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
