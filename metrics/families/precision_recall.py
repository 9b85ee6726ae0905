"""Precision, recall, density and coverage: one set inside the k-nearest-neighbour balls of the other.

Precision and recall count a distance equal to the radius as inside (Kynkäänniemi et al. 2019), density and
coverage do not (Naeem et al. 2020). Metrics with equal needs and k share one pass over the distances.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fact_metrics.engines.conventions import IMPROVED, PRDC, Balls
from fact_metrics.family import REALS, Choice, Family, Source, one_image
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.engines.overlap import Overlap
    from fact_metrics.inputs import DeclaredInputs

KYNKAANNIEMI = Source(
    "Kynkäänniemi et al. 2019, arXiv:1904.06991", "torch-fidelity 0.4.0 PRC on the same features"
)
NAEEM = Source("Naeem et al. 2020, arXiv:2002.09797", "prdc 0.2 on the same features")


def settings(choice: Choice, *, closed: bool) -> dict:
    """k, and whether a distance equal to the radius is inside."""
    return Balls(choice.k, closed).settings()


def measure(spec: MetricSpec, inputs: DeclaredInputs, *, closed: bool) -> Overlap:
    """The overlap of a metric's features; one pass over the distances serves both conventions."""
    from fact_metrics.engines.neighbours import find_radii
    from fact_metrics.engines.overlap import measure_overlap

    balls = Balls(spec.settings["k"], closed=closed)
    gen, real = (inputs.features(need) for need in spec.needs)
    both = (IMPROVED, PRDC)
    if balls not in both or min(len(gen), len(real)) <= PRDC.k:
        both = (Balls(balls.k, closed=True), Balls(balls.k, closed=False))

    def measured() -> list[Overlap]:
        ks = [one.k for one in both]
        radii = inputs.cached_real(spec.needs[1], f"radii of {ks}", partial(find_radii, ks=ks))
        sides = gen.to(inputs.device), real.to(inputs.device)
        return measure_overlap(*sides, conventions=both, real_radii=radii)

    overlaps = inputs.shared(("overlap", spec.needs, both), measured)
    return next(overlap for overlap in overlaps if overlap.balls == balls)


def compute(spec: MetricSpec, inputs: DeclaredInputs, *, of: str, closed: bool) -> MetricValue:
    """A property of the overlap, with its standard error if there is one."""
    overlap = measure(spec, inputs, closed=closed)
    return MetricValue(
        getattr(overlap, of),
        stderr=getattr(overlap, f"{of}_stderr", None),
        n_generated=overlap.n_generated,
        n_real=overlap.n_real,
    )


def _family(
    of: str, summary: str, source: Source, *, closed: bool, published: str, listed: tuple[str, ...]
) -> Family:
    return Family(
        name=of,
        summary=summary,
        higher_is_better=True,
        source=source,
        compute=partial(compute, of=of, closed=closed),
        reals=REALS,
        gives=("features",),
        neighbours=True,
        settings=partial(settings, closed=closed),
        step=one_image,
        scale="difference" if of == "density" else "odds",  # density exceeds 1
        published={published: f"{published}_vgg16_fc2"},
        listed=(*(f"{of}{rest}" for rest in listed), published),
    )


WITH_3 = (
    "10k3_full_pixels_rgb",
    "10k3_full_stlpips_alex",
    "10k3_test_pixels",
    "10k3_test_stlpips_alex",
    "10k3_test_stlpips_vgg",
)
WITH_5 = ("10k5_full_stlpips_alex", "10k5_test_stlpips_alex")

FAMILIES = (
    _family(
        "precision",
        "Share of generated images in the {k}-neighbour balls of {reals}, on {features}.",
        KYNKAANNIEMI,
        closed=True,
        published="precision50k3_full",
        listed=WITH_3,
    ),
    _family(
        "recall",
        "Share of {reals} in the {k}-neighbour balls of generated ones, on {features}.",
        KYNKAANNIEMI,
        closed=True,
        published="recall50k3_full",
        listed=WITH_3,
    ),
    _family(
        "density",
        "How many {k}-neighbour balls of {reals} hold a generated one, over {k}, on {features}.",
        NAEEM,
        closed=False,
        published="density50k5_full",
        listed=WITH_5,
    ),
    _family(
        "coverage",
        "Share of {k}-neighbour balls of {reals} that hold a generated one, on {features}.",
        NAEEM,
        closed=False,
        published="coverage50k5_full",
        listed=WITH_5,
    ),
)
