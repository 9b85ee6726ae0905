"""The standard error of FID against the spread of repeated draws, and the first-order formula beside it.

`python -m benchmarks fid_error` prints the table that docs/fid-errors.md publishes. Features are drawn anew
for every distance; covariances of many normal images are drawn as such (Bartlett 1933), which is exact and
does not depend on how many there are.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.pairs import start
from fact_metrics.engines.fid_error import compute_fid_stderr
from fact_metrics.engines.frechet import FeatureStatistics, compute_fid_from_statistics, compute_statistics

DRAWS = 1000
FEWEST = 10
# Values of an error that are averaged: one varies by itself, most where there are few images.
ESTIMATES = {16: 50, 64: 50, 512: 10, 2048: 2}
SIZES = {
    16: (20, 50, 200, 1000, 5000),
    64: (10, 20, 64, 200, 1000, 5000),
    512: (100, 1000, 5000),
    2048: (1000, 10_000),
}


@dataclass(frozen=True)
class Case:
    """`generated`: alike (of the reals' distribution), apart, or alike with heavy tails as the reals have."""

    width: int
    n: int
    generated: str
    m: int | None = None  # a sample of so many reals; None: the population itself

    @property
    def scales(self) -> torch.Tensor:
        return torch.arange(1, self.width + 1, dtype=torch.float64) ** -0.5

    def draw(self, count: int, rng: np.random.Generator, *, real: bool) -> torch.Tensor:
        """Images' features [count, width]."""
        rows = torch.from_numpy(rng.standard_normal((count, self.width)))
        if self.generated == "heavy tails":  # each image has a size of its own, from 1/2 to 3/2
            sizes = rng.uniform(0.5, 1.5, (count, 1))
            rows *= torch.from_numpy(sizes / np.sqrt(13 / 12))
        return self._place(rows, real=real) + self._mean(real=real)

    def draw_statistics(self, count: int, rng: np.random.Generator, *, real: bool) -> FeatureStatistics:
        """Statistics of so many images."""
        if self.generated == "heavy tails" or count <= self.width + 1:
            return compute_statistics(self.draw(count, rng, real=real))
        mean = self.draw(1, rng, real=real)[0] - self._mean(real=real)
        root = np.tril(rng.standard_normal((self.width, self.width)), -1)
        root[np.diag_indices(self.width)] = rng.chisquare(count - 1 - np.arange(self.width)) ** 0.5
        factor = self._place(torch.from_numpy(root).T, real=real)
        cov = factor.T @ factor / (count - 1)
        return FeatureStatistics(count, self._mean(real=real) + mean / count**0.5, cov)

    def _place(self, rows: torch.Tensor, *, real: bool) -> torch.Tensor:
        rows = rows * self.scales
        if real or self.generated != "apart":
            return rows
        rows *= 1 + 0.3 * torch.sin(torch.arange(self.width))
        axis = torch.ones(self.width, dtype=torch.float64) / self.width**0.5
        return rows - 2 * torch.outer(rows @ axis, axis)  # a reflection: the covariances do not commute

    def _mean(self, *, real: bool) -> torch.Tensor:
        return torch.zeros_like(self.scales) if real or self.generated != "apart" else 0.3 * self.scales

    @property
    def population(self) -> FeatureStatistics:
        return FeatureStatistics(10**9, self._mean(real=True), torch.diag(self.scales**2))


def run(
    *,
    seconds: float = 20.0,
    device: str = "auto",
    threads: int | None = None,
    scale: float = 1.0,
    widths: Sequence[int] = tuple(SIZES),
) -> dict[str, Any]:
    """Every case of the widths: up to 1000 * scale draws, or what fits into 1.5 times the seconds."""
    _, about, limits = start(device, threads)
    with limits:
        rows = [_measure(case, seconds=1.5 * seconds, draws=int(DRAWS * scale)) for case in _cases(widths)]
    return {"machine": about, "rows": rows}


def table(result: dict[str, Any]) -> str:
    """One line per case, as Markdown; errors are given over the true standard deviation, 1 is right."""
    lines = [
        "| d | n | reals | generated | FID | sd of draws | ours / sd | first order / sd | known to |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        reals = f"{row['m']:,}" if row["m"] else "population"
        lines.append(
            f"| {row['width']} | {row['n']:,} | {reals} | {row['generated']} | {row['fid']:.4g} | "
            f"{row['sd']:.3g} | {row['stderr'] / row['sd']:.2f} | {row['first_order'] / row['sd']:.2f} | "
            f"± {row['known_to']:.2f} |"
        )
    return "\n".join(lines)


def _cases(widths: Sequence[int]) -> list[Case]:
    cases = [
        Case(width, n, generated)
        for width in widths
        for n, generated in itertools.product(SIZES[width], ("alike", "apart"))
    ]
    for width, n in ((64, 200), (512, 1000), (2048, 10_000)):
        if width in widths:
            cases += [Case(width, n, "alike", m=n), Case(width, n, "apart", m=3 * n)]
        if width in widths and width < 2048:
            cases.append(Case(width, n, "heavy tails"))
    return cases


def _measure(case: Case, *, seconds: float, draws: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    population = case.population
    values, began = [], time.perf_counter()
    while len(values) < FEWEST or (len(values) < draws and time.perf_counter() - began < seconds):
        real = population if case.m is None else case.draw_statistics(case.m, rng, real=True)
        values.append(compute_fid_from_statistics(case.draw_statistics(case.n, rng, real=False), real))
    ours, first = [], []
    for _ in range(min(ESTIMATES[case.width], draws)):
        gen = case.draw(case.n, rng, real=False)
        if case.m is None:
            ours.append(compute_fid_stderr(gen, population))
            first.append(_first_order(gen, compute_statistics(gen), population))
        else:
            real = case.draw(case.m, rng, real=True)
            ours.append(compute_fid_stderr(gen, real, reference="sample"))
            fitted = compute_statistics(gen), compute_statistics(real)
            first.append(np.hypot(_first_order(gen, *fitted), _first_order(real, *fitted[::-1])))
    sd = float(np.std(values, ddof=1))
    spread = np.std(ours, ddof=1) / np.mean(ours) if len(ours) > 1 else 0.0
    return {
        "width": case.width,
        "n": case.n,
        "m": case.m,
        "generated": case.generated,
        "draws": len(values),
        "fid": float(np.mean(values)),
        "sd": sd,
        "stderr": float(np.mean(ours)),
        "first_order": float(np.mean(first)),
        # One standard deviation of the ratio: that of the sd of normal draws, and of the mean of the errors.
        "known_to": float(np.hypot((2 * len(values) - 2) ** -0.5, spread / len(ours) ** 0.5)),
    }


def _first_order(features: torch.Tensor, own: FeatureStatistics, other: FeatureStatistics) -> float:
    """The textbook delta method: sd of 2 (m - m2)'(x - m) + (x - m)'(I - T)(x - m), over the root of n.

    T = H M^(-1/2) H' maps one Gaussian to the other, with S2 = H H' and M = H' S1 H.
    """
    values, vectors = torch.linalg.eigh(other.factor.T @ own.cov @ other.factor)
    kept = values > values[-1] * len(values) * torch.finfo(torch.float64).eps
    centred = features - own.mean
    scores = centred @ (other.factor @ vectors[:, kept])
    transported = (scores.square() / values[kept].sqrt()).sum(dim=1)
    influence = 2 * centred @ (own.mean - other.mean) + centred.square().sum(dim=1) - transported
    return influence.std().item() / own.n**0.5
