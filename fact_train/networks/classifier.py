"""Networks of the explained classifier C: a small convolutional net for 32 px, ResNet-18 and MobileNet-V2.

He et al. 2016, arXiv:1512.03385; Sandler et al. 2018, arXiv:1801.04381; both as torchvision builds them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTHS = (16, 32, 64, 64)


def convnet(img_channels: int, num_classes: int) -> nn.Module:
    """Four 3x3 convolutions, three of them halving, then the mean of every map at 2x2: about 70,000 weights
    at 32 px.
    """
    layers, inputs = [], img_channels
    for i, outputs in enumerate(WIDTHS):
        stride = 1 if i == 0 else 2
        layers += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(inputs * 4, num_classes))


def resnet18(img_channels: int, num_classes: int) -> nn.Module:
    """torchvision's ResNet-18 without trained weights."""
    from torchvision.models import resnet18 as build  # a second to import

    return build(weights=None, num_classes=num_classes)


def mobilenet_v2(img_channels: int, num_classes: int) -> nn.Module:
    """torchvision's MobileNet-V2 without trained weights."""
    from torchvision.models import mobilenet_v2 as build

    return build(weights=None, num_classes=num_classes)


# name -> builder(img_channels, num_classes)
CLASSIFIERS: dict[str, Callable[[int, int], nn.Module]] = {
    "convnet": convnet,
    "resnet18": resnet18,
    "mobilenet_v2": mobilenet_v2,
}
IMAGENET_INPUT = ("resnet18", "mobilenet_v2")  # three channels, ImageNet's mean and deviation


class Classifier(nn.Module):
    """Images [N, C, H, W], float in about [-1, 1], to logits [N, K]; differentiable in the images.

    `input_size` enlarges or shrinks (bilinear, antialiased) what the network sees to a square of this side;
    None leaves it.
    """

    def __init__(
        self, *, arch: str, img_channels: int, num_classes: int, input_size: int | None = None
    ) -> None:
        super().__init__()
        if arch not in CLASSIFIERS:
            raise ValueError(f"{arch!r} is none of {', '.join(CLASSIFIERS)}")
        self.arch, self.img_channels, self.num_classes = arch, img_channels, num_classes
        self.input_size = input_size
        self.net = CLASSIFIERS[arch](img_channels, num_classes)
        if arch in IMAGENET_INPUT:
            for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
                self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        x = images.float()
        size = (self.input_size, self.input_size)
        if self.input_size is not None and x.shape[2:] != size:
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
        if self.arch in IMAGENET_INPUT:
            x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
            x = ((x + 1) / 2 - self.mean) / self.std
        return self.net(x.contiguous(memory_format=torch.channels_last))


def class_part(logits: Tensor, class_repr: str, scale: float) -> Tensor:
    """What C's logits [N, K] are in w: `softmax` or `logits`, times a scale, [N, K]."""
    return scale * (logits.softmax(dim=1) if class_repr == "softmax" else logits)
