"""MNIST test images spoiled step by step in seven ways: what a feature space for digits must rank."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from fact_train.data import Dataset

CLASSES = 10
# From worst to untouched.
BLUR = (1.5, 1.0, 0.5, 0.0)  # standard deviation in pixels
NOISE = (40, 15, 5, 0)  # standard deviation in grey levels of 255
SHARES = (0.4, 0.2, 0.1, 0.05, 0.0)  # of images that are no digits
MODES = (2, 4, 6, 8, 10)  # digits that are there
WRONG = ("uniform noise", "right covariance", "halves of two digits", "turned by 90 degrees")


@dataclass(frozen=True)
class DamagedDigits:
    """Images uint8 [P, 1, H, W], and for each way the rows [N] of every level, from worst to untouched.

    Row i of a level is row i of the next one, better or the same; where a level has a name, it is that.
    """

    images: torch.Tensor
    levels: dict[str, tuple[torch.Tensor, ...]]
    names: dict[str, tuple[float, ...]]


def damage_digits(dataset: Dataset, count: int, *, seed: int, draws: int) -> DamagedDigits:
    """`count` images a level; the draws (seeds 0 to draws - 1) share no image.

    Raises ValueError where the dataset is too small for that.
    """
    rng = np.random.default_rng(seed)
    chosen, modes = _rows_by_modes(dataset, count, seed=seed, draws=draws, rng=rng)
    digits = dataset.images(torch.from_numpy(chosen))
    clean = digits[:count]
    pool, levels = [digits], {"fewer digits": tuple(modes)}
    rows = torch.arange(count)

    def add(images: torch.Tensor) -> torch.Tensor:
        """The images' rows in the pool."""
        start = sum(map(len, pool))
        pool.append(images)
        return torch.arange(start, start + len(images))

    levels["blur"] = tuple(add(_blurred(clean, sigma)) if sigma else rows for sigma in BLUR)
    levels["noise"] = tuple(add(_noisy(clean, sigma, rng)) if sigma else rows for sigma in NOISE)
    for kind, images in zip(WRONG, _wrong(clean, int(max(SHARES) * count), rng), strict=True):
        wrong = add(images)
        parts = [int(share * count) for share in SHARES]
        levels[kind] = tuple(torch.cat([wrong[:part], rows[part:]]) for part in parts)
    names = {"fewer digits": MODES, "blur": BLUR, "noise": NOISE, **dict.fromkeys(WRONG, SHARES)}
    return DamagedDigits(torch.cat(pool), levels, names)


def _rows_by_modes(
    dataset: Dataset, count: int, *, seed: int, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[torch.Tensor]]:
    """Images of the dataset, those of all ten digits first, and the rows of them at every number of digits.

    Rows of a digit that is gone are taken over by other images of those that stay, in turn.
    """
    labels = np.asarray(dataset.labels(range(len(dataset))))
    waiting = []
    for digit in rng.permutation(CLASSES):
        members = np.random.default_rng(0).permutation(np.flatnonzero(labels == digit))
        waiting.append(list(members[seed::draws]))
    chosen: list[int] = []

    def take(place: int) -> int:
        if not waiting[place]:
            raise ValueError(f"{dataset.name} has too few images of a digit for {draws} draws of {count}")
        chosen.append(waiting[place].pop())
        return len(chosen) - 1

    places = np.arange(count) % CLASSES
    rows = np.array([take(place) for place in places])
    levels = [torch.from_numpy(rows.copy())]
    for modes in sorted(MODES, reverse=True)[1:]:
        for turn, row in enumerate(np.flatnonzero(places >= modes)):
            places[row] = turn % modes
            rows[row] = take(places[row])
        levels.append(torch.from_numpy(rows.copy()))
    return np.array(chosen), levels[::-1]


def _blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    blurred = gaussian_filter(images.numpy().astype(np.float32), (0, 0, sigma, sigma))
    return torch.from_numpy(blurred.round().clip(0, 255).astype(np.uint8))


def _noisy(images: torch.Tensor, sigma: float, rng: np.random.Generator) -> torch.Tensor:
    noisy = images.numpy() + sigma * rng.standard_normal(images.shape, dtype=np.float32)
    return torch.from_numpy(noisy.round().clip(0, 255).astype(np.uint8))


def _wrong(images: torch.Tensor, count: int, rng: np.random.Generator) -> Sequence[torch.Tensor]:
    """`count` images of each kind of WRONG; neighbouring rows are different digits."""
    noise = torch.from_numpy(rng.integers(0, 256, (count, *images.shape[1:]), dtype=np.uint8))
    scrambled = _with_the_same_covariance(images, rng)[:count]
    half = images.shape[2] // 2
    joined = torch.cat([images[:count, :, :half], images[1 : count + 1, :, half:]], dim=2)
    return noise, scrambled, joined, images[:count].rot90(1, (2, 3))


def _with_the_same_covariance(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """As many images, every principal component taken from another digit: mean and covariance stay as they
    are, but for cutting at black and white, and nothing is left of a digit."""
    pixels = images.double().flatten(1)
    mean = pixels.mean(dim=0)
    left, sizes, axes = torch.linalg.svd(pixels - mean, full_matrices=False)
    orders = torch.from_numpy(np.stack([rng.permutation(len(pixels)) for _ in sizes], axis=1))
    shuffled = mean + (left.gather(0, orders) * sizes) @ axes
    return shuffled.round().clamp(0, 255).to(torch.uint8).reshape(images.shape)
