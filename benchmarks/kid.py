"""KID, 100 subsets of 1,000 images, d = 2048: ours, torch-fidelity with the same subsets, and clean-fid.

`python -m benchmarks kid`. Ours gives the estimate of all images and its standard error in the same pass.
"""

from typing import Any

import numpy as np
import torch
from cleanfid.fid import kernel_distance
from torch_fidelity.metric_kid import kid_features_to_metric

from benchmarks.pairs import measure, ratio, start
from fact_metrics.engines.kid import Kid, compute_kid

IMAGES, WIDTH, SUBSETS, SUBSET_SIZE = 5000, 2048, 100, 1000


def run(
    *, seconds: float = 10.0, device: str = "auto", threads: int | None = None, scale: float = 1.0
) -> dict[str, Any]:
    """Against both peers on float32 features like Inception's; `scale` shrinks everything but the subsets."""
    chosen, about, limits = start(device, threads)
    n, width, size = (max(int(full * scale), 16) for full in (IMAGES, WIDTH, SUBSET_SIZE))
    rng = torch.Generator().manual_seed(0)
    gen, real = (torch.randn(n, width, generator=rng).abs_().mul_(0.5) for _ in range(2))
    gen.mul_(1.01)
    on_device = gen.to(chosen), real.to(chosen)

    def ours() -> Kid:
        return compute_kid(*on_device, subsets=SUBSETS, subset_size=size)

    def torch_fidelity() -> float:
        found = kid_features_to_metric(gen, real, kid_subsets=SUBSETS, kid_subset_size=size, verbose=False)
        return found["kernel_inception_distance_mean"]

    def clean_fid() -> float:
        return kernel_distance(gen.numpy(), real.numpy(), num_subsets=SUBSETS, max_subset_size=size)

    with limits:
        pairs = {
            name: measure(ours, theirs, seconds=seconds)
            for name, theirs in {"torch-fidelity": torch_fidelity, "clean-fid": clean_fid}.items()
        }
    for pair in pairs.values():
        kid = pair["ours"]
        pair["ours"] = {"subset_mean": kid.subset_mean, "all_images": kid.value, "stderr": kid.stderr}
    return {"machine": about, "setting": f"{SUBSETS} x {size}, n = {n}, d = {width}", "peers": pairs}


def table(result: dict[str, Any]) -> str:
    """Seconds, ratio and values, as Markdown."""
    pairs = result["peers"]
    own = pairs["torch-fidelity"]["ours"]
    times = [second for pair in pairs.values() for second in pair["ours_seconds"]]
    lines = [
        f"| KID, {result['setting']} | seconds | peer / ours | mean over subsets |",
        "|---|---|---|---|",
        f"| ours | {np.median(times):.3g} | | {own['subset_mean']:.9f} |",
    ]
    for name, pair in pairs.items():
        lines.append(
            f"| {name} | {np.median(pair['peer_seconds']):.3g} | {ratio(pair)} | {pair['theirs']:.9f} |"
        )
    lines.append(
        f"| ours, all images in the same pass | | | {own['all_images']:.9f} +- {own['stderr']:.9f} |"
    )
    return "\n".join(lines)
