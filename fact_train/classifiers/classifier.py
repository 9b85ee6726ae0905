"""The explained classifier C: its file, its card, and its answers on a dataset.

One safetensors file holds weights and card (architecture, classes, accuracy, confusion matrix, data, recipe,
hash of the weights); no pickle. `fact-train classifier` makes one. The files in
fact_train/classifiers/bundled go by their bare names.
"""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor

from fact_metrics.base.atomic import write_safetensors
from fact_metrics.base.errors import UserError, unknown_name
from fact_metrics.base.image_size import shown_size
from fact_metrics.base.pixels import to_signed
from fact_metrics.base.tensor_files import read_metadata, read_tensors
from fact_metrics.base.tensors import weights_sha256
from fact_train.data import Dataset, batch_indices
from fact_train.networks.build import check_tensors, prefixed
from fact_train.networks.classifier import Classifier

SCHEMA = 1
BUNDLED = Path(__file__).parent / "bundled"
SAMPLE = 2048  # training images that C classifies before training starts
ONE_CLASS = 0.995  # a larger share of one class: C explains nothing
BATCH = 256

WAY_OUT = "train it again with `fact-train classifier`."

Card = dict[str, Any]


class ClassShape(msgspec.Struct):
    """A class of C and the labels that belong to it."""

    name: str
    labels: list[int]


class CardShape(msgspec.Struct):
    """A classifier's card, as far as it is read again."""

    schema: int
    arch: Literal["convnet", "resnet18", "mobilenet_v2"]
    channels: Literal[1, 3]
    resolution: int | str
    input_size: int | None
    classes: list[ClassShape]
    accuracy: float
    weights_sha256: str

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or not 1 <= (self.input_size or 1) <= 2**12:
            raise ValueError(f"{len(self.classes)} classes at {self.input_size} px")


def bundled_names() -> list[str]:
    """Classifiers that come with the project."""
    return sorted(path.stem for path in BUNDLED.glob("*.safetensors"))


def find_classifier(name: str) -> Path:
    """File of a bundled classifier's name, or the path itself. UsageError where neither exists."""
    bundled = BUNDLED / f"{name}.safetensors"
    if bundled.is_file():
        return bundled
    path = Path(name).expanduser()
    if not path.is_file():
        raise unknown_name("classifier or file", name, bundled_names())
    return path


def save_classifier(path: Path, net: Classifier, card: Card) -> Card:
    """Write weights and card atomically; returns the card with the hash of the weights."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    card = {"schema": SCHEMA, **card, "weights_sha256": weights_sha256(tensors)}
    text = json.dumps(card, sort_keys=True)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(Path(path), tensors, {"classifier": text})
    return card


def load_classifier(name: str, device: torch.device | str = "cpu") -> tuple[Classifier, Card]:
    """C, frozen and in eval mode, and its card.

    UsageError for an unknown name; UserError where the file is truncated, altered, or not a classifier.
    """
    path = find_classifier(name)
    card = read_metadata(path, "classifier", CardShape, what="classifier", way_out=WAY_OUT)
    if card["schema"] > SCHEMA:
        raise UserError(f"classifier {path} was written by a newer version (schema {card['schema']}).")
    tensors = read_tensors(path, what="classifier", way_out=WAY_OUT)
    if weights_sha256(tensors) != card["weights_sha256"]:
        raise UserError(f"classifier {path} has been altered: its weights do not have the hash of its card.")
    try:
        check_tensors(lambda: {"C": new_classifier(card)}, prefixed("C", tensors))
    except (UserError, ValueError) as error:
        raise UserError(f"classifier {path} cannot be rebuilt ({error}); {WAY_OUT}") from error
    net = new_classifier(card)
    net.load_state_dict(tensors)
    return net.eval().requires_grad_(False).to(device), card


def new_classifier(card: Card) -> Classifier:
    """The network that a card describes, its weights not yet read."""
    return Classifier(
        arch=card["arch"],
        img_channels=card["channels"],
        num_classes=len(card["classes"]),
        input_size=card["input_size"],
    )


def check_fits(name: str, card: Card, dataset: Dataset) -> None:
    """Raise UserError where C was trained on images of another shape than the dataset's."""
    expected = f"{card['channels']}x{shown_size(card['resolution'])}"
    actual = f"{dataset.num_channels}x{shown_size(dataset.resolution)}"
    if expected != actual:
        raise UserError(
            f"--classifier {name} is for {expected} images, {dataset.name} has {actual}; "
            "train one with `fact-train classifier --data ...`."
        )


@torch.no_grad()
def classify(net: Classifier, dataset: Dataset, index: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Logits [N, K] of a dataset's images, on the CPU."""
    parts = [net(to_signed(dataset.images(part).to(device))).cpu() for part in index.split(BATCH)]
    return torch.cat(parts)


def class_balance(net: Classifier, dataset: Dataset, *, seed: int, device="cpu") -> list[float]:
    """Share of each class among C's answers on a random sample of the dataset."""
    count = min(SAMPLE, len(dataset))
    index = batch_indices(size=len(dataset), seed=seed, position=0, count=count)
    answers = classify(net, dataset, index, device).argmax(dim=1)
    return (answers.bincount(minlength=net.num_classes).double() / count).tolist()


def check_not_degenerate(name: str, card: Card, balance: list[float], dataset: Dataset) -> None:
    """Raise UserError where C gives nearly every image the same class: there would be nothing to explain."""
    share, which = max((share, i) for i, share in enumerate(balance))
    if share > ONE_CLASS:
        raise UserError(
            f"--classifier {name} calls {share:.1%} of {dataset.name} "
            f"{card['classes'][which]['name']!r}: a classifier that says one class explains nothing. "
            "Take another one, or other data."
        )


def describe(name: str, card: Card, balance: list[float]) -> str:
    """One line: what C is, its accuracy, and the share of each class among its answers."""
    shares = ", ".join(
        f"{group['name']} {share:.1%}" for group, share in zip(card["classes"], balance, strict=True)
    )
    return (
        f"classifier {name} ({card['arch']}, held-out accuracy {card['accuracy']:.4f}, "
        f"{card['weights_sha256'][:8]}) says of the training images: {shares}"
    )
