"""Detectors on Inception-v3: the protocols of torch-fidelity, sFID, clean-fid, NVIDIA and pytorch-fid.

One network, three weight files of one content. What a published FID depends on beside it is how images come
to 299 pixels (clean-fid: Parmar et al. 2022, arXiv:2104.11222) and to which range.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fact_metrics.features.detector import get_detector, register_detector
from fact_metrics.features.published import PublishedDetector

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SIZE = 299
POOLED = 2048
CLASSES = 1008
SPATIAL = 7 * 17 * 17
# What `outputs` remembers: at most so many parts of a batch, and so many bytes of their images.
REMEMBERED_PARTS = 64
REMEMBERED_BYTES = 128 * 2**20


class _Inception(PublishedDetector):
    network = "Inception-v3 of 2015-12-05 (TensorFlow's, 1,008 classes)"
    layer = "pool3 (2048)"
    width = POOLED
    label = "Inception-v3 features"
    resize_mode = "tf1"
    size = SIZE
    value_range = "(x - 128) / 128"
    weights = ("inception_fidelity",)
    cpu_chunk = 16  # from 16 images on oneDNN computes the 1x1 convolutions too
    citation = "Heusel et al. 2017, arXiv:1706.08500; network: Szegedy et al. 2016, arXiv:1512.00567"

    def build(self) -> nn.Module:
        from fact_metrics.features.networks.inception import Inception

        return Inception()

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        from fact_metrics.features.networks.inception import from_fidelity

        return from_fidelity(state)

    def embed(self, images: Tensor) -> Tensor:
        from fact_metrics.features.images import to_rgb

        return self.net(to_rgb(self.prepare(images)))[0]

    def prepare(self, images: Tensor) -> Tensor:
        """float32 [N, C, 299, 299] in the network's range, of uint8 images [N, C, H, W]."""
        from fact_metrics.features.resize import resize

        return resize(images.float(), mode=self.resize_mode, size=SIZE).sub_(128).div_(128)


@register_detector
class InceptionPool3(_Inception):
    name = "inception_pool3"
    summary = "pooled features of Inception-v3 as torch-fidelity reads them: FID, KID, precision of ADM"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.forget()

    def forget(self) -> None:
        """Drop what is remembered of recent images."""
        self._recent: deque[tuple[nn.Module, Tensor, tuple[Tensor, Tensor]]] = deque(maxlen=REMEMBERED_PARTS)

    def embed(self, images: Tensor) -> Tensor:
        return self.outputs(images)[0]

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled and spatial features; what was computed last is remembered.

        FID, IS and sFID of one batch ask three detectors in turn; so the network runs once.
        """
        import torch

        from fact_metrics.features.images import to_rgb

        net = self.net
        for known_net, known, outputs in self._recent:
            if known_net is net and known.shape == images.shape and torch.equal(known, images):
                return outputs
        outputs = net(to_rgb(self.prepare(images)))
        self._recent.append((net, images.clone(), outputs))
        while sum(known.numel() for _, known, _ in self._recent) > REMEMBERED_BYTES:
            self._recent.popleft()
        return outputs


class _OfInceptionPool3(_Inception):
    """Another output of the network that `inception_pool3` runs."""

    @property
    def _pool3(self) -> InceptionPool3:
        return get_detector(InceptionPool3.name, self.device)


@register_detector
class InceptionLogits(_OfInceptionPool3):
    name = "inception_logits"
    layer = "logits without the last layer's bias (1008)"
    width = CLASSES
    gives = ("class logits",)
    label = "class logits of Inception-v3"
    summary = "class logits of Inception-v3 without bias, torch-fidelity's logits_unbiased: inception score"
    citation = "Salimans et al. 2016, arXiv:1606.03498; network: Szegedy et al. 2016, arXiv:1512.00567"

    def embed(self, images: Tensor) -> Tensor:
        pooled, _ = self._pool3.outputs(images)
        return pooled @ self._pool3.net.fc.weight.T


@register_detector
class InceptionSpatial(_OfInceptionPool3):
    name = "inception_spatial"
    layer = "mixed_6/conv behind its ReLU, first 7 of 192 channels, 17 x 17 (2023)"
    width = SPATIAL
    gives = ("spatial features",)
    label = "spatial Inception-v3 features"
    summary = "spatial features of Inception-v3: sFID"
    citation = "Nash et al. 2021, arXiv:2103.03841; Dhariwal & Nichol 2021, arXiv:2105.05233"

    def embed(self, images: Tensor) -> Tensor:
        return self._pool3.outputs(images)[1]


class _InceptionTorchScript(_Inception):
    """The tensors of NVIDIA's TorchScript in our network; its code is not run."""

    weights = ("inception_torchscript",)

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        from fact_metrics.features.networks.inception import from_torchscript

        return from_torchscript(state)


@register_detector
class CleanInception(_InceptionTorchScript):
    name = "clean_inception"
    label = "Inception-v3 features behind an antialiased resize"
    resize_mode = "clean"
    summary = "pooled features of Inception-v3 behind an antialiased resize: clean-fid's clean-FID"
    citation = "Parmar et al. 2022, arXiv:2104.11222; network: Szegedy et al. 2016, arXiv:1512.00567"


@register_detector
class InceptionNvidia(_InceptionTorchScript):
    """The TorchScript resizes inside, which is `tf1-grid`."""

    name = "inception_nvidia"
    label = "Inception-v3 features from NVIDIA's weight file"
    resize_mode = "tf1-grid"
    summary = "pooled features of Inception-v3 as StyleGAN2-ADA, StyleGAN3 and clean-fid legacy_tensorflow"


@register_detector
class InceptionPytorchFid(_Inception):
    name = "inception_pytorch_fid"
    label = "Inception-v3 features with pytorch-fid's resize"
    resize_mode = "torch"
    value_range = "2 x / 255 - 1"
    weights = ("inception_pytorch_fid",)
    summary = "pooled features of Inception-v3 as pytorch-fid and clean-fid legacy_pytorch"

    def prepare(self, images: Tensor) -> Tensor:
        from fact_metrics.features.resize import resize

        return resize(images.float() / 255, mode=self.resize_mode, size=SIZE).mul_(2).sub_(1)
