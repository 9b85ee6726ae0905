"""The grammar of metric names: `<family><N>[<k>]_<split>_<detector>`, and what a name stands for. No torch.

    fid10k_full_dinov2_b              10,000 generated images, all training images, DINOv2 features
    precision5k3_test_stlpips_alex    5,000 generated images, balls of 3 neighbours, the test images
    ppl2k_wend_stlpips_vgg            2,000 pairs; `wend` is one of the family's variants

N in thousands ends in k. `full` compares with all training images, `train` with N of them, `test` with the
test images. A `Family` says which of these parts its names have and what fits in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fact_metrics.base.errors import UsageError, close_names
from fact_metrics.features import DETECTORS
from fact_metrics.features.detector import Output
from fact_metrics.spec import FeatureNeed, MetricSpec, MetricValue, Scale, Side

if TYPE_CHECKING:
    import torch

    from fact_metrics.inputs import DeclaredInputs

Reals = Literal["full", "train", "test"]
REALS: tuple[Reals, ...] = ("full", "train", "test")


@dataclass(frozen=True)
class Choice:
    """What a name chooses within its family; None for parts that its names do not have."""

    count: int
    k: int | None = None
    reals: Reals | None = None
    detector: str | None = None


@dataclass(frozen=True)
class Source:
    """Where a protocol comes from: the paper, and the implementation whose numbers it equals."""

    citation: str
    reference: str


Compute = Callable[["MetricSpec", "DeclaredInputs"], "MetricValue"]
# Of a spec, features of A and of B [N, D] (row i of both from one latent) and features of the reals: the
# value of B less the value of A, and its standard error (None with too few images).
Difference = Callable[
    ["MetricSpec", "torch.Tensor", "torch.Tensor", "torch.Tensor"], tuple[float, float | None]
]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of metrics, or one variant of it: how its names read and what each of them means.

    name, variant: `ppl` and `wend`; the variant stands after the split.
    summary: one sentence; {reals}, {features}, {count} and {k} are filled in.
    compute: the value of a spec from its inputs. It imports what needs torch when it is called.
    source: citation and reference; `sources` has those of detectors that were published otherwise.
    scored: the side whose features it reads; None for a metric that draws from the generator itself.
    reals: what its names can compare with; empty for a metric without reals.
    gives: what a detector must give to fit; empty for names without a detector.
    detectors: the only ones that fit; empty: all that give the right thing.
    fixed_detector: the detector of a family whose names do not choose one.
    neighbours: whether its names give a k.
    settings: what of the protocol is not in the needs.
    needs: replaces the needs that follow from `scored` and `reals`.
    minimum, multiple: the fewest images, and what their number is a multiple of.
    step: the distance of neighbouring values, if the metric counts something (`one_image` of a share).
    dealt: whether it computes by `inputs.deal`, which every process then has to call.
    scale: how values vary over seeds: `ratio` as distances, in proportion to their size; `odds` as shares.
    difference: compares two runs on shared latents; its needs are generated features, then reals.
    published: names of the field, each for a name of the grammar. Never edited: a protocol that changes gets
        a new name or a higher version.
    listed: names that `fact-eval list` shows; any other that follows the grammar works too.
    """

    name: str
    summary: str
    higher_is_better: bool
    source: Source
    compute: Compute
    variant: str = ""
    unit: str = ""
    version: int = 1
    scored: Side | None = "generated"
    reals: tuple[Reals, ...] = ()
    gives: tuple[Output, ...] = ()
    detectors: tuple[str, ...] = ()
    fixed_detector: str | None = None
    neighbours: bool = False
    settings: Callable[[Choice], Mapping[str, object]] = lambda choice: {}
    needs: Callable[[Choice], tuple[FeatureNeed, ...]] | None = None
    needs_generator: bool = False
    needs_encoder: bool = False
    needs_training: bool = False
    needs_explanation: bool = False
    from_statistics: bool = False
    step: Callable[[Choice], float | None] = lambda choice: None
    dealt: bool = False
    scale: Scale = "difference"
    difference: Difference | None = None
    minimum: int = 2
    multiple: int = 1
    sources: Mapping[str, Source] = field(default_factory=dict)
    published: Mapping[str, str] = field(default_factory=dict)
    listed: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name and variant."""
        return f"{self.name}_{self.variant}" if self.variant else self.name

    @property
    def pattern(self) -> str:
        """How its names read: `fid<N>_<full|train|test>_<detector>`."""
        k = "<k>" if self.neighbours else ""
        reals = f"_<{'|'.join(self.reals)}>" if len(self.reals) > 1 else "".join(f"_{r}" for r in self.reals)
        variant = f"_{self.variant}" if self.variant else ""
        return f"{self.name}<N>{k}{reals}{variant}{'_<detector>' if self.gives else ''}"

    @property
    def example(self) -> str:
        """A name of the grammar."""
        known = [*(name for name in self.listed if name not in self.published), *self.published.values()]
        return known[0] if known else self.name_of(self._smallest_choice())

    def fitting_detectors(self) -> list[str]:
        """Names of the detectors that its names can choose."""
        return [name for name in sorted(DETECTORS) if self._fits(name)]

    def name_of(self, choice: Choice) -> str:
        """The name of a choice in the grammar."""
        parts = [choice.reals, self.variant, choice.detector if self.gives else None]
        k = "" if choice.k is None else str(choice.k)
        return "_".join([f"{self.name}{spell_count(choice.count)}{k}", *(part for part in parts if part)])

    def spec(self, choice: Choice, name: str) -> MetricSpec:
        """The metric of a choice, under a name."""
        detector = choice.detector or self.fixed_detector
        needs = self.needs(choice) if self.needs else self._needs(choice, detector)
        used = {need.detector for need in needs} | ({detector} if detector else set())
        traits = {DETECTORS[one].needs_trait for one in used} - {None}
        source = self.sources.get(detector, self.source)
        label = (DETECTORS[detector].label or f"{detector} features") if detector else ""
        return MetricSpec(
            name=name,
            family=self.name,
            version=self.version,
            higher_is_better=self.higher_is_better,
            summary=self.summary.format(
                reals=_reals_in_words(choice), features=label, count=f"{choice.count:,}", k=choice.k
            ),
            citation=source.citation,
            reference=source.reference,
            unit=self.unit,
            count=choice.count,
            needs=needs,
            needs_generator=self.needs_generator,
            needs_encoder=self.needs_encoder or self.scored == "reconstructed",
            needs_training=self.needs_training,
            detectors=tuple(sorted(used)),
            settings=self.settings(choice),
            needs_trait=next(iter(traits), None),
            from_statistics=self.from_statistics,
            paired=self.difference is not None,
            step=self.step(choice),
            needs_explanation=self.needs_explanation,
            scale=self.scale,
            dealt=self.dealt,
        )

    def check_detector(self, name: str, detector: str) -> None:
        """UsageError unless the detector exists and fits; `name` is the metric's."""
        if self._fits(detector):
            return
        fitting = self.fitting_detectors()
        if detector not in DETECTORS:
            raise UsageError(
                f"metric {name!r}: unknown detector {detector!r}; {close_names(detector, fitting)}"
            )
        given = " and ".join(DETECTORS[detector].gives)
        if not set(self.gives) & set(DETECTORS[detector].gives):
            raise UsageError(
                f"metric {name!r}: {self.key} needs a detector of {' or '.join(self.gives)}, and {detector} "
                f"gives {given}; these fit: {', '.join(fitting)}"
            )
        raise UsageError(
            f"metric {name!r}: {self.key} is not defined on {detector}; these fit: {', '.join(fitting)}"
        )

    def _smallest_choice(self) -> Choice:
        """The fewest images that make sense, with the first of everything else."""
        count = -(-max(self.minimum, 10) // self.multiple) * self.multiple
        detector = self.fitting_detectors()[0] if self.gives else None
        return Choice(count, 3 if self.neighbours else None, self.reals[0] if self.reals else None, detector)

    def _fits(self, detector: str) -> bool:
        if detector not in DETECTORS or (self.detectors and detector not in self.detectors):
            return False
        return bool(set(self.gives) & set(DETECTORS[detector].gives))

    def _needs(self, choice: Choice, detector: str | None) -> tuple[FeatureNeed, ...]:
        needs = []
        if self.scored is not None:
            split = "test" if self.scored == "reconstructed" else None
            needs.append(FeatureNeed(detector, self.scored, split=split, count=choice.count))
        if choice.reals is not None:
            split = "test" if choice.reals == "test" else "train"
            needs.append(
                FeatureNeed(
                    detector, "real", split=split, count=choice.count if choice.reals == "train" else None
                )
            )
        return tuple(needs)


def one_image(choice: Choice) -> float:
    """The step of a share of N images."""
    return 1 / choice.count


def spell_count(count: int) -> str:
    """A number of images as names write it: 10k, 2500."""
    return f"{count // 1000}k" if count % 1000 == 0 else str(count)


def parse(name: str, families: Collection[Family]) -> tuple[Family, Choice]:
    """The family and the choice that a name of the grammar stands for.

    Raises UsageError: one line that says which part of the name is wrong, and what fits there.
    """
    stem, numbers, rest = re.fullmatch(r"([A-Za-z_]*)((?:\d+k?)*)(.*)", name).groups()
    candidates = [family for family in families if family.name == stem]
    if not candidates:
        raise _unknown_family(name, stem, families)
    count, k = _parse_numbers(name, numbers, candidates[0])
    reals, rest = _parse_reals(name, rest, candidates[0])
    family, rest = _parse_variant(name, rest, candidates)
    detector = _parse_detector(name, rest, family)
    if count < family.minimum or count % family.multiple:
        steps = f", in multiples of {family.multiple}" if family.multiple > 1 else ""
        raise UsageError(f"metric {name!r}: {family.key} takes {family.minimum} images or more{steps}")
    return family, Choice(count, k, reals, detector)


def _unknown_family(name: str, stem: str, families: Collection[Family]) -> UsageError:
    known = sorted({family.name for family in families})
    longest = max((one for one in known if stem.startswith(f"{one}_")), key=len, default=None)
    if longest is not None:  # `fid_full_digits`
        family = next(family for family in families if family.name == longest)
        return UsageError(
            f"metric {name!r}: the number of images is missing: {family.pattern}, such as {family.example}"
        )
    return UsageError(f"metric {name!r}: unknown family {stem!r}; {close_names(stem, known)}")


def _parse_numbers(name: str, numbers: str, family: Family) -> tuple[int, int | None]:
    such = f"{family.pattern}, such as {family.example}"
    if not numbers:
        raise UsageError(f"metric {name!r}: the number of images is missing: {such}")
    found = re.fullmatch(r"([1-9]\d*)(k?)(\d*)", numbers)
    if found is None:
        raise UsageError(f"metric {name!r}: {numbers!r} is not a number of images: {such}")
    digits, thousands, k = found.groups()
    count = int(digits) * (1000 if thousands else 1)
    if not thousands and count % 1000 == 0:
        raise UsageError(f"metric {name!r}: {count:,} images are written {spell_count(count)}")
    if not family.neighbours:
        if k:
            raise UsageError(
                f"metric {name!r}: {family.name} takes no number of neighbours, here {k}: {such}"
            )
        return count, None
    if not thousands:
        raise UsageError(
            f"metric {name!r}: images come in thousands if neighbours follow them: {such} "
            f"({spell_count(count * 1000)}3 is {count * 1000:,} images and 3 neighbours)"
        )
    if not k:
        raise UsageError(f"metric {name!r}: the number of neighbours is missing: {such}")
    if k.startswith("0") or int(k) >= count:
        raise UsageError(f"metric {name!r}: {k} neighbours of {count:,} images; give 1 to {count - 1:,}")
    return count, int(k)


def _parse_reals(name: str, rest: str, family: Family) -> tuple[Reals | None, str]:
    if not family.reals:
        return None, rest
    head, _, tail = rest.removeprefix("_").partition("_")
    if rest.startswith("_") and head in family.reals:
        return head, f"_{tail}" if tail else ""
    fitting = ", ".join(family.reals)
    if head in REALS:
        raise UsageError(
            f"metric {name!r}: {family.name} does not compare with {head} images; give {fitting}"
        )
    what = f"{head!r} is no split" if head else "the split is missing"
    whole = "" if rest else f", such as {name}_{family.example.partition('_')[2]}"
    raise UsageError(f"metric {name!r}: {what}: {family.pattern}; give {fitting}{whole}")


def _parse_variant(name: str, rest: str, candidates: list[Family]) -> tuple[Family, str]:
    if [family.variant for family in candidates] == [""]:
        return candidates[0], rest
    matching = [
        family
        for family in candidates
        if rest == f"_{family.variant}" or rest.startswith(f"_{family.variant}_")
    ]
    if not matching:
        given = rest.removeprefix("_")
        known = ", ".join(family.variant for family in candidates)
        what = f"{given!r} begins with none of" if given else "give one of"
        raise UsageError(f"metric {name!r}: {what} {known} after {candidates[0].name}<N>")
    family = max(matching, key=lambda family: len(family.variant))
    return family, rest.removeprefix(f"_{family.variant}")


def _parse_detector(name: str, rest: str, family: Family) -> str | None:
    detector = rest.removeprefix("_")
    if not family.gives:
        if rest:
            on = f", which is on {family.fixed_detector}" if family.fixed_detector else ""
            raise UsageError(f"metric {name!r}: {rest!r} is left over: {family.pattern}{on}")
        return None
    if not rest.startswith("_") or not detector:
        fitting = ", ".join(family.fitting_detectors())
        raise UsageError(f"metric {name!r}: the detector is missing: {family.pattern}; give one of {fitting}")
    family.check_detector(name, detector)
    return detector


def _reals_in_words(choice: Choice) -> str:
    return {
        None: "",
        "full": "all training images",
        "train": f"{choice.count:,} training images",
        "test": "the test images",
    }[choice.reals]
