"""Sources of scored images: a generator, a dataset, noise. Image i does not depend on the batch size.

Random numbers are drawn per image on the CPU (sampling.py) and then moved, so they are equal on every device.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from fact_eval.images.sampling import image_seed
from fact_metrics.base.errors import UserError
from fact_metrics.base.pixels import to_uint8
from fact_metrics.spec import SAMPLING


class ImageSource(Protocol):
    """Indexed uint8 images. `size` is None if the source is unlimited."""

    size: int | None

    def images(self, indices: Sequence[int]) -> Tensor:
        """uint8 [N, C, H, W] of the given indices."""

    def describe(self) -> dict:
        """Everything that determines the images, as JSON: the source's part of a feature cache key."""


class GeneratorSource:
    """Images of a snapshot's EMA generator; implements the GeneratorInputs of metrics.

    A conditional generator needs its training set, `labels_of`: every generated image takes the label of a
    random training image. In StylEx it takes the class part that the classifier C assigns to that image.
    """

    size = None

    def __init__(self, snapshot, *, seed: int, device: str = "cpu", labels_of=None):
        self.G, self.snapshot = snapshot.G, snapshot
        if self.G.c_dim and labels_of is None:
            raise ValueError("a conditional generator needs its training set: pass labels_of")
        self.class_parts = snapshot.class_parts if snapshot.C is not None else None
        self.snapshot_sha256, self.seed, self.device = snapshot.sha256, seed, device
        self.z_dim, self.num_ws = self.G.z_dim, self.G.num_ws
        self.resolution, self.num_channels = self.G.img_resolution, self.G.img_channels
        self._labels_of = labels_of
        # Constant or disabled noise is left to the network; only random noise is drawn here.
        self._noise_shapes = self.G.synthesis.noise_shapes if self.G.synthesis.noise == "random" else []

    def latents(self, indices: Sequence[int], *, stream: str = "image") -> Tensor:
        """z [N, *z_shape] from N(0, 1), one generator per index; every stream is independent."""
        name = "image" if stream == "image" else f"latents {stream}"
        rows = [torch.randn(self.G.z_shape, generator=self._generator(i, name)) for i in indices]
        return torch.stack(rows).to(self.device)

    def labels(self, indices: Sequence[int]) -> Tensor | None:
        """c [N, c_dim]: one-hot class labels, in StylEx class parts; None for an unconditional generator."""
        if not self.G.c_dim:
            return None
        n = len(self._labels_of)
        drawn = [int(torch.randint(n, (), generator=self._generator(i, "labels"))) for i in indices]
        if self.class_parts is not None:
            return self.class_parts(self._labels_of.images(drawn)).to(self.device)
        labels = self._labels_of.labels(drawn)
        if labels.ndim == 1:
            labels = torch.nn.functional.one_hot(labels, self.G.c_dim)
        return labels.float().to(self.device)

    def mapping(self, z: Tensor, c: Tensor | None) -> Tensor:
        """ws [N, num_ws * K, w_dim], not truncated."""
        with torch.inference_mode():
            return self.G.mapping(z, c)

    def noise(self, indices: Sequence[int], *, stream: str = "image") -> list[Tensor]:
        """Noise maps [N, 1, h, w] in layer order, one generator per image; [] unless noise is random."""
        sizes = [h * w for h, w in self._noise_shapes]
        if not sizes:
            return []
        rows = [torch.randn(sum(sizes), generator=self._generator(i, f"noise {stream}")) for i in indices]
        maps = torch.stack(rows).to(self.device).split(sizes, dim=1)
        return [m.reshape(-1, 1, h, w) for m, (h, w) in zip(maps, self._noise_shapes, strict=True)]

    def synthesis(self, ws: Tensor, noise: list[Tensor], *, fused_modconv: bool | None = None) -> Tensor:
        """float32 images [N, C, H, W], about [-1, 1]."""
        with torch.inference_mode():
            return self.G.synthesis(ws, noise_inputs=noise or None, fused_modconv=fused_modconv)

    def images(self, indices: Sequence[int]) -> Tensor:
        """uint8 [N, C, H, W] on the generator's device."""
        ws = self.mapping(self.latents(indices), self.labels(indices))
        return to_uint8(self.synthesis(ws, self.noise(indices)))

    def progress(self, done: int, total: int) -> None:
        """Metrics call this between batches; the evaluation replaces it to show progress."""

    def describe(self) -> dict:
        labels = self._labels_of.sha256 if self.G.c_dim else None
        return {
            "source": "generator",
            "snapshot": self.snapshot_sha256,
            "seed": self.seed,
            "labels_of": labels,
            "sampling": SAMPLING,
        }

    def _generator(self, index: int, stream: str) -> torch.Generator:
        return torch.Generator().manual_seed(image_seed(self.seed, index, stream))


class PicturesSource:
    """Images of a dataset in the order of a seeded permutation: its first n are a random sample."""

    def __init__(self, dataset, *, seed: int = 0):
        self.dataset, self.seed, self.size = dataset, seed, len(dataset)
        self._order = torch.randperm(self.size, generator=torch.Generator().manual_seed(seed))

    def images(self, indices: Sequence[int]) -> Tensor:
        """uint8 [N, C, H, W]. Raises UserError for an index beyond the last image."""
        if indices and max(indices) >= self.size:
            raise UserError(
                f"{self.dataset.name} ({self.dataset.split}) has {self.size} images, not {max(indices) + 1}"
            )
        return self.dataset.images(self._order[torch.as_tensor(indices, dtype=torch.long)])

    def labels(self, indices: Sequence[int]) -> Tensor | None:
        """Labels of the given indices, as the dataset has them; None if it has none."""
        return self.dataset.labels(self._order[torch.as_tensor(indices, dtype=torch.long)])

    def describe(self) -> dict:
        return {"source": "pictures", "dataset": self.dataset.sha256, "seed": self.seed, "version": 1}


class NoiseSource:
    """Uniform random uint8 images of shape (channels, height, width): the floor row of a board."""

    size = None

    def __init__(self, shape: tuple[int, int, int], *, seed: int):
        self.shape, self.seed = tuple(shape), seed

    def images(self, indices: Sequence[int]) -> Tensor:
        """uint8 [N, C, H, W], every value equally likely."""
        rows = [
            torch.randint(
                0,
                256,
                self.shape,
                dtype=torch.uint8,
                generator=torch.Generator().manual_seed(image_seed(self.seed, i)),
            )
            for i in indices
        ]
        return torch.stack(rows)

    def describe(self) -> dict:
        return {"source": "noise", "shape": list(self.shape), "seed": self.seed, "version": 1}
