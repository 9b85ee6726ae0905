"""JSON that is hashed: one spelling for equal values."""

import hashlib
import json
import math


def canonical_json(value: object) -> str:
    """The one spelling of a JSON value that gets hashed: sorted keys, no spaces, no NaN, non-ASCII kept."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_sha256(value: object) -> str:
    """SHA-256 of the canonical JSON of a value; equal whatever the order of its keys."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def finite(value):
    """The same JSON value with every float that is not finite replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
