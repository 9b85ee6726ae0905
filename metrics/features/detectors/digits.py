"""Digit classifier: features and class probabilities, from weights this project trains itself.

`fact-eval train-digits` (fact_eval/weights/train_digits.py) is the recipe. Pictures that are no digit are
trained towards the uniform distribution (outlier exposure, Hendrycks et al. 2019), so that junk is not called
legible.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fact_metrics.features.detector import Detector, register_detector, verified_weights

if TYPE_CHECKING:
    import torch

    from fact_metrics.features.networks.digits import DigitsNet

RESOLUTION = 32


class _DigitsDetector(Detector):
    citation = "this project (fact-eval train-digits); outlier exposure: Hendrycks et al. 2019, 1812.04606"
    needs_trait = "digits"
    layer: ClassVar[str]
    range: ClassVar[str] = "[0, 1], luma of colour images"
    _net: DigitsNet | None = None

    def settings(self) -> dict:
        return {
            "network": "DigitsNet",
            "layer": self.layer,
            "resize": "torch-aa",
            "size": RESOLUTION,
            "range": self.range,
            "dtype": "float32",
            "weights_sha256": digits_card()["sha256"],
        }

    def _outputs(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and logits of images [N, 1, H, W] in [0, 255]."""
        import torch

        from fact_metrics.features.resize import resize

        if self._net is None:
            self._net = load_digits(self.device)
        x = resize(gray, mode="torch-aa", size=RESOLUTION) / 255
        return self._net(x.contiguous(memory_format=torch.channels_last))


@register_detector
class Digits(_DigitsDetector):
    name = "digits"
    width = 64
    label = "features of the digit classifier"
    summary = "64 features of a digit classifier trained on MNIST"
    layer = "penultimate (64), before its ReLU"

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        from fact_metrics.features.images import to_gray

        return self._outputs(to_gray(images))[0]


@register_detector
class DigitsProbs(_DigitsDetector):
    name = "digits_probs"
    width = 10
    gives = ("class probabilities",)
    label = "class probabilities of the digit classifier"
    summary = "class probabilities of the same digit classifier, in the order 0 to 9"
    layer = "softmax (10)"

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        from fact_metrics.features.images import to_gray

        return self._outputs(to_gray(images))[1].softmax(dim=1)


@register_detector
class StackedDigitsProbs(_DigitsDetector):
    name = "stacked_digits_probs"
    width = 30
    gives = ("class probabilities of channels",)
    needs_trait = "stacked digits"
    label = "class probabilities of the digit classifier in each channel"
    summary = "class probabilities of the same digit classifier in each of three channels"
    layer = "softmax (3 x 10)"
    range = "[0, 1], each channel by itself"

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        from fact_metrics.features.images import to_rgb

        channels = to_rgb(images).flatten(0, 1)[:, None].float()
        return self._outputs(channels)[1].softmax(dim=1).view(len(images), self.width)


def digits_card() -> dict:
    """What is known of the shipped weights: sha256, accuracy, recipe, command and date (digits.json)."""
    return json.loads((_weights_folder() / "digits.json").read_text())


def load_digits(device: torch.device | str = "cpu") -> DigitsNet:
    """The trained classifier, batch norms folded. Raises UserError on missing or changed weights."""
    import torch
    from safetensors.torch import load as load_safetensors

    from fact_metrics.features.networks.batchnorm import fold_batchnorm
    from fact_metrics.features.networks.digits import DigitsNet

    path = _weights_folder() / "digits.safetensors"
    content = verified_weights(path, digits_card()["sha256"], origin="`fact-eval train-digits`")
    net = DigitsNet()
    net.load_state_dict(load_safetensors(content))
    net = fold_batchnorm(net).requires_grad_(False)
    return net.to(device, memory_format=torch.channels_last)


def _weights_folder() -> Path:
    return Path(str(resources.files("fact_metrics.features"))) / "weights"
