"""Heavy packages, imported once: commands are forked from this process."""

import atexit
import gc
import importlib
from contextlib import suppress

MODULES = (
    "fact_train.cli",
    "fact_train.training.loop",
    "fact_train.training.models.stylex",
    "fact_eval.cli",
    "fact_eval.jobs.audit",
    "fact_eval.scoring.session",
    "fact_eval.scoring.diverged",
    "fact_eval.reports.tables",
    "fact_eval.explain",
    "fact_eval.weights",
    "fact_leaderboard.publish",
    "fact_leaderboard.answers",
    "torch.utils.tensorboard",
    "torch._dynamo",
    "pandas",
    "tabulate",
    "scipy.linalg",
)
PRIVATE = "typer._adapters"  # which looks for pydantic; half of the time of a short command


def warm_up() -> None:
    """Import what commands need, and leave it out of the collections of the processes to come."""
    for name in MODULES:
        importlib.import_module(name)
    with suppress(ModuleNotFoundError):
        importlib.import_module(PRIVATE)
    gc.freeze()
    atexit.register(gc.unfreeze)
