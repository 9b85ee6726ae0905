"""Image folders, zips and tars of them: every png, jpg, jpeg and webp below, in the order of their names.

- Names match in any case; files of other kinds are passed over. Where the files lie: files.py. A folder, its
  zip and its tar (WebDataset: the images of all samples) give the same dataset.
- `dataset.json` at the top holds the labels (labels.py). Without it the set is unlabelled.
- Images in both `train/` and `test/`: these are the splits, each with its own `dataset.json`, and nothing
  else is read. Otherwise everything is the train split, and there is no test split.
- Every file is decoded once, in threads, while opening: afterwards no file can fail and no epoch decodes
  again. Pixels are held as uint8, in memory or beyond 4 GiB in a file under TMPDIR (allocate_images).
- Opened lazily, files that were all decoded before and have not changed since (index.py) are decoded on
  demand, one by one.
- Opening reports all damaged files: the error names the first and counts them. What happens to every
  unusual kind of file: decode.py.
"""

import dataclasses
import io
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from fact_metrics.base.errors import UserError
from fact_train.data.dataset import SPLITS, Dataset
from fact_train.data.decode import Header, decode, read_header
from fact_train.data.errors import MissingSplit, NeedsOption
from fact_train.data.files import Files, attempt_all, image_files, raise_first
from fact_train.data.index import DatasetIndex
from fact_train.data.labels import count_classes, label_array, parse_labels
from fact_train.data.parallel import ProgressCallback
from fact_train.data.pixels import allocate_images
from fact_train.data.processing import Processing, centre, check_resolution, resize

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
LABEL_FILE = "dataset.json"


def open_folder(
    path: Path,
    *,
    split: str,
    processing: Processing,
    progress: ProgressCallback | None = None,
    lazy: bool = False,
) -> Dataset:
    """A folder, zip or tar of images as a dataset. UserError for what cannot be used, naming the first file.

    Where files are damaged it is an UnusableFiles, which has a line for each of them.
    """
    name = path.resolve().name if path.is_dir() else path.stem.removesuffix(".tar")
    with ExitStack() as stack:
        files = stack.enter_context(image_files(path))
        index = DatasetIndex.of_files(files, split, processing)
        if not lazy:
            return _open_files(files, name, split, processing, index, progress)
        with index.locked():
            dataset = _open_files(files, name, split, processing, index, progress, lazy=True)
            dataset.sha256  # noqa: B018 - saved before another process may look for it
        weakref.finalize(dataset, stack.pop_all().close)
        return dataset


def _open_files(
    files: Files,
    name: str,
    split: str,
    processing: Processing,
    index: DatasetIndex,
    progress: ProgressCallback | None,
    *,
    lazy: bool = False,
) -> Dataset:
    image_names, prefix = _names_of_split(files, split)
    labels, num_classes = _read_labels(files, image_names, prefix)
    chosen = processing.choose(len(image_names)).numpy()
    chosen_names = [prefix + image_names[i] for i in chosen]

    if is_indexed := index.load():
        processing = Processing(**index.entries["processing"])
    else:
        headers = attempt_all(files, chosen_names, lambda position, stream, path: read_header(stream, path))
        headers_by_name = dict(zip(chosen_names, headers, strict=True))
        processing = _resolve(files.path, headers_by_name, processing, len(image_names))
        index.entries["processing"] = dataclasses.asdict(processing)
    resolution, channels = processing.resolution, processing.channels
    images = allocate_images((len(chosen), channels, resolution, resolution))

    def place(position: int, stream: BinaryIO, path: str) -> None:
        if is_indexed and files.stamp(chosen_names[position]) != index.stamps[chosen_names[position]]:
            raise UserError(f"{path}: changed since it was opened; run the same command again")
        whole = io.BytesIO(stream.read())  # to its end: there a zip checks its CRC
        image = decode(whole, path, channels=channels, alpha=processing.alpha)
        image = resize(centre(image, processing.square_side(*image.size)), resolution, processing.resize)
        images[position] = np.asarray(image).reshape(resolution, resolution, channels).transpose(2, 0, 1)

    def decode_some(positions: Sequence[int], progress: ProgressCallback | None = None) -> None:
        names = [chosen_names[position] for position in positions]
        raise_first(attempt_all(files, names, lambda i, *file: place(positions[i], *file), progress))

    on_demand = lazy and is_indexed
    if not on_demand:
        decode_some(range(len(chosen)), progress)
    return Dataset(
        name=name,
        split=split,
        images=images,
        labels=None if labels is None else labels[chosen],
        num_classes=num_classes,
        processing=processing,
        index=index,
        decode=decode_some if on_demand else None,
    )


def _names_of_split(files: Files, split: str) -> tuple[list[str], str]:
    """Sorted image names of the split, and the subfolder ("train/", "test/" or "") that they lie in."""
    names = [name for name in files.names if name.lower().endswith(EXTENSIONS)]
    if not names:
        kinds = ", ".join(EXTENSIONS)
        raise UserError(f"{files.path}: holds no image ({kinds}) and no idx file; give a folder that does")
    by_split = {name: [image for image in names if image.startswith(f"{name}/")] for name in SPLITS}
    if all(by_split.values()):
        return [name.removeprefix(f"{split}/") for name in by_split[split]], f"{split}/"
    if split != "train":
        raise MissingSplit(
            files.path, split, "put its images into subfolders train/ and test/, or use the train split"
        )
    return names, ""


def _read_labels(files: Files, names: Sequence[str], prefix: str) -> tuple[np.ndarray | None, int]:
    """Labels of the named images and the number of classes, counted over both splits where there are two."""
    label_files = [f"{split}/{LABEL_FILE}" for split in SPLITS] if prefix else [LABEL_FILE]
    for name in files.names:
        in_use = "/" not in name or name.startswith(prefix)
        if in_use and PurePosixPath(name).name == LABEL_FILE and name not in label_files:
            raise UserError(
                f"{files.path / name}: labels are read from {' and '.join(label_files)} only; move it"
            )
    present = [name for name in label_files if name in files.names]
    results = attempt_all(files, present, lambda position, stream, path: parse_labels(stream.read(), path))
    raise_first(results)
    parsed = dict(zip(present, results, strict=True))
    labels = parsed.get(prefix + LABEL_FILE)
    if labels is None:
        return None, 0
    num_classes = max(count_classes(each) for each in parsed.values() if each is not None)
    return label_array(labels, names, str(files.path / (prefix + LABEL_FILE))), num_classes


def _resolve(
    path: Path, headers: dict[str, Header | UserError], processing: Processing, available: int
) -> Processing:
    """Fill in resolution and channels from the files, and refuse shapes that the options do not allow."""
    readable = {name: header for name, header in headers.items() if isinstance(header, Header)}
    if not readable:
        raise_first(list(headers.values()))
    firsts: dict[int | None, str] = {}  # side of the square after cropping -> first image that has it
    for name, header in readable.items():
        firsts.setdefault(processing.square_side(header.width, header.height), name)

    def size(name: str) -> str:
        return f"{path / name} is {readable[name].width}x{readable[name].height}"

    if None in firsts:
        raise NeedsOption(f"{size(firsts[None])}, not square", "choose --crop center or --crop pad")
    resolution = processing.resolution
    if resolution is None:
        if len(firsts) > 1:
            one, other = list(firsts.values())[:2]
            raise NeedsOption(
                f"{size(one)} and {size(other)}", "choose --resolution to resize all to one size"
            )
        (resolution,) = firsts
        check_resolution(resolution, f"{path}: image size")
    if processing.resize == "none":
        for side, name in firsts.items():
            if side != resolution:
                raise NeedsOption(
                    f"{size(name)}, not {resolution}x{resolution}", "choose another --resize than none"
                )
    channels = processing.channels or (1 if all(header.gray for header in readable.values()) else 3)
    return processing.resolved(resolution=resolution, channels=channels, available=available)
