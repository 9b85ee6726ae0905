"""Factors of style injections that are named: contrast by channels or vectors, path length by rows of w."""

import math

import pytest
import torch
from stylex_toys import trainer_of

from fact_metrics.base.errors import UsageError
from fact_train.networks.injection import STYLE_INJECTIONS, StyleOptions
from fact_train.settings.config import TrainConfig

CHANNELS, K = 8, 12
WAYS = {
    "modconv": dict(style_vectors=1),
    "adain": dict(style_vectors=1),
    "vectors": dict(style_vectors=K),
    "matrix": dict(style_vectors=K),
}


def output(injection: str, amplify: float | str) -> torch.Tensor:
    """What a layer makes of one input, style and set of weights."""
    torch.manual_seed(0)
    style = StyleOptions(style_amplify=amplify, **WAYS[injection])
    layer = STYLE_INJECTIONS[injection](CHANNELS, 6, 3, w_dim=5, demodulate=True, style=style)
    shape = (2, 5) if style.style_vectors == 1 else (2, style.style_vectors, 5)
    return layer(torch.randn(2, CHANNELS, 4, 4), torch.randn(shape), bias=torch.zeros(6), fused=True)


@pytest.mark.parametrize("injection", WAYS)
def test_contrast_by_name_is_that_of_the_layer_s_channels_or_of_the_vectors(injection: str) -> None:
    assert torch.equal(output(injection, "sqrt"), output(injection, math.sqrt(CHANNELS)))
    assert torch.equal(output(injection, "k"), output(injection, float(WAYS[injection]["style_vectors"])))
    assert not torch.allclose(output(injection, "sqrt"), output(injection, 1.0))


@pytest.mark.parametrize("space", ["w", "w_plus"])
def test_path_length_counts_the_vectors_of_a_layer_or_of_all(tiny_config: TrainConfig, space: str) -> None:
    seen = {}
    for rows in ("layer", "all"):
        t = trainer_of(
            tiny_config, injection="vectors", style_vectors=4, latent_space=space, style_mixing_prob=0.0,
            pl_rows=rows,
        )  # fmt: skip
        t.step(regularise=True)
        seen[rows] = t.stats.collect()["Path_length"]["mean"]
    num_ws = t.model.gan.G.num_ws
    assert seen["all"] == pytest.approx(num_ws**0.5 * seen["layer"], rel=1e-4)  # (num_ws K)^0.5 / K^0.5


def test_all_rows_count_with_one_vector_too() -> None:
    assert TrainConfig(pl_rows="all", pl_power=1.0).pl_power == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"style_amplify": "k"}, "--style-amplify k: it has no effect on one style vector"),
        ({"style_amplify": "rsqrt"}, "--style-amplify rsqrt: it must be a number or sqrt or k"),
        ({"style_amplify": "sqrt", "injection": "adaconv"}, "no effect with --injection adaconv"),
        ({"pl_rows": "all", "pl_power": 0.0}, "--pl-rows all: it has no effect with --pl-power 0"),
    ],
    ids=str,
)
def test_names_without_effect_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**changes)
