"""Which detector for digits: does FID in its space fall at every step as MNIST is spoiled less?

`python -m benchmarks detectors`. Test images are blurred, noisy, mixed with what is no digit, or lack some
digits (benchmarks/damaged_digits.py); their FID to training images must fall towards the untouched ones.
Every step has a standard error, paired by image, so that falling is a statistical statement: a step counts
where its difference is significant at 5 % after Holm's correction over all steps of the detector.
Detectors whose weights are not here are left out and named. Those with a network are there twice: trained,
and with its weights drawn at random, which shows what training is good for.
"""

import copy
import math
import time
from collections.abc import Iterator
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch
from torch import nn

from benchmarks.damaged_digits import DamagedDigits, damage_digits
from benchmarks.pairs import start
from fact_leaderboard.intervals import holm
from fact_metrics.engines.fid_error import compute_fid_influence, jackknife_variance
from fact_metrics.engines.frechet import compute_fid_from_statistics, compute_statistics
from fact_metrics.features import Detector, get_detector, list_detectors
from fact_metrics.features.weight_store import MissingWeights
from fact_train.data import open_dataset

IMAGES, DRAWS, REALS_PER_IMAGE = 500, 2, 4
SIGNIFICANT = 0.05
SAME_AS_PIXELS = "pixels_rgb"  # gray images have one channel
BATCH = 256


def run(
    *,
    seconds: float = 20.0,
    device: str = "auto",
    threads: int | None = None,
    images: int = IMAGES,
    only: str | None = None,
) -> dict[str, Any]:
    """All detectors, or those named with commas between; `images` a level and four times as many reals.

    `seconds` is not used: the work is fixed.
    """
    chosen, about, limits = start(device, threads)
    reals = REALS_PER_IMAGE * images
    test = open_dataset("mnist", split="test")
    real = open_dataset("mnist", split="train").images(range(reals))
    draws = [damage_digits(test, images, seed=seed, draws=DRAWS) for seed in range(DRAWS)]
    found, left_out = {}, {SAME_AS_PIXELS: "equals pixels where images are gray"}
    with limits, torch.inference_mode():
        for name in only.split(",") if only else [n for n in list_detectors() if n != SAME_AS_PIXELS]:
            try:
                detector = get_detector(name, chosen)
                detector(real[:2])
            except MissingWeights as error:
                left_out[name] = f"weights {error.name} are not installed"
                continue
            for shown, judged in _with_control(name, detector):
                found[shown] = _judge(judged, real, draws)
    return {
        "machine": about,
        "setting": {"images": images, "draws": DRAWS, "reals": reals, "levels": draws[0].names},
        "detectors": found,
        "left_out": left_out,
    }


def table(result: dict[str, Any]) -> str:
    """Per detector the weakest step of each way in standard errors, and how many steps fall; best first."""
    detectors = result["detectors"]
    ways = list(result["setting"]["levels"])
    head = ["detector", "width", "s / 1,000", *ways, "steps that fall", "that rise"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in sorted(detectors, key=lambda name: _rank(detectors[name])):
        case = detectors[name]
        weakest = [f"{min(case['ways'][way]['z']):.1f}" for way in ways]
        steps = f"{case['falling']} of {case['steps']}"
        cells = [name, f"{case['width']}", f"{case['seconds_per_1000']:.2g}", *weakest, steps, case["rising"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _rank(case: dict[str, Any]) -> tuple[int, float]:
    """More falling steps first, then the larger weakest step."""
    return -case["falling"], -min(min(way["z"]) for way in case["ways"].values())


def _with_control(name: str, detector: Detector) -> Iterator[tuple[str, Detector]]:
    """The detector and, where it has a network, a copy with the network's weights drawn at random."""
    yield name, detector
    control = copy.deepcopy(detector)
    networks = [value for value in vars(control).values() if isinstance(value, nn.Module)]
    if networks:
        for network in networks:
            _redraw(network)
        yield f"{name}, random weights", control


def _redraw(network: nn.Module) -> None:
    """He initialisation of every convolution and linear layer, no biases; by one seed."""
    rng = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            drawn = torch.empty(module.weight.shape)
            nn.init.kaiming_normal_(drawn, generator=rng)
            module.weight.data = drawn.to(module.weight).contiguous(memory_format=_format(module.weight))
            if module.bias is not None:
                module.bias.data = torch.zeros_like(module.bias)


def _format(weight: torch.Tensor) -> torch.memory_format:
    channels_last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


def _judge(detector: Detector, real: torch.Tensor, draws: list[DamagedDigits]) -> dict[str, Any]:
    """FID of every level, every step with its error, mean over the draws, and the verdict."""
    (features_real, seconds), *made = (_features(detector, x) for x in (real, *(d.images for d in draws)))
    pools = [features for features, _ in made]
    statistics = compute_statistics(features_real)
    ways: dict[str, dict[str, list]] = {}
    for way in draws[0].levels:
        paths = []
        for draw, pool in zip(draws, pools, strict=True):
            sets = [pool[rows] for rows in draw.levels[way]]
            fids = [compute_fid_from_statistics(compute_statistics(rows), statistics) for rows in sets]
            influences = [compute_fid_influence(rows, statistics) for rows in sets]
            errors = [jackknife_variance(worse - better) for worse, better in pairwise(influences)]
            paths.append((fids, errors))
        fids = [fmean(levels) for levels in zip(*(path[0] for path in paths), strict=True)]
        errors = [
            math.sqrt(sum(drawn)) / len(draws) for drawn in zip(*(path[1] for path in paths), strict=True)
        ]
        steps = [worse - better for worse, better in pairwise(fids)]
        z = [step / error if error else 0.0 for step, error in zip(steps, errors, strict=True)]
        ways[way] = {"fid": fids, "step": steps, "stderr": errors, "z": z}
    scores = [z for way in ways.values() for z in way["z"]]
    p = holm([math.erfc(abs(z) / math.sqrt(2)) for z in scores])
    clear = [z for z, probability in zip(scores, p, strict=True) if probability < SIGNIFICANT]
    return {
        "width": features_real.shape[1],
        "seconds_per_1000": 1000 * min([seconds, *(taken for _, taken in made)]),
        "ways": ways,
        "steps": len(scores),
        "falling": sum(z > 0 for z in clear),
        "rising": sum(z < 0 for z in clear),
    }


def _features(detector: Detector, images: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Features [N, D] and seconds an image of the quickest batch, whatever else the machine did meanwhile."""
    rows, quickest = [], math.inf
    for part in images.split(BATCH):
        began = time.perf_counter()
        rows.append(detector(part).cpu())
        if len(part) == min(BATCH, len(images)):
            quickest = min(quickest, (time.perf_counter() - began) / len(part))
    return torch.cat(rows), quickest
