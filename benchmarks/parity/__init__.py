"""The parity matrix: our value of a metric beside a peer's on the same arrays, and how far apart they are.

`python -m benchmarks.parity` prints it; tests/test_parity.py holds every row to its tolerance.
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# Modules of this package; each has ROWS, a tuple of functions without arguments that return one Parity.
MODULES = ("gaussians", "neighbours", "images", "detectors")


@dataclass(frozen=True)
class Parity:
    """One metric in one setting, ours and the peer's; `note` says why a tolerance is above 1e-6.

    Where the values only sum up arrays, `difference` is the arrays' largest one over their largest value.
    """

    metric: str
    setting: str
    ours: float
    peer: str
    theirs: float
    tolerance: float
    note: str = ""
    difference: float | None = None

    @property
    def relative_difference(self) -> float:
        """|ours - theirs| / |theirs|; plain where the peer's value is 0; `difference` where it is given."""
        if self.difference is not None:
            return self.difference
        return abs(self.ours - self.theirs) / (abs(self.theirs) or 1.0)


def row_functions() -> list[Callable[[], Parity]]:
    """What makes the rows, in the order of the table."""
    modules = (importlib.import_module(f"benchmarks.parity.{name}") for name in MODULES)
    return [row for module in modules for row in module.ROWS]


def rows() -> list[Parity]:
    """Every row, computed now."""
    return [row() for row in row_functions()]


def table(rows: Iterable[Parity]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| metric | setting | ours | peer | theirs | relative difference | tolerance |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        reason = f" ({row.note})" if row.note else ""
        lines.append(
            f"| {row.metric} | {row.setting} | {row.ours:.10g} | {row.peer} | {row.theirs:.10g} | "
            f"{row.relative_difference:.1e} | {row.tolerance:.0e}{reason} |"
        )
    return "\n".join(lines)
