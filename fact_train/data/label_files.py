"""Labels of the images in a folder or archive, from one of three places.

auto       every `dataset.json` (labels.py), each for the images below its folder; without one the
           WebDataset files beside the images: `NAME.cls`, or `NAME.json` with an integer `label` or `cls`
folders    the folder that an image lies in, at the top: classes in the order of their names
none       unlabelled
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.schema import parse_json
from fact_train.data.decode import is_image_name
from fact_train.data.files import LABEL_FILE, Files, attempt_all, raise_first
from fact_train.data.labels import (
    FORM,
    MAX_CLASSES,
    Label,
    check_classes,
    count_classes,
    label_array,
    matched,
    parse_labels,
    unmatched_error,
)
from fact_train.data.splits import Splits, sample_of

CLASS_KEYS = ("label", "cls")
SHOWN = 10  # classes in a message


class Labels(NamedTuple):
    """Labels of a split in the order of its images: int64 [N], float32 [N, L], or None. `sidecars`: files
    beside the images that hold them."""

    values: np.ndarray | None
    num_classes: int
    notes: list[str]
    sidecars: list[str]


def read_labels(files: Files, splits: Splits, split: str, where: str) -> Labels:
    """The labels of a split's images; classes are counted over all splits. UserError names the file."""
    sidecars: list[str] = []
    notes: list[str] = []
    if where == "none":
        return Labels(None, 0, notes, sidecars)
    if where == "folders":
        labels, note = _by_folder(files, splits)
        notes.append(note)
    else:
        labels = _from_documents(files, splits, split)
        if labels is None:
            labels, sidecars = _from_sidecars(files, splits)
    names = splits.names[split]
    if not any(name in labels for name in names):
        return Labels(None, 0, [], sidecars)
    values = label_array([labels[name] for name in names])
    num_classes = count_classes(labels)
    if values.ndim == 1:
        source = str(files.path / (splits.prefixes[split] + LABEL_FILE))
        note = check_classes(values, num_classes, source if where == "auto" else str(files.path))
        notes += [note] if note else []
    return Labels(values, num_classes, notes, sidecars)


def no_labels_error(files: Files, splits: Splits, split: str, name: str) -> UsageError:
    """What `--cond` says of images without labels: both ways to give them some."""
    prefix = splits.prefixes[split]
    tops = _class_folders(splits.names[split], prefix)
    by_folder = f", or add --labels folders for its folders {_some(tops)}" if len(tops) > 1 else ""
    return UsageError(
        f"--cond: dataset {name} has no class labels; write {files.path / prefix / LABEL_FILE} as {FORM}"
        f"{by_folder}"
    )


def _from_documents(files: Files, splits: Splits, split: str) -> dict[str, Label] | None:
    """Labels by image from all dataset.json files; None if there is no such file."""
    prefixes = tuple(splits.prefixes.values())
    documents = [name for name in files.names if name.rpartition("/")[2] == LABEL_FILE]
    documents = [name for name in documents if "/" not in name or name.startswith(prefixes)]
    contents = attempt_all(files, documents, lambda position, stream, path: parse_labels(stream.read(), path))
    raise_first(contents)
    labels: dict[str, Label] = {}
    sources: dict[str, str] = {}  # image -> the document that labels it
    given = [
        (name, content) for name, content in zip(documents, contents, strict=True) if content is not None
    ]
    unused: dict[str, list[str]] = {}  # document -> its keys that name no image
    for document, content in given:
        path, folder = str(files.path / document), document.removesuffix(LABEL_FILE)
        below = [name for name in files.names if is_image_name(name) and name.startswith(folder)]
        try:
            found, unused[document] = matched(content, [name.removeprefix(folder) for name in below])
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        for name, label in found.items():
            if labels.setdefault(folder + name, label) != label:
                other = sources[folder + name]
                raise UserError(f"{path}: {name} has another label than in {other}; keep one")
            sources[folder + name] = path
    _refuse_unmatched(files, splits, split, labels, unused)
    _check_kinds(files, labels)
    return labels if given else ({} if documents else None)


def _refuse_unmatched(
    files: Files, splits: Splits, split: str, labels: dict[str, Label], unused: dict[str, list[str]]
) -> None:
    """UserError for images of the split without a label where others have one, and for keys without image."""
    prefix, names = splits.prefixes[split], splits.names[split]
    unlabelled = [name for name in names if name not in labels]
    concerned = len(unlabelled) < len(names) or any(
        document.startswith(prefix) or len(keys) > 0 for document, keys in unused.items()
    )
    if unlabelled and concerned and unused:
        document = next(
            (each for each in unused if unlabelled[0].startswith(each.removesuffix(LABEL_FILE))), min(unused)
        )
        folder = document.removesuffix(LABEL_FILE)
        raise unmatched_error(
            str(files.path / document), [name.removeprefix(folder) for name in unlabelled], unused[document]
        )
    for document, keys in unused.items():
        if keys:
            raise unmatched_error(str(files.path / document), [], keys)


def _from_sidecars(files: Files, splits: Splits) -> tuple[dict[str, Label], list[str]]:
    """Labels by image from the .cls or .json files of WebDataset samples, and the names of these files."""
    present = set(files.names)
    images = [name for names in splits.names.values() for name in names]
    for kind in (".cls", ".json"):
        beside = {name: _beside(name, kind, present) for name in images}
        if not any(beside.values()) or (kind == ".json" and not all(beside.values())):
            continue
        if missing := [name for name in images if beside[name] is None]:
            raise unmatched_error(f"{files.path}/*{kind}", missing, [])
        sidecars = list(dict.fromkeys(beside.values()))
        values = attempt_all(
            files, sidecars, lambda position, stream, path: _parse_sidecar(stream.read(1 << 20), path)
        )
        if kind == ".cls":
            raise_first(values)
        elif not all(isinstance(value, int) for value in values):
            continue  # descriptions of another kind
        by_file = dict(zip(sidecars, values, strict=True))
        return {name: by_file[beside[name]] for name in images}, sidecars
    return {}, []


def _beside(name: str, kind: str, present: set[str]) -> str | None:
    """The file of this kind that belongs to an image: of the whole name, or of its WebDataset sample."""
    stems = (name.rpartition(".")[0], sample_of(name)[0])
    return next((stem + kind for stem in stems if stem + kind in present), None)


def _parse_sidecar(content: bytes, path: str) -> int:
    try:
        value = parse_json(content.strip())
    except ValueError:
        value = None
    if isinstance(value, dict):
        value = next((value[key] for key in CLASS_KEYS if key in value), None)
    if type(value) is not int or not 0 <= value < MAX_CLASSES:
        raise UserError(f"{path}: {content[:40]!r} is not a class index from 0; write a number, or delete it")
    return value


def _by_folder(files: Files, splits: Splits) -> tuple[dict[str, Label], str]:
    """The class of each image by its top folder, and a line that says which folder is which class."""
    tops = sorted({top for s, p in splits.prefixes.items() for top in _class_folders(splits.names[s], p)})
    classes = {top: index for index, top in enumerate(tops)}
    labels = {}
    for split, prefix in splits.prefixes.items():
        for name in splits.names[split]:
            top, inside, _ = name.removeprefix(prefix).partition("/")
            if not inside:
                raise UserError(
                    f"--labels folders: {files.path / name} is in no class folder; move it into one"
                )
            labels[name] = classes[top]
    return labels, f"classes by folder: {_some([f'{top} {index}' for top, index in classes.items()])}"


def _class_folders(names: Sequence[str], prefix: str) -> list[str]:
    inner = (name.removeprefix(prefix) for name in names)
    return sorted({name.partition("/")[0] for name in inner if "/" in name})


def _check_kinds(files: Files, labels: dict[str, Label]) -> None:
    kinds = {len(label) if isinstance(label, tuple) else 0: name for name, label in labels.items()}
    if len(kinds) > 1:
        one, other = list(kinds.values())[:2]
        raise UserError(f"{files.path}: {one} and {other} have labels of two kinds; give all the same kind")


def _some(names: Sequence[str]) -> str:
    left = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {left:,} more" if left > 0 else "")
