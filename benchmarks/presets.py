"""Training speed of every preset on MNIST, measured as in training.py: `python -m benchmarks presets`."""

from typing import Any

from benchmarks import training

table = training.table


def run(*, seconds: float = 20.0, device: str = "auto", threads: int | None = None) -> dict[str, Any]:
    """Images per second, memory and shares of a step of each."""
    return training.run(seconds=seconds, device=device, threads=threads, configs=training.MNIST)
