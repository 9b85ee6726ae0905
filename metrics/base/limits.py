"""How much is read of a file that a stranger may have made: one table.

Past a limit a file is refused in one line, before memory or disk is taken for it. Rejecting a file takes less
than 1 GB. `docs/your-images.md` shows the table.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fact_metrics.base.errors import UserError


@dataclass(frozen=True)
class Limit:
    """The most of something that is read, in bytes or what is counted; `what` names it in a message."""

    most: int
    unit: str
    what: str

    def check(self, size: int, source: object, way_out: str) -> None:
        """Raise UserError naming the source if `size` is above the limit."""
        if size > self.most:
            raise UserError(
                f"{source}: {self.what} of {self.text(size)}, at most {self.text(self.most)} are read; "
                f"{way_out}"
            )

    def text(self, size: int) -> str:
        """A size in words: `256.0 MiB`, `67,108,864 pixels`."""
        if self.unit != "bytes":
            return f"{size:,} {self.unit}"
        return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size:,} bytes"


DOCUMENT = Limit(16 << 20, "bytes", "JSON text")
ANSWERS = Limit(4 << 20, "bytes", "answers of raters")
LABELS = Limit(64 << 20, "bytes", "labels")
RECORD = Limit(1 << 20, "bytes", "a record")
IMAGE_FILE = Limit(256 << 20, "bytes", "an image file")
IMAGE_PIXELS = Limit(1 << 26, "pixels", "an image")
UNPACKED = Limit(256 << 20, "bytes", "compressed content")
STATISTICS_WIDTH = Limit(1 << 12, "values", "a mean")
PICKLE = Limit(128 << 20, "bytes", "a pickle")
CHECKPOINT = Limit(4 << 30, "bytes", "a checkpoint of another program")
PICKLE_STEPS = Limit(1 << 20, "steps", "a pickle")
FEATURE_CHUNK = Limit(128 << 20, "bytes", "a chunk of features")
LAYERS = Limit(1 << 10, "layers", "a network")
LAYER_WIDTH = Limit(1 << 16, "channels", "a layer")

# Compressed content may be above UNPACKED if the file holds at least 1/PACKING of it: zeros pack 1,000 times,
# flat drawings 120 times (dSprites), photos once.
PACKING = 200

LIMITS = (
    *(DOCUMENT, ANSWERS, LABELS, RECORD, IMAGE_FILE, IMAGE_PIXELS, UNPACKED, STATISTICS_WIDTH),
    *(PICKLE, CHECKPOINT, PICKLE_STEPS, FEATURE_CHUNK, LAYERS, LAYER_WIDTH),
)


def check_unpacked(size: int, packed: int, source: object) -> None:
    """Raise UserError if content that packs into `packed` bytes unpacks to implausibly many."""
    if size > max(UNPACKED.most, PACKING * packed):
        raise UserError(
            f"{source}: {UNPACKED.text(packed)} unpack to {UNPACKED.text(size)} or more, at most "
            f"{UNPACKED.text(UNPACKED.most)} or {PACKING} times the file are read; save it uncompressed"
        )


class Budget:
    """What all threads together may hold at once; one that needs more waits, and may use all of it alone."""

    def __init__(self, most: int):
        self._most, self._free = most, most
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, amount: int) -> Iterator[None]:
        """Hold `amount` while the block runs, or everything if it is more than there is."""
        amount = min(amount, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


# Of all threads that decode images: bytes of files, then pixels. A thread that waits for pixels holds bytes,
# never the other way round.
FILE_BYTES = Budget(IMAGE_FILE.most)
PIXELS = Budget(IMAGE_PIXELS.most)
