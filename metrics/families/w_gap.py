"""W-gap: how far the w of a StylEx encoder lie from those of its mapping network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fact_metrics.family import Choice, Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    import torch

    from fact_metrics.inputs import DeclaredInputs


def settings(choice: Choice, *, distance: str) -> dict:
    """Of both distances."""
    return {
        "distance": distance,
        "w": "without the class part, over the mapping's mean and deviation per dimension",
        "encoder": "of held-out images",
        "mapping": "of the first latents",
        "count": choice.count,
        "dtype": "float64",
    }


def compute_frechet(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """The distance per dimension; `extras` describe the encoder's w in every dimension."""
    from fact_metrics.engines.w_gap import compute_w_gap_frechet, describe_dimensions

    encoder, mapping = _both(spec, inputs)
    shown = describe_dimensions(encoder, mapping)
    return MetricValue(
        compute_w_gap_frechet(encoder, mapping),
        n_generated=len(encoder),
        n_real=len(mapping),
        extras={name: [round(x, 4) for x in values] for name, values in shown.items()},
    )


def compute_kernel(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """The unbiased distance and its standard error."""
    from fact_metrics.engines.w_gap import compute_w_gap_kernel

    encoder, mapping = _both(spec, inputs)
    found = compute_w_gap_kernel(encoder, mapping)
    return MetricValue(found.value, stderr=found.stderr, n_generated=len(encoder), n_real=len(mapping))


def _both(spec: MetricSpec, inputs: DeclaredInputs) -> tuple[torch.Tensor, torch.Tensor]:
    return inputs.encoder.pairs(spec.count).w, inputs.encoder.mapping_w(spec.count)


SHARED = {
    "name": "wgap",
    "higher_is_better": False,
    "source": Source(
        "this project; Fréchet: Heusel et al. 2017; kernel: Binkowski et al. 2018", "none: defined here"
    ),
    "scored": None,
    "needs_encoder": True,
    "minimum": 4,
}

FAMILIES = (
    Family(
        variant="frechet",
        summary="Fréchet distance between w of the encoder and of the mapping, per dimension, in the "
        "mapping's units.",
        compute=compute_frechet,
        settings=partial(settings, distance="Fréchet / D, N - 1"),
        scale="ratio",
        listed=("wgap10k_frechet",),
        **SHARED,
    ),
    Family(
        variant="kernel",
        summary="Kernel distance between w of the encoder and of the mapping, in the mapping's units.",
        compute=compute_kernel,
        settings=partial(settings, distance="unbiased MMD^2, (x.y / D + 1)^3"),
        listed=("wgap10k_kernel",),
        **SHARED,
    ),
)
