"""DINOv2 class tokens (Oquab et al. 2023, arXiv:2304.07193) from Meta's files: FD-DINOv2.

Images come to 224 pixels as in dgm-eval (Stein et al. 2023, arXiv:2306.04675), where the positions, learned
at 518, are interpolated as Meta's code does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fact_metrics.features.detector import register_detector
from fact_metrics.features.published import IMAGENET_MEAN, IMAGENET_STD, PublishedDetector, expect_keys
from fact_metrics.features.vit_config import ViTConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SIZE = 224
PATCH = 14
# Meta's interpolation passes (grid + 0.1) / grid of the file as scale; the positions it gives depend on it.
GRID_OFFSET = 0.1
TOWER = {
    "cls_token": "class_token",
    "pos_embed": "positions",
    **{f"patch_embed.proj.{part}": f"patches.{part}" for part in ("weight", "bias")},
    **{f"norm.{part}": f"norm.{part}" for part in ("weight", "bias")},
}
BLOCK = {
    f"{theirs}.{part}": f"{ours}.{part}"
    for theirs, ours in {
        "norm1": "norm1",
        "attn.qkv": "qkv",
        "attn.proj": "proj",
        "norm2": "norm2",
        "mlp.fc1": "fc1",
        "mlp.fc2": "fc2",
    }.items()
    for part in ("weight", "bias")
}
SCALES = {"ls1.gamma": "proj", "ls2.gamma": "fc2"}
MASK = ("mask_token",)  # of training


def dinov2_config(*, width: int, depth: int, grid: int = SIZE // PATCH) -> ViTConfig:
    """What the S, B and L networks have in common."""
    return ViTConfig(patch=PATCH, grid=grid, width=width, depth=depth, activation="gelu", norm_epsilon=1e-6)


class _DINOv2(PublishedDetector):
    layer = "class token behind the last layer norm"
    resize_mode = "pil-u8"
    size = SIZE
    value_range = f"[0, 1], then mean {list(IMAGENET_MEAN)} and std {list(IMAGENET_STD)}"
    citation = "Oquab et al. 2023, arXiv:2304.07193; Stein et al. 2023, arXiv:2306.04675"
    config: ClassVar[ViTConfig]

    def build(self) -> nn.Module:
        from fact_metrics.features.networks.vit import ViT

        return ViT(self.config)

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        sources, scales = dict(TOWER), {}
        for i in range(self.config.depth):
            sources |= {f"blocks.{i}.{theirs}": f"blocks.{i}.{ours}" for theirs, ours in BLOCK.items()}
            scales |= {f"blocks.{i}.{theirs}": f"blocks.{i}.{ours}" for theirs, ours in SCALES.items()}
        expect_keys(state, [*sources, *scales], self.network, unused=MASK)
        own = {ours: state[theirs].float() for theirs, ours in sources.items()}
        own["positions"] = positions_on_grid(own["positions"], self.config.grid)
        for theirs, ours in scales.items():
            scale = state[theirs].double()
            own[f"{ours}.weight"] = (own[f"{ours}.weight"] * scale.unsqueeze(1)).float()
            own[f"{ours}.bias"] = (own[f"{ours}.bias"] * scale).float()
        return own

    def embed(self, images: Tensor) -> Tensor:
        from fact_metrics.features.images import normalise, to_rgb
        from fact_metrics.features.resize import resize

        x = to_rgb(resize(images, mode=self.resize_mode, size=self.size))
        return self.net(normalise(x, IMAGENET_MEAN, IMAGENET_STD))


@register_detector
class DINOv2Small(_DINOv2):
    name = "dinov2_s"
    network = "DINOv2 ViT-S/14, Meta's, without registers"
    label = "DINOv2 ViT-S/14 features"
    config = dinov2_config(width=384, depth=12)
    width = 384
    weights = ("dinov2_vits14",)
    summary = "DINOv2 ViT-S/14 class tokens"


@register_detector
class DINOv2Base(_DINOv2):
    name = "dinov2_b"
    network = "DINOv2 ViT-B/14, Meta's, without registers"
    label = "DINOv2 ViT-B/14 features"
    config = dinov2_config(width=768, depth=12)
    width = 768
    weights = ("dinov2_vitb14",)
    cpu_chunk = 16
    summary = "DINOv2 ViT-B/14 class tokens: FLD"


@register_detector
class DINOv2Large(_DINOv2):
    name = "dinov2_l"
    network = "DINOv2 ViT-L/14, Meta's, without registers"
    label = "DINOv2 ViT-L/14 features"
    config = dinov2_config(width=1024, depth=24)
    width = 1024
    weights = ("dinov2_vitl14",)
    cpu_chunk = 16
    summary = "DINOv2 ViT-L/14 class tokens: FD-DINOv2, and precision to coverage in its space"


def positions_on_grid(positions: torch.Tensor, grid: int) -> torch.Tensor:
    """Positions [1, 1 + G^2, width] brought to [1, 1 + grid^2, width]: bicubic, without antialias."""
    import torch
    import torch.nn.functional as F

    side = round((positions.shape[1] - 1) ** 0.5)
    if side**2 + 1 != positions.shape[1]:
        raise ValueError(f"{positions.shape[1]} positions are no class token and square of patches")
    if side == grid:
        return positions
    maps = positions[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    scale = (grid + GRID_OFFSET) / side
    maps = F.interpolate(maps, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([positions[:, :1], maps.flatten(2).transpose(1, 2)], dim=1)
