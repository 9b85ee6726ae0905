"""Numbers from images and features. Imports nothing else of this project.

`fact_metrics.compute(generated, real, names)` scores any images, `fact_metrics.ImageMetrics` does so in a
training loop.
"""

import importlib

_FROM = {"ImageMetrics": "api", "compute": "api", "get_spec": "registry", "list_metrics": "registry"}

__all__ = ["ImageMetrics", "compute", "get_spec", "list_metrics"]


def __getattr__(name: str):
    """Read at first use: commands that need no torch import this package too."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)
