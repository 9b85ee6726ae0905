"""Seeds of scored images: one per image, independent of batch size and machine.

Protocols state them in the words of SAMPLING (metrics/spec.py).

Image i of evaluation seed s draws from `torch.Generator().manual_seed(image_seed(s, i, stream))`, always on
the CPU, then moved. torch's CPU generator keeps only 32 bits of a seed, so s * 10,000,000 + i must stay
below 2**32 (s <= 428). Every stream but `image` XORs these 32 bits with its own constant, the first four
bytes of SHA-256 of its name. XOR with a constant is one to one, so the indices of a stream have distinct
seeds. The constant is not 0, so a stream never shares a seed with the stream `image` at the same index.
"""

import functools
import hashlib
from collections.abc import Callable

from fact_metrics.base.errors import UsageError

SEED_STRIDE = 10_000_000
MAX_SEED = 2**32 // SEED_STRIDE - 1
MOST_NUMBERS = 1_000_000  # of one range on a command line


def image_seed(seed: int, index: int, stream: str = "image") -> int:
    """The 32-bit seed of one image's generator. Raises UsageError for a seed or index out of range."""
    check_seed(seed)
    if not 0 <= index < SEED_STRIDE:
        raise UsageError(f"image index {index} is out of range: 0 to {SEED_STRIDE - 1}")
    return (seed * SEED_STRIDE + index) ^ _stream_mask(stream)


def check_seed(seed: int) -> None:
    """Raise UsageError unless the evaluation seed fits the 32 bits of torch's CPU generator."""
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"--seeds {seed}: an evaluation seed lies between 0 and {MAX_SEED}")


def parse_seeds(text: str) -> tuple[int, ...]:
    """Evaluation seeds from `0`, `0,1,2` or `0-4`, without repeats, in order. UsageError for other text."""
    return parse_numbers(text, "--seeds", check=check_seed)


def parse_numbers(text: str, flag: str, *, check: Callable[[int], None]) -> tuple[int, ...]:
    """The numbers of a list with ranges, without repeats, in order; `check` raises for those out of range."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UsageError(f"{flag} {text!r}: give numbers such as 0 or 0,1,2 or 0-4")
        check(int(first))
        check(int(last or first))
        if int(last or first) - int(first) >= MOST_NUMBERS:
            raise UsageError(f"{flag} {text}: at most {MOST_NUMBERS:,} numbers; run the command in parts")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(numbers))


@functools.cache
def _stream_mask(stream: str) -> int:
    return 0 if stream == "image" else int.from_bytes(hashlib.sha256(stream.encode()).digest()[:4], "big")
