"""A user study of attributes as one HTML form, and the key to its answers.

Lang et al. 2021 (arXiv:2104.13369) ask people two things. Identification: two films show one attribute; which
of two other films shows the same one? Description: what changes in these films, in a few words?
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import torch

from fact_eval.explain.frames import Frames, Part, Sweep
from fact_eval.explain.html import data_uri, inert_json, write_page
from fact_eval.explain.page import frame_size, sprite
from fact_metrics.base.atomic import write_json
from fact_metrics.base.errors import UserError
from fact_metrics.base.schema import decode
from fact_train.seeds import generator_for

SCHEMA = 1
FORM, KEY = "study-form.html", "answer-key.json"
OPTIONS = ("A", "B")
FILMS = 4  # of a question; the first two of an identification are the examples
ATTRIBUTES = 6  # of a method, as in the paper


class QuestionShape(msgspec.Struct, kw_only=True):
    """One question of a form, with what it is about. `answer` is the right option of an identification."""

    id: str
    kind: Literal["identification", "description"]
    method: str
    class_index: int
    class_name: str
    attribute: str
    distractor: str | None = None
    answer: Literal["A", "B"] | None = None

    def __post_init__(self) -> None:
        if (self.kind == "identification") != (self.answer is not None):
            raise ValueError(f"question {self.id}: an identification has an answer, a description has none")


class KeyShape(msgspec.Struct, kw_only=True):
    """The answer key; `pack` names the form that it belongs to."""

    schema: int
    pack: str
    run_id: str
    snapshot: str
    snapshot_sha256: str
    classifier: str
    seed: int
    questions: list[QuestionShape]

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema}; this version reads {SCHEMA}")
        if len({question.id for question in self.questions}) < len(self.questions):
            raise ValueError("a question stands twice")


@dataclass(frozen=True)
class _Shown:
    """An attribute of a method that people see, on the images of its class."""

    part: Part
    sweep: Sweep

    @property
    def name(self) -> str:
        return f"{self.sweep.attribute.layer}.{self.sweep.attribute.index}"

    @property
    def others(self) -> list["_Shown"]:
        """Other attributes of the same method and class: the same images show them."""
        siblings = (_Shown(self.part, sweep) for sweep in self.part.sweeps)
        return [one for one in siblings if one.name != self.name]

    def film(self, image: int) -> str:
        """A row of frames from minimum to maximum, as an address."""
        return data_uri(sprite(self.sweep.frames.images[image : image + 1]))


def write_pack(folder: Path, frames: Frames, *, attributes: int = ATTRIBUTES, seed: int = 0) -> list[Path]:
    """Write the form and, apart from it, the key. Returns both paths.

    Each method is shown by its strongest attributes over all classes. Both options of an identification are
    attributes of one class, so images do not give the answer away. UserError if a class has only one.
    """
    generator = generator_for("cpu", "study-pack", seed)
    asked = [
        question
        for method in frames.methods
        for question in _questions(frames, method, attributes, generator)
    ]
    asked = [asked[i] for i in torch.randperm(len(asked), generator=generator).tolist()]
    forms, keys = [], []
    for number, (form, key) in enumerate(asked, start=1):
        name = f"q{number:02d}"
        forms.append({"id": name, "kind": key.kind, **form})
        keys.append(msgspec.structs.replace(key, id=name))
    content = {**frame_size(frames), "questions": forms}
    pack = hashlib.sha256(inert_json(content).encode()).hexdigest()[:16]
    key = KeyShape(
        schema=SCHEMA,
        pack=pack,
        run_id=frames.run_id,
        snapshot=frames.snapshot,
        snapshot_sha256=frames.snapshot_sha256,
        classifier=frames.classifier,
        seed=seed,
        questions=keys,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / KEY, msgspec.to_builtins(key))
    return [write_page(folder / FORM, "study", {"pack": pack}, {"pack": pack, **content}), folder / KEY]


def read_key(path: Path) -> KeyShape:
    """The answer key of a file. UserError if it is missing or does not fit."""
    way_out = "give the answer-key.json that fact-eval study-pack wrote"
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {way_out}") from error
    return decode(text, KeyShape, path, way_out=way_out)


def strongest(frames: Frames, method: str, count: int) -> list[_Shown]:
    """The attributes of a method with the largest effects over all classes; each coordinate once."""
    found = [_Shown(part, sweep) for part in frames.parts if part.method == method for sweep in part.sweeps]
    best: dict[str, _Shown] = {}
    for one in sorted(found, key=lambda one: -abs(one.sweep.attribute.effect)):
        best.setdefault(one.name, one)
    return list(best.values())[:count]


def _questions(
    frames: Frames, method: str, attributes: int, generator: torch.Generator
) -> list[tuple[dict, QuestionShape]]:
    """Both questions about each attribute of a method, as (what the form shows, what the key says)."""
    shown = strongest(frames, method, attributes)
    asked = []
    right = [OPTIONS[i % 2] for i in range(len(shown))]  # as often A as B
    right = [right[i] for i in torch.randperm(len(right), generator=generator).tolist()]
    for one, answer in zip(shown, right, strict=True):
        name = frames.classes[one.part.target]
        if len(one.sweep.own) < FILMS:
            raise UserError(
                f"class {name} is shown on {len(one.sweep.own)} images, a study needs {FILMS}; explain more "
                "images"
            )
        if not one.others:
            raise UserError(
                f"{method} found one attribute for class {name}, a study compares two; leave the method out, "
                "or explain more images"
            )
        other = one.others[int(torch.randint(len(one.others), [1], generator=generator))]
        images = torch.randperm(len(one.sweep.own), generator=generator)[:FILMS].tolist()
        *references, last, different = images
        options = [one.film(last), other.film(different)]
        about = dict(
            id="",
            method=method,
            class_index=one.part.target,
            class_name=name,
            attribute=one.name,
        )
        identification = [*map(one.film, references), *(options if answer == OPTIONS[0] else options[::-1])]
        asked.append(
            (
                {"films": identification},
                QuestionShape(kind="identification", distractor=other.name, answer=answer, **about),
            )
        )
        asked.append(({"films": [*map(one.film, images)]}, QuestionShape(kind="description", **about)))
    return asked
