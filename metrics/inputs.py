"""What a metric computes from: the interface that fact_eval, fact_metrics.api and the tests implement."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar
from weakref import WeakKeyDictionary

from fact_metrics.base.image_size import Resolution
from fact_metrics.base.processes import Processes
from fact_metrics.spec import FeatureNeed, MetricSpec

if TYPE_CHECKING:
    import torch

    from fact_metrics.engines.frechet import FeatureStatistics

T = TypeVar("T")


class GeneratorInputs(Protocol):
    """A generator with its random inputs: image i of a stream has its own seed, whatever the batch."""

    z_dim: int
    num_ws: int
    resolution: Resolution
    num_channels: int

    def latents(self, indices: Sequence[int], *, stream: str = "image") -> torch.Tensor:
        """z [N, z_dim], or [N, K, z_dim] with K style vectors; another stream gives independent latents."""

    def labels(self, indices: Sequence[int]) -> torch.Tensor | None:
        """c [N, c_dim], or None for an unconditional generator."""

    def mapping(self, z: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        """ws [N, num_ws * K, w_dim], truncation_psi 1."""

    def noise(self, indices: Sequence[int], *, stream: str = "image") -> list[torch.Tensor]:
        """Noise inputs of the synthesis network, [N, 1, h, w] each."""

    def synthesis(
        self, ws: torch.Tensor, noise: list[torch.Tensor], *, fused_modconv: bool | None = None
    ) -> torch.Tensor:
        """float32 images [N, C, H, W] in about [-1, 1], not clamped."""

    def progress(self, done: int, total: int) -> None:
        """May be called between batches."""


@dataclass(frozen=True)
class EncodedPairs:
    """Held-out images and what an explaining GAN makes of them, N of each, on the CPU.

    Images uint8 [N, C, H, W]; `w` [N, w_dim] of the encoder; logits [N, K] of the classifier.
    """

    originals: torch.Tensor
    reconstructions: torch.Tensor
    w: torch.Tensor
    logits_original: torch.Tensor
    logits_reconstruction: torch.Tensor


class EncoderInputs(Protocol):
    """The encoder and the classifier of a StylEx run."""

    def pairs(self, count: int) -> EncodedPairs:
        """The first `count` held-out images (all if there are fewer) and their reconstructions."""

    def mapping_w(self, count: int) -> torch.Tensor:
        """w [N, w_dim] of the mapping network, without the class part."""


@dataclass(frozen=True)
class Tick:
    """A tick of training: images seen and seconds so far, without pauses; its encoder turns and spikes."""

    kimg: float
    seconds: float
    encoder_turns: int = 0
    spikes: float = 0.0


@dataclass(frozen=True)
class TrainingHistory:
    """How a run was trained up to the scored snapshot: its ticks, and the snapshots by kimg.

    `scores` are the values of the snapshots that are scored, of one evaluation seed: metric -> kimg -> value.
    """

    ticks: tuple[Tick, ...]
    snapshots: tuple[float, ...] = ()
    scores: Mapping[str, Mapping[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Counterfactuals:
    """Images before and after edits towards a class, a row for every pair of image and target; on the CPU.

    image, target: [P]. before [P, C] and after [P, K, C]: logits of the explained classifier without edits
    and with the first 1 to K attributes together; `second_before` and `second_after` are those of an
    independently trained classifier, or None. Pictures uint8: `originals` and `unedited` [P, C, H, W] are
    what the images were made from (held-out pictures of a StylEx run, else the images themselves) and the
    images; `edits` [P, K, C, H, W] those with the first 1 to K attributes.
    """

    image: torch.Tensor
    target: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor
    second_before: torch.Tensor | None
    second_after: torch.Tensor | None
    originals: torch.Tensor
    unedited: torch.Tensor
    edits: torch.Tensor

    @property
    def edited(self) -> torch.Tensor:
        """Pictures [P, C, H, W] with all attributes."""
        return self.edits[:, -1]


class ExplanationInputs(Protocol):
    """The attributes that methods found for a classifier, and their edits."""

    classes: Sequence[str]
    attribute_count: int  # of which the methods choose: two directions of every coordinate

    def counterfactuals(self, method: str) -> Counterfactuals:
        """Edits with the attributes of a method (attfind-greedy, random, ...)."""

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, C] of the explained classifier, of float images in [-1, 1]."""

    def halves(self, method: str, splits: int) -> Sequence[Sequence[Sequence[Hashable]]]:
        """By class: attributes from both halves of each of several random splits of the searched images."""

    def latents(self, space: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [N, D] of generated images in the space `w` or `s`, and the classifier's logits [N, C]."""

    def cycles(self, counts: Sequence[int]) -> dict[int, torch.Tensor] | None:
        """Pictures after so many passes through encoder and generator, 0 the originals. None: no encoder."""


class MetricInputs(Protocol):
    """What a metric reads. `generator` is None for pictures, `encoder` for all but StylEx runs.

    `explanation` is None outside of `fact-eval explain`. Inputs of several processes also have `processes`.
    """

    seed: int
    device: torch.device
    generator: GeneratorInputs | None
    encoder: EncoderInputs | None
    training: TrainingHistory
    explanation: ExplanationInputs | None

    def features(self, need: FeatureNeed) -> torch.Tensor:
        """[N, D] float32 on the CPU."""

    def cached_real(self, need: FeatureNeed, name: str, function: Callable[[torch.Tensor], T]) -> T:
        """function(features of a need's reals, on `device`), computed once for all that is scored with them.

        `name` identifies the function, with everything that changes its result but the features.
        """

    def statistics(self, need: FeatureNeed, *, correction: int) -> FeatureStatistics | None:
        """Given statistics of a need's reals, n = 0 if unknown; None if there are features."""


class UndeclaredNeed(Exception):
    """A metric asked for something that its spec does not declare: it would be missing from the protocol."""


class DeclaredInputs:
    """The inputs of one metric: hands out what its spec declares, and raises UndeclaredNeed for all else."""

    def __init__(self, spec: MetricSpec, inputs: MetricInputs):
        self._spec, self._inputs = spec, inputs
        self.seed, self.device = inputs.seed, inputs.device

    @property
    def generator(self) -> GeneratorInputs:
        """The generator, for a spec with `needs_generator`."""
        self._check(self._spec.needs_generator, "the generator")
        return self._inputs.generator

    @property
    def encoder(self) -> EncoderInputs:
        """The encoder, for a spec with `needs_encoder`."""
        self._check(self._spec.needs_encoder, "the encoder")
        return self._inputs.encoder

    @property
    def training(self) -> TrainingHistory:
        """How the run was trained, for a spec with `needs_training`."""
        self._check(self._spec.needs_training, "the training")
        return self._inputs.training

    @property
    def explanation(self) -> ExplanationInputs:
        """The attributes found, for a spec with `needs_explanation`."""
        self._check(self._spec.needs_explanation, "an explanation")
        return self._inputs.explanation

    def features(self, need: FeatureNeed) -> torch.Tensor:
        """[N, D] float32 on the CPU."""
        self._check(need in self._spec.needs, need)
        return self._inputs.features(need)

    def cached_real(self, need: FeatureNeed, name: str, function: Callable[[torch.Tensor], T]) -> T:
        """As `MetricInputs.cached_real`."""
        self._check(need in self._spec.needs, need)
        return self._inputs.cached_real(need, name, function)

    def deal(self, count: int, unit: int, function: Callable[[range], list[T]]) -> list[T]:
        """function(range(count)), for a spec that is `dealt`: its units are shared by all processes."""
        self._check(self._spec.dealt, "other processes")
        return getattr(self._inputs, "processes", Processes()).deal(count, unit, function)

    def statistics(self, need: FeatureNeed, *, correction: int) -> FeatureStatistics | None:
        """As `MetricInputs.statistics`."""
        self._check(need in self._spec.needs and self._spec.from_statistics, f"statistics of {need}")
        return self._inputs.statistics(need, correction=correction)

    def shared(self, key: Hashable, compute: Callable[[], T]) -> T:
        """compute() of the first metric with this key; metrics of the same inputs share what they measure.

        The key names everything that changes the result but the inputs.
        """
        results = _SHARED.setdefault(self._inputs, {})
        if key not in results:
            results[key] = compute()
        return results[key]

    def _check(self, declared: bool, what: object) -> None:
        if not declared:
            raise UndeclaredNeed(f"metric {self._spec.name} reads {what}, which its spec does not declare")


_SHARED: WeakKeyDictionary[MetricInputs, dict[Hashable, object]] = WeakKeyDictionary()
