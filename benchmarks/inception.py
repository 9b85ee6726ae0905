"""Time per image: Inception features beside torch-fidelity's, LPIPS-VGG beside the lpips package's.

`python -m benchmarks inception`. Random weights in the references' formats; both sides read the same file and
the same images, resize included.
"""

from typing import Any

import numpy as np
import torch

from benchmarks.pairs import measure, ratio, start
from benchmarks.parity.detectors import (
    lpips_package,
    torch_fidelity_inception,
    torchvision_file,
)
from benchmarks.parity.reference_files import installed
from fact_metrics.features import get_detector

IMAGES, RESOLUTION = 64, 256
PAIRS, PAIR_RESOLUTION = 8, 128


def run(
    *, seconds: float = 20.0, device: str = "auto", threads: int | None = None, scale: float = 1.0
) -> dict[str, Any]:
    """Both comparisons; `scale` shrinks the number of images."""
    chosen, about, limits = start(device, threads)
    n, pairs = (max(int(full * scale), 1) for full in (IMAGES, PAIRS))
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, RESOLUTION, RESOLUTION), generator=rng, dtype=torch.uint8)
    a, b = (torch.rand(pairs, 3, PAIR_RESOLUTION, PAIR_RESOLUTION, generator=rng) * 2 - 1 for _ in range(2))
    images, a, b = (x.to(chosen) for x in (images, a, b))
    peer = torch_fidelity_inception().to(chosen)
    torchvision_file("vgg16_torchvision", "vgg16")
    lpips = lpips_package("vgg", "vgg16", "vgg16_torchvision").to(chosen)

    def torch_fidelity() -> torch.Tensor:
        return peer(images)[0]

    def one_by_one() -> torch.Tensor:
        return torch.cat([lpips(x[None], y[None]).flatten() for x, y in zip(a, b, strict=True)])

    with installed("inception_fidelity", "vgg16_torchvision"), limits, torch.inference_mode():
        inception, vgg = get_detector("inception_pool3", chosen), get_detector("lpips_vgg", chosen)

        def ours() -> torch.Tensor:
            inception.forget()
            return inception(images)

        inception(images[:1]), vgg.distance(a[:1], b[:1])  # the weights are read
        cases = {
            f"Inception pool3, {n} images of {RESOLUTION} px": (
                n,
                "torch-fidelity",
                measure(ours, torch_fidelity, seconds=seconds / 2),
            ),
            f"LPIPS-VGG, {pairs} pairs of {PAIR_RESOLUTION} px": (
                pairs,
                "lpips, one batch",
                measure(lambda: vgg.distance(a, b), lambda: lpips(a, b).flatten(), seconds=seconds / 4),
            ),
            f"LPIPS-VGG, {pairs} pairs of {PAIR_RESOLUTION} px, pair by pair there": (
                pairs,
                "lpips, pair by pair",
                measure(lambda: vgg.distance(a, b), one_by_one, seconds=seconds / 4),
            ),
        }
    for _, _, pair in cases.values():
        ours_out, theirs = pair.pop("ours"), pair.pop("theirs")
        pair["largest_difference"] = ((ours_out - theirs).abs().max() / theirs.abs().max()).item()
    return {
        "machine": about,
        "cases": [
            {"work": work, "count": count, "peer": name, **pair}
            for work, (count, name, pair) in cases.items()
        ],
    }


def table(result: dict[str, Any]) -> str:
    """Milliseconds per image or pair, ratio and the largest difference of the results, as Markdown."""
    threads = result["machine"]["threads"]
    lines = [
        f"| work, {threads} threads | ours, ms each | peer | ms each | peer / ours | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    for case in result["cases"]:
        own, peer = (1e3 * np.median(case[f"{who}_seconds"]) / case["count"] for who in ("ours", "peer"))
        lines.append(
            f"| {case['work']} | {own:.3g} | {case['peer']} | {peer:.3g} | {ratio(case)} | "
            f"{case['largest_difference']:.1e} |"
        )
    return "\n".join(lines)
