"""Heavy packages, imported once: commands are forked from this process."""

import gc
import importlib

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
    "pydantic.main",
    "torch.utils.tensorboard",
    "torch._dynamo",
    "pandas",
    "tabulate",
    "scipy.linalg",
)


def warm_up() -> None:
    """Import what commands need, and leave it out of the collections of the processes to come."""
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()
