"""What is explained: a generator's StyleSpace, a classifier, and images that it assigns to its classes.

Of a StylEx run the images are reconstructions of held-out pictures, of any other run generated images.
Equally many of every class are taken, by the class that the classifier gives the unedited image: by turns one
for the search of attributes and one to judge them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fact_eval.explain.document import question_name
from fact_eval.images.sources import GeneratorSource, PicturesSource
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.tensors import weights_sha256
from fact_metrics.spec import SAMPLING
from fact_train.classifiers.classifier import Card, new_classifier
from fact_train.data import Dataset
from fact_train.networks.classifier import Classifier
from fact_train.networks.style_space import StyleSpace

LOOKED_AT = 40  # images per wanted image that are classified before a rare class is given up
FEWEST = 4  # images of a class, in the search and in the judgement


@dataclass(frozen=True)
class NamedClassifier:
    """A classifier in eval mode, its name and its card."""

    name: str
    net: Classifier
    card: Card

    @property
    def classes(self) -> list[str]:
        return [group["name"] for group in self.card["classes"]]

    @property
    def sha256(self) -> str:
        return self.card["weights_sha256"]

    def scores(self, images: Tensor) -> Tensor:
        """Logits [N, K] of generated images, differentiable; images are cut to [-1, 1], as in a picture."""
        return self.net(images.clamp(-1, 1))

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """As `scores`, without gradients."""
        return self.scores(images)

    def randomised(self, seed: int) -> "NamedClassifier":
        """The same architecture with random weights, for the control."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = new_classifier(self.card)
        device = next(self.net.parameters()).device
        card = {**self.card, "weights_sha256": weights_sha256(net.state_dict())}
        return NamedClassifier(f"{self.name} randomised", net.eval().requires_grad_(False).to(device), card)


@dataclass(frozen=True)
class Images:
    """N images by index: styles [N, S], logits [N, K] of the explained classifier, and its class [N]."""

    indices: list[int]
    styles: Tensor
    logits: Tensor

    @property
    def predicted(self) -> Tensor:
        return self.logits.argmax(dim=1)

    def __len__(self) -> int:
        return len(self.indices)


class Subject:
    """A generator with its images, and the classifier that is explained on them.

    `held_out` are the pictures that a StylEx run reconstructs; None for any other run. `wanted` are the
    classes of interest, all by default.
    """

    def __init__(
        self,
        generator: GeneratorSource,
        classifier: NamedClassifier,
        *,
        held_out: Dataset | None = None,
        wanted: Sequence[int] | None = None,
        batch: int = 64,
    ) -> None:
        self.generator, self.classifier, self.batch = generator, classifier, batch
        self.space = StyleSpace(generator.G)
        self.pictures = None if held_out is None else PicturesSource(held_out, seed=generator.seed)
        self.wanted = sorted(wanted) if wanted else list(range(len(classifier.classes)))
        self._known = {label for group in classifier.card["classes"] for label in group["labels"]}

    @property
    def question(self) -> str:
        """The name of what is asked of it, and of the folder of the answer."""
        named = self.classifier
        return question_name(named.name, named.classes, self.wanted, seed=self.generator.seed)

    @property
    def kind(self) -> str:
        return "generated" if self.pictures is None else "reconstructions"

    @torch.inference_mode()
    def styles(self, indices: Sequence[int]) -> Tensor:
        """Styles [N, S] of images by index."""
        if self.pictures is None:
            source = self.generator
            return self.space.read(source.mapping(source.latents(indices), source.labels(indices)))
        return self.space.read(self.generator.snapshot.reconstruction_ws(self.pictures.images(indices)))

    def noise(self, indices: Sequence[int]) -> list[Tensor]:
        """The noise maps of images by index; [] unless the generator's noise is random."""
        stream = "image" if self.pictures is None else "reconstruction"
        return self.generator.noise(indices, stream=stream)

    def conditions(self, indices: Sequence[int]) -> Tensor | None:
        """What a conditional discriminator takes beside images by index; None for any other."""
        snapshot = self.generator.snapshot
        if not snapshot.D.c_dim:
            return None
        if self.pictures is None:
            return self.generator.labels(indices)
        return snapshot.class_parts(self.pictures.images(indices))

    @torch.inference_mode()
    def render(self, styles: Tensor, indices: Sequence[int]) -> Tensor:
        """Images of styles [N, S]; row i has the noise of image indices[i]."""
        parts = [range(i, min(i + self.batch, len(indices))) for i in range(0, len(indices), self.batch)]
        return torch.cat(
            [
                self.space.render(styles[part.start : part.stop], self.noise([indices[i] for i in part]))
                for part in parts
            ]
        )

    def choose(self, count: int) -> tuple[Images, Images]:
        """`count` images to search in and `count` to judge by, equally many of each wanted class.

        UserError for a class that the classifier hardly gives any image.
        """
        share = count // len(self.wanted)
        if share < FEWEST:
            fewest = FEWEST * len(self.wanted)
            raise UsageError(f"{count} images for {len(self.wanted)} classes; give {fewest} or more")
        found: dict[int, list[tuple[int, Tensor, Tensor]]] = {k: [] for k in self.wanted}
        size = None if self.pictures is None else self.pictures.size
        most = min(LOOKED_AT * count, size or LOOKED_AT * count)
        for start in range(0, most, self.batch):
            indices = self._fitting(range(start, min(start + self.batch, most)))
            if not indices:
                continue
            styles = self.styles(indices)
            logits = self.classifier.logits(self.render(styles, indices))
            for i, k in enumerate(logits.argmax(dim=1).tolist()):
                if k in found and len(found[k]) < 2 * share:
                    found[k].append((indices[i], styles[i].clone(), logits[i].clone()))
            if all(len(rows) == 2 * share for rows in found.values()):
                break
        for k, rows in found.items():
            if len(rows) < 2 * FEWEST:
                raise UserError(
                    f"classifier {self.classifier.name} assigns {len(rows)} of {most:,} images of "
                    f"{self.generator.snapshot.path.name} to class {self.classifier.classes[k]!r}, too few "
                    "to explain it; choose other classes, or train on"
                )
        halves = [[row for rows in found.values() for row in rows[half::2]] for half in (0, 1)]
        return tuple(_images(sorted(half, key=lambda row: row[0])) for half in halves)

    def describe(self) -> dict:
        """Everything that determines the images, as JSON."""
        return {
            "source": self.kind,
            "snapshot": self.generator.snapshot_sha256,
            "seed": self.generator.seed,
            "pictures": None if self.pictures is None else self.pictures.describe(),
            "wanted": self.wanted,
            "sampling": SAMPLING,
        }

    def _fitting(self, indices: range) -> list[int]:
        """Images with a label that the classifier knows, or without any label."""
        labels = None if self.pictures is None else self.pictures.labels(indices)
        if labels is None or labels.ndim > 1:
            return list(indices)
        return [i for i, label in zip(indices, labels.tolist(), strict=True) if label in self._known]


def _images(rows: list[tuple[int, Tensor, Tensor]]) -> Images:
    indices, styles, logits = zip(*rows, strict=True)
    return Images(list(indices), torch.stack(styles), torch.stack(logits))
