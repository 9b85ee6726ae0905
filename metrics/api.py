"""Metrics from Python, for any generator: `fact_metrics.compute` in one call, `ImageMetrics` in a loop.

The same protocols, detectors and numbers as `fact-eval`, on images in memory: images.py lists their kinds.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor

from fact_metrics.base.devices import resolve_device
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.tf32 import tf32
from fact_metrics.features import get_detector
from fact_metrics.images import ValueRange, batches, check_value_range, to_uint8
from fact_metrics.registry import compute_metric, fewest_images, get_spec
from fact_metrics.spec import FeatureNeed, MetricSpec, MetricValue

T = TypeVar("T")
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
    """Values of metrics of generated images against real ones, of the kinds that images.py lists.

    `metrics` are published names, or names of the grammar such as `kid10k_full_pixels`.

    `real` is one set, or {"train": ..., "test": ...} where a metric tells them apart. `seed` is the
    evaluation seed of metrics that draw. `count` stands in for larger numbers of images in a protocol: the
    value is then comparable with nothing but values of as many. Raises UsageError for an unknown metric
    or one that needs a generator, UserError for images that cannot be used or are too few.
    """
    scores = ImageMetrics(metrics, device=device, value_range=value_range, seed=seed, count=count)
    if type(batch) is not int or batch < 1:
        raise UsageError(f"batch {batch!r}: give a whole number of images from 1")
    splits = real if isinstance(real, Mapping) else {} if real is None else {"train": real}
    for split, images in splits.items():
        for part in batches(images, batch, lambda split=split: scores.lacking(split)):
            scores.update(part, real=split)
    for part in batches(generated, batch, scores.lacking):
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
        check_value_range(value_range)
        self.device, self.seed, self.count, self._range = (
            resolve_device(str(device)),
            seed,
            count,
            value_range,
        )
        self._shape = _Shape()
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
        images = self._shape.fitting(to_uint8(images, value_range=self._range), side)
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
        self._shape.warn_of_half_a_range(self._range)
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
        self._shape.forget(real=real)
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
        name, side = self._spec.name, need.side
        if count is None and there < fewest:
            images = f"{side} image{'s' * (fewest > 1)}"
            raise UserError(f"{name} needs {fewest} {images} or more, there are {there}")
        if count is not None and there < max(fewest, count):
            way_out = f"give more, or count={there} for a value of its own"
            if there < fewest:
                way_out = f"it needs {fewest} at least; with fewer than {count:,}, give count=N as well"
            raise UserError(f"{name} asks for {count:,} {side} images, there are {there:,}; {way_out}")
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


class _Shape:
    """The one size of all images, their channels, and how dark the darkest pixel of each side is."""

    def __init__(self):
        self._of: dict[str, tuple[int, int]] = {}  # height and width by side
        self._channels: dict[str, int] = {}
        self._darkest: dict[str, int] = {}

    def fitting(self, images: Tensor, side: str) -> Tensor:
        """A batch in the channels of its side. UserError for a batch of another size than all before."""
        height, width = images.shape[2:]
        for other, (h, w) in self._of.items():
            if (height, width) != (h, w):
                before = "before" if other == side else f"of the {_named(other)} images"
                raise UserError(
                    f"{_named(side)} images are {width}x{height}, those {before} {w}x{h}; use one size"
                )
        self._of[side] = height, width
        if len(images):
            self._darkest[side] = min(self._darkest.get(side, 255), int(images.min()))
        channels = self._channels.setdefault(side, images.shape[1])
        if images.shape[1] > channels:
            raise UserError(f"{_named(side)} images were gray and are RGB now; convert all to RGB")
        return images.expand(-1, channels, -1, -1)

    def warn_of_half_a_range(self, value_range: ValueRange | None) -> None:
        """Warn where no value of a side lies in the lower half of a range around 0: (-1, 1) for (0, 1)."""
        if value_range is not None and value_range[0] < 0 < value_range[1]:
            for side in [side for side, darkest in self._darkest.items() if darkest >= 127]:
                warnings.warn(
                    f"no value of the {_named(side)} images is below 0, and value_range is {value_range}: "
                    "if they lie in [0, 1], give value_range=(0, 1)",
                    stacklevel=3,
                )

    def forget(self, *, real: bool) -> None:
        """Start again with the generated images; with the real ones too under `real`."""
        for each in (self._of, self._channels, self._darkest):
            for side in [side for side in each if real or side == "generated"]:
                del each[side]


def _named(side: str) -> str:
    return "generated" if side == "generated" else "real"


def _check_count(count: object, specs: Iterable[MetricSpec]) -> None:
    """UsageError for a `count` that is no number of images, or too small for a metric."""
    if count is None:
        return
    if type(count) is not int or count < 1:
        raise UsageError(f"count {count!r}: give a whole number of images from 1")
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
