"""Shift-tolerant LPIPS: perceptual distance and features from AlexNet or VGG16 with blurred down-sampling.

Ghildyal & Liu 2022, arXiv:2207.13686. The trained weights are read as files out of the `stlpips-pytorch`
package (BSD-2), whose own code is never imported. Distances equal that package's LPIPS.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from fact_metrics.features.detector import package_file, register_detector, verified_weights
from fact_metrics.features.perceptual import PerceptualDetector

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fact_metrics.features.networks.perceptual import PerceptualNet

PACKAGE = "stlpips-pytorch 0.0.2"


class _ShiftTolerantLPIPS(PerceptualDetector):
    citation = "Ghildyal & Liu 2022, arXiv:2207.13686; LPIPS: Zhang et al. 2018, arXiv:1801.03924"
    weights_file: ClassVar[str]
    weights_sha256: ClassVar[str]
    _net: PerceptualNet | None = None

    def settings(self) -> dict:
        return {
            "network": f"{self.name}, {PACKAGE}",
            "layer": "relu of 5 stages, unit length per pixel, x sqrt(LPIPS weight), mean over space",
            "resize": "none",
            "range": "[-1, 1]",
            "channels": "RGB, gray repeated",
            "dtype": "float32",
            "weights_sha256": self.weights_sha256,
        }

    @staticmethod
    @abstractmethod
    def stages() -> list[nn.Sequential]:
        """The network, cut where LPIPS reads it."""

    @property
    def net(self) -> PerceptualNet:
        import torch

        if self._net is None:
            with torch.inference_mode(False):  # weights made under it could not be differentiated through
                self._net = self._load()
        return self._net

    def _load(self) -> PerceptualNet:
        import torch

        from fact_metrics.features.networks.perceptual import PerceptualNet

        content = verified_weights(
            package_file("stlpips_pytorch", f"weights/vST0.0/{self.weights_file}"),
            self.weights_sha256,
            origin=f"`pip install {PACKAGE.replace(' ', '==')}`",
        )
        net = PerceptualNet(self.stages())
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        net.load_state_dict(_from_package(state, net))
        net = net.eval().requires_grad_(False)
        return net.to(self.device, memory_format=torch.channels_last)


@register_detector
class AlexLPIPS(_ShiftTolerantLPIPS):
    name = "stlpips_alex"
    width = 64 + 192 + 384 + 256 + 256
    label = "shift-tolerant AlexNet LPIPS"
    summary = "shift-tolerant AlexNet LPIPS; features whose squared distance is a lower bound of it"
    weights_file = "alex_shift_tolerant.pth"
    weights_sha256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"

    @staticmethod
    def stages() -> list[nn.Sequential]:
        from fact_metrics.features.networks.stlpips import alexnet_stages

        return alexnet_stages()


@register_detector
class VGGLPIPS(_ShiftTolerantLPIPS):
    name = "stlpips_vgg"
    width = 64 + 128 + 256 + 512 + 512
    label = "shift-tolerant VGG16 LPIPS"
    summary = "shift-tolerant VGG16 LPIPS; features whose squared distance is a lower bound of it"
    weights_file = "vgg_shift_tolerant.pth"
    weights_sha256 = "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250"

    @staticmethod
    def stages() -> list[nn.Sequential]:
        from fact_metrics.features.networks.stlpips import vgg16_stages

        return vgg16_stages()


def _from_package(state: dict[str, torch.Tensor], net: PerceptualNet) -> dict[str, torch.Tensor]:
    """The network's tensors out of a stlpips-pytorch weight file, which numbers its layers in order."""
    from torch import nn

    own = {"shift": state["scaling_layer.shift"], "scale": state["scaling_layer.scale"]}
    own |= {f"channel_weights{i}": state[f"lin{i}.model.1.weight"] for i in range(len(net.stages))}
    numbered = [name.rsplit(".", 2) for name in state if name.startswith("net.") and name.endswith(".bias")]
    trained = [f"{prefix}.{index}" for prefix, index, _ in sorted(numbered, key=lambda part: int(part[1]))]
    convs = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    for name, source in zip(convs, trained, strict=True):
        own |= {f"{name}.{kind}": state[f"{source}.{kind}"] for kind in ("weight", "bias")}
    return own
