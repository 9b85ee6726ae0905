"""CLIP image embeddings (Radford et al. 2021, arXiv:2103.00020) from OpenAI's files, in float32.

Not divided by their length: metrics that want unit vectors (CMMD) do that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fact_metrics.features.detector import register_detector
from fact_metrics.features.published import PublishedDetector, expect_keys
from fact_metrics.features.vit_config import ViTConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# The text half of the file, and three numbers OpenAI stored as tensors.
TEXT = (
    *("transformer.", "ln_final.", "token_embedding.", "positional_embedding", "text_projection"),
    *("logit_scale", "input_resolution", "context_length", "vocab_size"),
)
TOWER = {
    "class_embedding": "class_token",
    "positional_embedding": "positions",
    "proj": "output.weight",
    "conv1.weight": "patches.weight",
    **{f"ln_pre.{part}": f"norm_embedding.{part}" for part in ("weight", "bias")},
    **{f"ln_post.{part}": f"norm.{part}" for part in ("weight", "bias")},
}
BLOCK = {
    "attn.in_proj_weight": "qkv.weight",
    "attn.in_proj_bias": "qkv.bias",
    **{
        f"{theirs}.{part}": f"{ours}.{part}"
        for theirs, ours in {
            "attn.out_proj": "proj",
            "ln_1": "norm1",
            "ln_2": "norm2",
            "mlp.c_fc": "fc1",
            "mlp.c_proj": "fc2",
        }.items()
        for part in ("weight", "bias")
    },
}


def clip_config(*, patch: int, grid: int, width: int, depth: int, output: int) -> ViTConfig:
    """What all of OpenAI's transformers have in common."""
    return ViTConfig(
        patch=patch,
        grid=grid,
        width=width,
        depth=depth,
        output=output,
        activation="quick_gelu",
        norm_epsilon=1e-5,
        norm_embedding=True,
        patch_bias=False,
    )


class _CLIP(PublishedDetector):
    resize_mode = "pil-u8"
    value_range = f"[0, 1], then mean {list(MEAN)} and std {list(STD)}"
    layer = "image embedding, not normalised"
    config: ClassVar[ViTConfig]

    def build(self) -> nn.Module:
        from fact_metrics.features.networks.vit import ViT

        return ViT(self.config)

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        sources = {f"visual.{theirs}": ours for theirs, ours in TOWER.items()}
        for i in range(self.config.depth):
            prefix = f"visual.transformer.resblocks.{i}."
            sources |= {prefix + theirs: f"blocks.{i}.{ours}" for theirs, ours in BLOCK.items()}
        expect_keys(state, sources, self.network, unused=TEXT)
        own = {ours: state[theirs].float() for theirs, ours in sources.items()}
        own["class_token"] = own["class_token"].view(1, 1, -1)
        own["positions"] = own["positions"].unsqueeze(0)
        own["output.weight"] = own["output.weight"].T
        return own

    def embed(self, images: Tensor) -> Tensor:
        from fact_metrics.features.images import normalise, to_rgb

        return self.net(normalise(to_rgb(self.squared(images)), MEAN, STD))

    def squared(self, images: Tensor) -> Tensor:
        """float32 [N, C, size, size] in [0, 255] of uint8 images."""
        raise NotImplementedError


@register_detector
class CLIPViTB32(_CLIP):
    name = "clip_vit_b32"
    network = "CLIP ViT-B/32, OpenAI's"
    config = clip_config(patch=32, grid=7, width=768, depth=12, output=512)
    width = 512
    label = "CLIP ViT-B/32 features"
    size = config.size
    weights = ("clip_vit_b32",)
    summary = "CLIP ViT-B/32 image embeddings as clean-fid resizes for them: CLIP-FID"
    citation = "Radford et al. 2021, arXiv:2103.00020; Kynkäänniemi et al. 2023, arXiv:2203.06026"

    def settings(self) -> dict:
        return {**super().settings(), "crop": "shorter side to 224, then the centre"}

    def squared(self, images: Tensor) -> Tensor:
        from fact_metrics.features.images import centre
        from fact_metrics.features.resize import resize

        height, width = images.shape[-2:]
        shorter = min(height, width)
        shape = (self.size * height // shorter, self.size * width // shorter)
        return centre(resize(images, mode="pil-u8", size=shape), self.size)


@register_detector
class CLIPViTL14At336(_CLIP):
    name = "clip_vit_l14_336"
    network = "CLIP ViT-L/14 at 336 pixels, OpenAI's"
    config = clip_config(patch=14, grid=24, width=1024, depth=24, output=768)
    width = 768
    label = "CLIP ViT-L/14 embeddings at 336 pixels"
    size = config.size
    weights = ("clip_vit_l14_336",)
    cpu_chunk = 8
    summary = "CLIP ViT-L/14 image embeddings at 336 pixels: CMMD"
    citation = "Radford et al. 2021, arXiv:2103.00020; Jayasumana et al. 2024, arXiv:2401.09603"

    def settings(self) -> dict:
        return {**super().settings(), "crop": "centre square, then to 336"}

    def squared(self, images: Tensor) -> Tensor:
        from fact_metrics.features.images import centre
        from fact_metrics.features.resize import resize

        return resize(centre(images, min(images.shape[-2:])), mode="pil-u8", size=self.size)
