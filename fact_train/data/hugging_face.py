"""Hugging Face datasets on disk (`hf:PATH[:SPLIT]`): a folder of arrow or parquet files, read as image files.

The image column is decoded by the rules of every other file (decode.py). The label column holds class
indices. Nothing is downloaded and no code of a dataset runs. Needs the extra `hf`.
"""

import functools
import io
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.fingerprints import stamp
from fact_metrics.base.folders import cache_folder
from fact_train.data.dataset import Dataset
from fact_train.data.errors import MissingSplit
from fact_train.data.files import Files
from fact_train.data.folder import Source, open_files
from fact_train.data.labels import MAX_CLASSES, check_classes
from fact_train.data.parallel import ProgressCallback
from fact_train.data.processing import Processing, Selection
from fact_train.data.splits import SPELLINGS
from fact_train.datasets import HUGGING_FACE

LABEL_COLUMNS = ("label", "labels", "cls", "class")
HELD_OUT = (*SPELLINGS["test"], *SPELLINGS["validation"])


def open_hugging_face(
    data: str,
    *,
    split: str,
    processing: Processing,
    selection: Selection,
    progress: ProgressCallback | None = None,
) -> Dataset:
    """A split of `hf:PATH[:SPLIT]`. UsageError for another path or split, UserError for unusable content."""
    path, named = _parse(data)
    selection.refuse_folders(data)
    table = _split_of(_load(path), path, split, named)
    column, labels_column = _columns(table, data, selection)
    source = _source(table, data, labels_column, selection)
    files = _files(table, data, path, column)
    return open_files(files, source, path.name, split, processing, selection, progress)


def _parse(data: str) -> tuple[Path, str | None]:
    text, named = data.removeprefix(HUGGING_FACE), None
    if not Path(text).expanduser().exists() and ":" in text:
        text, _, named = text.rpartition(":")
    path = Path(text).expanduser()
    if not path.is_dir():
        raise UsageError(f"{data}: {path} is not a folder; save the dataset there with save_to_disk")
    return path, named


def _load(path: Path) -> Mapping[str, Any]:
    """The splits of a folder, each a `datasets.Dataset`."""
    try:
        import datasets
    except ImportError as error:
        raise UsageError(f"{HUGGING_FACE}{path} needs datasets; pip install fact-stylegan[hf]") from error
    parquet = sorted(file for file in path.rglob("*.parquet") if file.is_file())
    try:
        if not parquet:
            found = datasets.load_from_disk(str(path))
            return found if isinstance(found, Mapping) else {"train": found}
        by_split: dict[str, list[str]] = defaultdict(list)
        for file in parquet:
            by_split[_split_name(file.relative_to(path))].append(str(file))
        cache = str(cache_folder() / "hugging-face")
        return {
            name: datasets.Dataset.from_parquet(files, split=name, cache_dir=cache)
            for name, files in by_split.items()
        }
    except Exception as error:  # whatever a foreign file makes its readers raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path}: not a folder of arrow or parquet files that datasets reads ({reason}); save it again"
        ) from error


def _split_name(file: Path) -> str:
    """`test` of test-00000-of-00001.parquet and of test/0.parquet; train if no part names a split."""
    known = {name for spellings in SPELLINGS.values() for name in spellings}
    for part in reversed(file.with_suffix("").parts):
        word = re.split(r"[-_.]", part.lower())[0]
        if word in known:
            return word
    return "train"


def _split_of(splits: Mapping[str, Any], path: Path, split: str, named: str | None) -> Any:
    names = list(splits)
    if named is not None:
        if named not in splits:
            raise UsageError(
                f"{HUGGING_FACE}{path}:{named}: has the splits {', '.join(names)}; choose one of these"
            )
        if split == "train":
            return splits[named]
    wanted = SPELLINGS["train"] if split == "train" else HELD_OUT
    for name in wanted if named is None else ():
        if name in splits:
            return splits[name]
    if split == "train" and len(names) == 1:
        return splits[names[0]]
    raise MissingSplit(path, split, f"it has {', '.join(names)}; name one with {HUGGING_FACE}{path}:SPLIT")


def _columns(table: Any, data: str, selection: Selection) -> tuple[str, str | None]:
    """Names of the image column and of the label column."""
    import datasets

    images = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    key = selection.image_key
    if key is not None and key not in images:
        raise UsageError(f"--image-key {key}: {data} has the image columns {', '.join(images) or 'none'}")
    if not images:
        raise UserError(
            f"{data}: no column of {', '.join(table.column_names)} holds images; cast one to datasets.Image"
        )
    if key is None and len(images) > 1:
        raise UsageError(f"{data}: has the image columns {', '.join(images)}; choose one with --image-key")
    classes = [name for name, feature in table.features.items() if isinstance(feature, datasets.ClassLabel)]
    label = next((name for name in LABEL_COLUMNS if name in table.column_names), None)
    return key or images[0], label or (classes[0] if len(classes) == 1 else None)


def _source(table: Any, data: str, column: str | None, selection: Selection) -> Source:
    names = [f"row {row}" for row in range(len(table))]
    labels, num_classes, notes = None, 0, []
    if column is not None and selection.labels != "none":
        values = np.asarray(table.with_format("arrow")[:][column].to_numpy(zero_copy_only=False))
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= MAX_CLASSES:
            raise UserError(
                f"{data}: column {column} holds no class indices from 0; --labels none ignores it"
            )
        names_of_classes = getattr(table.features[column], "names", None) or []
        labels, num_classes = values.astype(np.int64), max(int(values.max()) + 1, len(names_of_classes))
        note = check_classes(labels, num_classes, data)
        notes = [note] if note else []
    if selection.need_labels and labels is None:
        raise UsageError(
            f"--cond: {data} has no label column ({', '.join(LABEL_COLUMNS)}); rename one to label"
        )
    return Source(names, labels, num_classes, notes)


def _files(table: Any, data: str, path: Path, column: str) -> Files:
    import datasets

    rows = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    stored = [Path(file["filename"]) for file in table.cache_files] or [path]
    changed = functools.cache(lambda: max(map(stamp, stored)))

    def content(name: str) -> bytes:
        value = rows[int(name.removeprefix("row "))][column]
        if value is None or value["bytes"] is None:
            raise OSError("the image itself is not stored; embed it with embed_table_storage")
        return value["bytes"]

    return Files(
        Path(data),
        [f"row {row}" for row in range(len(table))],
        lambda name: io.BytesIO(content(name)),
        lambda name: len(content(name)),
        lambda name: changed(),
        Counter(),
    )
