"""What all detectors with downloadable weights share: the network is built at first use from a weight file.

Files, hashes and the error without them: metrics/features/weight_store.py. Until then `describe()` quotes the
published hash, so that a protocol is the same on a machine that cannot compute it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

from fact_metrics.features.detector import Detector
from fact_metrics.features.weight_store import fingerprint_sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

# ImageNet's channel means and deviations, as torchvision's networks were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PublishedDetector(Detector):
    """A detector of one network and one weight file, `weights[0]`, in float32 on images of one size.

    A subclass states the fields below and implements `build`, `convert` and `embed`.
    """

    network: ClassVar[str]
    layer: ClassVar[str]
    resize_mode: ClassVar[str]
    size: ClassVar[int | None]
    value_range: ClassVar[str]
    _net: nn.Module | None = None
    _net_sha256: str | None = None

    def settings(self) -> dict:
        return {
            "network": self.network,
            "layer": self.layer,
            "resize": self.resize_mode,
            "size": self.size,
            "range": self.value_range,
            "channels": "RGB, gray repeated",
            "dtype": "float32",
            "weights_sha256": fingerprint_sha256(self.weights[0]),
        }

    def build(self) -> nn.Module:
        """The network, all of whose tensors are in its state dict and in the file."""
        raise NotImplementedError

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        """The network's own state dict out of the file's. Raises ValueError where it is another network's."""
        raise NotImplementedError

    def load(self) -> nn.Module:
        """The network with its weights. Raises MissingWeights; UserError on a damaged or foreign file."""
        import torch

        from fact_metrics.features.weight_files import load_weights

        with torch.device("meta"):  # no time for initial values that are overwritten at once
            net = self.build()
        net = net.to_empty(device="cpu")
        return load_weights(net, self.weights[0], convert=lambda state: self.convert(state, net))

    @property
    def net(self) -> nn.Module:
        """The network in inference; loaded again where another weight file has been put in place."""
        import torch

        sha256 = fingerprint_sha256(self.weights[0])
        if self._net is None or self._net_sha256 != sha256:
            with torch.inference_mode(False):  # weights made under it could not be differentiated through
                net = self.load().eval().requires_grad_(False)
                self._net = net.to(self.device, memory_format=torch.channels_last)
            self._net_sha256 = sha256
        return self._net


def expect_keys(
    found: Collection[str], expected: Collection[str], network: str, *, unused: Collection[str] = ()
) -> None:
    """Raise ValueError naming the first tensor a state dict lacks, or has too many, for that network.

    `unused` are tensors the network's file holds that are not read; one that ends in a dot is a prefix.
    """
    prefixes = tuple(name for name in unused if name.endswith("."))
    missing = [key for key in expected if key not in found]
    if missing:
        raise ValueError(f"it has no {missing[0]}; expected is {network}")
    unexpected = [key for key in found if not (key in expected or key in unused or key.startswith(prefixes))]
    if unexpected:
        raise ValueError(f"it also has {unexpected[0]}; expected is {network}")
