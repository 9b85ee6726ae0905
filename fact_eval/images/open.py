"""Opens all images of one scoring pass: those that are scored, the real ones, the encoder's."""

from dataclasses import dataclass
from pathlib import Path

import torch

from fact_eval.images.encoder import SnapshotEncoder
from fact_eval.images.onnx_graph import GraphOptions, OnnxGenerator, OnnxSource
from fact_eval.images.reals import DescribedImages, RealImages, RealSplit
from fact_eval.images.sources import GeneratorSource, ImageSource, NoiseSource, PicturesSource
from fact_metrics.base.errors import UserError
from fact_metrics.base.image_size import ImageSize
from fact_train.data import Dataset
from fact_train.data.errors import MissingSplit
from fact_train.imports import load_checkpoint


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """What to open. `kind` is run, imported, images, reals or noise.

    run and imported need `snapshot`, images needs `pictures` or `graph`.

    `sha256`: hash that the snapshot's bytes must have. `train`: description of the training images.
    `held_out`: split that held-out reals come from. `real_splits`: the real images that metrics need.
    `encoder`: whether a metric asks for reconstructions.
    """

    kind: str
    sha256: str
    seed: int
    train: dict
    snapshot: Path | None = None
    pictures: Dataset | None = None
    graph: tuple[Path, GraphOptions] | None = None
    held_out: str = "test"
    real_splits: tuple[str, ...] = ()
    encoder: bool = False


@dataclass(frozen=True)
class OpenedImages:
    """The scored source, the real splits, and the encoder if one was requested.

    A real split or an encoder that cannot be opened is an error here. It is raised for the metrics that need
    it; the others are computed.
    """

    source: ImageSource
    splits: dict[str, RealSplit | UserError]
    held_out_encoder: SnapshotEncoder | MissingSplit | None = None

    @property
    def generator(self) -> GeneratorSource | None:
        """The scored source if it is a generator."""
        return self.source if isinstance(self.source, GeneratorSource) else None

    @property
    def scored(self) -> dict[str, ImageSource]:
        """The scored sources by side: `generated`, and `reconstructed` if an encoder could be opened."""
        sources: dict[str, ImageSource] = {"generated": self.source}
        if isinstance(self.held_out_encoder, SnapshotEncoder):
            sources["reconstructed"] = self.held_out_encoder.source
        return sources

    def real(self, split: str) -> RealSplit:
        """A real split. Raises the UserError that kept it from being opened."""
        return _raise_errors(self.splits[split])

    @property
    def encoder(self) -> SnapshotEncoder | None:
        """Of a StylEx run. Raises MissingSplit if the dataset has no held-out images to encode."""
        return _raise_errors(self.held_out_encoder)


def open_for_scoring(
    request: ImageRequest, reals: RealImages | DescribedImages, *, device: str, batch: int
) -> OpenedImages:
    """Open the images of a request.

    Raises UserError if the scored images cannot be read, MissingSplit if there are none.
    """
    source = _open_source(request, reals, device=device)
    encoder = None
    if request.encoder:
        try:
            encoder = SnapshotEncoder(source, reals.dataset("test"), batch=batch)
        except MissingSplit as error:
            encoder = error
    return OpenedImages(source, {split: _try_split(reals, split) for split in request.real_splits}, encoder)


def _open_source(request: ImageRequest, reals: RealImages | DescribedImages, *, device: str) -> ImageSource:
    if request.kind == "noise":
        size = ImageSize.of(request.train["resolution"])
        return NoiseSource((request.train["channels"], size.height, size.width), seed=request.seed)
    if request.kind == "reals":
        return PicturesSource(reals.dataset(request.held_out), seed=request.seed)
    if request.graph is not None:
        return _open_graph(request, reals, device=device)
    if request.kind == "images":
        return PicturesSource(request.pictures, seed=request.seed)
    with torch.random.fork_rng(devices=[]):  # building a network draws from the global generator
        snapshot = load_checkpoint(request.snapshot, device=device)
    if snapshot.sha256 != request.sha256:
        raise UserError(f"{request.snapshot} changed while it was scored; run the same command again")
    labels_of = reals.dataset("train") if snapshot.G.c_dim else None
    return GeneratorSource(snapshot, seed=request.seed, device=device, labels_of=labels_of)


def _open_graph(request: ImageRequest, reals: RealImages | DescribedImages, *, device: str) -> OnnxSource:
    path, options = request.graph
    generator = OnnxGenerator(path, options, device=device)
    labels_of = None
    if generator.label_input is not None and (options.labels or "data") == "data":
        labels_of = reals.dataset("train")
        classes = generator.classes
        if not labels_of.num_classes or classes not in (None, labels_of.num_classes):
            raise UserError(
                f"{path.name} takes labels of {classes or 'some'} classes, {labels_of.name} has "
                f"{labels_of.num_classes}; choose --labels uniform or a class"
            )
    return OnnxSource(generator, seed=request.seed, channels=request.train["channels"], labels_of=labels_of)


def _try_split(reals: RealImages | DescribedImages, split: str) -> RealSplit | UserError:
    try:
        return reals.split(split)
    except UserError as error:
        return error


def _raise_errors(opened):
    if isinstance(opened, UserError):
        raise opened
    return opened
