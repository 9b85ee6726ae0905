"""Digit classifier: features and class probabilities, from weights this project trains itself.

`fact-eval train-digits` (fact_eval/weights/train_digits.py) is the recipe. Pictures that are no digit are
trained towards the uniform distribution (outlier exposure, Hendrycks et al. 2019), so that junk is not called
legible.
"""

import json
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import nn

from fact_metrics.features.detector import (
    Detector,
    fold_batchnorm,
    register_detector,
    to_gray,
    verified_weights,
)
from fact_metrics.features.resize import resize

RESOLUTION = 32
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


class _DigitsDetector(Detector):
    citation = "this project (fact-eval train-digits); outlier exposure: Hendrycks et al. 2019, 1812.04606"
    layer: str
    _net: DigitsNet | None = None

    def settings(self) -> dict:
        return {
            "network": "DigitsNet",
            "layer": self.layer,
            "resize": "torch-aa",
            "size": RESOLUTION,
            "range": "[0, 1], luma of colour images",
            "dtype": "float32",
            "weights_sha256": digits_card()["sha256"],
        }

    def _outputs(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._net is None:
            self._net = load_digits(self.device)
        x = resize(to_gray(images), mode="torch-aa", size=RESOLUTION) / 255
        return self._net(x.contiguous(memory_format=torch.channels_last))


@register_detector
class Digits(_DigitsDetector):
    name = "digits"
    width = FEATURES
    summary = "64 features of a digit classifier trained on MNIST"
    layer = "penultimate (64), before its ReLU"

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return self._outputs(images)[0]


@register_detector
class DigitsProbs(_DigitsDetector):
    name = "digits_probs"
    width = CLASSES
    summary = "class probabilities of the same digit classifier, in the order 0 to 9"
    layer = "softmax (10)"

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return self._outputs(images)[1].softmax(dim=1)


def digits_card() -> dict:
    """What is known of the shipped weights: sha256, accuracy, recipe, command and date (digits.json)."""
    return json.loads((_weights_folder() / "digits.json").read_text())


def load_digits(device: torch.device | str = "cpu") -> DigitsNet:
    """The trained classifier, batch norms folded. Raises UserError on missing or changed weights."""
    path = _weights_folder() / "digits.safetensors"
    content = verified_weights(path, digits_card()["sha256"], origin="`fact-eval train-digits`")
    net = DigitsNet()
    net.load_state_dict(load_safetensors(content))
    net = fold_batchnorm(net).requires_grad_(False)
    return net.to(device, memory_format=torch.channels_last)


def _weights_folder() -> Path:
    return Path(str(resources.files("fact_metrics.features"))) / "weights"


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
