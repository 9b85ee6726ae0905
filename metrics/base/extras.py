"""Packages that only some options need, such as `pip install 'fact-stylegan[ray]'`."""

import importlib
from types import ModuleType

from fact_metrics.base.errors import UsageError


def need(module: str, extra: str, user: str) -> ModuleType:
    """A module that an option or a command needs. UsageError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(f"{user} needs {module}: pip install 'fact-stylegan[{extra}]'") from None
