"""Compares reconstructions with their originals: LPIPS, MSE, PSNR and SSIM of two folders, paired by name.

Two images are a pair if their paths below the two folders (or zips) are equal up to the extension. Both are
read as 8 bits; they stay gray if both are gray. fact_train/data/decode.py says how unusual files are read.
"""

import csv
import io
import math
import posixpath
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import torch

from fact_metrics.base.atomic import write_text
from fact_metrics.base.errors import UsageError, UserError, unknown_name
from fact_metrics.base.plain_text import for_csv
from fact_metrics.engines.pair_distances import (
    SMALLEST_LPIPS,
    WINDOW,
    compute_lpips,
    compute_mse,
    compute_psnr,
    compute_ssim,
    mean_and_stderr,
)
from fact_metrics.features import DETECTORS
from fact_metrics.features.weight_store import find_weights
from fact_train.data.decode import EXTENSIONS, Header, decode, is_image_name, read_header
from fact_train.data.files import image_files, use
from fact_train.data.parallel import ProgressCallback, for_each_image
from fact_train.data.processing import ALPHAS

BATCH = 64
BATCH_PIXELS = 2**24
WORST = 10
SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Measure:
    """A distance of pairs: compute(a, b, device) is [N] of uint8 [N, C, H, W], sides of at least `smallest`.

    `weights` are the downloaded files it needs (metrics/features/weight_store.py).
    """

    compute: Callable[[torch.Tensor, torch.Tensor, str], torch.Tensor]
    higher_is_better: bool
    smallest: int = 1
    weights: tuple[str, ...] = ()


def _lpips(a: torch.Tensor, b: torch.Tensor, device: str, *, detector: str) -> torch.Tensor:
    return compute_lpips(a, b, detector=detector, value_range=(0, 255), device=device)


def _pixels(a: torch.Tensor, b: torch.Tensor, device: str, *, compute: Callable) -> torch.Tensor:
    return compute(a, b, value_range=(0, 255))


def _lpips_measure(name: str) -> Measure:
    compute, weights = partial(_lpips, detector=name), DETECTORS[name].weights
    return Measure(compute, higher_is_better=False, smallest=SMALLEST_LPIPS, weights=weights)


MEASURES = {
    f"lpips_{name.removeprefix('lpips_')}": _lpips_measure(name)
    for name in sorted(DETECTORS)
    if hasattr(DETECTORS[name], "distance")
} | {
    "mse": Measure(partial(_pixels, compute=compute_mse), higher_is_better=False),
    "psnr": Measure(partial(_pixels, compute=compute_psnr), higher_is_better=True),
    "ssim": Measure(partial(_pixels, compute=compute_ssim), higher_is_better=True, smallest=WINDOW),
}

OFFLINE = tuple(name for name, measure in MEASURES.items() if not measure.weights)


@dataclass(frozen=True)
class Reconstruction:
    """The table of pairs: `values[measure][i]` belongs to `names[i]`. MSE is in units of [-1, 1].

    `mixed` pairs compare a gray image with a colour one, both as RGB.
    """

    names: list[str]
    values: dict[str, list[float]]
    mixed: int = 0

    def mean(self, measure: str) -> tuple[float, float | None]:
        """Mean over the pairs and its standard error sd / sqrt(N), None for a single pair."""
        return mean_and_stderr(torch.tensor(self.values[measure], dtype=torch.float64))

    def worst(self, count: int = WORST, *, by: str | None = None) -> list[tuple[str, float]]:
        """Names and values of the least similar pairs, worst first; by default by the first measure.

        Raises UsageError if `by` was not measured.
        """
        by = by or next(iter(self.values))
        if by not in self.values:
            raise unknown_name("measure", by, self.values)
        sign = 1 if MEASURES[by].higher_is_better else -1
        pairs = zip(self.names, self.values[by], strict=True)
        return sorted(pairs, key=lambda pair: (sign * pair[1], pair[0]))[:count]

    def to_csv(self) -> str:
        """One line per pair, in the order of names; numbers in full, `inf` for the PSNR of equal images."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", *self.values])
        writer.writerows(zip(map(for_csv, self.names), *self.values.values(), strict=True))
        return text.getvalue()


def reconstruct_folders(
    a: Path,
    b: Path,
    *,
    out: Path | None = None,
    measures: Sequence[str] = OFFLINE,
    alpha: str = "refuse",
    device: str = "cpu",
    progress: ProgressCallback | None = None,
) -> Reconstruction:
    """Compare every image of folder or zip `a` with the image of that name in `b`; write the CSV to `out`.

    `alpha`: how to treat transparent pixels, as in `fact-train --alpha`. `progress` is called with (pairs
    done, all pairs). Every file is decoded once before any computation, so that none can fail later. Raises
    UsageError for a missing path or an unknown measure or alpha. Raises UserError with file names for images
    that have no partner, cannot be read, differ in size from their partner, or are too small for a measure.
    """
    for name in measures:
        if name not in MEASURES:
            raise unknown_name("measure", name, MEASURES)
    for name in (weights for measure in measures for weights in MEASURES[measure].weights):
        find_weights(name)  # report missing weights before reading images
    if not measures:
        raise UsageError(f"--measures is empty; known: {', '.join(MEASURES)}")
    if alpha not in ALPHAS:
        raise unknown_name("alpha", alpha, ALPHAS)
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise UsageError(f"--out {out}: its folder does not exist; create it first")
    with ExitStack() as stack:
        images_a, images_b = (_Images(Path(path), stack) for path in (a, b))
        names = _paired_names(images_a, images_b)
        batches, mixed = _inspect(names, images_a, images_b, measures=measures, alpha=alpha)
        values = {measure: [math.nan] * len(names) for measure in measures}
        done = 0
        for channels, positions in batches:
            chosen = [names[position] for position in positions]
            batch = [images.batch(chosen, channels=channels, alpha=alpha) for images in (images_a, images_b)]
            for measure in measures:
                distances = MEASURES[measure].compute(*batch, device).tolist()
                for position, value in zip(positions, distances, strict=True):
                    values[measure][position] = value
            done += len(positions)
            if progress is not None:
                progress(done, len(names))
    result = Reconstruction(names, values, mixed)
    if out is not None:
        write_text(Path(out), result.to_csv())
    return result


class _Images:
    """The images of a folder, zip or tar, by path without extension below the innermost common folder."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        if not path.exists():
            raise UsageError(f"{path} does not exist; give a folder, zip or tar of images")
        self._opened = stack.enter_context(image_files(path))
        self.path = self._opened.path
        self.files = self._by_name([name for name in self._opened.names if is_image_name(name)])

    def header(self, name: str) -> Header:
        """Size and kind. The UserError of an unreadable file begins with its path."""
        return self._use(name, read_header)

    def read(self, name: str, *, channels: int, alpha: str) -> np.ndarray:
        """The pixels, uint8 [C, H, W]. The UserError of an unreadable file begins with its path."""
        image = self._use(name, partial(decode, channels=channels, alpha=alpha)).image
        return np.asarray(image).reshape(image.height, image.width, channels).transpose(2, 0, 1)

    def batch(self, names: Sequence[str], *, channels: int, alpha: str) -> torch.Tensor:
        """uint8 [N, C, H, W] of images of one size."""
        arrays = for_each_image(lambda i: self.read(names[i], channels=channels, alpha=alpha), len(names))
        return torch.from_numpy(np.stack(arrays))

    def _use(self, name: str, function: Callable[[BinaryIO, str], Any]) -> Any:
        return use(
            self._opened, self.files[name], lambda stream, path: function(io.BytesIO(stream.read()), path)
        )

    def _by_name(self, files: Sequence[str]) -> dict[str, str]:
        if not files:
            raise UserError(f"{self.path}: holds no image ({', '.join(EXTENSIONS)})")
        enclosing = len(posixpath.commonpath([posixpath.dirname(file) for file in files]))
        by_name: dict[str, str] = {}
        for file in files:
            name = PurePosixPath(file[enclosing:].lstrip("/")).with_suffix("").as_posix()
            if name in by_name:
                raise UserError(f"{self.path}: {by_name[name]} and {file} are both called {name}; keep one")
            by_name[name] = file
        return by_name


def _paired_names(images_a: _Images, images_b: _Images) -> list[str]:
    """Names in both, sorted. UserError that names images without a partner."""
    unpaired = []
    for images, others in ((images_a, images_b), (images_b, images_a)):
        missing = sorted(images.files.keys() - others.files.keys())
        if missing:
            shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
            unpaired.append(f"{len(missing)} of {len(images.files)} in {images.path} ({shown})")
    if unpaired:
        raise UserError(
            f"images without a partner of the same name: {'; '.join(unpaired)}; add or remove them"
        )
    return sorted(images_a.files)


def _inspect(
    names: Sequence[str], images_a: _Images, images_b: _Images, *, measures: Sequence[str], alpha: str
) -> tuple[list[tuple[int, list[int]]], int]:
    """Decode all files once and batch pairs of equal shape: (channels, positions) of every batch.

    Also how many pairs are of a gray image and a colour one.

    UserError for the first pair that cannot be used, with the number of such pairs.
    """

    mixed = [False] * len(names)

    def shape_of(position: int) -> tuple[int, int, int] | UserError:
        name = names[position]
        try:
            grays = [images.header(name).gray for images in (images_a, images_b)]
            mixed[position] = len(set(grays)) > 1
            channels = 1 if all(grays) else 3
            a, b = (
                images.read(name, channels=channels, alpha=alpha).shape for images in (images_a, images_b)
            )
        except UserError as error:
            return error
        size = f"{images_a.path / images_a.files[name]} is {a[2]}x{a[1]}"
        if a != b:
            return UserError(
                f"{size} and {images_b.path / images_b.files[name]} {b[2]}x{b[1]}; use equal sizes"
            )
        small = [measure for measure in measures if min(a[1:]) < MEASURES[measure].smallest]
        if small:
            needed = MEASURES[small[0]].smallest
            return UserError(
                f"{size}; {small[0]} needs {needed} pixels or more: leave out {', '.join(small)}"
            )
        return a

    shapes = for_each_image(shape_of, len(names))
    problems = [shape for shape in shapes if isinstance(shape, UserError)]
    if problems:
        count = f" (the first of {len(problems)} such pairs among {len(names)})" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{count}") from problems[0]
    by_shape: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for position, shape in enumerate(shapes):
        by_shape[shape].append(position)
    batches = []
    for shape, positions in by_shape.items():
        size = min(max(BATCH_PIXELS // math.prod(shape), 1), BATCH)
        batches += [(shape[0], positions[i : i + size]) for i in range(0, len(positions), size)]
    return batches, sum(mixed)
