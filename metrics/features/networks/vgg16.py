"""VGG16 (Simonyan & Zisserman 2015, arXiv:1409.1556) in torchvision's naming."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FC = 4096
# Stages of convolutions (number, width); a max pool stands between them and behind the last.
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def vgg16_stages() -> list[nn.Sequential]:
    """The convolutional stages, each but the first opening with its pool; names are torchvision's numbers."""
    stages, inputs, index = [], 3, 0
    for number, (depth, width) in enumerate(STAGES):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if number:
            layers[str(index)] = nn.MaxPool2d(2)
            index += 1
        for _ in range(depth):
            layers[str(index)] = nn.Conv2d(inputs, width, 3, padding=1)
            layers[str(index + 1)] = nn.ReLU(inplace=True)
            inputs, index = width, index + 2
        stages.append(nn.Sequential(layers))
    return stages


class VGG16(nn.Module):
    """[N, 3, 224, 224] float32, ImageNet-normalised, to the second linear layer [N, 4096] behind its ReLU."""

    def __init__(self) -> None:
        super().__init__()
        named = [pair for stage in vgg16_stages() for pair in stage.named_children()]
        self.features = nn.Sequential(OrderedDict(named))
        linear = [("0", nn.Linear(STAGES[-1][1] * 7 * 7, FC)), ("3", nn.Linear(FC, FC))]
        self.classifier = nn.ModuleDict(OrderedDict(linear))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.features(x.contiguous(memory_format=torch.channels_last)), 2)
        x = x.contiguous(memory_format=torch.contiguous_format).flatten(1)
        for layer in self.classifier.values():
            x = layer(x).relu_()
        return x
