"""AttFind's effects: how every coordinate of StyleSpace, moved either way, changes the classifier's logits.

Lang et al. 2021, arXiv:2104.13369, sec. 3.2. The style s of one coordinate becomes s + shift (target - s).
The target is the smallest (direction -1) or largest (direction +1) style among the images of the search. Only
the layers from the edited one on are computed, in batches over coordinates and directions.

Effects [2, J, K] of an image are one row of the chunked store, so a search that was killed goes on where it
stopped, and never more than one chunk and one batch of images are in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fact_eval.explain.subject import Images, NamedClassifier, Subject
from fact_eval.features.code_key import PACKAGES, features_code
from fact_eval.features.store import FeatureCache
from fact_metrics.base.canonical import canonical_sha256
from fact_metrics.base.fingerprints import modules_sha256
from fact_metrics.base.progress import Progress
from fact_metrics.base.thread_pool import ThreadPool
from fact_train.networks.style_space import StyleLayer, StyleSpace

DIRECTIONS = (-1, 1)
SHIFT = 1.0
CHUNK = 8  # images: a small loss after a kill
CHUNK_BYTES = 32 << 20
MODULES = ("fact_eval.explain.effects", "fact_eval.explain.subject")


class EffectStore(FeatureCache):
    """The chunked store of features with smaller chunks, for long rows."""

    def __init__(self, row_bytes: int, root: Path | None = None, *, report=lambda line: None) -> None:
        super().__init__(root, report=report)
        self.chunk = max(1, min(CHUNK, CHUNK_BYTES // row_bytes))


@dataclass(frozen=True)
class Search:
    """What was searched: images, coordinates [J] of StyleSpace, and the styles [2, J] that edits move to."""

    images: Images
    coordinates: Tensor
    targets: Tensor
    shift: float = SHIFT

    @classmethod
    def over(cls, images: Images, coordinates: Tensor, *, shift: float = SHIFT) -> "Search":
        """With the smallest and largest styles of the images as targets."""
        own = images.styles[:, coordinates]
        return cls(images, coordinates, torch.stack([own.amin(dim=0), own.amax(dim=0)]), shift)

    def moved(self, styles: Tensor) -> Tensor:
        """Styles [N, 2, J] that the coordinates of images with styles [N, S] get."""
        own = styles[:, None, self.coordinates]
        return own + self.shift * (self.targets - own)


class Effects:
    """Effects of a search on the logits of one classifier, read from the store, computed where missing."""

    def __init__(
        self,
        subject: Subject,
        classifier: NamedClassifier,
        search: Search,
        *,
        batch: int = 64,
        root: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._subject, self._classifier, self.search = subject, classifier, search
        self._batch, self._progress = batch, progress or Progress(quiet=True)
        self.classes = len(classifier.classes)
        self.width = 2 * len(search.coordinates) * self.classes
        self._store = EffectStore(4 * self.width, root, report=self._progress.note)
        self._key = self._describe()

    def __len__(self) -> int:
        return len(self.search.images)

    @torch.inference_mode()
    def compute(self, numbers: Sequence[int] | None = None) -> None:
        """Compute and store the chunks that are missing, of all or of these numbers."""
        wanted = range(self.chunks) if numbers is None else numbers
        missing = [number for number in wanted if not self._read(number)]
        total = sum(len(self._rows(number)) for number in missing)
        if not missing:
            return
        done = 0
        pool = ThreadPool.of(torch.device(self._subject.generator.device))
        with pool, self._progress.stage("AttFind effects", total) as stage:
            for number in missing:
                rows = []
                for row in self._rows(number):
                    rows.append(self._of_image(row, pool).flatten())
                    done += 1
                    stage.update(done)
                self._store.store(self._key, number, torch.stack(rows))

    def on_class(self, target: int) -> Tensor:
        """Effects [N, 2, J] on the logit of a class. ValueError unless all chunks are there."""
        return torch.cat([chunk[..., target] for chunk in self._all()])

    def entries_above(self, threshold: float) -> Tensor:
        """How many entries of [2, J, K] of every image exceed a threshold in size, [N]."""
        return torch.cat([(chunk.abs() > threshold).flatten(1).sum(dim=1) for chunk in self._all()])

    @property
    def chunks(self) -> int:
        """How many chunks of images there are."""
        return -(-len(self) // self._store.chunk)

    def _all(self) -> Iterator[Tensor]:
        for number in range(self.chunks):
            found = self._read(number)
            if not found:
                raise ValueError(f"chunk {number} of the effects is missing: compute() first")
            yield found[number].unflatten(1, (2, -1, self.classes))

    def _read(self, number: int) -> dict[int, Tensor]:
        others = set(range(self.chunks)) - {number}
        return self._store.load(self._key, len(self), skip=others, width=self.width)

    def _rows(self, number: int) -> range:
        start = number * self._store.chunk
        return range(start, min(start + self._store.chunk, len(self)))

    def _of_image(self, row: int, pool: ThreadPool) -> Tensor:
        """Effects [2, J, K] of one image of the search."""
        images = self.search.images
        noise = self._subject.noise(images.indices[row : row + 1])
        return measure_effects(
            self._subject.space,
            self._classifier.logits,
            images.styles[row],
            self.search.moved(images.styles[row : row + 1])[0],
            self.search.coordinates,
            noise=noise,
            batch=self._batch,
            pool=pool,
        ).cpu()

    def _describe(self) -> dict:
        """Everything that determines the effects: the key of the store."""
        search = self.search
        detector = {
            "detector": "attfind",
            "classifier": self._classifier.sha256,
            "shift": search.shift,
            "images": search.images.indices,
            "coordinates": canonical_sha256(search.coordinates.tolist()),
            "targets": canonical_sha256(search.targets.tolist()),
            "code": modules_sha256(MODULES, PACKAGES),
        }
        device = torch.device(self._subject.generator.device).type
        key = {"images": self._subject.describe(), "detector": detector, "code": features_code()}
        return {**key, "device": device}


def measure_effects(
    space: StyleSpace,
    logits: Callable[[Tensor], Tensor],
    styles: Tensor,
    moved: Tensor,
    coordinates: Tensor,
    *,
    noise: Sequence[Tensor] | None = None,
    batch: int = 64,
    pool: ThreadPool | None = None,
) -> Tensor:
    """Change of logits [2, J, K] of one image with styles [S], coordinate j alone at moved[:, j] [2, J].

    Equal to rendering every edit by itself, up to rounding. The workers of `pool` compute a batch of edits
    each at a time; without it, one batch after the other.
    """
    edits = space.edits(styles, noise)
    before = logits(edits.image)
    parts: list[tuple[StyleLayer, list[tuple[int, int]]]] = []  # a layer, and pairs of direction and place
    for layer in space.layers:
        chosen = ((coordinates >= layer.start) & (coordinates < layer.stop)).nonzero().flatten().tolist()
        pairs = [(direction, place) for direction in range(2) for place in chosen]
        parts += [(layer, pairs[start : start + batch]) for start in range(0, len(pairs), batch)]
        if chosen:
            edits.prepare(layer)

    def measure(part: tuple[StyleLayer, list[tuple[int, int]]]) -> Tensor:
        layer, pairs = part
        directions, places = map(list, zip(*pairs, strict=True))
        edited = styles[layer.start : layer.stop].repeat(len(pairs), 1)
        edited[torch.arange(len(pairs)), coordinates[places] - layer.start] = moved[directions, places]
        return logits(edits.render(layer, edited)) - before

    effects = before.new_zeros(2, len(coordinates), before.shape[1])
    for (_, pairs), changes in zip(
        parts, (pool or ThreadPool(1, threads=1)).map(measure, parts), strict=True
    ):
        directions, places = map(list, zip(*pairs, strict=True))
        effects[directions, places] = changes
    return effects


def changed_styles(
    styles: Tensor, search: Search, attributes: Sequence[tuple[int, int]], *, shift: float | None = None
) -> Tensor:
    """Styles [N, S] with all given (direction number, place among the coordinates) moved together."""
    edited = styles.clone()
    amount = search.shift if shift is None else shift
    for direction, place in attributes:
        j = int(search.coordinates[place])
        edited[:, j] = styles[:, j] + amount * (search.targets[direction, place] - styles[:, j])
    return edited
