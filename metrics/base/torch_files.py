"""torch.save files, read with weights_only: tensors and plain containers, no more memory than the file."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from fact_metrics.base.errors import UserError


def load_torch(path: Path, device: torch.device | str = "cpu") -> Any:
    """The content of a file of torch.save.

    UserError with the file's name, in one line, for anything else; OSError if it cannot be opened.
    """
    try:
        if zipfile.is_zipfile(path):
            _refuse_packed(path)
        return torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what a damaged or foreign file makes torch raise is not documented
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise UserError(f"{path} is not a file of tensors ({reason})") from error


def _refuse_packed(path: Path) -> None:
    """Raise ValueError if an entry unpacks to more than it takes; torch.save stores entries as they are."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.file_size > entry.compress_size:
                raise ValueError(f"{entry.filename} is compressed; torch stores it")
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise ValueError("its entries overlap")
