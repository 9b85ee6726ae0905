"""The Fréchet distance from the same statistics: seconds and digits of ours and of two peers.

`python -m benchmarks frechet`. Correct digits are counted against a QR decomposition of the images
themselves, which forms no covariance.
"""

import warnings
from typing import Any

import numpy as np
import torch
from cleanfid.fid import frechet_distance
from torch_fidelity.metric_fid import fid_statistics_to_metric

from benchmarks.pairs import clock, measure, ratio, start
from benchmarks.parity.gaussians import fid_qr
from fact_metrics.engines.frechet import FeatureStatistics, compute_fid_from_statistics, compute_statistics

WIDTH = 2048
SIZES = (10_000, 96)
DECAY = 0.75  # standard deviations fall as k^-0.75 over the directions, about as Inception's do


def run(
    *, seconds: float = 10.0, device: str = "auto", threads: int | None = None, scale: float = 1.0
) -> dict[str, Any]:
    """Both sizes against both peers; `scale` shrinks sizes and width for a quick check."""
    chosen, about, limits = start(device, threads)
    width = max(int(WIDTH * scale), 16)
    with limits, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # clean-fid's call of sqrtm
        cases = {
            f"d = {width}, n = {n}": _case(n, width, chosen, seconds=seconds)
            for n in (max(int(size * scale), 8) for size in SIZES)
        }
    return {"machine": about, "cases": cases}


def table(result: dict[str, Any]) -> str:
    """Seconds, ratio and relative error of each implementation, as Markdown."""
    lines = ["| case | implementation | seconds | peer / ours | relative error |", "|---|---|---|---|---|"]
    for name, case in result["cases"].items():
        truth = case["truth"]
        first = next(iter(case["peers"].values()))
        own = f"{np.median(first['ours_seconds']):.3g}"
        lines.append(f"| {name} | ours | {own} | | {abs(first['ours'] / truth - 1):.0e} |")
        for peer, pair in case["peers"].items():
            taken, wrong = np.median(pair["peer_seconds"]), abs(pair["theirs"] / truth - 1)
            lines.append(f"| | {peer} | {taken:.3g} | {ratio(pair)} | {wrong:.0e} |")
        lines.append(f"| | ours, statistics of both sets | {case['statistics_seconds']:.3g} | | |")
    return "\n".join(lines)


def _features(n: int, width: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """[n, width] float64, normal, each direction of its own variance and no axis special."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, width, generator=rng, dtype=torch.float64)
    rows *= scale * torch.arange(1, width + 1, dtype=torch.float64) ** -DECAY
    axis = torch.randn(width, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    axis /= axis.norm()
    return rows - 2 * (rows @ axis) @ axis.T + 0.01


def _case(n: int, width: int, device: torch.device, *, seconds: float) -> dict[str, Any]:
    gen, real = _features(n, width, 1, 1.1), _features(n, width, 2)
    spent, fitted = clock(lambda: [compute_statistics(rows.to(device)) for rows in (gen, real)])
    moments = [array for s in fitted for array in (s.mean.cpu().numpy(), s.cov.cpu().numpy())]
    of_peer = [{"mu": moments[i], "sigma": moments[i + 1]} for i in (0, 2)]

    def ours() -> float:
        fresh = [FeatureStatistics(s.n, s.mean, s.cov, s.rows) for s in fitted]  # no factor kept from before
        return compute_fid_from_statistics(*fresh)

    peers = {
        "clean-fid": lambda: float(frechet_distance(*moments)),
        "torch-fidelity": lambda: fid_statistics_to_metric(*of_peer, False)["frechet_inception_distance"],
    }
    return {
        "truth": fid_qr(gen, real),
        "statistics_seconds": spent,
        "peers": {name: measure(ours, peer, seconds=seconds) for name, peer in peers.items()},
    }
