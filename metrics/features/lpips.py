"""LPIPS (Zhang et al. 2018, arXiv:1801.03924) with AlexNet, VGG16 and SqueezeNet, equal to `lpips` 0.1.4.

The stages are defined here; torchvision's weight files fill them, and the weights per channel (version 0.1)
are read as files out of the `lpips` package (BSD-2), whose code is never imported.
"""

import io
from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn

from fact_metrics.features.detector import package_file, register_detector, verified_weights
from fact_metrics.features.perceptual import PerceptualDetector, PerceptualNet
from fact_metrics.features.published import PublishedDetector, expect_keys
from fact_metrics.features.vgg16 import vgg16_stages

PACKAGE = "lpips 0.1.4"
# ImageNet's means and deviations in [-1, 1], to the three digits that LPIPS was trained with.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


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


class _LPIPS(PerceptualDetector, PublishedDetector):
    layer = "ReLU of all stages, unit length per pixel, x sqrt(LPIPS weight), mean over space"
    resize_mode = "none"
    size = None
    value_range = "[-1, 1]"
    cpu_chunk = 16
    citation = "Zhang et al. 2018, arXiv:1801.03924"
    unused: ClassVar[tuple[str, ...]] = ("classifier.",)
    channel_weights: ClassVar[str]
    channel_weights_sha256: ClassVar[str]

    def settings(self) -> dict:
        return {**super().settings(), "channel_weights_sha256": self.channel_weights_sha256}

    def build(self) -> nn.Module:
        return nn.ModuleList(self.stages())

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        """Own names open with the number of the stage, torchvision's with `features`."""
        sources = {f"features.{own.split('.', 1)[1]}": own for own in net.state_dict()}
        expect_keys(state, sources, self.network, unused=self.unused)
        return {own: state[source] for source, own in sources.items()}

    def load(self) -> PerceptualNet:
        content = verified_weights(
            package_file("lpips", f"weights/v0.1/{self.channel_weights}"),
            self.channel_weights_sha256,
            origin=f"`pip install {PACKAGE.replace(' ', '==')}`",
        )
        lins = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        net = PerceptualNet(list(super().load()))
        net.shift.copy_(torch.tensor(SHIFT).view(1, 3, 1, 1))
        net.scale.copy_(torch.tensor(SCALE).view(1, 3, 1, 1))
        for index in range(len(net.stages)):
            getattr(net, f"channel_weights{index}").copy_(lins[f"lin{index}.model.1.weight"])
        return net


@register_detector
class LPIPSAlex(_LPIPS):
    name = "lpips_alex"
    network = f"AlexNet, torchvision's, with the channel weights of {PACKAGE}"
    width = 64 + 192 + 384 + 256 + 256
    weights = ("alexnet_torchvision",)
    summary = "LPIPS with AlexNet, the package's default for comparing pictures"
    stages = staticmethod(alexnet_stages)
    channel_weights = "alex.pth"
    channel_weights_sha256 = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"


@register_detector
class LPIPSVGG(_LPIPS):
    name = "lpips_vgg"
    network = f"VGG16, torchvision's, with the channel weights of {PACKAGE}"
    width = 64 + 128 + 256 + 512 + 512
    weights = ("vgg16_torchvision",)
    summary = "LPIPS with VGG16, the distance of StyleGAN's perceptual path length"
    stages = staticmethod(vgg16_stages)
    channel_weights = "vgg.pth"
    channel_weights_sha256 = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"


@register_detector
class LPIPSSqueeze(_LPIPS):
    name = "lpips_squeeze"
    network = f"SqueezeNet 1.1, torchvision's, with the channel weights of {PACKAGE}"
    width = 64 + 128 + 256 + 384 + 384 + 512 + 512
    weights = ("squeezenet11_torchvision",)
    summary = "LPIPS with SqueezeNet 1.1"
    stages = staticmethod(squeezenet_stages)
    channel_weights = "squeeze.pth"
    channel_weights_sha256 = "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"


def _stage(first: int, *layers: nn.Module) -> nn.Sequential:
    """Layers under torchvision's numbers."""
    return nn.Sequential(OrderedDict((str(first + i), layer) for i, layer in enumerate(layers)))


def _relu() -> nn.ReLU:
    return nn.ReLU(inplace=True)
