"""The vision transformer against torch's own attention and Meta's outputs; CLIP's and DINOv2's formats."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms as T
from PIL import Image
from torch import nn

from fact_metrics.features import DETECTORS
from fact_metrics.features.detectors.clip import CLIPViTB32, CLIPViTL14At336
from fact_metrics.features.detectors.dinov2 import DINOv2Small, dinov2_config, positions_on_grid
from fact_metrics.features.images import centre, normalise
from fact_metrics.features.networks.vit import Block, ViT, quick_gelu
from fact_metrics.features.published import IMAGENET_MEAN, IMAGENET_STD
from fact_metrics.features.vit_config import ViTConfig

GOLDEN = json.loads((Path(__file__).parent / "golden" / "detectors.json").read_text())
SMALL_FILE_GRID = 6
CONFIG = ViTConfig(patch=4, grid=3, width=128, depth=2, activation="gelu", norm_epsilon=1e-6)


def waves(shape, number):
    """The same numbers on every machine, without a random generator; about unit variance."""
    index = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return (
        (1.4 * torch.sin(index * (0.37 + 0.11 * number) + index.square() * 1e-3 + number)).view(shape).float()
    )


def small_dinov2_tensors():
    """DINOv2 with 2 blocks of 128 channels and a 6 x 6 grid of positions, in Meta's names."""
    shapes = {"cls_token": (1, 1, 128), "pos_embed": (1, 1 + SMALL_FILE_GRID**2, 128), "mask_token": (1, 128)}
    shapes |= {"patch_embed.proj.weight": (128, 3, 14, 14), "patch_embed.proj.bias": (128,)}
    for i in range(2):
        block = {"norm1": (128,), "attn.qkv": (384, 128), "attn.proj": (128, 128), "norm2": (128,)}
        block |= {"mlp.fc1": (512, 128), "mlp.fc2": (128, 512)}
        for name, shape in block.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
        shapes |= {f"blocks.{i}.ls1.gamma": (128,), f"blocks.{i}.ls2.gamma": (128,)}
    shapes |= {"norm.weight": (128,), "norm.bias": (128,)}
    tensors = {}
    for number, (name, shape) in enumerate(shapes.items()):
        gain = name.endswith("gamma") or ("norm" in name and name.endswith("weight"))
        scale = (
            0.3 if len(shape) == 1 or "token" in name or "pos" in name else float(np.prod(shape[1:])) ** -0.5
        )
        tensors[name] = gain + scale * waves(shape, number)
    return tensors


class SmallDINOv2(DINOv2Small):
    config = dinov2_config(width=128, depth=2, grid=4)
    size, width = config.size, 128


def small_net():
    """SmallDINOv2's network on `small_dinov2_tensors`."""
    detector = SmallDINOv2()
    net = detector.build()
    net.load_state_dict(detector.convert(small_dinov2_tensors(), net))
    return net.eval()


@torch.inference_mode()
def test_dinov2_equals_the_values_of_metas_code():
    found = small_net()(2 * waves((2, 3, 56, 56), 99))[1, :8]
    # Meta's repository (b8931f7) gave these; float32 in another order, layer scale folded.
    assert found.tolist() == pytest.approx(GOLDEN["small DINOv2, Meta's code"], rel=1e-4, abs=1e-5)


def randomised(net, dtype=torch.float64):
    rng = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5
        parameter.data = torch.randn(parameter.shape, generator=rng, dtype=dtype) * scale
    return net.eval().requires_grad_(False)


def test_a_block_is_multihead_attention_and_mlp_with_residuals():
    block = randomised(Block(CONFIG))
    attention = nn.MultiheadAttention(128, 2, batch_first=True, dtype=torch.float64)
    attention.in_proj_weight.data, attention.in_proj_bias.data = block.qkv.weight, block.qkv.bias
    attention.out_proj.weight.data, attention.out_proj.bias.data = block.proj.weight, block.proj.bias
    x = torch.randn(2, 10, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    normed = F.layer_norm(x, (128,), block.norm1.weight, block.norm1.bias, 1e-6)
    expected = x + attention(normed, normed, normed, need_weights=False)[0]
    normed = F.layer_norm(expected, (128,), block.norm2.weight, block.norm2.bias, 1e-6)
    expected = expected + block.fc2(F.gelu(block.fc1(normed)))
    torch.testing.assert_close(block(x), expected)
    torch.testing.assert_close(block(x, keep=1), expected[:, :1])


def test_the_class_token_does_not_depend_on_the_order_of_patches_but_on_their_positions():
    net = randomised(ViT(CONFIG))
    x = torch.randn(1, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mirrored = x.unflatten(3, (3, 4)).flip(3).flatten(3)
    assert not torch.allclose(net(x), net(mirrored))
    grid = net.positions[:, 1:].unflatten(1, (3, 3)).flip(2).flatten(1, 2)
    net.positions.data = torch.cat([net.positions[:, :1], grid], dim=1)
    before = net(mirrored)
    net.positions.data[:, 1:] = grid.unflatten(1, (3, 3)).flip(2).flatten(1, 2)
    torch.testing.assert_close(before, net(x))


def test_quick_gelu_is_near_gelu_and_not_it():
    x = torch.linspace(-4, 4, 100)
    assert 1e-3 < (quick_gelu(x) - F.gelu(x)).abs().max() < 0.03
    torch.testing.assert_close(quick_gelu(x), x / (1 + torch.exp(-1.702 * x)))


def cubic(x, a=-0.75):
    """torch's cubic convolution kernel."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


@pytest.mark.parametrize(("side", "grid"), [(37, 16), (6, 4), (5, 9)])
def test_positions_are_sampled_at_metas_offset_of_a_tenth_of_a_patch(side, grid):
    weights = np.zeros((grid, side))
    for i in range(grid):
        source = (i + 0.5) * side / (grid + 0.1) - 0.5
        for tap in range(int(np.floor(source)) - 1, int(np.floor(source)) + 3):
            weights[i, min(max(tap, 0), side - 1)] += cubic(source - tap)
    positions = torch.randn(
        1, 1 + side**2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    maps = positions[0, 1:].view(side, side, 3).numpy()
    expected = np.einsum("ai,bj,ijc->abc", weights, weights, maps).reshape(-1, 3)
    found = positions_on_grid(positions, grid)
    torch.testing.assert_close(found[0, 1:], torch.from_numpy(expected))
    assert torch.equal(found[:, :1], positions[:, :1])
    assert positions_on_grid(positions, side) is positions


def test_positions_that_are_no_square_are_refused():
    with pytest.raises(ValueError, match="38 positions"):
        positions_on_grid(torch.zeros(1, 38, 4), 16)


# Parameters of OpenAI's and Meta's own networks, counted in their code (88, 304, 22, 87, 304 million).
COUNTS = {
    "clip_vit_b32": 87_849_216,
    "clip_vit_l14_336": 304_293_888,
    "dinov2_s": 22_056_576,
    "dinov2_b": 86_580_480,
    "dinov2_l": 304_368_640,
}


@pytest.mark.parametrize("name", COUNTS)
def test_networks_have_the_published_number_of_parameters_and_the_stated_width(name):
    detector = DETECTORS[name]()
    with torch.device("meta"):
        net = detector.build()
        out = net(torch.empty(2, 3, detector.size, detector.size))
    assert out.shape == (2, detector.width)
    count = sum(p.numel() for p in net.parameters())
    if name.startswith("dinov2"):
        # In Meta's files: positions of 37 x 37 patches, a mask token, two layer scales in every block.
        config = detector.config
        count += (37**2 - config.grid**2 + 1 + 2 * config.depth) * config.width
    assert count == COUNTS[name]


def photographs(height, width):
    rng = torch.Generator().manual_seed(height + width)
    return torch.randint(0, 256, (2, 3, height, width), generator=rng, dtype=torch.uint8)


def transformed(images, *steps):
    """By torchvision on Pillow images, as the references do."""
    compose = T.Compose(steps)
    return torch.stack([compose(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])


BICUBIC = T.InterpolationMode.BICUBIC


@pytest.mark.parametrize("shape", [(64, 64), (300, 300), (250, 333), (333, 250)])
def test_clip_b32_resizes_and_crops_as_clean_fid_does(shape):
    images = photographs(*shape)
    expected = transformed(images, T.Resize(224, BICUBIC), T.CenterCrop(224), T.PILToTensor())
    found = CLIPViTB32().squared(images)
    if shape[0] <= shape[1]:
        assert torch.equal(found, expected.float())
    else:  # Pillow 13 takes rows first in a tall image: one more grey level of rounding
        assert (found - expected).abs().max() <= 1


@pytest.mark.parametrize("shape", [(64, 64), (400, 500), (500, 401)])
def test_clip_l14_takes_the_centre_square_as_cmmd_does(shape):
    images = photographs(*shape)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    crop = T.Lambda(lambda picture: picture.crop((left, top, left + side, top + side)))
    expected = transformed(images, crop, T.Resize((336, 336), BICUBIC), T.PILToTensor())
    assert torch.equal(CLIPViTL14At336().squared(images), expected.float())


def test_centre_leaves_the_odd_row_at_the_bottom():
    x = torch.arange(5.0).view(1, 1, 5, 1).expand(1, 1, 5, 4)
    assert centre(x, 4)[0, 0, :, 0].tolist() == [0, 1, 2, 3]


def test_normalising_bytes_is_normalising_the_unit_range():
    images = photographs(20, 20)
    expected = transformed(images, T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(normalise(images.float(), IMAGENET_MEAN, IMAGENET_STD), expected)
