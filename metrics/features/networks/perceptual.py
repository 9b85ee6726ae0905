"""Perceptual distances of the LPIPS kind: stages of a network, unit channel vectors, a weight per channel.

Zhang et al. 2018, arXiv:1801.03924, eq. 1. The stages are in lpips.py and stlpips.py.
"""

from collections.abc import Sequence

import torch
from torch import nn

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
