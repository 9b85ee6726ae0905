"""A user study of attributes as one HTML form, and the key to its answers.

Lang et al. 2021 (arXiv:2104.13369) ask people two things. Identification: two films show one attribute; which
of two other films shows the same one? Description: what changes in these films, in a few words?
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import torch

from fact_eval.explain.frames import Frames, Part, Sweep
from fact_eval.explain.html import data_uri, inert_json, write_page
from fact_eval.explain.page import sprite
from fact_metrics.base.atomic import write_json
from fact_metrics.base.errors import UserError
from fact_metrics.base.schema import decode
from fact_train.seeds import generator_for

SCHEMA = 1
FORM, KEY = "study-form.html", "answer-key.json"
OPTIONS = ("A", "B")
REFERENCES, FILMS = 2, 4  # films of the attribute in an identification, films of a description
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
    def images(self) -> int:
        return len(self.sweep.own)

    def film(self, image: int) -> str:
        """A row of frames from minimum to maximum, as an address."""
        return data_uri(sprite(self.sweep.frames.images[image : image + 1]))


def write_pack(folder: Path, frames: Frames, *, attributes: int = ATTRIBUTES, seed: int = 0) -> list[Path]:
    """Write the form and, apart from it, the key. Returns both paths.

    Each method is shown by its strongest attributes over all classes. UserError if a method has fewer than
    two, or if an attribute has too few images.
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
    content = {"size": frames.parts[0].together.images.shape[-1], "questions": forms}
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
    if len(shown) < 2:
        raise UserError(
            f"{method} found {len(shown)} attributes of {frames.run_id}, a study compares two; leave the "
            "method out, or explain more images"
        )
    asked = []
    right = [OPTIONS[i % 2] for i in range(len(shown))]  # as often A as B
    right = [right[i] for i in torch.randperm(len(right), generator=generator).tolist()]
    for i, one in enumerate(shown):
        if one.images <= REFERENCES:
            raise UserError(
                f"class {frames.classes[one.part.target]} has {one.images} images of other classes, a study "
                f"takes {REFERENCES + 1}; explain more images"
            )
        others = [other for other in shown if other is not one]
        other = others[int(torch.randint(len(others), [1], generator=generator))]
        order = torch.randperm(one.images, generator=generator).tolist()
        same, different = one.film(order[REFERENCES]), other.film(_distinct(other, order, generator))
        about = dict(
            id="",
            method=one.part.method,
            class_index=one.part.target,
            class_name=frames.classes[one.part.target],
            attribute=one.name,
        )
        films = [same, different] if right[i] == OPTIONS[0] else [different, same]
        asked.append(
            (
                {"films": [*(one.film(k) for k in order[:REFERENCES]), *films]},
                QuestionShape(kind="identification", distractor=other.name, answer=right[i], **about),
            )
        )
        asked.append(
            (
                {"films": [one.film(k) for k in order[:FILMS]]},
                QuestionShape(kind="description", **about),
            )
        )
    return asked


def _distinct(other: _Shown, order: Sequence[int], generator: torch.Generator) -> int:
    """An image for the distractor: not one of the references if the distractor has another."""
    free = [k for k in range(other.images) if k not in order[: REFERENCES + 1]] or [0]
    return free[int(torch.randint(len(free), [1], generator=generator))]
