"""`explanations/<snapshot>/<question>/attributes.json` of a run: the attributes that each method found.

A question is a classifier, the classes of interest and an evaluation seed; each has a folder of its own.

Pictures, pages and other tools read this file and need nothing else of the search. Its `shift` says how far
an edit goes: a style s becomes s + shift (target - s), where the target is the smallest (direction -1) or
largest (direction +1) style of the coordinate among the explained images.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from fact_eval.images.sampling import MAX_SEED, SEED_STRIDE
from fact_metrics.base.atomic import write_text
from fact_metrics.base.errors import UserError, unknown_name
from fact_metrics.base.limits import DOCUMENT
from fact_metrics.base.plain_text import check_file_name, for_terminal
from fact_metrics.base.schema import decode

SCHEMA = 1
FOLDER = "explanations"
FILE = "attributes.json"
WAY_OUT = "run `fact-eval explain` again."
# What a document can hold: pictures and pages take time and memory for all of it.
LARGEST = 1e6  # of styles, effects and shifts; styles of trained networks are of the order of 1
MOST_ATTRIBUTES = 100  # of a list
MOST_IMAGES = 100_000
LONGEST_NAME = 100  # of a question's folder

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
        numbers = {"size": self.size, "effect": self.effect, "target": self.target}
        if self.index < 0:
            raise ValueError(f"index is {self.index}")
        for name, value in numbers.items():
            if abs(value) > LARGEST:
                raise ValueError(f"{name} is {value:g}, beyond {LARGEST:g}")


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
            raise ValueError(
                f"{self.count} images with {len(self.indices)} indices and {len(self.predicted)} classes"
            )
        if max(self.count, len(self.judged)) > MOST_IMAGES:
            raise ValueError(f"{max(self.count, len(self.judged)):,} images, at most {MOST_IMAGES:,}")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed is {self.seed}, not 0 to {MAX_SEED}")
        for index in (*self.indices, *self.judged):
            if not 0 <= index < SEED_STRIDE:
                raise ValueError(f"image index is {index}, not 0 to {SEED_STRIDE - 1}")


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
        for field in ("run_id", "snapshot"):
            check_file_name(getattr(self, field), field)
        if not 0 < self.shift <= LARGEST:
            raise ValueError(f"shift is {self.shift:g}; an edit has a length above 0")
        classes = len(self.classifier.classes)
        for number in (*(one.class_index for one in self.found), *self.images.predicted):
            if not 0 <= number < classes:
                raise ValueError(f"class {number} is none of {classes}")
        known = [(one.method, one.class_index, one.image) for one in self.found]
        if len(set(known)) < len(known):
            raise ValueError("a method has two lists of one class")
        longest = max((len(one.attributes) for one in self.found), default=0)
        if longest > MOST_ATTRIBUTES:
            raise ValueError(f"a list of {longest:,} attributes, at most {MOST_ATTRIBUTES}")

    def attributes(self, method: Method, class_index: int, image: int | None = None) -> list[AttributeShape]:
        """The list of a method for a class, empty if it found none."""
        for one in self.found:
            if (one.method, one.class_index, one.image) == (method, class_index, image):
                return one.attributes
        return []


def question_name(classifier: str, names: Sequence[str], wanted: Iterable[int], *, seed: int = 0) -> str:
    """The folder of a question: `mnist`, `mnist-8-9` with classes of interest, `mnist-8-9-seed1`.

    `wanted` are numbers of classes, `names` the names of all. Characters that are awkward in names of files
    become _, and a long name ends with its hash.
    """
    chosen = sorted(set(wanted))
    classes = [names[i] for i in chosen] if len(chosen) < len(names) else []
    parts = [classifier, *classes, *([f"seed{seed}"] if seed else [])]
    name = "-".join(re.sub(r"[^\w.]+", "_", part, flags=re.ASCII) for part in parts)
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}"
    return name


def document_path(run: Path, snapshot: str, question: str) -> Path:
    """Where a run keeps the answer to a question about a snapshot, by the snapshot's file name."""
    return Path(run) / FOLDER / Path(snapshot).stem / question / FILE


def find_document(run: Path, snapshot: str, question: str | None = None) -> Path:
    """The document of a question, or of the only one. UserError if there is none, or more than one."""
    folder = Path(run) / FOLDER / Path(snapshot).stem
    found = {path.parent.name: path for path in sorted(folder.glob(f"*/{FILE}"))}
    if not found:
        raise UserError(f"{folder} has no explanation; {WAY_OUT}")
    if question is None and len(found) > 1:
        names = ", ".join(map(for_terminal, found))
        raise UserError(f"{folder} has {len(found)} explanations; choose one with --question: {names}")
    if question is not None and question not in found:
        raise unknown_name("question", question, found)
    return found[question or next(iter(found))]


def write_explanation(run: Path, explanation: ExplanationShape, question: str) -> Path:
    """Write the document into the folder of its question, atomically; returns its path."""
    path = document_path(run, explanation.snapshot, question)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(explanation), indent=1).decode()
    write_text(path, text + "\n")
    return path


def read_explanation(path: Path) -> ExplanationShape:
    """The document of a file. UserError if it is missing or does not fit."""
    try:
        with open(path, "rb") as file:
            text = file.read(DOCUMENT.most + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {WAY_OUT}") from error
    return decode(text, ExplanationShape, path, way_out=WAY_OUT)
