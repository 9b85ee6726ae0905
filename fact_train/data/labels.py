"""Labels of an image folder or zip: `dataset.json` in the format of StyleGAN2-ADA's dataset_tool.

{"labels": [["00000/img00000000.png", 3], ...]}: for every image one class index, or one vector of numbers; or
{"labels": null}.
"""

import json
import math
import posixpath
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec
import numpy as np

from fact_metrics.base.errors import UserError
from fact_metrics.base.limits import DOCUMENT, LABELS
from fact_metrics.base.schema import decode, parse_json

Label = int | tuple[float, ...]

FORM = '{"labels": [["name.png", 3], ...]}'
MAX_CLASSES = 2**20  # an index beyond it is an identity number or a typing error, not a class
MOST_EMPTY = 100  # classes for each image; more are a typing error


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
        name = entry[0]
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


def check_classes(classes: np.ndarray, count: int, path: str) -> str | None:
    """What to say of classes [N] of `count`: those without an image; None if all have one.

    UserError for indices far beyond the number of images: the network would have an input for each.
    """
    if count > MOST_EMPTY and count > MOST_EMPTY * len(classes):
        raise UserError(
            f"{path}: {count:,} classes of {len(classes):,} images (the highest index is {count - 1:,}); "
            "number the classes from 0"
        )
    empty = sorted(set(range(count)) - set(np.unique(classes).tolist()))
    return f"{len(empty):,} of {count:,} classes have no image: {_ranges(empty)}" if empty else None


def matched(labels: Mapping[str, Label], names: Sequence[str]) -> tuple[dict[str, Label], list[str]]:
    """Labels by file name for the keys that name one of the files, and the keys that name none.

    Slashes, `./`, the case of the extension, Unicode's form, and a folder that all keys or all names share do
    not count.
    """
    if not (left := set(names) - labels.keys()):
        return {name: labels[name] for name in names}, sorted(labels.keys() - set(names))
    keys: dict[str, str] = {}
    for key in labels:
        other = keys.setdefault(_plain(key), key)
        if labels[other] != labels[key]:
            raise UserError(f"{other} and {key} name one file and have two labels; keep one")
    plain = {name: _plain(name) for name in names}
    best: dict[str, str] = {}
    for cut_keys, cut_names in _cuts(list(keys), list(plain.values())):
        cut = {key[cut_keys:]: own for key, own in keys.items()}
        found = {name: cut[key[cut_names:]] for name, key in plain.items() if key[cut_names:] in cut}
        best = max(best, found, key=len)
        if len(best) == len(names):
            break
    best |= {name: name for name in names if name not in left}
    return {name: labels[key] for name, key in best.items()}, sorted(labels.keys() - set(best.values()))


def unmatched_error(path: str, unlabelled: Collection[str], unused: Collection[str]) -> UserError:
    """The error of images without a label and of labels without an image: the first of each, and how many."""

    def first(names: Collection[str], what: str) -> str:
        return f"{min(names)} {what}" + (f" (the first of {len(names)} such)" if len(names) > 1 else "")

    problems = [first(unlabelled, "has no label")] if unlabelled else []
    problems += [first(unused, "is labelled but not there")] if unused else []
    way_out = "label all images, or delete the file to train unlabelled"
    way_out = way_out if unlabelled else "put it back, or delete its label"
    return UserError(f"{path}: {', and '.join(problems)}; {way_out}")


def label_array(values: Sequence[Label]) -> np.ndarray:
    """Labels as int64 [N] or float32 [N, L]."""
    return np.array(values, np.int64 if isinstance(values[0], int) else np.float32)


def _plain(name: str) -> str:
    """A name as it is compared: slashes, `./`, the case of the extension and Unicode's form do not count."""
    name = posixpath.normpath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    stem, dot, extension = name.rpartition(".")
    return f"{stem}.{extension.lower()}" if dot and "/" not in extension else name


def _cuts(keys: Sequence[str], names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """How many characters of a common folder to leave out of keys and of names, the fewest first."""
    in_keys, in_names = _common_folders(keys), _common_folders(names)
    yield from ((cut, 0) for cut in in_keys)
    yield from ((0, cut) for cut in in_names[1:])
    yield in_keys[-1], in_names[-1]


def _common_folders(names: Sequence[str]) -> list[int]:
    """Lengths of the folders, with their slash, that enclose all names: [0, 4, 9] for top/left/*."""
    first, last = (name.split("/")[:-1] for name in (min(names), max(names)))
    lengths = [0]
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        lengths.append(lengths[-1] + len(one) + 1)
    return lengths


def _ranges(numbers: Sequence[int]) -> str:
    """1-6, 9, 11-12 and 5 more: the first ranges of ascending numbers."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = ", ".join(str(low) if low == high else f"{low:,}-{high:,}" for low, high in ranges[:5])
    return f"{shown}, ..." if len(ranges) > 5 else shown


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
