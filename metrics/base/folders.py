"""The folders of this project on a user's machine; torch is not imported here."""

import os
from pathlib import Path

ENVIRONMENT = "FACT_CACHE"
DEFAULT = "~/.cache/fact-stylegan"
CONFIG = "FACT_CONFIG"


def cache_folder() -> Path:
    """What can be made or fetched again; users may share it. $FACT_CACHE, or ~/.cache/fact-stylegan."""
    return Path(os.environ.get(ENVIRONMENT) or DEFAULT).expanduser()


def config_folder() -> Path:
    """What belongs to the user alone: the cache key and the list of trusted weight files.

    $FACT_CONFIG, or fact-stylegan in $XDG_CONFIG_HOME, or ~/.config/fact-stylegan.
    """
    default = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / "fact-stylegan"
    return Path(os.environ.get(CONFIG) or default).expanduser()
