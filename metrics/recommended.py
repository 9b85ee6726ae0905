"""RECOMMENDED: which detector's features to measure a dataset in, where that was measured.

`python -m benchmarks detectors` is the measurement: images are spoiled less and less, and FID must fall at
every step (docs/detectors.md has the table). Another dataset is added with its own table.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recommendation:
    """A registered detector that needs no download, and the evidence in one clause."""

    detector: str
    why: str


RECOMMENDED = {
    "mnist": Recommendation(
        "efficientnet_lite0",
        "FID falls clearly at 24 of 26 steps from spoiled to whole digits, in pixels at 22, in digits at 20",
    ),
}
ELSEWHERE = "efficientnet_lite0"  # the embedded one that was trained on photographs; not measured there


def recommended_detector(dataset: str) -> str:
    """Name of the embedded detector for a dataset, by its name; the general one where none was measured."""
    return RECOMMENDED[dataset].detector if dataset in RECOMMENDED else ELSEWHERE
