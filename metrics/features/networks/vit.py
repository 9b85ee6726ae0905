"""The vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) that CLIP and DINOv2 share.

Pre-norm blocks, a class token, learned positions. What differs is configuration; what can be folded into
weights as they are read is (DINOv2's layer scale, positions interpolated to another grid).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fact_metrics.features.vit_config import ViTConfig

HEAD_WIDTH = 64


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)); heads of 64 channels, MLP four times as wide."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.width
        self.activation = quick_gelu if config.activation == "quick_gelu" else F.gelu
        self.norm1 = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, *, keep: int | None = None) -> Tensor:
        """Tokens [N, T, width]; only the first `keep` of them are computed where nobody reads the others."""
        n, tokens, width = x.shape
        heads = self.qkv(self.norm1(x)).view(n, tokens, 3, width // HEAD_WIDTH, HEAD_WIDTH)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        x, query = x[:, :keep], query[:, :, :keep]
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        return x + self.fc2(self.activation(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """[N, 3, size, size] float32, normalised, to the class token [N, width or output] behind its norm."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.width
        self.patches = nn.Conv2d(3, width, config.patch, stride=config.patch, bias=config.patch_bias)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + config.grid**2, width))
        if config.norm_embedding:
            self.norm_embedding = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=config.norm_epsilon)
        if config.output is not None:
            self.output = nn.Linear(width, config.output, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1) + self.positions
        if hasattr(self, "norm_embedding"):
            x = self.norm_embedding(x)
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.norm(self.blocks[-1](x, keep=1)[:, 0])
        return self.output(x) if hasattr(self, "output") else x


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), the approximation OpenAI's CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)
