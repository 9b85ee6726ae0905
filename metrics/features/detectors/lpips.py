"""LPIPS (Zhang et al. 2018, arXiv:1801.03924) with AlexNet, VGG16 and SqueezeNet, equal to `lpips` 0.1.4.

torchvision's weight files fill the networks, and the weights per channel (version 0.1) are read as files out
of the `lpips` package (BSD-2), whose code is never imported.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from fact_metrics.features.detector import package_file, register_detector, verified_weights
from fact_metrics.features.perceptual import PerceptualDetector
from fact_metrics.features.published import PublishedDetector, expect_keys

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fact_metrics.features.networks.perceptual import PerceptualNet

PACKAGE = "lpips 0.1.4"
# ImageNet's means and deviations in [-1, 1], to the three digits that LPIPS was trained with.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


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
        from torch import nn

        return nn.ModuleList(self.stages())

    @staticmethod
    @abstractmethod
    def stages() -> list[nn.Sequential]:
        """The network, cut where LPIPS reads it."""

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        """Own names open with the number of the stage, torchvision's with `features`."""
        sources = {f"features.{own.split('.', 1)[1]}": own for own in net.state_dict()}
        expect_keys(state, sources, self.network, unused=self.unused)
        return {own: state[source] for source, own in sources.items()}

    def load(self) -> PerceptualNet:
        import torch

        from fact_metrics.features.networks.perceptual import PerceptualNet

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
    label = "AlexNet LPIPS"
    weights = ("alexnet_torchvision",)
    summary = "LPIPS with AlexNet, the package's default for comparing pictures"
    channel_weights = "alex.pth"
    channel_weights_sha256 = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"

    @staticmethod
    def stages() -> list[nn.Sequential]:
        from fact_metrics.features.networks.lpips import alexnet_stages

        return alexnet_stages()


@register_detector
class LPIPSVGG(_LPIPS):
    name = "lpips_vgg"
    network = f"VGG16, torchvision's, with the channel weights of {PACKAGE}"
    width = 64 + 128 + 256 + 512 + 512
    label = "VGG16 LPIPS"
    weights = ("vgg16_torchvision",)
    summary = "LPIPS with VGG16, the distance of StyleGAN's perceptual path length"
    channel_weights = "vgg.pth"
    channel_weights_sha256 = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"

    @staticmethod
    def stages() -> list[nn.Sequential]:
        from fact_metrics.features.networks.vgg16 import vgg16_stages

        return vgg16_stages()


@register_detector
class LPIPSSqueeze(_LPIPS):
    name = "lpips_squeeze"
    network = f"SqueezeNet 1.1, torchvision's, with the channel weights of {PACKAGE}"
    width = 64 + 128 + 256 + 384 + 384 + 512 + 512
    label = "SqueezeNet LPIPS"
    weights = ("squeezenet11_torchvision",)
    summary = "LPIPS with SqueezeNet 1.1"
    channel_weights = "squeeze.pth"
    channel_weights_sha256 = "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"

    @staticmethod
    def stages() -> list[nn.Sequential]:
        from fact_metrics.features.networks.lpips import squeezenet_stages

        return squeezenet_stages()
