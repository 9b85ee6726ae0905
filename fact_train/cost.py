"""What a style injection costs in one 3x3 layer: parameters, multiply-adds, time; where baking pays.

Unbaked, a 1x1 style matrix costs H W I^2 multiply-adds a sample; baked, O I^2 k^2, whatever the size. They
break even at H W = O k^2 pixels: below, baking loses. Multiply-adds are those of the convolutions and
products that run, counted by torch, without element-wise work.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fact_train.networks.injection import STYLE_INJECTIONS, StyleOptions

KERNEL = 3
SIZES = (4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Case:
    """An injection with its options; `vectors` 0 means one for each channel."""

    name: str
    injection: str
    vectors: int = 1
    kernel: int = 1
    postnorm: str = "weight"

    def build(self, channels: int, w_dim: int) -> tuple[torch.nn.Module, tuple[int, ...]]:
        """The layer and the shape of its w."""
        vectors = self.vectors or channels
        style = StyleOptions(
            style_vectors=vectors,
            style_kernel=self.kernel,
            matrix_postnorm=self.postnorm,
            matrix_scale="rsqrt",
        )
        layer = STYLE_INJECTIONS[self.injection](
            channels, channels, KERNEL, w_dim=w_dim, demodulate=True, style=style
        )
        return layer.to(memory_format=torch.channels_last), (vectors, w_dim) if vectors > 1 else (w_dim,)


CASES = (
    Case("modconv", "modconv"),
    Case("adain", "adain"),
    Case("vectors, K = 4", "vectors", vectors=4),
    Case("vectors, K = 16", "vectors", vectors=16),
    Case("vectors, K = C", "vectors", vectors=0),
    Case("matrix 1x1", "matrix", vectors=0),
    Case("matrix 1x1, composite", "matrix", vectors=0, postnorm="composite"),
    Case("matrix 3x3", "matrix", vectors=0, kernel=3),
    Case("adaconv 1x1", "adaconv"),
    Case("adaconv 3x3", "adaconv", kernel=3),
)


@dataclass(frozen=True)
class Row:
    """One case in one order: millions of multiply-adds a sample, best milliseconds of the batch."""

    case: str
    fused: bool
    parameters: int
    mega_macs: float
    milliseconds: float
    milliseconds_training: float


def measure(
    case: Case, *, fused: bool, resolution: int, channels: int, batch: int, w_dim: int, seconds: float
) -> Row:
    """Parameters, multiply-adds, and the time of a forward pass and of one with its gradients."""
    run, layer = _runner(
        case, fused=fused, resolution=resolution, channels=channels, batch=batch, w_dim=w_dim
    )
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()

    def forward() -> None:
        with torch.no_grad():
            run()

    def training() -> None:
        y = run()
        torch.autograd.grad(y, list(layer.parameters()), torch.ones_like(y), allow_unused=True)

    best = _best_seconds([forward, training], seconds)
    return Row(
        case.name,
        fused,
        parameters=sum(p.numel() for p in layer.parameters()),
        mega_macs=counter.get_total_flops() / 2 / batch / 1e6,
        milliseconds=best[0] * 1e3,
        milliseconds_training=best[1] * 1e3,
    )


def break_even(*, channels: int, batch: int, w_dim: int, seconds: float) -> tuple[float, float | None, list]:
    """(predicted pixels, measured pixels, [(side, unbaked ms, baked ms)]) of a 1x1 style matrix.

    The measured crossing is interpolated between the two sizes around it; None where baking never wins up to
    the largest size.
    """
    case, times = CASES[5], []
    for side in SIZES:
        size = dict(resolution=side, channels=channels, batch=batch, w_dim=w_dim)
        runs = [_runner(case, fused=fused, **size)[0] for fused in (False, True)]
        with torch.no_grad():
            pair = [1e3 * best for best in _best_seconds(runs, seconds)]
        times.append((side, *pair))
        if len(times) > 1 and pair[1] < pair[0] and times[-2][2] < times[-2][1]:
            break
    measured = None
    if times[0][2] < times[0][1]:
        measured = 0.0
    for (a, *before), (b, *after) in itertools.pairwise(times):
        lead = before[1] - before[0], after[1] - after[0]
        if lead[0] >= 0 > lead[1]:
            measured = a * a + (b * b - a * a) * lead[0] / (lead[0] - lead[1])
            break
    return channels * KERNEL**2, measured, times


def report(*, resolution: int, channels: int, batch: int, w_dim: int, seconds: float, threads: int) -> str:
    """The table of all cases and the break-even, as Markdown."""
    torch.set_num_threads(threads)
    lines = [
        f"3x3 layer, {channels} channels, {resolution} px, batch {batch}, w {w_dim}, {threads} thread(s)",
        "",
        "| injection | order | parameters | multiply-adds a sample, M | forward, ms | with gradients, ms |",
        "|---|---|---|---|---|---|",
    ]
    size = dict(channels=channels, batch=batch, w_dim=w_dim, seconds=seconds)
    for case in CASES:
        for fused in (False, True):
            row = measure(case, fused=fused, resolution=resolution, **size)
            order = (
                ("baked" if fused else "unbaked")
                if case.injection == "matrix"
                else ("fused" if fused else "unfused")
            )
            lines.append(
                f"| {case.name} | {order} | {row.parameters:,} | {row.mega_macs:.1f} | "
                f"{row.milliseconds:.2f} | {row.milliseconds_training:.2f} |"
            )
    predicted, measured, times = break_even(**size)
    crossing = (
        "never up to there"
        if measured is None
        else f"{measured:.0f} pixels ({math.sqrt(measured):.0f} x {math.sqrt(measured):.0f})"
    )
    sides = "; ".join(f"{side} px {a:.2f} / {b:.2f}" for side, a, b in times)
    lines += [
        "",
        f"Baking a 1x1 style matrix breaks even at H W = O k^2 = {predicted} pixels "
        f"({math.sqrt(predicted):.0f} x {math.sqrt(predicted):.0f}) by multiply-adds; measured: {crossing}.",
        f"Milliseconds unbaked / baked: {sides}.",
    ]
    return "\n".join(lines)


def _runner(
    case: Case, *, fused: bool, resolution: int, channels: int, batch: int, w_dim: int
) -> tuple[Callable[[], Tensor], torch.nn.Module]:
    layer, w_shape = case.build(channels, w_dim)
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, resolution, resolution, generator=gen)
    x = x.contiguous(memory_format=torch.channels_last)
    w, bias = torch.randn(batch, *w_shape, generator=gen), torch.zeros(channels)
    return lambda: layer(x, w, bias=bias, fused=fused), layer


def _best_seconds(functions: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """The best time of each, after one untimed call; called in turn at least 3 times, for about `seconds`.

    The best, because other load on the machine only ever adds time.
    """
    times: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function()
    while len(times[0]) < 3 or sum(map(sum, times)) < seconds:
        for function, own in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            own.append(time.perf_counter() - start)
    return [min(own) for own in times]
