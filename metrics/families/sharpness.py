"""Sharpness: spectral power in high frequencies, of generated images against that of real ones.

Blurred images have too little and noisy ones too much, so both sides count: |log2 ratio|, 0 where the shares
agree. Spectral shares as a sign of generated images: Durall et al. 2020, arXiv:2003.01826.
"""

import math

import torch

from fact_metrics.registry import FeatureNeed, MetricInputs, MetricValue, against_reals, register_metric

FLOOR = 1e-6


def compute_sharpness(shares_gen: torch.Tensor, shares_real: torch.Tensor) -> float:
    """|log2| of the ratio of mean high-frequency shares, in octaves. Lower is better; 0 if equal; symmetric.

    Both are [N, 1] shares of the `spectrum` detector, in [0, 1]. A mean under 1e-6 (blank images) counts as
    1e-6. Raises ValueError on an empty set or a share outside [0, 1].
    """
    return abs(math.log2(_mean_share(shares_gen) / _mean_share(shares_real)))


def compute_sharpness_stderr(shares_gen: torch.Tensor) -> float | None:
    """Standard error over draws of generated images, reals held fixed: sd / (sqrt(N) mean ln 2)."""
    if len(shares_gen) < 2:
        return None
    spread = shares_gen.double().std().item() / len(shares_gen) ** 0.5
    return spread / (_mean_share(shares_gen) * math.log(2))


def _mean_share(shares: torch.Tensor) -> float:
    if len(shares) == 0 or not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(f"shares lie in [0, 1] and number at least one, got {list(shares.shape)}")
    return max(shares.double().mean().item(), FLOOR)


def _value(inputs: MetricInputs, needs: tuple[FeatureNeed, ...]) -> MetricValue:
    gen, real = (inputs.features(need) for need in needs)
    return MetricValue(
        compute_sharpness(gen, real),
        stderr=compute_sharpness_stderr(gen),
        n_generated=len(gen),
        n_real=len(real),
        extras={
            "ratio": _mean_share(gen) / _mean_share(real),
            "share_generated": _mean_share(gen),
            "share_real": _mean_share(real),
        },
    )


def _sharpness(needs: tuple[FeatureNeed, ...]):
    return register_metric(
        family="sharpness",
        higher_is_better=False,
        citation="Durall et al. 2020, arXiv:2003.01826",
        reference="none: defined here",
        unit="octaves",
        needs=needs,
        settings={"value": "|log2(mean share generated / mean share real)|", "floor": FLOOR},
    )


TEST_SPECTRUM = against_reals("spectrum", split="test")
FULL_SPECTRUM = against_reals("spectrum", split="train")


@_sharpness(TEST_SPECTRUM)
def sharpness10k_test(inputs: MetricInputs) -> MetricValue:
    """How far the share of power in high frequencies is from that of the test images; 0 is equal."""
    return _value(inputs, TEST_SPECTRUM)


@_sharpness(FULL_SPECTRUM)
def sharpness10k_full(inputs: MetricInputs) -> MetricValue:
    """How far the share of power in high frequencies is from that of the training images; 0 is equal."""
    return _value(inputs, FULL_SPECTRUM)
