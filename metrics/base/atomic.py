"""Files appear whole or not at all: write beside, flush to disk, rename."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fact_metrics.base.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], None], *, flush: bool = True) -> None:
    """Call write(temporary path in the same folder), then rename it to `path`.

    Without `flush` a power cut, unlike a kill, may leave less of it: for what is verified and made again.
    UserError where the disk refuses (full, read-only, quota); `path` then keeps its old content and nothing
    is left behind.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        write(partial)
        with open(partial, "rb") as f:
            os.fchmod(f.fileno(), 0o666 & ~_umask())  # some writers make private files
            if flush:
                os.fsync(f.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_write_failure(error):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
        raise UserError(
            f"could not save {path}: {reason}. Free some space and run the same command again."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8") and None)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _is_write_failure(error: RuntimeError) -> bool:
    """torch's zip writer reports a failed write as a RuntimeError rather than an OSError."""
    return any(
        s in str(error) for s in ("PytorchStreamWriter", "unexpected pos", "write failed", "file write")
    )
