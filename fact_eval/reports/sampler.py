"""Images of a snapshot by image seed: single images, ways between them, style mixing (Karras et al. 2019).

Image seed s * 10,000,000 + i is image i of evaluation seed s: without truncation, the image that is scored.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fact_eval.images.datasets import open_images
from fact_eval.images.reals import RealImages
from fact_eval.images.sampling import MAX_SEED, SEED_STRIDE, parse_numbers
from fact_eval.images.sources import GeneratorSource
from fact_metrics.base.errors import UsageError
from fact_metrics.base.image_size import ImageSize
from fact_metrics.base.pixels import to_uint8
from fact_metrics.engines.path_length import slerp
from fact_train.classifiers.classifier import classify
from fact_train.data import Dataset
from fact_train.imports import load_checkpoint
from fact_train.run_folder import list_snapshots
from fact_train.snapshot import Snapshot

LARGEST = (MAX_SEED + 1) * SEED_STRIDE - 1


def parse_image_seeds(text: str, flag: str) -> tuple[int, ...]:
    """Image seeds of a list with ranges, such as `0-99`. UsageError for other text and seeds out of range."""

    def check(seed: int) -> None:
        if seed > LARGEST:
            raise UsageError(f"{flag} {seed}: an image seed is at most {LARGEST}")

    return parse_numbers(text, flag, check=check)


def parse_layers(text: str | None, num_ws: int) -> tuple[int, ...]:
    """Layers of a style-mixing matrix; None is the first half. UsageError for a layer that does not exist."""

    def check(layer: int) -> None:
        if layer >= num_ws:
            raise UsageError(f"--mix-layers {layer}: the generator has layers 0 to {num_ws - 1}")

    return tuple(range(num_ws // 2)) if text is None else parse_numbers(text, "--mix-layers", check=check)


def open_checkpoint(path: Path, *, device: str) -> Snapshot:
    """Any checkpoint, or the latest snapshot of a run folder. Raises the errors of `load_checkpoint`."""
    if path.is_dir():
        found = list_snapshots(path)
        if not found:
            raise UsageError(f"{path} holds no snapshot; give a file or a run folder")
        path = found[-1]
    return load_checkpoint(path, device=device)


class Sampler:
    """Draws images of a snapshot.

    psi: truncation, 1 for none. noise: random as in scoring, const or off; None is that of the network.
    labels_of: where a conditional generator gets its labels from; `labels_for` opens it.
    UsageError for noise that the network was not trained with.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        psi: float = 1.0,
        noise: str | None = None,
        labels_of=None,
        device: str = "cpu",
        batch: int = 64,
    ):
        trained = snapshot.G.synthesis.noise
        if noise not in (None, "off", trained) and trained != "random":
            raise UsageError(f"--noise {noise}: {snapshot.path.name} was trained with --noise {trained}")
        self.snapshot, self.G = snapshot, snapshot.G
        self.psi, self.noise, self.batch = psi, noise or trained, batch
        self._options = {"device": device, "labels_of": labels_of}
        self._sources: dict[int, GeneratorSource] = {}

    def describe(self, *, class_index: int | None = None) -> dict[str, str]:
        """What made the images, beside their seeds, as PNG text."""
        text = {
            "snapshot": self.snapshot.path.name,
            "snapshot_sha256": self.snapshot.sha256,
            "truncation_psi": f"{self.psi:g}",
            "noise": self.noise,
        }
        return text if class_index is None else {**text, "class": str(class_index)}

    def draw(self, seeds: Sequence[int]) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Batches of (seeds, uint8 images [N, C, H, W]) in the order of the seeds."""
        for part in _batches(seeds, self.batch):
            yield part, self.images_of(self.ws(part), self._noise(part))

    def ws(self, seeds: Sequence[int]) -> Tensor:
        """Truncated ws [N, num_ws * K, w_dim]."""
        return self.map(*self.latents(seeds))

    def latents(self, seeds: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """z [N, *z_shape] and labels or class parts [N, c_dim], None for an unconditional generator."""
        parts = [(self._source(s), indices) for s, indices in _by_evaluation_seed(seeds)]
        z = torch.cat([source.latents(indices) for source, indices in parts])
        c = torch.cat([source.labels(indices) for source, indices in parts]) if self.G.c_dim else None
        return z, c

    @torch.inference_mode()
    def map(self, z: Tensor, c: Tensor | None) -> Tensor:
        """Truncated ws of latents and labels."""
        return self.G.mapping(z, c, self.psi)

    @torch.inference_mode()
    def images_of(self, ws: Tensor, noise: Sequence[Tensor] = ()) -> Tensor:
        """uint8 images [N, C, H, W] on the CPU. Without noise maps, constant noise replaces random noise."""
        fixed = "off" if self.noise == "off" else "const"
        return to_uint8(self.G.synthesis(ws, noise_mode=fixed, noise_inputs=noise or None)).cpu()

    def _noise(self, seeds: Sequence[int]) -> list[Tensor]:
        """Noise maps in layer order, as in scoring; [] unless noise is random."""
        if self.noise != "random":
            return []
        maps = [self._source(s).noise(indices) for s, indices in _by_evaluation_seed(seeds)]
        return [torch.cat(layer) for layer in zip(*maps, strict=True)]

    def _source(self, evaluation_seed: int) -> GeneratorSource:
        if evaluation_seed not in self._sources:
            self._sources[evaluation_seed] = GeneratorSource(
                self.snapshot, seed=evaluation_seed, **self._options
            )
        return self._sources[evaluation_seed]


def interpolate_seeds(
    sampler: Sampler, seeds: Sequence[int], *, space: str, frames: int, loop: bool
) -> Iterator[Tensor]:
    """Frames uint8 [C, H, W] on the way from seed to seed, `frames` from each to the next; with `loop` back.

    `space` z moves on great circles between latents, w on straight lines between mapped latents. Labels move
    on straight lines.
    """
    z, c = sampler.latents(seeds)
    ws = sampler.map(z, c)
    ends = [*range(1, len(seeds)), *([0] if loop else [])]
    places = [(end - 1, end, k / frames) for end in ends for k in range(frames)]
    if not loop:
        places.append((len(seeds) - 2, len(seeds) - 1, 1.0))
    for part in _batches(places, sampler.batch):
        first, second, at = (torch.tensor(column, device=z.device) for column in zip(*part, strict=True))
        t = at.to(z)
        if space == "z":
            labels = None if c is None else torch.lerp(c[first], c[second], t[:, None])
            between = sampler.map(slerp(z[first], z[second], t), labels)
        else:
            between = torch.lerp(ws[first], ws[second], t[:, None, None])
        yield from sampler.images_of(between)


def mix_styles(
    sampler: Sampler, rows: Sequence[int], columns: Sequence[int], *, layers: Sequence[int]
) -> list[Tensor]:
    """Parts of the images uint8 of a matrix, row by row, with its sources in row and column 0.

    An image takes the styles of `layers` from the seed of its column and all others from that of its row.
    """
    of_rows, of_columns = sampler.ws(rows), sampler.ws(columns)
    per_layer = of_rows.shape[1] // sampler.G.num_ws
    taken = [layer * per_layer + k for layer in layers for k in range(per_layer)]
    size = ImageSize.of(sampler.G.img_resolution)
    corner = torch.full((1, sampler.G.img_channels, size.height, size.width), 255, dtype=torch.uint8)
    cells = [corner, *(sampler.images_of(part) for part in of_columns.split(sampler.batch))]
    for row in of_rows.split(1):
        mixed = row.repeat(len(columns), 1, 1)
        mixed[:, taken] = of_columns[:, taken]
        cells += [sampler.images_of(part) for part in torch.cat([row, mixed]).split(sampler.batch)]
    return cells


def labels_for(snapshot: Snapshot, *, data: str | None, class_index: int | None):
    """What a generator's labels are drawn from: nothing, the training set as in scoring, or one class of it.

    The labels of one class need no data, except in StylEx: there they are the class parts of the training
    images that the classifier puts in that class. UsageError for a class that the generator does not have.
    """
    classes = snapshot.G.c_dim
    if class_index is not None and not classes:
        raise UsageError(f"--class {class_index}: {snapshot.path.name} is not conditional; leave it out")
    if class_index is not None and not 0 <= class_index < classes:
        raise UsageError(f"--class {class_index}: {snapshot.path.name} has classes 0 to {classes - 1}")
    if class_index is not None and snapshot.dataset.get("labels") == "vector":
        raise UsageError(f"--class {class_index}: {snapshot.path.name} has label vectors, not classes")
    if not classes:
        return None
    if class_index is not None and snapshot.C is None:
        return _OneLabel(class_index)
    reals = _training_set(snapshot, data)
    return reals if class_index is None else _of_class(snapshot, reals, class_index)


def _training_set(snapshot: Snapshot, data: str | None) -> Dataset:
    if snapshot.origin is None:
        return RealImages(data or snapshot.config["data"], train=snapshot.dataset).dataset("train")
    name, classes = snapshot.path.name, snapshot.G.c_dim
    if data is None:
        raise UsageError(f"{name} is imported and conditional; choose --class, or --data with its labels")
    reals = open_images(data, resolution=snapshot.G.img_resolution, channels=snapshot.G.img_channels)
    if reals.num_classes != classes:
        raise UsageError(f"--data {data}: {reals.num_classes} classes, {name} has {classes}")
    return reals


class _OneLabel:
    """A dataset of one image with one label, for GeneratorSource."""

    def __init__(self, label: int):
        self._label = label

    def __len__(self) -> int:
        return 1

    def labels(self, index: Sequence[int]) -> Tensor:
        return torch.full([len(index)], self._label)


class _Members:
    """Some images of a dataset, for GeneratorSource."""

    def __init__(self, dataset: Dataset, members: Tensor):
        self._dataset, self._members = dataset, members

    def __len__(self) -> int:
        return len(self._members)

    def images(self, index: Sequence[int]) -> Tensor:
        return self._dataset.images(self._members[torch.as_tensor(index)])


def _of_class(snapshot: Snapshot, reals: Dataset, class_index: int) -> _Members:
    device = next(snapshot.C.parameters()).device
    with torch.inference_mode():
        answers = classify(snapshot.C, reals, torch.arange(len(reals)), device).argmax(dim=1)
    members = (answers == class_index).nonzero().flatten()
    if not len(members):
        raise UsageError(f"--class {class_index}: the classifier finds no image of it in {reals.name}")
    return _Members(reals, members)


def _by_evaluation_seed(seeds: Sequence[int]) -> list[tuple[int, list[int]]]:
    """(evaluation seed, indices) of consecutive image seeds."""
    groups = itertools.groupby(seeds, key=lambda seed: seed // SEED_STRIDE)
    return [(s, [seed % SEED_STRIDE for seed in group]) for s, group in groups]


def _batches(items: Sequence, size: int) -> Iterator[Sequence]:
    return (items[start : start + size] for start in range(0, len(items), size))
