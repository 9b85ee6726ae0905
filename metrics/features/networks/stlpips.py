"""AlexNet and VGG16 with blurred down-sampling: Ghildyal & Liu 2022, arXiv:2207.13686."""

import torch
import torch.nn.functional as F
from torch import nn


class Blur(nn.Module):
    """Halves [N, C, H, W] with a [1, 2, 1] x [1, 2, 1] kernel, reflected by two pixels at the border."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(taps, taps).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self.kernel, stride=2, groups=x.shape[1])


def alexnet_stages() -> list[nn.Sequential]:
    """The five stages of shift-tolerant AlexNet; each ends in a ReLU that LPIPS reads."""
    return [
        nn.Sequential(nn.Conv2d(3, 64, 11, padding=2), Blur(64), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, stride=1), Blur(64), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, stride=1), Blur(192), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]


def vgg16_stages() -> list[nn.Sequential]:
    """The five stages of shift-tolerant VGG16 up to relu5_3; each ends in a ReLU that LPIPS reads."""
    stages, inputs = [], 3
    for outputs, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers = [] if not stages else [nn.MaxPool2d(2, stride=1), Blur(inputs)]
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs = outputs
        stages.append(nn.Sequential(*layers))
    return stages
