"""FID's registered protocols: `compute_fid` on features of a detector, with its standard error.

All training images are the population that the model is to match and are held fixed; test images, or any
counted subset, are a sample of one, and their own variance is in the standard error.
"""

from metrics.fid_error import Reference, compute_fid_stderr
from metrics.frechet import compute_fid_from_statistics, compute_statistics, move_statistics
from metrics.registry import (
    DIGIT_DATASETS,
    FeatureNeed,
    MetricInputs,
    MetricValue,
    Register,
    against_reals,
    register_metric,
)

STDERR = "exact leave-one-out influence, quadratic part counted once"


def reference_kind(need: FeatureNeed) -> Reference:
    """What the reals of a need are: the whole training set is the population, anything else a sample."""
    return "population" if need.split == "train" and need.count is None else "sample"


def _fid(
    needs: tuple[FeatureNeed, ...],
    *,
    family: str = "fid",
    citation: str = "Heusel et al. 2017, arXiv:1706.08500",
    reference: str = "torch-fidelity 0.4.0 and clean-fid 0.1.35 on the same features",
    correction: int = 1,
    datasets: tuple[str, ...] | None = None,
) -> Register:
    return register_metric(
        family=family,
        higher_is_better=False,
        citation=citation,
        reference=reference,
        needs=needs,
        from_statistics=True,
        settings={
            "covariance": "N - 1" if correction else "N",
            "dtype": "float64",
            "stderr": STDERR,
            "reals": reference_kind(needs[1]),
        },
        datasets=datasets,
    )


def _value(inputs: MetricInputs, needs: tuple[FeatureNeed, ...], *, correction: int = 1) -> MetricValue:
    """The distance, at least 0; `extras` say what it was before, and whether N <= D on a side."""
    features_gen = inputs.features(needs[0]).to(inputs.device)
    gen = compute_statistics(features_gen, correction=correction)
    given = inputs.statistics(needs[1], correction=correction)
    if given is None:
        features_real = inputs.features(needs[1]).to(inputs.device)
        real = compute_statistics(features_real, correction=correction)
    else:
        features_real = real = move_statistics(given, inputs.device)
    raw = compute_fid_from_statistics(gen, real, clamp=False)
    kind = reference_kind(needs[1])
    unknown = given is not None and kind == "sample"  # the error of a sample takes its rows
    counts = [n for n in (gen.n, real.n) if n]
    return MetricValue(
        max(raw, 0.0),
        stderr=None if unknown else compute_fid_stderr(features_gen, features_real, reference=kind),
        n_generated=gen.n,
        n_real=real.n or None,
        extras={"raw": raw, "singular_by_count": min(counts) <= features_gen.shape[1]},
    )


FULL_DIGITS = against_reals("digits", split="train")
FULL_EFFICIENTNET = against_reals("efficientnet_lite0", split="train")
TEST_EFFICIENTNET = against_reals("efficientnet_lite0", split="test")
FULL_ALEX = against_reals("stlpips_alex", split="train")


@_fid(FULL_DIGITS, datasets=DIGIT_DATASETS)
def fid10k_full_digits(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on features of the digit classifier."""
    return _value(inputs, FULL_DIGITS)


@_fid(FULL_EFFICIENTNET)
def fid10k_full_efficientnet_lite0(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on EfficientNet-Lite0 features."""
    return _value(inputs, FULL_EFFICIENTNET)


@_fid(TEST_EFFICIENTNET)
def fid10k_test_efficientnet_lite0(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to the held-out test images, on EfficientNet-Lite0 features."""
    return _value(inputs, TEST_EFFICIENTNET)


@_fid(FULL_ALEX)
def fid10k_full_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on shift-tolerant AlexNet features."""
    return _value(inputs, FULL_ALEX)
