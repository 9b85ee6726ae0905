"""PPL: perceptual path length, how far images move for a small step between latents. Lower is smoother.

Five published protocols, by the name that StyleGAN2's tables give them:

    name          path                     t                  image        in the grammar
    ppl_zfull     z, spherical             uniform in (0, 1)  face crop    ppl50k_zfull_crop_lpips_vgg
    ppl_zend      z, spherical             0                  face crop    ppl50k_zend_crop_lpips_vgg
    ppl_wfull     w, linear                uniform in (0, 1)  face crop    ppl50k_wfull_crop_lpips_vgg
    ppl_wend      w, linear                0                  face crop    ppl50k_wend_crop_lpips_vgg
    ppl2_wend     w, linear                0                  whole        ppl50k_wend_lpips_vgg

Without `_crop` the whole image counts. Protocols on the shift-tolerant networks, which work offline, are not
comparable with the published ones.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fact_metrics.base.image_size import ImageSize
from fact_metrics.engines.conventions import PATHS, STEP, VARIANTS, LatentPath
from fact_metrics.family import Choice, Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.inputs import DeclaredInputs

DETECTOR = "lpips_vgg"  # of the published protocols
UNIT = 500  # pairs that one process measures at a time: whole batches
WHERE = {"end": "at the ends of", "full": "anywhere on"}


def settings(choice: Choice, *, path: LatentPath) -> dict:
    """Of every path length."""
    return {
        "samples": choice.count,
        **path.settings(),
        "epsilon": STEP,
        "images": "float32, not clamped; box-averaged to 256 pixels where larger",
        "noise": "equal in a pair",
        "trim": "1st percentile lower to 99th higher",
    }


def compute(spec: MetricSpec, inputs: DeclaredInputs, *, path: LatentPath) -> MetricValue:
    """The trimmed mean and its bootstrap interval; None for images too small for the network."""
    import torch

    from fact_metrics.engines import path_length
    from fact_metrics.features import get_detector
    from fact_metrics.features.perceptual import MIN_RESOLUTION, PerceptualDetector

    generator, detector = inputs.generator, get_detector(spec.detectors[0], inputs.device)
    size = ImageSize.of(generator.resolution)
    shorter = min(size.height, size.width)
    side = shorter // 2 if path.crop else shorter
    if isinstance(detector, PerceptualDetector) and side < MIN_RESOLUTION:
        reason = f"{side} pixels are left of {generator.resolution}: too few for {detector.name}"
        return MetricValue(None, extras={"undefined": reason})
    distances = torch.tensor(
        inputs.deal(
            spec.count,
            UNIT,
            lambda pairs: path_length.measure_path(generator, detector, path, pairs=pairs).tolist(),
        )
    )
    stderr, low, high = path_length.bootstrap_ppl(distances, seed=inputs.seed)
    interval = {
        "level": path_length.LEVEL,
        "low": low,
        "high": high,
        "method": "percentile bootstrap",
        "n": path_length.RESAMPLES,
    }
    return MetricValue(path_length.compute_ppl(distances), stderr=stderr, ci=interval, n_generated=spec.count)


def _family(variant: str, path: LatentPath, listed: tuple[str, ...]) -> Family:
    of_paper = next((name for name, one in PATHS.items() if one == path), None)
    tables = f"{of_paper or 'no published one'} of StyleGAN2's tables"
    paper = "Karras et al. 2020, arXiv:1912.04958"
    crop = ", face crop" if path.crop else ""
    return Family(
        name="ppl",
        variant=variant,
        summary=f"Perceptual path length {WHERE[path.sampling]} paths in {path.space.upper()}{crop}, "
        "{features}, {count} pairs.",
        higher_is_better=False,
        source=Source(paper, f"{tables}, with another LPIPS network"),
        sources={DETECTOR: Source(paper, tables)},
        compute=partial(compute, path=path),
        scored=None,
        gives=("distance",),
        settings=partial(settings, path=path),
        needs_generator=True,
        dealt=True,
        scale="ratio",
        published={of_paper: f"ppl50k_{variant}_{DETECTOR}"} if of_paper else {},
        listed=(*(f"ppl{rest}" for rest in listed), *([of_paper] if of_paper else [])),
    )


FAMILIES = (
    _family(
        "wend", VARIANTS["wend"], ("2k_wend_stlpips_alex", "2k_wend_stlpips_vgg", "50k_wend_stlpips_vgg")
    ),
    *(_family(name, VARIANTS[name], (f"2k_{name}_stlpips_vgg",)) for name in ("wfull", "zend", "zfull")),
    *(
        _family(name, VARIANTS[name], (f"2k_{name}_stlpips_vgg", f"50k_{name}_stlpips_vgg"))
        for name in ("wend_crop", "wfull_crop", "zend_crop", "zfull_crop")
    ),
)
