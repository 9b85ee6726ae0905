"""A TorchScript Inception-v3 in the format of NVIDIA's inception-2015-12-05.pt, for clean-fid to run.

Written from the names and shapes of that file's tensors and from the way clean-fid calls it: `layers` maps
normalised images of 299 pixels to features, the module itself resizes first.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 299


class Layer(nn.Module):
    """Convolution, batch norm without gain, ReLU."""

    def __init__(self, inputs: int, outputs: int, height: int, width: int, stride: int = 1, pad: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, height, width))
        self.beta = nn.Parameter(torch.empty(outputs))
        self.register_buffer("mean", torch.empty(outputs))
        self.register_buffer("var", torch.empty(outputs))
        self.stride = stride
        self.padding = [height // 2, width // 2] if pad else [0, 0]

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, stride=self.stride, padding=self.padding)
        return F.relu(F.batch_norm(x, self.mean, self.var, None, self.beta, False, 0.0, 0.001))


class Halve(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2)


class Average(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1, False, False)


class Largest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 1, 1)


class Tower(nn.Sequential):
    """Layers `conv`, `conv_1`, ... behind an optional `pool`."""

    def __init__(self, *layers: Layer, pool: nn.Module | None = None) -> None:
        super().__init__()
        if pool is not None:
            self.add_module("pool", pool)
        for i, layer in enumerate(layers):
            self.add_module(f"conv_{i}" if i else "conv", layer)


class Four(nn.Module):
    def __init__(self, conv: Layer, tower: Tower, tower_1: Tower, tower_2: Tower) -> None:
        super().__init__()
        self.conv, self.tower, self.tower_1, self.tower_2 = conv, tower, tower_1, tower_2

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), self.tower(x), self.tower_1(x), self.tower_2(x)], 1)


class ThreeFromLayer(nn.Module):
    def __init__(self, conv: Layer, tower: Tower) -> None:
        super().__init__()
        self.conv, self.tower, self.pool = conv, tower, Halve()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), self.tower(x), self.pool(x)], 1)


class ThreeFromTower(nn.Module):
    def __init__(self, tower: Tower, tower_1: Tower) -> None:
        super().__init__()
        self.tower, self.tower_1, self.pool = tower, tower_1, Halve()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.tower(x), self.tower_1(x), self.pool(x)], 1)


class Forked(nn.Module):
    """The two last blocks, whose 3x3 convolutions end in 1x3 and 3x1 side by side."""

    def __init__(self, inputs: int, pool: nn.Module) -> None:
        super().__init__()
        self.conv = Layer(inputs, 320, 1, 1)
        self.tower_conv = Layer(inputs, 384, 1, 1)
        self.tower_mixed_conv = Layer(384, 384, 1, 3)
        self.tower_mixed_conv_1 = Layer(384, 384, 3, 1)
        self.tower_1_conv = Layer(inputs, 448, 1, 1)
        self.tower_1_conv_1 = Layer(448, 384, 3, 3)
        self.tower_1_mixed_conv = Layer(384, 384, 1, 3)
        self.tower_1_mixed_conv_1 = Layer(384, 384, 3, 1)
        self.tower_2_pool = pool
        self.tower_2_conv = Layer(inputs, 192, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.tower_conv(x)
        b = self.tower_1_conv_1(self.tower_1_conv(x))
        parts = [self.conv(x), self.tower_mixed_conv(a), self.tower_mixed_conv_1(a)]
        parts += [self.tower_1_mixed_conv(b), self.tower_1_mixed_conv_1(b)]
        parts += [self.tower_2_conv(self.tower_2_pool(x))]
        return torch.cat(parts, 1)


class Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 8)


class ScriptedInception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        stem = (Layer(3, 32, 3, 3, 2, False), Layer(32, 32, 3, 3, 1, False), Layer(32, 64, 3, 3))
        for name, layer in zip(("conv", "conv_1", "conv_2"), stem, strict=True):
            self.layers.add_module(name, layer)
        self.layers.add_module("pool0", Halve())
        self.layers.add_module("conv_3", Layer(64, 80, 1, 1))
        self.layers.add_module("conv_4", Layer(80, 192, 3, 3, 1, False))
        self.layers.add_module("pool1", Halve())
        blocks = [mixed35(192, 32), mixed35(256, 64), mixed35(288, 64)]
        second = Tower(Layer(288, 64, 1, 1), Layer(64, 96, 3, 3), Layer(96, 96, 3, 3, 2, False))
        blocks.append(ThreeFromLayer(Layer(288, 384, 3, 3, 2, False), second))
        blocks += [mixed17(128), mixed17(160), mixed17(160), mixed17(192)]
        first = Tower(Layer(768, 192, 1, 1), Layer(192, 320, 3, 3, 2, False))
        second = Tower(
            *(Layer(768, 192, 1, 1), Layer(192, 192, 1, 7), Layer(192, 192, 7, 1)),
            Layer(192, 192, 3, 3, 2, False),
        )
        blocks += [ThreeFromTower(first, second), Forked(1280, Average()), Forked(2048, Largest())]
        for i, block in enumerate(blocks):
            self.layers.add_module(f"mixed_{i}" if i else "mixed", block)
        self.layers.add_module("pool2", Pooled())
        self.output = nn.Linear(2048, 1008)

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        """Resized bilinearly, the grid shifted by half a source pixel less half a target pixel."""
        height, width = img.shape[2], img.shape[3]
        theta = torch.eye(2, 3, device=img.device)
        theta[0, 2] = 1.0 / width - 1.0 / 299
        theta[1, 2] = 1.0 / height - 1.0 / 299
        shape = [img.shape[0], 3, 299, 299]
        grid = F.affine_grid(theta.unsqueeze(0).repeat(img.shape[0], 1, 1), shape, align_corners=False)
        x = F.grid_sample(img.float(), grid, "bilinear", "border", align_corners=False)
        features = self.layers((x - 128) / 128).reshape(-1, 2048)
        return features if return_features else self.output(features).softmax(1)


def mixed35(inputs: int, pooled: int) -> Four:
    return Four(
        Layer(inputs, 64, 1, 1),
        Tower(Layer(inputs, 48, 1, 1), Layer(48, 64, 5, 5)),
        Tower(Layer(inputs, 64, 1, 1), Layer(64, 96, 3, 3), Layer(96, 96, 3, 3)),
        Tower(Layer(inputs, pooled, 1, 1), pool=Average()),
    )


def mixed17(width: int) -> Four:
    return Four(
        Layer(768, 192, 1, 1),
        Tower(Layer(768, width, 1, 1), Layer(width, width, 1, 7), Layer(width, 192, 7, 1)),
        Tower(
            *(Layer(768, width, 1, 1), Layer(width, width, 7, 1), Layer(width, width, 1, 7)),
            *(Layer(width, width, 7, 1), Layer(width, 192, 1, 7)),
        ),
        Tower(Layer(768, 192, 1, 1), pool=Average()),
    )


def scripted_inception(net: ScriptedInception) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; the published file stays what it is
        return torch.jit.script(net.eval().requires_grad_(False))
