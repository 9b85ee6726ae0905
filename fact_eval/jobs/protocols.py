"""Which set of metrics is measured: `standard`, `embedded`, or `auto`, which chooses one and says why.

Standard are the numbers of the field, with networks whose weights must be downloaded; embedded are those that
need no download. The board's columns (leaderboard/columns.py) say what is in either; commands hand them in.
"""

from collections.abc import Callable, Sequence

from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.features.weight_store import look_up, missing_message, random_weights_seed, weight_file
from fact_metrics.registry import find_spec
from fact_metrics.spec import MetricSpec
from fact_train.datasets import dataset_entry

CHOICES = ("auto", "standard", "embedded")


def check_choice(protocol: str) -> None:
    """UsageError unless it is one of CHOICES."""
    if protocol not in CHOICES:
        raise UsageError(f"--protocol {protocol!r}: give {', '.join(CHOICES[:-1])} or {CHOICES[-1]}")


def missing_weights(specs: Sequence[MetricSpec]) -> list[str]:
    """Names of the weight files that the metrics need and that are not installed; none in smoke mode."""
    if random_weights_seed() is not None:
        return []
    return [name for name in sorted({n for spec in specs for n in spec.weights}) if look_up(name)[0] is None]


def require_weights(specs: Sequence[MetricSpec], why: str) -> None:
    """UserError if weights are missing: a line for each, with everything needed to get it."""
    missing = missing_weights(specs)
    if len(missing) == 1:
        raise UserError(f"{why}: {missing_message(missing[0], look_up(missing[0])[1])}")
    if missing:
        lines = [f"  {missing_message(name, look_up(name)[1])}" for name in missing]
        what = f"{why}: {len(missing)} weight files are not installed; {fetch_command(missing)} gets them"
        raise UserError("\n".join([what, *lines]))


def fetch_command(names: Sequence[str]) -> str:
    """What to type for weight files that are missing, and how much it is."""
    size = sum(weight_file(name).bytes for name in names) / 1e6
    return f"`fact-eval weights fetch {' '.join(names)}` ({size:,.1f} MB)"


class ProtocolChoice:
    """The metrics of a dataset under `--protocol`; says once per dataset what `auto` chose, and why."""

    def __init__(
        self,
        wanted: str,
        metrics_for: Callable[[str, str], Sequence[str]],
        *,
        say: Callable[[str], None],
    ):
        """`metrics_for(dataset, protocol)` names metrics; `auto` is embedded if a detector was measured.

        UserError if `standard` is asked for and weights are missing.
        """
        check_choice(wanted)
        self._wanted, self._metrics_for, self._say = wanted, metrics_for, say
        self._chosen: dict[str, str] = {}
        if wanted == "standard":  # its columns need the same weights on every dataset
            self._choose("")

    def __call__(self, dataset: str) -> Sequence[str]:
        """Names of the metrics of a dataset."""
        if dataset not in self._chosen:
            self._chosen[dataset] = self._choose(dataset)
        return self._metrics_for(dataset, self._chosen[dataset])

    def _choose(self, dataset: str) -> str:
        found = map(find_spec, self._metrics_for(dataset, "standard"))
        specs = [spec for spec in found if spec is not None]
        if self._wanted == "standard":
            require_weights(specs, "--protocol standard")
        if self._wanted != "auto":
            return self._wanted
        needed = sorted({name for spec in specs for name in spec.weights})
        missing, entry = missing_weights(specs), dataset_entry(dataset)
        if entry.evidence is not None:
            chosen, why = "embedded", f"{entry.detector} is recommended for it: {entry.evidence}"
        elif not needed:
            return "embedded"
        elif random_weights_seed() is not None:
            chosen, why = "standard", "with random weights, a smoke test"
        elif missing:
            counted = f"{len(missing)} of the {len(needed)} weight files of standard are not installed"
            chosen, why = "embedded", f"{counted}; {fetch_command(missing)} gets them"
        else:
            chosen, why = "standard", f"all {len(needed)} weight files it needs are installed"
        self._say(f"protocol for {dataset}: {chosen} ({why})")
        return chosen
