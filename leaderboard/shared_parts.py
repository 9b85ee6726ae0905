"""Equal parts of many records held once: protocols, provenance, training.

Records of one run repeat most of their text. Equal parts become one dictionary, and the hash of a protocol is
computed once.
"""

import functools
import marshal

from fact_metrics.base.canonical import canonical_sha256
from fact_metrics.features.weight_store import mentions_random_weights

MOST = 20_000  # parts held at a time; then all are forgotten

_parts: dict[bytes, dict] = {}


def share_parts(record: dict) -> dict:
    """The fields of a record; an equal dictionary met before replaces each dictionary among them."""
    if len(_parts) >= MOST:
        _parts.clear()
    return {name: _shared(value) if type(value) is dict else value for name, value in record.items()}


def protocol_sha256(protocol: dict) -> str:
    """`canonical_sha256`, computed once for equal protocols."""
    return _sha256(_spelling(protocol))


def is_random(protocol: dict) -> bool:
    """`mentions_random_weights`, computed once for equal protocols."""
    return _is_random(_spelling(protocol))


def _spelling(part: dict) -> bytes:
    """Equal for equal JSON values in one order; tells 1 from 1.0 and from True, which Python does not."""
    return marshal.dumps(part, 2)  # from version 3 on, the bytes depend on who else holds an object


def _shared(part: dict) -> dict:
    key = _spelling(part)
    known = _parts.get(key)
    if known is None:
        inner = {name: _shared(value) if type(value) is dict else value for name, value in part.items()}
        known = _parts[key] = inner
    return known


@functools.lru_cache(maxsize=4096)
def _sha256(spelling: bytes) -> str:
    return canonical_sha256(marshal.loads(spelling))


@functools.lru_cache(maxsize=4096)
def _is_random(spelling: bytes) -> bool:
    return mentions_random_weights(marshal.loads(spelling))
