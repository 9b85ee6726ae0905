"""What the registered metrics and detectors are, as plain data: enough to plan without importing torch.

Reading the registries imports torch, seconds of waiting to find that nothing is left to do. So their cards
are kept beside the feature cache under the hash of the metrics' code and weight cards, and read while that
hash holds.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fact_metrics
from fact_eval.images import sampling
from fact_eval.images.sampling import SAMPLING
from fact_metrics.base.atomic import write_text
from fact_metrics.base.canonical import canonical_json, canonical_sha256, finite
from fact_metrics.base.errors import UserError, unknown_name
from fact_metrics.base.fingerprints import code_sha256
from fact_metrics.base.folders import cache_folder
from fact_metrics.features.weight_store import installed_state


@dataclass(frozen=True)
class Need:
    """Features a metric takes: `fact_metrics.registry.FeatureNeed` as data."""

    detector: str
    side: str  # generated | real | reconstructed
    split: str | None
    count: int | None  # None: all


@dataclass(frozen=True)
class Card:
    """A registered metric as data; `protocol` includes how images are sampled."""

    name: str
    family: str
    version: int
    higher_is_better: bool
    summary: str
    citation: str
    unit: str
    needs: tuple[Need, ...]
    needs_generator: bool
    needs_encoder: bool  # means something of StylEx runs only
    datasets: tuple[str, ...] | None  # dataset names it means something on; None: any
    weights: tuple[str, ...]  # weight files it needs, of metrics/features/weight_store.py; none: no download
    from_statistics: bool  # mean and covariance of the real features do
    protocol: dict

    @property
    def protocol_sha256(self) -> str:
        return canonical_sha256(self.protocol)

    def fits(self, dataset: str) -> bool:
        """Whether the metric means something on the dataset of that name."""
        return self.datasets is None or dataset in self.datasets

    @property
    def n_generated(self) -> int | None:
        """Generated images the protocol asks for; None for a metric that draws its own from the generator."""
        counts = [need.count for need in self.needs if need.side != "real" and need.count]
        return max(counts, default=None)

    @property
    def reference_split(self) -> str:
        """The split of the real images it compares with; train where it compares with none."""
        return next((need.split for need in self.needs if need.side == "real"), "train")


@dataclass(frozen=True)
class DetectorCard:
    """A registered detector as data; `fingerprint` is its `describe()`."""

    name: str
    summary: str
    citation: str
    fingerprint: dict
    weights: tuple[str, ...]  # names of the weight files it reads, of metrics/features/weight_store.py


def load_cards(names: Sequence[str] | None = None) -> list[Card]:
    """Cards of the named metrics in that order, or of all, by family. UsageError on an unknown name."""
    cards = {card.name: card for card in _catalog()[0]}
    if names is None:
        return list(cards.values())
    for name in names:
        if name not in cards:
            raise unknown_name("metric", name, cards)
    return [cards[name] for name in dict.fromkeys(names)]


def load_detector_cards() -> list[DetectorCard]:
    """Cards of all detectors, sorted by name."""
    return sorted(_catalog()[1], key=lambda card: card.name)


def card_of(metric) -> Card:
    """The card of a registered metric."""
    needs = tuple(Need(n.detector, n.side, n.split, n.count) for n in metric.needs)
    protocol = json.loads(canonical_json(finite({**metric.protocol, "sampling": SAMPLING})))
    return Card(
        name=metric.name,
        family=metric.family,
        version=metric.version,
        higher_is_better=metric.higher_is_better,
        summary=metric.summary,
        citation=metric.citation,
        unit=metric.unit,
        needs=needs,
        needs_generator=metric.needs_generator,
        needs_encoder=metric.needs_encoder,
        datasets=None if metric.datasets is None else tuple(sorted(metric.datasets)),
        weights=metric.weights,
        from_statistics=metric.from_statistics,
        protocol=protocol,
    )


def _catalog() -> tuple[list[Card], list[DetectorCard]]:
    """From the registries where they are in memory, else from this code's file, else by importing them."""
    if "fact_metrics.registry" in sys.modules:
        return _registered()
    path = cache_folder() / "catalog" / f"{_code()}.json"
    try:
        stored = json.loads(path.read_text())
        detectors = [DetectorCard(**{**d, "weights": tuple(d["weights"])}) for d in stored["detectors"]]
        return [_read_card(c) for c in stored["metrics"]], detectors
    except (OSError, ValueError, TypeError, KeyError):
        cards, detectors = _registered()
    stored = {
        "metrics": [dataclasses.asdict(card) for card in cards],
        "detectors": [dataclasses.asdict(card) for card in detectors],
    }
    with contextlib.suppress(
        OSError, UserError
    ):  # a shortcut: without room for it the registries are read again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(stored))
    return cards, detectors


def _registered() -> tuple[list[Card], list[DetectorCard]]:
    from fact_metrics.features import get_detector, list_detectors
    from fact_metrics.registry import get_metric, list_metrics

    detectors = [get_detector(name) for name in list_detectors()]
    cards = [DetectorCard(d.name, d.summary, d.citation, d.describe(), d.weights) for d in detectors]
    return [card_of(get_metric(name)) for name in list_metrics()], cards


def _read_card(stored: dict) -> Card:
    needs = tuple(Need(**need) for need in stored["needs"])
    datasets = None if stored["datasets"] is None else tuple(stored["datasets"])
    weights = tuple(stored["weights"])
    return Card(**{**stored, "needs": needs, "datasets": datasets, "weights": weights})


def _code() -> str:
    """Hash of all that can change a card: metrics' code, weight cards and files, how images are sampled."""
    here, ours = Path(fact_metrics.__file__).parent, Path(__file__)
    weights = sorted((here / "features" / "weights").glob("*.json"))
    code = code_sha256(here, ours, Path(sampling.__file__), *weights)
    return canonical_sha256([code, installed_state()])
