"""The digit classifier; `fact-eval train-digits` (fact_eval/weights/train_digits.py) trains it."""

import torch
from torch import nn

FEATURES = 64
CLASSES = 10


class DigitsNet(nn.Module):
    """Four convolutions, two linear layers, 120 thousand parameters; [N, 1, 32, 32] float32 in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *_conv(1, 24, kernel=5, stride=2),
            *_conv(24, 48, stride=2),
            *_conv(48, 64),
            nn.MaxPool2d(2),
            *_conv(64, 96),
            nn.MaxPool2d(2),
        )
        self.features = nn.Sequential(
            nn.Flatten(), nn.Linear(96 * 2 * 2, FEATURES, bias=False), nn.BatchNorm1d(FEATURES)
        )
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [N, 64] and class logits [N, 10].

        Features are taken before the last ReLU: behind it all that is no digit is one point, 0.
        """
        features = self.features(self.convs(x))
        return features, self.head(features.relu())


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
