"""The encoder's side of a StylEx run: reconstructions of held-out images, and w of encoder and mapping."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fact_eval.images.sampling import SAMPLING
from fact_eval.images.sources import GeneratorSource, PicturesSource, to_uint8
from fact_metrics.base.errors import UserError
from fact_metrics.registry import EncodedPairs
from fact_train.data import Dataset


class ReconstructionSource:
    """G([E(x), C(x)]) of a dataset's images in the order of a seeded permutation; nothing is truncated.

    Noise is drawn per image where the generator was trained with it, from a stream of its own.
    """

    def __init__(self, generator: GeneratorSource, dataset: Dataset):
        self.generator = generator
        self.snapshot = generator.snapshot
        self.pictures = PicturesSource(dataset, seed=generator.seed)
        self.size = self.pictures.size

    def images(self, indices: Sequence[int]) -> Tensor:
        """uint8 [N, C, R, R] on the generator's device."""
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


class Encoder:
    """`fact_metrics.registry.EncoderInputs` of a StylEx snapshot and a held-out dataset."""

    def __init__(self, generator: GeneratorSource, held_out: Dataset, *, batch: int):
        self.generator, self.batch = generator, batch
        self.source = ReconstructionSource(generator, held_out)
        self._pairs: EncodedPairs | None = None

    def pairs(self, count: int) -> EncodedPairs:
        """The first `count` pairs, or all there are; made once and kept. UserError under 2 of them."""
        count = min(count, self.source.size)
        if count < 2:
            raise UserError(f"{self.source.pictures.dataset.name} has {count} held-out images; 2 are needed")
        if self._pairs is None or len(self._pairs.originals) < count:
            self._pairs = self._encode(count)
        found = self._pairs
        return EncodedPairs(**{name: getattr(found, name)[:count] for name in found.__dataclass_fields__})

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
            made = self.source.images(indices)
            row = (
                originals,
                made,
                snapshot.encode(originals),
                snapshot.class_logits(originals),
                snapshot.class_logits(made),
            )
            for column, value in zip(columns, row, strict=True):
                column.append(value.cpu())
        return EncodedPairs(*(torch.cat(column) for column in columns))


def _batches(count: int, batch: int) -> list[range]:
    return [range(start, min(start + batch, count)) for start in range(0, count, batch)]
