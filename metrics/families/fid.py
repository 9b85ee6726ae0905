"""FID and its like: the Fréchet distance of Gaussians fitted to two feature sets, with its standard error.

StyleGAN's `fid50k_full` divides covariances by N, all others by N - 1: 2e-5 of the number at 50,000 images.
All training images are the population that the model is to match and are held fixed; test images, or any
counted subset, are a sample of one, and their own variance is in the standard error.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from fact_metrics.family import REALS, Choice, Family, Source
from fact_metrics.spec import FeatureNeed, MetricSpec, MetricValue

if TYPE_CHECKING:
    import torch

    from fact_metrics.inputs import DeclaredInputs

STDERR = "exact leave-one-out influence, quadratic part counted once"
DIVIDED_BY_N = ("inception_pool3", "inception_nvidia")  # as StyleGAN2-ADA and StyleGAN3 do
HEUSEL = Source(
    "Heusel et al. 2017, arXiv:1706.08500", "torch-fidelity 0.4.0 and clean-fid 0.1.35 on the same features"
)
STEIN = Source("Stein et al. 2023, arXiv:2306.04675", "dgm-eval and EDM2 on the same features")
DINOV2 = ("dinov2_s", "dinov2_b", "dinov2_l")


def reference_kind(need: FeatureNeed) -> Literal["population", "sample"]:
    """What the reals of a need are: the whole training set is the population, anything else a sample."""
    return "population" if need.split == "train" and need.count is None else "sample"


def settings(choice: Choice) -> dict:
    """Of every Fréchet distance."""
    return {
        "covariance": "N" if choice.detector in DIVIDED_BY_N else "N - 1",
        "dtype": "float64",
        "stderr": STDERR,
        "reals": "population" if choice.reals == "full" else "sample",
    }


def compute(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """The distance, at least 0; `extras` have it before that, and whether N <= D on a side."""
    from fact_metrics.engines.fid_error import compute_fid_stderr
    from fact_metrics.engines.frechet import (
        compute_fid_from_statistics,
        compute_statistics,
        move_statistics,
    )

    scored, reals = spec.needs
    correction = _correction(spec)
    features_gen = inputs.features(scored).to(inputs.device)
    gen = compute_statistics(features_gen, correction=correction)
    given = inputs.statistics(reals, correction=correction) if spec.from_statistics else None
    if given is None:
        what = f"mean and covariance over N - {correction}"
        real = inputs.cached_real(reals, what, partial(compute_statistics, correction=correction))
    else:
        real = move_statistics(given, inputs.device)
    raw = compute_fid_from_statistics(gen, real, clamp=False)
    kind = reference_kind(reals)
    unknown = given is not None and kind == "sample"  # the error of a sample takes its rows
    rows = real if unknown or kind == "population" else inputs.features(reals).to(inputs.device)
    counts = [n for n in (gen.n, real.n) if n]
    return MetricValue(
        max(raw, 0.0),
        stderr=None if unknown else compute_fid_stderr(features_gen, rows, reference=kind, known=(gen, real)),
        n_generated=gen.n,
        n_real=real.n or None,
        extras={"raw": raw, "singular_by_count": min(counts) <= features_gen.shape[1]},
    )


def difference(
    spec: MetricSpec, gen_a: torch.Tensor, gen_b: torch.Tensor, real: torch.Tensor
) -> tuple[float, float | None]:
    """Of two runs on shared latents."""
    from fact_metrics.engines.fid_error import compute_fid_difference

    found = compute_fid_difference(
        gen_a,
        gen_b,
        real,
        paired=True,
        reference=reference_kind(spec.needs[1]),
        correction=_correction(spec),
    )
    return found.value, found.stderr


def _correction(spec: MetricSpec) -> int:
    return {"N": 0, "N - 1": 1}[spec.settings["covariance"]]


FRECHET = {
    "higher_is_better": False,
    "summary": "Fréchet distance to {reals}, on {features}.",
    "reals": REALS,
    "settings": settings,
    "compute": compute,
    "from_statistics": True,
    "scale": "ratio",
    "difference": difference,
}

FAMILIES = (
    Family(
        name="fid",
        gives=("features",),
        source=HEUSEL,
        sources={
            "inception_pool3": Source(
                HEUSEL.citation, "fid50k_full of StyleGAN2-ADA; torch-fidelity 0.4.0 but for N - 1"
            ),
            "inception_nvidia": Source(HEUSEL.citation, "fid50k_full of StyleGAN2-ADA and StyleGAN3"),
            "inception_pytorch_fid": Source(
                HEUSEL.citation, "pytorch-fid and clean-fid 0.1.35 legacy_pytorch"
            ),
            "clean_inception": Source("Parmar et al. 2022, arXiv:2104.11222", "clean-fid 0.1.35, mode clean"),
            "clip_vit_b32": Source("Kynkäänniemi et al. 2023, arXiv:2203.06026", "clean-fid, clip_vit_b_32"),
            **dict.fromkeys(DINOV2, STEIN),
        },
        published={
            "fid50k_full": "fid50k_full_inception_pool3",
            "fid50k_full_clean": "fid50k_full_clean_inception",
        },
        listed=(
            "fid10k_full_digits",
            "fid10k_full_efficientnet_lite0",
            "fid10k_full_stlpips_alex",
            "fid10k_test_efficientnet_lite0",
            "fid50k_full",
            "fid50k_full_clean",
            "fid50k_full_clip_vit_b32",
            "fid50k_full_inception_nvidia",
            "fid50k_full_inception_pytorch_fid",
        ),
        **FRECHET,
    ),
    Family(
        name="fd",
        gives=("features",),
        detectors=DINOV2,
        source=STEIN,
        listed=("fd50k_full_dinov2_s", "fd50k_full_dinov2_b", "fd50k_full_dinov2_l"),
        **FRECHET,
    ),
    Family(
        name="sfid",
        gives=("spatial features",),
        source=Source(
            "Nash et al. 2021, arXiv:2103.03841", "guided-diffusion's evaluator on the same features"
        ),
        published={"sfid50k_full": "sfid50k_full_inception_spatial"},
        listed=("sfid50k_full",),
        **FRECHET,
    ),
)
