"""RECOMMENDED: which detector's features to measure a dataset in, where that was measured.

`python -m benchmarks detectors` is the measurement: images are spoiled less and less, and FID must fall at
every step (metrics/README.md has the table). Another dataset is added with its own table.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recommendation:
    """A registered detector that needs no download, and the evidence in one clause."""

    detector: str
    why: str


RECOMMENDED = {
    "mnist": Recommendation("digits", "FID falls at 22 of 22 steps"),
}
ELSEWHERE = "efficientnet_lite0"  # trained on photographs, embedded; nothing was measured on other data


def recommended_detector(dataset: str) -> str:
    """Name of the embedded detector for a dataset, by its name; the general one where none was measured."""
    return RECOMMENDED[dataset].detector if dataset in RECOMMENDED else ELSEWHERE
