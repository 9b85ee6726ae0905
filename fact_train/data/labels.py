"""Labels of an image folder or zip: `dataset.json` in the format of StyleGAN2-ADA's dataset_tool.

{"labels": [["00000/img00000000.png", 3], ...]}: for every image one class index, or one vector of numbers; or
{"labels": null}.
"""

import json
import math
from collections.abc import Sequence

import msgspec
import numpy as np

from fact_metrics.base.errors import UserError
from fact_metrics.base.limits import DOCUMENT, LABELS
from fact_metrics.base.schema import decode, parse_json

Label = int | tuple[float, ...]

FORM = '{"labels": [["name.png", 3], ...]}'
MAX_CLASSES = 2**20  # an index beyond it is an identity number or a typing error, not a class


class LabelsShape(msgspec.Struct):
    """A large dataset.json: checked while it is read, before plain lists of it are made."""

    labels: list[tuple[str, int | list[float]]] | None


def parse_labels(content: bytes, path: str) -> dict[str, Label] | None:
    """Image name -> class index or vector; None where the file says null. UserError names `path`."""
    LABELS.check(len(content), path, "split the dataset")
    try:
        if len(content) > DOCUMENT.most:
            decode(content, LabelsShape, path, way_out=f"write {FORM}", limit=LABELS)
        entries = parse_json(content)["labels"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not in the form {FORM} ({type(error).__name__}: {error})") from error
    if entries is None:
        return None
    if not isinstance(entries, list) or not entries:
        raise UserError(f'{path}: "labels" must be null or a list of [name, label] pairs: {FORM}')
    labels: dict[str, Label] = {}
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise UserError(f"{path}: entry {_short(entry)} is not a [name, label] pair: {FORM}")
        name = entry[0].replace("\\", "/")
        if name in labels:
            raise UserError(f"{path}: {name} is labelled twice; keep one")
        labels[name] = _parse_label(entry[1], name, path)
    kinds = {_kind(label): name for name, label in labels.items()}
    if len(kinds) > 1:
        (kind, name), (other_kind, other) = list(kinds.items())[:2]
        raise UserError(
            f"{path}: {name} has {kind} and {other} has {other_kind}; give all images the same kind"
        )
    return labels


def count_classes(labels: dict[str, Label]) -> int:
    """Highest class index plus one, or the length of the vectors."""
    return max(label + 1 if isinstance(label, int) else len(label) for label in labels.values())


def label_array(labels: dict[str, Label], names: Sequence[str], path: str) -> np.ndarray:
    """Labels in the order of names: int64 [N] or float32 [N, L]. UserError unless each image has one."""
    for odd, what, remedy in (
        (
            set(names) - set(labels),
            "has no label",
            "label all images, or delete the file to train unlabelled",
        ),
        (set(labels) - set(names), "is labelled but not there", "put it back, or delete its label"),
    ):
        if odd:
            count = f" (the first of {len(odd)} such)" if len(odd) > 1 else ""
            raise UserError(f"{path}: {min(odd)} {what}{count}; {remedy}")
    values = [labels[name] for name in names]
    return np.array(values, np.int64 if isinstance(values[0], int) else np.float32)


def _parse_label(value: object, name: str, path: str) -> Label:
    if type(value) is int and 0 <= value < MAX_CLASSES:
        return value
    if isinstance(value, list) and value and all(type(x) in (int, float) and math.isfinite(x) for x in value):
        return tuple(float(x) for x in value)
    raise UserError(
        f"{path}: label {_short(value)} of {name} is neither a class index (0 to {MAX_CLASSES - 1}) "
        "nor a list of finite numbers"
    )


def _kind(label: Label) -> str:
    return "a class index" if isinstance(label, int) else f"a vector of {len(label)}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
