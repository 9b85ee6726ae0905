"""`explanations/<snapshot>/attributes.json` of a run: the attributes that every method found for every class.

Pictures, pages and other tools read this file and need nothing else of the search. Its `shift` says how far
an edit goes: a style s becomes s + shift (target - s), where the target is the smallest (direction -1) or
largest (direction +1) style of the coordinate among the explained images.
"""

import math
from pathlib import Path
from typing import Literal

import msgspec

from fact_metrics.base.atomic import write_text
from fact_metrics.base.errors import UserError
from fact_metrics.base.schema import decode

SCHEMA = 1
FOLDER = "explanations"
FILE = "attributes.json"
WAY_OUT = "run `fact-eval explain` again."

Method = Literal[
    "attfind-greedy", "attfind-independent", "attfind-subset", "class-mean", "gradient", "random"
]
METHODS: tuple[Method, ...] = Method.__args__


class AttributeShape(msgspec.Struct, kw_only=True):
    """One attribute: a coordinate of StyleSpace and the direction that moves images towards the class.

    `size` is the mean distance of the edit in units of the style, `effect` the mean change of the class's
    logit, by the classifier of the name `by`, over the images that the method looked at.
    """

    layer: str  # such as b8.conv0
    index: int
    direction: Literal[-1, 1]
    size: float
    effect: float
    by: str
    target: float  # the style that a shift of 1 reaches

    def __post_init__(self) -> None:
        if self.index < 0 or not all(map(math.isfinite, (self.size, self.effect, self.target))):
            raise ValueError(f"{self.layer}.{self.index} is no attribute")


class ClassifierShape(msgspec.Struct, kw_only=True):
    """The classifier that is explained."""

    name: str
    sha256: str
    classes: list[str]


class FoundShape(msgspec.Struct, kw_only=True):
    """The attributes of a method that raise the logit of one class, from the strongest.

    `image` is the index of the image that a method explains by itself (attfind-independent, attfind-subset);
    None: one list for all images.
    """

    method: Method
    class_index: int
    attributes: list[AttributeShape]
    image: int | None = None


class ImagesShape(msgspec.Struct, kw_only=True):
    """The searched images by index: image i has latent i of the evaluation seed, or is held-out picture i.

    `predicted` are the classes that the classifier gives them before any edit. `judged` are the images that
    the edits are judged on.
    """

    kind: Literal["reconstructions", "generated"]
    count: int
    seed: int
    indices: list[int]
    predicted: list[int]
    judged: list[int] = []

    def __post_init__(self) -> None:
        if not len(self.indices) == len(self.predicted) == self.count:
            raise ValueError(f"{self.count} images with {len(self.predicted)} classes")


class ExplanationShape(msgspec.Struct, kw_only=True):
    """The whole document."""

    schema: int
    run_id: str
    snapshot: str
    snapshot_sha256: str
    classifier: ClassifierShape
    images: ImagesShape
    shift: float
    found: list[FoundShape]

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema}; this version reads {SCHEMA}")
        classes = len(self.classifier.classes)
        if any(not 0 <= one.class_index < classes for one in self.found):
            raise ValueError(f"an attribute is of none of {classes} classes")

    def attributes(self, method: Method, class_index: int, image: int | None = None) -> list[AttributeShape]:
        """The list of a method for a class, empty if it found none."""
        for one in self.found:
            if (one.method, one.class_index, one.image) == (method, class_index, image):
                return one.attributes
        return []


def document_path(run: Path, snapshot: str) -> Path:
    """Where a run keeps the explanation of a snapshot, by the snapshot's file name."""
    return Path(run) / FOLDER / Path(snapshot).stem / FILE


def write_explanation(run: Path, explanation: ExplanationShape) -> Path:
    """Write the document into the run's folder, atomically; returns its path."""
    path = document_path(run, explanation.snapshot)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(explanation), indent=1).decode()
    write_text(path, text + "\n")
    return path


def read_explanation(path: Path) -> ExplanationShape:
    """The document of a file. UserError if it is missing or does not fit."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {WAY_OUT}") from error
    return decode(text, ExplanationShape, path, way_out=WAY_OUT)
