"""The encoder of a StylEx run: reconstructions of held-out images, and w of encoder and mapping network."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fact_eval.images.sources import GeneratorSource, PicturesSource
from fact_metrics.base.errors import UserError
from fact_metrics.base.pixels import to_uint8
from fact_metrics.inputs import EncodedPairs
from fact_metrics.spec import SAMPLING
from fact_train.data import Dataset


class ReconstructionSource:
    """G([E(x), C(x)]) of a dataset's images in the order of a seeded permutation, not truncated.

    A generator trained with random noise gets one noise generator per image, in a stream of its own.
    """

    def __init__(self, generator: GeneratorSource, dataset: Dataset):
        self.generator = generator
        self.snapshot = generator.snapshot
        self.pictures = PicturesSource(dataset, seed=generator.seed)
        self.size = self.pictures.size

    def images(self, indices: Sequence[int]) -> Tensor:
        """uint8 [N, C, H, W] on the generator's device."""
        ws = self.snapshot.reconstruction_ws(self.pictures.images(indices))
        noise = self.generator.noise(indices, stream="reconstruction")
        return to_uint8(self.generator.synthesis(ws, noise))

    def describe(self) -> dict:
        return {
            "source": "reconstructions",
            "snapshot": self.generator.snapshot_sha256,
            "pictures": self.pictures.describe(),
            "sampling": SAMPLING,
        }


class SnapshotEncoder:
    """Encoder and classifier of a StylEx snapshot on held-out images; implements EncoderInputs."""

    def __init__(self, generator: GeneratorSource, held_out: Dataset, *, batch: int):
        self.generator, self.batch = generator, batch
        self.source = ReconstructionSource(generator, held_out)
        self._pairs: EncodedPairs | None = None

    def pairs(self, count: int) -> EncodedPairs:
        """The first `count` pairs, or all if there are fewer; cached. UserError below 2 pairs."""
        count = min(count, self.source.size)
        if count < 2:
            raise UserError(f"{self.source.pictures.dataset.name} has {count} held-out images; 2 are needed")
        if self._pairs is None or len(self._pairs.originals) < count:
            self._pairs = self._encode(count)
        pairs = self._pairs
        return EncodedPairs(**{name: getattr(pairs, name)[:count] for name in pairs.__dataclass_fields__})

    def mapping_w(self, count: int) -> Tensor:
        """w [N, w_dim] of the mapping network, without the class part."""
        parts = []
        for indices in _batches(count, self.batch):
            ws = self.generator.mapping(self.generator.latents(indices), self.generator.labels(indices))
            parts.append(ws[:, 0, : self.generator.G.w_dim].cpu())
        return torch.cat(parts)

    def _encode(self, count: int) -> EncodedPairs:
        snapshot, columns = self.source.snapshot, [[] for _ in range(5)]
        for indices in _batches(count, self.batch):
            originals = self.source.pictures.images(indices)
            reconstructions = self.source.images(indices)
            row = (
                originals,
                reconstructions,
                snapshot.encode(originals),
                snapshot.class_logits(originals),
                snapshot.class_logits(reconstructions),
            )
            for column, value in zip(columns, row, strict=True):
                column.append(value.cpu())
        return EncodedPairs(*(torch.cat(column) for column in columns))


def _batches(count: int, batch: int) -> list[range]:
    return [range(start, min(start + batch, count)) for start in range(0, count, batch)]
