"""The folder where this project keeps what it can make or fetch again; torch is not imported here."""

import os
from pathlib import Path

ENVIRONMENT = "FACT_CACHE"
DEFAULT = "~/.cache/fact-stylegan"


def cache_folder() -> Path:
    """$FACT_CACHE, or ~/.cache/fact-stylegan."""
    return Path(os.environ.get(ENVIRONMENT) or DEFAULT).expanduser()
