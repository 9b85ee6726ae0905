"""Why a dataset does not open, where whoever asked may do something about it: errors with fields."""

from collections.abc import Sequence
from pathlib import Path

from fact_metrics.base.errors import NeedsOption, UsageError, UserError


class MissingSplit(UserError):
    """The dataset at `path` has no such `split`; `way_out` says what would give it one."""

    def __init__(self, path: Path, split: str, way_out: str):
        super().__init__(f"{path}: has no {split} split; {way_out}")
        self.path, self.split, self.way_out = path, split, way_out


class BadResolution(NeedsOption, UsageError):
    """Networks cannot have it: the size of images, or the option itself."""


class UnusableFiles(UserError):
    """Files that cannot be used: `errors` has one for each, `problems` their lines; the message is the first.

    `among` is how many files there are.
    """

    def __init__(self, errors: Sequence[UserError], among: int):
        self.errors, self.among = list(errors), among
        count = f" (the first of {len(self.errors)} such files among {among})" if len(self.errors) > 1 else ""
        super().__init__(f"{self.problems[0]}{count}")

    @property
    def problems(self) -> list[str]:
        return [str(error) for error in self.errors]
