"""EfficientNet-Lite0: Tan & Le 2019, arXiv:1905.11946; Lite: Google, 2020 (no squeeze-excitation, ReLU6)."""

import torch
import torch.nn.functional as F
from torch import nn

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


def _conv(
    inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True
) -> list[nn.Module]:
    conv = SameConv2d(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=BATCHNORM_EPSILON)
    return [conv, norm, nn.ReLU6(inplace=True)] if activation else [conv, norm]
