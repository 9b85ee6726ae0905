"""Precision, recall, density and coverage: time beside torch-fidelity and prdc, and memory at 50,000 images.

`python -m benchmarks neighbours`. Features are normal, 10,000 x 4,096 on both sides. torch-fidelity computes
precision and recall alone; prdc is no dependency and is compared where it is installed. Its thread count is
its own (n_jobs = 8), so on n cores give `--threads n`. Memory is what a process of its own adds to its
features, 50,000 x 4,096 on both sides, the width of a VGG layer.
"""

import contextlib
import importlib.util
import io
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from fact_metrics.base.devices import resolve_device, set_threads
from fact_metrics.engines.density_coverage import compute_prdc

SIZE, WIDTH = 10_000, 4096
MEMORY_SIZE, MEMORY_WIDTH = 50_000, 4096
PAIRS = 3  # runs of ours and of each peer in turn; one where a peer takes longer than LONG seconds
LONG = 20.0


def run(
    *, seconds: float = 20.0, device: str = "auto", threads: int | None = None, scale: float = 1.0
) -> dict[str, Any]:
    """Times and memory; `scale` shrinks both sizes for a check. `seconds` is not used: the work is fixed."""
    dev, used = resolve_device(device), set_threads(threads)
    size, memory_size = int(SIZE * scale), int(MEMORY_SIZE * scale)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        memory = process.submit(measure_memory, memory_size, MEMORY_WIDTH, str(dev), used).result()
    return {
        "machine": {"cpu": platform.machine(), "device": str(dev), "threads": used},
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "size": [size, WIDTH],
        "speed": measure_speed(size, WIDTH, dev),
        "memory": memory,
    }


def measure_speed(size: int, width: int, device: torch.device) -> dict[str, Any]:
    """Seconds of ours and of each peer in turn, what they found, and the ratio peer / ours of every pair."""
    gen, real = _features(size, width)
    on_device = [features.to(device) for features in (gen, real)]
    found: dict[str, Any] = {}
    for name, peer in _peers().items():
        if peer is None:
            found[name] = None
            continue
        ratios: list[float] = []
        while len(ratios) < PAIRS:
            our_seconds, ours = _timed(lambda: compute_prdc(*on_device), device)
            peer_seconds, theirs = _timed(lambda peer=peer: peer(gen, real), device)
            ratios.append(peer_seconds / our_seconds)
            if peer_seconds > LONG:
                break
        found[name] = {
            "our_seconds": our_seconds,
            "peer_seconds": peer_seconds,
            "ratios": ratios,
            "theirs": theirs,
        }
    found["ours"] = {k: getattr(ours, k) for k in ("precision", "recall", "density", "coverage")}
    return found


def measure_memory(size: int, width: int, device_name: str, threads: int) -> dict[str, Any]:
    """GB that `compute_prdc` adds to its features at its peak, and its seconds; in a process of its own."""
    set_threads(threads)
    device = resolve_device(device_name)
    gen, real = (features.to(device) for features in _features(size, width))
    compute_prdc(gen[:64], real[:64])  # libraries are loaded
    before = _peak_bytes(device)
    seconds, _ = _timed(lambda: compute_prdc(gen, real), device)
    return {"size": [size, width], "gb": (_peak_bytes(device) - before) / 1e9, "seconds": seconds}


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table, and a line on memory."""
    n, width = result["size"]
    lines = [
        f"P/R + D/C of {n:,} x {width:,} features, {result['machine']['threads']} threads",
        "",
        "| peer | ours, s | peer, s | peer / ours |",
        "|---|---|---|---|",
    ]
    for name, case in result["speed"].items():
        if name == "ours":
            continue
        if case is None:
            lines.append(f"| {name} | | not installed: skipped | |")
            continue
        ratios = case["ratios"]
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} - {max(ratios):.1f})"
        lines.append(f"| {name} | {case['our_seconds']:.1f} | {case['peer_seconds']:.1f} | {spread} |")
    memory = result["memory"]
    n, width = memory["size"]
    lines += [
        "",
        f"{n:,} x {width:,}: {memory['gb']:.2f} GB beyond the features, {memory['seconds']:.0f} s.",
    ]
    return "\n".join(lines)


def _peers() -> dict[str, Callable[[torch.Tensor, torch.Tensor], Any] | None]:
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    peers = {"torch-fidelity (P/R alone)": calculate_precision_recall_full, "prdc": None}
    if importlib.util.find_spec("prdc"):
        from prdc import compute_prdc as peer

        def quiet(gen: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
            with contextlib.redirect_stdout(io.StringIO()):
                found = peer(real_features=real.numpy(), fake_features=gen.numpy(), nearest_k=5)
            return {name: float(value) for name, value in found.items()}

        peers["prdc"] = quiet
    return peers


def _features(size: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(size, width, generator=rng), torch.randn(size, width, generator=rng)


def _timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1024)
