"""Shift-tolerant LPIPS: perceptual distance and features from AlexNet or VGG16 with blurred down-sampling.

Ghildyal & Liu 2022, arXiv:2207.13686. The networks are defined here; their trained weights are read as files
out of the `stlpips-pytorch` package (BSD-2), whose own code is never imported. Distances equal that package's
LPIPS.
"""

import io
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fact_metrics.features.detector import package_file, register_detector, verified_weights
from fact_metrics.features.perceptual import PerceptualDetector, PerceptualNet

PACKAGE = "stlpips-pytorch 0.0.2"


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

    @property
    def net(self) -> PerceptualNet:
        if self._net is None:
            with torch.inference_mode(False):  # weights made under it could not be differentiated through
                self._net = self._load()
        return self._net

    def _load(self) -> PerceptualNet:
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
    summary = "shift-tolerant AlexNet LPIPS; features whose squared distance is a lower bound of it"
    stages = staticmethod(alexnet_stages)
    weights_file = "alex_shift_tolerant.pth"
    weights_sha256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"


@register_detector
class VGGLPIPS(_ShiftTolerantLPIPS):
    name = "stlpips_vgg"
    width = 64 + 128 + 256 + 512 + 512
    summary = "shift-tolerant VGG16 LPIPS; features whose squared distance is a lower bound of it"
    stages = staticmethod(vgg16_stages)
    weights_file = "vgg_shift_tolerant.pth"
    weights_sha256 = "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250"


def _from_package(state: dict[str, torch.Tensor], net: PerceptualNet) -> dict[str, torch.Tensor]:
    """The network's tensors out of a stlpips-pytorch weight file, which numbers its layers in order."""
    own = {"shift": state["scaling_layer.shift"], "scale": state["scaling_layer.scale"]}
    own |= {f"channel_weights{i}": state[f"lin{i}.model.1.weight"] for i in range(len(net.stages))}
    numbered = [name.rsplit(".", 2) for name in state if name.startswith("net.") and name.endswith(".bias")]
    trained = [f"{prefix}.{index}" for prefix, index, _ in sorted(numbered, key=lambda part: int(part[1]))]
    convs = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    for name, source in zip(convs, trained, strict=True):
        own |= {f"{name}.{kind}": state[f"{source}.{kind}"] for kind in ("weight", "bias")}
    return own
