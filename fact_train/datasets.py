"""DATASETS: what is known of datasets by name: what opens them, their splits, how to measure them. No torch.

A new dataset is one entry. One without an opener is opened by its path and known by the name of its folder.
"""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fact_metrics.base.errors import UsageError, unknown_name

# What a metric can ask of a dataset: `digits`, that its images are handwritten digits; `stacked digits`,
# that each of their channels is one.
Trait = Literal["digits", "stacked digits"]
HUGGING_FACE = "hf:"  # begins the name of a Hugging Face dataset on disk
# The detector for data that is not in the table: it needs no download and was trained on photographs.
GENERAL_DETECTOR = "efficientnet_lite0"


@dataclass(frozen=True)
class DatasetEntry:
    """A dataset by name.

    `has_test_split`: a test split is published, and boards compare with it. `detector`: the one to measure
    it in, which needs no download; `evidence` says why, None if nothing was measured. `traits`: what
    metrics can ask of it (`MetricSpec.needs_trait`). `opener` is the `module:function` that opens it, called
    with split, processing and progress. `sha256` are the published images by (split, resolution), in
    `channels` channels and with all images: `fact-eval leaderboard --check` compares records with it.
    """

    name: str
    summary: str = ""
    has_test_split: bool = False
    detector: str = GENERAL_DETECTOR
    evidence: str | None = None
    traits: frozenset[Trait] = frozenset()
    opener: str | None = None
    channels: int = 1
    sha256: Mapping[tuple[str, int], str] = field(default_factory=dict, hash=False)


# `python -m benchmarks detectors` measures the evidence: images are spoiled less and less, and FID must fall
# at every step.
DATASETS: dict[str, DatasetEntry] = {
    entry.name: entry
    for entry in (
        DatasetEntry(
            "mnist",
            "The bundled MNIST: 60,000 train or 10,000 test digits",
            has_test_split=True,
            detector="efficientnet_lite0",
            evidence="FID falls clearly at 24 of 26 steps from spoiled to whole digits, in pixels at 22, in "
            "digits at 20",
            traits=frozenset({"digits"}),
            opener="fact_train.data.idx:open_mnist",
            sha256={
                ("train", 32): "8629d600d78ded9af8c721a746e88abb0fbf1b50b11ed7cf95b3fadd9c16bcf3",
                ("test", 32): "6f5045cb5c7d0f1ec3fc15d737ad91d74dea2ffc623c080c69c59f0aa35aef9c",
            },
        ),
        DatasetEntry(
            "stacked-mnist",
            "Three digits of the bundled MNIST in one colour image: 128,000 train or 26,000 test images",
            has_test_split=True,
            traits=frozenset({"stacked digits"}),
            opener="fact_train.data.stacked:open_stacked_mnist",
            channels=3,
            sha256={
                ("train", 32): "9a98065b14ee9820a4ee1243cc50a6b91df357cbe38048f19fcb17214a7d3eec",
                ("test", 32): "4ef433cf7cdfee9808ea755a545838598f0edf2415fe998690c5682023f4a454",
            },
        ),
        DatasetEntry("fashion-mnist", "Fashion-MNIST, a folder of idx files", has_test_split=True),
        DatasetEntry("kmnist", "KMNIST, a folder of idx files", has_test_split=True),
    )
}


def find_data(data: str) -> Path | None:
    """The path that a text names; None for a name of this table and `hf:...`. UsageError without a path."""
    if data in dataset_names() or data.startswith(HUGGING_FACE):
        return None
    path = Path(os.path.expanduser(data))
    if data and path.exists():
        return path
    beside = os.listdir(path.parent) if os.access(path.parent, os.R_OK) else []
    close = [str(path.parent / name) for name in difflib.get_close_matches(path.name, beside)]
    error = unknown_name("dataset or path", data, [*dataset_names(), *close])
    if data and not path.is_absolute():
        raise UsageError(f"{error} (a path below {os.getcwd()})")
    raise error


def dataset_entry(name: str) -> DatasetEntry:
    """What is known of the dataset of that name; the defaults for any other."""
    return DATASETS.get(name) or DatasetEntry(name)


def dataset_names() -> list[str]:
    """Names that `open_dataset` takes beside paths."""
    return sorted(entry.name for entry in DATASETS.values() if entry.opener is not None)
