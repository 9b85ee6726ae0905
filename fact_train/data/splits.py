"""Which files of a folder or archive are the images of which split, and what is left out.

- Every file with an image's extension is an image, in the order of names.
- Top folders `train/` and `test/` are the splits. `training/`, `testing/`, `val/`, `valid/`, `validation/`
  and other cases are understood; a validation set is the test split where there is no test set. Beside
  splits, nothing else is read. Without such folders everything is the train split.
- Of samples with several images each (`s0.input.png`, `s0.mask.png`), `image_key` names the one to read.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fact_metrics.base.errors import UsageError, UserError
from fact_train.data.decode import EXTENSIONS, MISSING, extension, formats, is_image_name
from fact_train.data.files import LABEL_FILE, Files

SPELLINGS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation"),
}
MOST_KEYS = 4  # images per sample; more are a numbered series


class Splits(NamedTuple):
    """Image names by split (train, and test if there is one), and the folder that each lies in.

    The folder is "" or such as "val/". `left_out` counts files that are not read, by reason; `total` is the
    number of all files.
    """

    names: dict[str, list[str]]
    prefixes: dict[str, str]
    left_out: Counter[str]
    total: int
    notes: list[str]

    def skipped_line(self, sidecars: Iterable[str] = ()) -> str | None:
        """`12 of 30 files skipped: 5 .txt, 4 .csv`, or None; `sidecars` are files that hold labels."""
        counts = self.left_out - Counter(extension(name) for name in sidecars)
        if not counts:
            return None
        return f"{counts.total():,} of {self.total:,} files skipped: {counted(counts)}"


def counted(counts: Mapping[str, int]) -> str:
    """`5 .txt, 4 hidden`, the most first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}{_hint(reason)}" for reason, count in ordered)


def find_splits(files: Files, image_key: str | None = None) -> Splits:
    """The images of a folder or archive by split. UserError where there is none, or the split is unclear."""
    images = [name for name in files.names if is_image_name(name)]
    left_out = files.skipped + Counter(
        extension(name) or "without extension"
        for name in files.names
        if not is_image_name(name) and name.rpartition("/")[2] != LABEL_FILE
    )
    total = len(files.names) + files.skipped.total()
    if not images:
        kinds = ", ".join(ext for ext, name in EXTENSIONS.items() if name in formats())
        seen = f"it holds {counted(left_out)}; " if left_out else ""
        arrays = any(name in left_out for name in (".npy", ".npz"))
        way_out = "give the .npz or .npy file itself" if arrays else "give a folder that does"
        raise UserError(f"{files.path}: holds no image ({kinds}) and no idx file; {seen}{way_out}")
    images = _of_key(files.path, images, image_key, left_out)
    prefixes, notes = _split_folders(files.path, images)
    if not prefixes:
        return Splits({"train": images}, {"train": ""}, left_out, total, notes)
    names = {
        split: [name for name in images if name.startswith(prefix)] for split, prefix in prefixes.items()
    }
    outside = len(images) - sum(map(len, names.values()))
    if outside:
        left_out[f"outside {' and '.join(prefixes.values())}"] = outside
    return Splits(names, prefixes, left_out, total, notes)


def sample_of(name: str) -> tuple[str, str]:
    """A file name as WebDataset reads it: the sample, and the key after the first dot of the file's name."""
    folder, _, base = name.rpartition("/")
    stem, _, key = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), key.lower()


def _split_folders(path: Path, images: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The folder of each split, empty where everything is the train split; and what to say about it."""
    tops = sorted({name.partition("/")[0] for name in images if "/" in name})
    found: dict[str, list[str]] = {
        kind: [top for top in tops if top.lower() in spellings] for kind, spellings in SPELLINGS.items()
    }
    for kind, folders in found.items():
        if len(folders) > 1:
            both = " and ".join(f"{folder}/" for folder in folders)
            raise UserError(
                f"{path}: {both} both read as the {kind} split; keep one, or give one as the data"
            )
    train, test, validation = (next(iter(folders), None) for folders in found.values())
    if train is None:
        named = [f"{folder}/" for folder in (test, validation) if folder is not None]
        if len(named) == 2:
            raise UserError(
                f"{path}: has {named[0]} and {named[1]} but no train/; give one of these folders as the data"
            )
        return {}, [f"{named[0]} is read as training images: there is no train/"] if named else []
    held_out = test or validation
    if held_out is None:
        return {}, []
    notes = []
    if (train, held_out) != ("train", "test"):
        notes.append(f"{train}/ is the train split and {held_out}/ the test split")
    return {"train": f"{train}/", "test": f"{held_out}/"}, notes


def _of_key(path: Path, images: list[str], image_key: str | None, left_out: Counter[str]) -> list[str]:
    """The images of a key; all of them where no sample has several. Counts the others in `left_out`."""
    keys = Counter(sample_of(name)[1] for name in images)
    if image_key is not None:
        wanted = image_key.lower()
        chosen = [name for name in images if _has_key(name, wanted)]
        if not chosen:
            raise UsageError(
                f"--image-key {image_key}: {path} has images {counted(keys)}; choose one of these"
            )
        if len(chosen) < len(images):
            left_out[f"images of other keys than {wanted}"] += len(images) - len(chosen)
        return chosen
    samples: dict[str, set[str]] = defaultdict(set)
    for name in images:
        sample, key = sample_of(name)
        samples[sample].add(key)
    sets = set(map(frozenset, samples.values()))
    paired = (
        len(samples) > 1
        and len(sets) == 1
        and 1 < len(keys) <= MOST_KEYS
        and all(key.count(".") and not key[0].isdigit() for key in keys)
    )
    if paired:
        choices = " or ".join(sorted(keys))
        raise UsageError(f"{path}: each sample has {len(keys)} images; choose --image-key {choices}")
    return images


def _has_key(name: str, key: str) -> bool:
    own = sample_of(name)[1]
    return own == key or own.rpartition(".")[0] == key


def _hint(reason: str) -> str:
    kind = EXTENSIONS.get(reason)
    return f" (needs {MISSING[kind]})" if kind in MISSING and kind not in formats() else ""
