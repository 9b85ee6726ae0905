"""How many CPU threads to compute on: all, or fewer where other programs use the cores.

The threads of one operation meet at barriers, thousands of times a second. Where another program has a core,
one thread waits for it and the others wait for that thread, spinning. Then fewer threads are faster. How much
faster cannot be told from the load; it is measured.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fact_metrics.base.devices import set_threads
from fact_metrics.base.processes import launched_world_size

ROUNDS = 4  # measurements on each number of threads, in turn; the first is a warm-up
ENOUGH_SECONDS = 2.0  # of all rounds: long measurements need fewer of them
GAIN = 1.1  # fewer threads must be faster by this factor: a quiet machine never gives up a core by chance
IMAGES, CHANNELS, SIDE, LAYERS = 16, 64, 32, 16  # of a sample of what scoring computes, some 0.1 s
GFLOP = LAYERS * IMAGES * SIDE**2 * CHANNELS**2 * 9 * 2 / 1e9


@dataclass(frozen=True)
class Choice:
    """The number of threads, and the seconds of one measurement on each number that was tried."""

    threads: int
    seconds: dict[int, float]

    def describe(self, *, amount: float, unit: str) -> str:
        """One line: what was chosen, and the speeds that decided it, in `amount` per second."""
        speeds = ", ".join(f"{amount / s:.0f} {unit} on {n}" for n, s in self.seconds.items())
        most = max(self.seconds)
        chosen = f"all {most}" if self.threads == most else f"{self.threads} of {most}, more are slower now"
        return f"threads: {chosen} ({speeds}); --threads sets the number"


def choose(most: int, seconds_of: Callable[[int], float]) -> Choice:
    """Halve `most` threads as long as that is faster; `seconds_of(n)` measures n threads."""
    threads, seconds = most, {}
    while threads > 1:
        pair = _in_turn((threads, threads // 2), seconds_of)
        seconds |= pair
        if pair[threads] <= GAIN * pair[threads // 2]:
            break
        threads //= 2
    return Choice(threads, seconds)


def settle_threads(threads: int | None, *, device: str) -> str | None:
    """Use `threads` CPU threads, or choose them where they are None; says what was chosen.

    Processes of one torchrun share the cores evenly. For a GPU, torch's number stays.
    """
    if threads is not None or launched_world_size() > 1:  # torchrun alone leaves one thread per process
        set_threads(threads)
        return None
    most = torch.get_num_threads()
    if device != "cpu" or most == 1:
        return None
    choice = choose(most, seconds_of_convolutions)
    set_threads(choice.threads)
    return choice.describe(amount=GFLOP, unit="GFLOP/s")


def seconds_of_convolutions(threads: int) -> float:
    """Seconds of some convolutions of the size that scoring has, on so many threads."""
    set_threads(threads)
    x = torch.ones(IMAGES, CHANNELS, SIDE, SIDE)
    weight = torch.ones(CHANNELS, CHANNELS, 3, 3)
    start = time.perf_counter()
    with torch.inference_mode():
        for _ in range(LAYERS):
            F.conv2d(x, weight, padding=1)
    return time.perf_counter() - start


def _in_turn(counts: tuple[int, ...], seconds_of: Callable[[int], float]) -> dict[int, float]:
    """Mean seconds on each number of threads, without the first round where there is another."""
    rounds: list[list[float]] = []
    while len(rounds) < ROUNDS and sum(map(sum, rounds)) < ENOUGH_SECONDS:
        rounds.append([seconds_of(n) for n in counts])
    counted = rounds[1:] or rounds
    return {n: sum(seconds[i] for seconds in counted) / len(counted) for i, n in enumerate(counts)}
