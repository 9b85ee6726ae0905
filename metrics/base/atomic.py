"""Files appear whole or not at all: write beside, flush to disk, rename."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fact_metrics.base.errors import UserError

FULL = "Free some space and run the same command again."
# What to do where the disk refuses for another reason.
WAYS_OUT = {
    errno.ENOENT: "Create its folder first.",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "Choose a folder that you can write to."),
}


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
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise UserError(
            f"could not save {path}: {refusal.strerror or refusal}. {WAYS_OUT.get(refusal.errno, FULL)}"
        ) from error
    finally:
        with suppress(OSError):  # a read-only disk refuses even to remove nothing
            partial.unlink()


def write_torch(path: Path, state: Any) -> None:
    """`torch.save` atomically, through a file of Python's: where a write fails, that error is kept."""
    import torch

    def write(partial: Path) -> None:
        with open(partial, "wb") as file:
            torch.save(state, file)

    write_atomically(path, write)


def write_safetensors(path: Path, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    """A safetensors file atomically; the library's own writer hides why a write fails."""
    from safetensors.torch import save

    content = save(tensors, metadata)
    write_atomically(path, lambda partial: partial.write_bytes(content) and None)


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


def _refusal(error: BaseException | None) -> OSError | None:
    """The OSError that an error is or came from: torch's zip writer turns it into a RuntimeError."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error
