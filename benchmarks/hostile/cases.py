"""The hostile commands: every kind of file that a command reads, spoilt in every way we know of."""

from collections.abc import Iterator

from benchmarks.hostile import binaries, texts
from benchmarks.hostile.given import Given
from benchmarks.hostile.runner import Case

KINDS = {
    "documents": texts.documents,
    "fields": texts.fields,
    "names": texts.names,
    "texts": texts.texts,
    "statistics": binaries.statistics,
    "images": binaries.images,
    "states": binaries.states,
    "checkpoints": binaries.checkpoints,
    "generators": binaries.generators,
    "weights": binaries.weights,
    "cache": binaries.cache,
}


def all_cases(given: Given) -> Iterator[Case]:
    """Every case; names are unique."""
    for make in KINDS.values():
        yield from make(given)
