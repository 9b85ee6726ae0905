"""AlexNet and SqueezeNet 1.1 in the stages that LPIPS reads; torchvision's weight files fill them."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


def alexnet_stages() -> list[nn.Sequential]:
    """AlexNet up to its fifth convolution, cut behind every ReLU; names are torchvision's numbers."""
    return [
        _stage(0, nn.Conv2d(3, 64, 11, stride=4, padding=2), _relu()),
        _stage(2, nn.MaxPool2d(3, stride=2), nn.Conv2d(64, 192, 5, padding=2), _relu()),
        _stage(5, nn.MaxPool2d(3, stride=2), nn.Conv2d(192, 384, 3, padding=1), _relu()),
        _stage(8, nn.Conv2d(384, 256, 3, padding=1), _relu()),
        _stage(10, nn.Conv2d(256, 256, 3, padding=1), _relu()),
    ]


class Fire(nn.Module):
    """SqueezeNet's module: a 1x1 convolution, then 1x1 and 3x3 side by side (Iandola et al. 2016)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.out_channels = 2 * expanded

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu_()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1).relu_()


def squeezenet_stages() -> list[nn.Sequential]:
    """SqueezeNet 1.1 up to its last Fire module, in the seven cuts of LPIPS; names are torchvision's."""

    def pool() -> nn.MaxPool2d:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    return [
        _stage(0, nn.Conv2d(3, 64, 3, stride=2), _relu()),
        _stage(2, pool(), Fire(64, 16, 64), Fire(128, 16, 64)),
        _stage(5, pool(), Fire(128, 32, 128), Fire(256, 32, 128)),
        _stage(8, pool(), Fire(256, 48, 192)),
        _stage(10, Fire(384, 48, 192)),
        _stage(11, Fire(384, 64, 256)),
        _stage(12, Fire(512, 64, 256)),
    ]


def _stage(first: int, *layers: nn.Module) -> nn.Sequential:
    """Layers under torchvision's numbers."""
    return nn.Sequential(OrderedDict((str(first + i), layer) for i, layer in enumerate(layers)))


def _relu() -> nn.ReLU:
    return nn.ReLU(inplace=True)
