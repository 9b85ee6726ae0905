"""Perceptual distances of the LPIPS kind: stages of a network, unit channel vectors, a weight per channel.

Zhang et al. 2018, arXiv:1801.03924, eq. 1. What the stages are: lpips.py and stlpips.py.
"""

from collections.abc import Sequence

import torch
from torch import nn

from fact_metrics.base.tf32 import tf32
from fact_metrics.features.detector import Detector, to_rgb, to_unit_range

MIN_RESOLUTION = 32
UNIT_EPSILON = 1e-10


class PerceptualNet(nn.Module):
    """Stages with the LPIPS input scaling and one non-negative weight per channel."""

    def __init__(self, stages: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))
        for index, width in enumerate(self.widths):
            self.register_buffer(f"channel_weights{index}", torch.ones(1, width, 1, 1))

    @property
    def widths(self) -> list[int]:
        """Channels that each stage ends with: those of its last layer that has any to state."""
        return [[m.out_channels for m in stage if hasattr(m, "out_channels")][-1] for stage in self.stages]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Unit channel vectors of every stage times sqrt(channel weight), for x [N, 3, H, W] in [-1, 1]."""
        x = ((x - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)
        outputs = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            unit = x / (x.square().sum(dim=1, keepdim=True).sqrt() + UNIT_EPSILON)
            outputs.append(unit * getattr(self, f"channel_weights{index}").sqrt())
        return outputs


class PerceptualDetector(Detector):
    """A detector with a distance; `net` is its PerceptualNet.

    Features are the spatial means of the weighted unit activations: |f(a) - f(b)|^2 <= distance(a, b)
    (Jensen), so that their squared distance is a lower bound of LPIPS.
    """

    net: PerceptualNet

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([h.mean(dim=(2, 3)) for h in self._outputs(to_unit_range(images))], dim=1)

    @torch.inference_mode()
    def distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """LPIPS [N] of float images [N, 1 or 3, H, W] in about [-1, 1], neither clamped nor quantised.

        Raises ValueError on integer images, unequal shapes or sides under 32 pixels.
        """
        if a.shape != b.shape or not (a.is_floating_point() and b.is_floating_point()):
            raise ValueError(
                f"LPIPS takes float images in [-1, 1] of one shape, got {a.dtype} {list(a.shape)}"
                f" and {b.dtype} {list(b.shape)}"
            )
        with tf32(False), torch.autocast(self.device.type, enabled=False):
            return self.differentiable_distance(a.to(self.device), b.to(self.device))

    def differentiable_distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """The same [N] as a loss: on the images' own device, with gradients to both."""
        outputs = self._outputs(torch.cat([a, b]).float())
        pairs = (h.chunk(2) for h in outputs)
        return sum((x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in pairs)

    def _outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        if min(images.shape[-2:]) < MIN_RESOLUTION:
            raise ValueError(
                f"{self.name} needs images of {MIN_RESOLUTION} pixels or more, got {list(images.shape)}"
            )
        with torch.inference_mode(False):  # weights made under it could not be differentiated through
            net = self.net
        return net(to_rgb(images))
