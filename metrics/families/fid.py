"""Registered protocols of FID and its like: `compute_fid` on features of a detector, with its standard error.

StyleGAN's `fid50k_full` divides covariances by N, all others by N - 1: 2e-5 of the number at 50,000 images.
All training images are the population that the model is to match and are held fixed; test images, or any
counted subset, are a sample of one, and their own variance is in the standard error.
"""

from functools import partial

import torch

from fact_metrics.engines.fid_error import Reference, compute_fid_difference, compute_fid_stderr
from fact_metrics.engines.frechet import compute_fid_from_statistics, compute_statistics, move_statistics
from fact_metrics.registry import (
    DIGIT_DATASETS,
    FeatureNeed,
    MetricInputs,
    MetricValue,
    Register,
    against_reals,
    published_needs,
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
        difference=partial(_difference, correction=correction, reference=reference_kind(needs[1])),
    )


def _value(inputs: MetricInputs, needs: tuple[FeatureNeed, ...], *, correction: int = 1) -> MetricValue:
    """The distance, at least 0; `extras` say what it was before, and whether N <= D on a side."""
    features_gen = inputs.features(needs[0]).to(inputs.device)
    gen = compute_statistics(features_gen, correction=correction)
    given = inputs.statistics(needs[1], correction=correction)
    if given is None:
        what = f"mean and covariance over N - {correction}"
        real = inputs.of_reals(needs[1], what, partial(compute_statistics, correction=correction))
    else:
        real = move_statistics(given, inputs.device)
    raw = compute_fid_from_statistics(gen, real, clamp=False)
    kind = reference_kind(needs[1])
    unknown = given is not None and kind == "sample"  # the error of a sample takes its rows
    rows = real if unknown or kind == "population" else inputs.features(needs[1]).to(inputs.device)
    counts = [n for n in (gen.n, real.n) if n]
    return MetricValue(
        max(raw, 0.0),
        stderr=None if unknown else compute_fid_stderr(features_gen, rows, reference=kind, known=(gen, real)),
        n_generated=gen.n,
        n_real=real.n or None,
        extras={"raw": raw, "singular_by_count": min(counts) <= features_gen.shape[1]},
    )


def _difference(
    gen_a: torch.Tensor, gen_b: torch.Tensor, real: torch.Tensor, *, correction: int, reference: Reference
) -> tuple[float, float | None]:
    found = compute_fid_difference(
        gen_a, gen_b, real, paired=True, reference=reference, correction=correction
    )
    return found.value, found.stderr


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


POOL3 = published_needs("inception_pool3")
NVIDIA = published_needs("inception_nvidia")
PYTORCH_FID = published_needs("inception_pytorch_fid")
CLEAN = published_needs("clean_inception")
CLIP = published_needs("clip_vit_b32")
SPATIAL = published_needs("inception_spatial")
DINOV2_S, DINOV2_B, DINOV2_L = (published_needs(f"dinov2_{size}") for size in "sbl")


@_fid(POOL3, correction=0, reference="fid50k_full of StyleGAN2-ADA; torch-fidelity 0.4.0 but for N - 1")
def fid50k_full(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on Inception-v3 features: the FID of the StyleGAN papers."""
    return _value(inputs, POOL3, correction=0)


@_fid(NVIDIA, correction=0, reference="fid50k_full of StyleGAN2-ADA and StyleGAN3")
def fid50k_full_inception_nvidia(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on Inception-v3 features out of NVIDIA's own weight file."""
    return _value(inputs, NVIDIA, correction=0)


@_fid(PYTORCH_FID, reference="pytorch-fid and clean-fid 0.1.35 legacy_pytorch")
def fid50k_full_inception_pytorch_fid(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on Inception-v3 features with pytorch-fid's resize."""
    return _value(inputs, PYTORCH_FID)


@_fid(CLEAN, citation="Parmar et al. 2022, arXiv:2104.11222", reference="clean-fid 0.1.35, mode clean")
def fid50k_full_clean(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on Inception-v3 behind an antialiased resize: clean-FID."""
    return _value(inputs, CLEAN)


@_fid(CLIP, citation="Kynkäänniemi et al. 2023, arXiv:2203.06026", reference="clean-fid, clip_vit_b_32")
def fid50k_full_clip_vit_b32(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on CLIP ViT-B/32 features, which saw no ImageNet classes."""
    return _value(inputs, CLIP)


@_fid(
    SPATIAL,
    family="sfid",
    citation="Nash et al. 2021, arXiv:2103.03841",
    reference="guided-diffusion's evaluator on the same features",
)
def sfid50k_full(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on spatial Inception-v3 features: where things are."""
    return _value(inputs, SPATIAL)


def _fd_dinov2(needs: tuple[FeatureNeed, ...]) -> Register:
    return _fid(
        needs,
        family="fd",
        citation="Stein et al. 2023, arXiv:2306.04675",
        reference="dgm-eval and EDM2 on the same features",
    )


@_fd_dinov2(DINOV2_S)
def fd50k_full_dinov2_s(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on DINOv2 ViT-S/14 features."""
    return _value(inputs, DINOV2_S)


@_fd_dinov2(DINOV2_B)
def fd50k_full_dinov2_b(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on DINOv2 ViT-B/14 features."""
    return _value(inputs, DINOV2_B)


@_fd_dinov2(DINOV2_L)
def fd50k_full_dinov2_l(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on DINOv2 ViT-L/14 features: the published FD-DINOv2."""
    return _value(inputs, DINOV2_L)
