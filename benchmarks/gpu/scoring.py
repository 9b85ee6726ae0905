"""Images per second of generation and detectors, and seconds of FID and P/R at 50,000 images.

Detectors have random weights of the real architectures; speed does not depend on the weights.
"""

import time
from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu.report import Bench, Result, markdown
from benchmarks.gpu.training import Case, build

DETECTORS = ("efficientnet_lite0", "inception_pool3", "vgg16_fc2")


def measure(bench: Bench) -> Iterator[Result]:
    """Generation, detectors, then FID and P/R."""
    yield from generation(bench)
    yield from detectors(bench)
    yield from engines(bench)


def generation(bench: Bench) -> Iterator[Result]:
    """Images per second of G_ema in evaluation, float32."""
    for case in [Case("mnist-stylegan2", 32)] + ([] if bench.dry else [Case("auto", 256)]):
        G = build(case, bench, narrow=bench.dry).model.gan.G_ema
        batch = 4 if bench.dry else 128
        z = torch.randn(batch, *G.z_shape, device=bench.device)
        with torch.no_grad():
            seconds = timed(lambda G=G, z=z: G(z), bench)
        yield {"what": f"generate, {case.preset}, {case.resolution} px", "img_per_sec": batch / seconds}


def detectors(bench: Bench) -> Iterator[Result]:
    """Images per second of each network on 256 px uint8 images."""
    from fact_metrics.features.detector import get_detector
    from fact_metrics.features.weight_store import random_weights

    names = ("digits",) if bench.dry else DETECTORS
    batch = 2 if bench.dry else 64
    images = torch.randint(0, 256, (batch, 3, 256, 256), dtype=torch.uint8, device=bench.device)
    for name in names:
        try:
            with random_weights():
                detector = get_detector(name, bench.device)
                seconds = timed(lambda detector=detector: detector(images), bench)
        except Exception as error:  # its package is missing here
            yield {"what": f"detect, {name}", "error": str(error).splitlines()[0]}
            continue
        yield {"what": f"detect, {name}, 256 px", "img_per_sec": batch / seconds}


def engines(bench: Bench) -> Iterator[Result]:
    """Seconds of FID at d = 2,048 and of precision and recall at d = 4,096, 50,000 images each."""
    from fact_metrics.engines.density_coverage import compute_prdc
    from fact_metrics.engines.frechet import compute_fid

    count = 200 if bench.dry else 50_000
    for name, function, width in (
        ("FID", compute_fid, 2048),
        ("precision, recall, density, coverage", compute_prdc, 4096),
    ):
        width = 64 if bench.dry else width
        a, b = (torch.randn(count, width, device=bench.device) for _ in range(2))
        start = time.perf_counter()
        function(a, b)
        bench.synchronize()
        yield {"what": f"{name}, {count:,} x {width:,}", "seconds": time.perf_counter() - start}


def timed(function: Callable[[], object], bench: Bench) -> float:
    """Median seconds of a call after two warm-up calls."""
    spans = []
    for repeat in range(4 if bench.dry else 12):
        bench.synchronize()
        start = time.perf_counter()
        function()
        bench.synchronize()
        if repeat > 1:
            spans.append(time.perf_counter() - start)
    return sorted(spans)[len(spans) // 2]


def table(rows: list[Result]) -> str:
    """A row per measurement."""
    return markdown(
        {
            "what": lambda r: r["what"],
            "img/s": lambda r: f"{r['img_per_sec']:,.0f}" if "img_per_sec" in r else r.get("error", "–"),
            "s": lambda r: f"{r['seconds']:.2f}" if "seconds" in r else "–",
        },
        rows,
    )
