"""Features of VGG16's second linear layer.

Precision and recall of Kynkäänniemi et al. 2019 are defined on fc2; features equal torch-fidelity's on the
same file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.features.detector import register_detector
from fact_metrics.features.published import IMAGENET_MEAN, IMAGENET_STD, PublishedDetector, expect_keys

if TYPE_CHECKING:
    from torch import Tensor, nn

SIZE = 224
CLASSIFIER = ("classifier.6.weight", "classifier.6.bias")


@register_detector
class VGG16FC2(PublishedDetector):
    name = "vgg16_fc2"
    network = "VGG16, torchvision's, ImageNet"
    layer = "fc2 behind its ReLU (4096)"
    width = 4096
    label = "VGG16 fc2 features"
    resize_mode = "tf1"
    size = SIZE
    value_range = f"[0, 1], then mean {list(IMAGENET_MEAN)} and std {list(IMAGENET_STD)}"
    weights = ("vgg16_torchvision",)
    cpu_chunk = 16
    summary = "second fully connected layer of VGG16 as torch-fidelity reads it: precision and recall"
    citation = "Simonyan & Zisserman 2015, arXiv:1409.1556; Kynkäänniemi et al. 2019, arXiv:1904.06991"

    def build(self) -> nn.Module:
        from fact_metrics.features.networks.vgg16 import VGG16

        return VGG16()

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        own = net.state_dict().keys()
        expect_keys(state, own, self.network, unused=CLASSIFIER)
        return {key: state[key] for key in own}

    def embed(self, images: Tensor) -> Tensor:
        from fact_metrics.features.images import normalise, to_rgb
        from fact_metrics.features.resize import resize

        x = to_rgb(resize(images.float(), mode=self.resize_mode, size=SIZE))
        return self.net(normalise(x, IMAGENET_MEAN, IMAGENET_STD))
