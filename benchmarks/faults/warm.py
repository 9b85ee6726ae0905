"""Heavy packages, imported once: commands are forked from this process."""

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
    "fact_leaderboard.publish",
    "torch.utils.tensorboard",
    "torch._dynamo",
    "pandas",
    "tabulate",
    "scipy.linalg",
)


def warm_up() -> None:
    """Import what commands need."""
    for name in MODULES:
        importlib.import_module(name)
