"""What a search chooses from: a field and a range or list of its values. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fact_metrics.base.errors import UsageError
from fact_train.settings.fields import value_text
from fact_train.sweeps.plan import parse_axis

RANGES = ("log", "uniform")
DIGITS = 4  # significant digits of a number that a search chooses


@dataclass(frozen=True)
class Dimension:
    """A field and its values: those of a list, or all between two numbers."""

    name: str
    text: str  # as given
    values: tuple[Any, ...]  # the list, or the two ends
    scale: str | None = None  # one of RANGES; None for a list

    @property
    def whole(self) -> bool:
        """Whether the range holds whole numbers only."""
        return all(isinstance(value, int) for value in self.values)

    def distribution(self) -> Any:
        """The same for Optuna. A list is chosen by position, so that values of any type fit."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.scale is None:
            return CategoricalDistribution([value_text(value) for value in self.values])
        kind = IntDistribution if self.whole else FloatDistribution
        return kind(*self.values, log=self.scale == "log")

    def value(self, chosen: Any) -> Any:
        """The value of the field for what Optuna chose."""
        if self.scale is None:
            return {value_text(value): value for value in self.values}[chosen]
        return chosen if self.whole else float(f"{chosen:.{DIGITS}g}")


def parse_dimension(text: str) -> Dimension:
    """`r1_gamma=log:0.1:100`, `pl_decay=uniform:0:0.1` or `noise=off,random`. UsageError if unusable."""
    name, _, given = text.partition("=")
    scale, *ends = given.split(":")
    if scale not in RANGES or not ends:
        axis = parse_axis(text)
        if len(axis.values) < 2:
            raise UsageError(f"--space {text}: give {name}=log:LOW:HIGH, {name}=uniform:LOW:HIGH or a list.")
        return Dimension(axis.name, given, axis.values)
    if len(ends) != 2:
        raise UsageError(f"--space {text}: give {name}={scale}:LOW:HIGH.")
    axis = parse_axis(f"{name}={','.join(ends)}")
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in axis.values)
    if not numbers or len(axis.values) != 2:
        raise UsageError(f"--space {text}: {axis.name} has no range of numbers; give a list of its values.")
    low, high = axis.values
    if not low < high:
        raise UsageError(f"--space {text}: {value_text(low)} is not below {value_text(high)}.")
    if scale == "log" and not low > 0:
        raise UsageError(f"--space {text}: a log range starts above 0.")
    return Dimension(axis.name, given, (low, high), scale)


def parse_space(texts: Sequence[str], changes: Mapping[str, Any]) -> list[Dimension]:
    """All dimensions of a search, each field once."""
    space = [parse_dimension(text) for text in texts]
    names = [dimension.name for dimension in space]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--space {name} is given twice.")
        if name in changes:
            raise UsageError(f"--{name.replace('_', '-')} and --space {name} contradict each other.")
    return space
