"""Errors that are the user's to mend: one line, an exit code, no traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something failed for a reason the message names; commands print it as one line and exit with 1."""

    exit_code = 1


class UsageError(UserError):
    """The request itself is off (unknown name, missing path, another configuration in the folder): exit 2."""

    exit_code = 2


class NeedsOption(UserError):
    """Data that does not fit as it is: `problem`, and in `way_out` the option that mends it."""

    def __init__(self, problem: str, way_out: str):
        super().__init__(f"{problem}; {way_out}")
        self.problem, self.way_out = problem, way_out

    def with_way_out(self, way_out: str) -> "NeedsOption":
        """The same error where that option cannot be given."""
        return type(self)(self.problem, way_out)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """UsageError for a name that is not registered, with the closest known ones."""
    return UsageError(f"unknown {kind} {name!r}; {close_names(name, known)}")


def close_names(name: str, known: Iterable[str]) -> str:
    """`did you mean a or b?` of the known names closest to a name, or all of them if none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)  # a file may hold anything
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}."
