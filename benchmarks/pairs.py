"""Ours and a peer on the same input, in turn, in one process."""

import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import median
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from fact_metrics.base.devices import resolve_device, set_threads

# A peer that takes longer is run once.
SLOW = 20.0
PAIRS = 3


def start(device: str, threads: int | None) -> tuple[torch.device, dict[str, Any], AbstractContextManager]:
    """The device, what to say of the machine, and a context that holds numpy and scipy to the threads too."""
    used, chosen = set_threads(threads), resolve_device(device)
    about = {"cpu": platform.machine(), "device": str(chosen), "threads": used, "torch": torch.__version__}
    return chosen, about, threadpool_limits(used)


def measure(
    ours: Callable[[], Any], theirs: Callable[[], Any], *, seconds: float, slow: float = SLOW
) -> dict[str, Any]:
    """Seconds of both and their ratio over alternating pairs, and the last results.

    At least 3 pairs, and more until the seconds are spent; one where the peer takes over `slow` seconds.
    """
    own_times, peer_times, began = [], [], time.perf_counter()
    while True:
        own_time, own_result = clock(ours)
        peer_time, peer_result = clock(theirs)
        own_times.append(own_time)
        peer_times.append(peer_time)
        spent = time.perf_counter() - began
        if peer_time > slow or (len(own_times) >= PAIRS and spent > seconds):
            break
    ratios = [peer / own for own, peer in zip(own_times, peer_times, strict=True)]
    return {
        "ours_seconds": own_times,
        "peer_seconds": peer_times,
        "ratio": {"median": median(ratios), "min": min(ratios), "max": max(ratios), "pairs": len(ratios)},
        "ours": own_result,
        "theirs": peer_result,
    }


def clock(call: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds of a call, GPU work included, and its result."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, result


def ratio(pair: dict[str, Any]) -> str:
    """`12.3 (11.9 - 12.8)`, or the one ratio of a slow peer."""
    figures = pair["ratio"]
    if figures["pairs"] == 1:
        return f"{figures['median']:.3g} (1 pair)"
    return f"{figures['median']:.3g} ({figures['min']:.3g} - {figures['max']:.3g})"
