"""Metrics from Python, for any generator: `fact_metrics.compute` in one call, `ImageMetrics` in a loop.

The same protocols, detectors and numbers as `fact-eval`, on images in memory. Images are

    a tensor [N, C, H, W], an array [N, H, W, C] or a list of PIL pictures
    a dataset (of torch or torchvision: `dataset[i]` is an image, or a tuple that begins with one)
    an iterable of batches (a DataLoader)
    a callable that takes a number and returns that many images, as long as images are needed

with values of uint8, or floats in a stated `value_range`; C is 1 or 3.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.tf32 import tf32
from fact_metrics.features import get_detector
from fact_metrics.registry import compute_metric, fewest_images, get_spec
from fact_metrics.spec import FeatureNeed, MetricSpec, MetricValue

T = TypeVar("T")
ValueRange = tuple[float, float]
Split = Literal["train", "test"]


def compute(
    generated: object,
    real: object | Mapping[Split, object] = None,
    metrics: str | Sequence[str] = (),
    *,
    device: torch.device | str = "cpu",
    batch: int = 64,
    value_range: ValueRange | None = None,
    seed: int = 0,
    count: int | None = None,
) -> dict[str, MetricValue]:
    """Values of metrics of generated images against real ones; which kinds of images: top of the file.

    `metrics` are published names, or names of the grammar such as `kid10k_full_pixels`.

    `real` is one set, or {"train": ..., "test": ...} where a metric tells them apart. `seed` is the
    evaluation seed of metrics that draw. `count` stands in for larger numbers of images in a protocol: the
    value is then comparable with nothing but values of as many. Raises UsageError for an unknown metric
    or one that needs a generator, UserError for images that cannot be used or are too few.
    """
    scores = ImageMetrics(metrics, device=device, value_range=value_range, seed=seed, count=count)
    splits = real if isinstance(real, Mapping) else {} if real is None else {"train": real}
    for split, images in splits.items():
        for part in _batches(images, batch, lambda split=split: scores.lacking(split)):
            scores.update(part, real=split)
    for part in _batches(generated, batch, scores.lacking):
        scores.update(part)
    return scores.compute()


class ImageMetrics:
    """Metrics that take images batch by batch, in the manner of torchmetrics: update, compute, reset.

    Only features are kept, on the CPU. In a process group of torch.distributed every process updates with
    its own images and `compute`, called by all, gives all of them the value of all images.
    """

    def __init__(
        self,
        metrics: str | Sequence[str],
        *,
        device: torch.device | str = "cpu",
        value_range: ValueRange | None = None,
        seed: int = 0,
        count: int | None = None,
    ):
        names = [metrics] if isinstance(metrics, str) else list(metrics)
        if not names:
            raise UsageError("metrics: name at least one; fact_metrics.list_metrics() has many")
        self.metrics = {name: get_spec(name) for name in names}
        for name, spec in self.metrics.items():
            if spec.needs_generator or spec.needs_encoder or not spec.needs:
                raise UsageError(f"metric {name!r} needs a generator, not images; score it with fact-eval")
        _check_count(count, self.metrics.values())
        self.device, self.seed, self.count, self._range = torch.device(device), seed, count, value_range
        self._rows: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        self.cached_real: dict[tuple, object] = {}  # what follows from the real features alone
        self._detectors: dict[str, dict[str, int | None]] = {"generated": {}, "real": {}}
        for need in (need for spec in self.metrics.values() for need in spec.needs):
            wanted = self._detectors[need.side]
            known, asked = wanted.get(need.detector, 0), self.asked(need)
            wanted[need.detector] = None if None in (known, asked) else max(known, asked)

    def update(self, images: object, *, real: bool | Split = False) -> None:
        """Add images: generated ones, or real ones (of a split where a metric tells them apart).

        Beyond the most that a metric asks for they are passed over. UserError for images of no known kind.
        """
        side = _side(real)
        if real:
            self.cached_real.clear()
        images = to_uint8(images, value_range=self._range)
        with tf32(False):
            for detector, count in self._detectors["real" if real else "generated"].items():
                left = len(images) if count is None else min(len(images), count - self._held(side, detector))
                if left > 0:
                    features = get_detector(detector, self.device)(images[:left])
                    self._rows[side, detector].append(features.cpu())

    def asked(self, need: FeatureNeed) -> int | None:
        """How many images of a need are used; None: all."""
        return need.count if None in (need.count, self.count) else min(need.count, self.count)

    def lacking(self, real: bool | Split = False) -> int | None:
        """How many more images the metrics can use; None where they use all there are."""
        counts = self._detectors["real" if real else "generated"]
        if None in counts.values():
            return None
        return max((n - self._held(_side(real), detector) for detector, n in counts.items()), default=0)

    def compute(self) -> dict[str, MetricValue]:
        """Values by the names that were given. UserError where a metric has too few images."""
        parts: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        for rows in _gather({key: torch.cat(own) for key, own in self._rows.items() if own}):
            for key, more in rows.items():
                parts[key].append(more)
        rows = {key: torch.cat(each) for key, each in parts.items()}
        with tf32(False), torch.inference_mode():
            values = {
                name: compute_metric(spec, _Inputs(self, spec, rows)) for name, spec in self.metrics.items()
            }
        for name, value in values.items():
            if value.degenerate:
                warnings.warn(f"{name} means little: {value.degenerate}", stacklevel=2)
        return values

    def reset(self, *, real: bool = False) -> None:
        """Forget the generated images; the real ones too under `real`."""
        for key in list(self._rows):
            if real or key[0] == "generated":
                del self._rows[key]
        if real:
            self.cached_real.clear()

    def _held(self, side: str, detector: str) -> int:
        return sum(len(part) for part in self._rows[side, detector])


class _Inputs:
    """`fact_metrics.inputs.MetricInputs` of one metric over features in memory."""

    generator = None
    encoder = None

    def __init__(self, scores: ImageMetrics, spec: MetricSpec, rows: dict[tuple[str, str], Tensor]):
        self.seed, self.device = scores.seed, scores.device
        self._scores, self._spec, self._rows = scores, spec, rows

    def features(self, need: FeatureNeed) -> Tensor:
        """[N, D] float32 on the CPU."""
        rows = self._rows.get((self._source(need), need.detector))
        there, count = 0 if rows is None else len(rows), self._scores.asked(need)
        fewest = fewest_images(self._spec)
        if there < fewest or (count is not None and there < count):
            asked = "some" if count is None else f"{count:,}"
            way_out = f"give more, or count={there} for a value of its own"
            if there < fewest:
                way_out = f"it needs {fewest} at least; with fewer than {asked}, give count=N as well"
            raise UserError(
                f"{self._spec.name} asks for {asked} {need.side} images, there are {there:,}; {way_out}"
            )
        return rows[:count]

    def cached_real(self, need: FeatureNeed, name: str, function: Callable[[Tensor], T]) -> T:
        """function(features of a need's reals, on the device); cached until real images are added."""
        rows = self.features(need)
        key = (self._source(need), need.detector, len(rows), name)
        if key not in self._scores.cached_real:
            self._scores.cached_real[key] = function(rows.to(self.device))
        return self._scores.cached_real[key]

    def statistics(self, need: FeatureNeed, *, correction: int) -> None:
        """None: there are always rows here."""

    def _source(self, need: FeatureNeed) -> str:
        """Where the rows lie: one real set stands for either split, unless the metric tells them apart."""
        if need.side == "generated":
            return "generated"
        given = {side for side, _ in self._rows if side != "generated"}
        asked = {other.split for other in self._spec.needs if other.side == "real"}
        return given.pop() if len(given) == 1 and len(asked) == 1 else str(need.split)


def to_uint8(images: object, *, value_range: ValueRange | None = None) -> Tensor:
    """uint8 [N, C, H, W] of a batch of any kind the top of the file names; floats are rounded and clamped.

    Raises UserError for floats without a range, for a range they leave by far, and for other shapes.
    """
    if isinstance(images, (list, tuple)):
        images = torch.stack([_one(image) for image in images])
    elif isinstance(images, np.ndarray):
        images = torch.from_numpy(images)
        if images.ndim == 4 and images.shape[3] in (1, 3):
            images = images.permute(0, 3, 1, 2)
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
        shape = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise UserError(f"images are [N, C, H, W] with C of 1 or 3, arrays [N, H, W, C] or PIL, not {shape}")
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point() or value_range is None:
        raise UserError(
            f"images are {images.dtype}; give uint8, or floats with value_range=(-1, 1) or (0, 1)"
        )
    low, high = value_range
    slack, scale = (high - low) / 2, 255 / (high - low)
    if len(images) and not (low - slack <= images.min() and images.max() <= high + slack):
        found = f"[{images.min().item():.3g}, {images.max().item():.3g}]"
        raise UserError(f"images have values in {found}, far outside of value_range {value_range}")
    return (images.float() * scale + (0.5 - low * scale)).clamp(0, 255).to(torch.uint8)


def _one(image: object) -> Tensor:
    """[C, H, W] of a tensor, an array [H, W] or [H, W, C], or a PIL picture."""
    if isinstance(image, Tensor):
        return image
    if hasattr(image, "convert"):
        image = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    array = torch.from_numpy(np.array(image))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1)


def _batches(images: object, batch: int, lacking: Callable[[], int | None]) -> Iterator[object]:
    """Batches of any kind of images, no more than `lacking()` says are still needed."""
    if isinstance(images, (Tensor, np.ndarray)):
        yield from (images[start : start + batch] for start in range(0, len(images), batch))
    elif isinstance(images, (list, tuple)) or hasattr(images, "__getitem__"):
        for start in range(0, len(images), batch):
            if lacking() == 0:
                return
            rows = [images[i] for i in range(start, min(start + batch, len(images)))]
            yield [row[0] if isinstance(row, (list, tuple)) else row for row in rows]
    elif isinstance(images, Iterable):
        for rows in images:
            if lacking() == 0:
                return
            labelled = isinstance(rows, (list, tuple)) and isinstance(rows[0], Tensor) and rows[0].ndim == 4
            yield rows[0] if labelled else rows
    elif callable(images):
        while left := lacking():
            made = images(min(batch, left))
            if not len(made):
                raise UserError(f"the callable returned no images; {min(batch, left)} are missing")
            yield made
        if left is None:
            raise UserError("a metric needs all real images, but a callable never ends; give a dataset")
    else:
        raise UserError(f"images are a tensor, dataset, loader or callable, not {type(images).__name__}")


def _check_count(count: object, specs: Iterable[MetricSpec]) -> None:
    """UsageError for a `count` that is no number of images, or too small for a metric."""
    if count is None:
        return
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UsageError(f"count is {count!r}; give a whole number of images, 1 or more")
    for spec in specs:
        if count < (fewest := fewest_images(spec)):
            raise UsageError(f"{spec.name} needs {fewest} images or more; count is {count}")


def _side(real: bool | Split) -> str:
    return real if isinstance(real, str) else "train" if real else "generated"


def _gather(rows: dict) -> list[dict]:
    """The rows of all processes in the order of their ranks; this one's alone without a group."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [rows]
    everybody: list[dict] = [{}] * dist.get_world_size()
    dist.all_gather_object(everybody, rows)
    return everybody
