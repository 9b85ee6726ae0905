"""Which set of metrics is measured: `standard`, `embedded`, or `auto`, which takes one and says why.

Standard are the numbers of the field, with networks whose weights must be downloaded; embedded are those that
need nothing. What either holds is the board's columns (leaderboard/columns.py), handed in by the commands.
"""

from collections.abc import Callable, Sequence

from fact_eval.jobs.catalog import Card
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.features.weight_store import look_up, missing_message, random_weights_seed, weight_file
from fact_metrics.recommended import RECOMMENDED

CHOICES = ("auto", "standard", "embedded")


def check_choice(protocol: str) -> None:
    """UsageError unless it is one of CHOICES."""
    if protocol not in CHOICES:
        raise UsageError(f"--protocol {protocol!r}: give {', '.join(CHOICES[:-1])} or {CHOICES[-1]}")


def missing_weights(cards: Sequence[Card]) -> list[str]:
    """Names of the weight files that the metrics need and that are not installed; none in smoke mode."""
    if random_weights_seed() is not None:
        return []
    return [name for name in sorted({n for card in cards for n in card.weights}) if look_up(name)[0] is None]


def require_weights(cards: Sequence[Card], why: str) -> None:
    """UserError where weights are missing: a line for each, with everything needed to get it."""
    missing = missing_weights(cards)
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
    """The metrics of a dataset under `--protocol`; says once per dataset what `auto` took, and why."""

    def __init__(
        self,
        wanted: str,
        cards: Sequence[Card],
        metrics_for: Callable[[str, str], Sequence[str]],
        *,
        say: Callable[[str], None],
    ):
        """`metrics_for(dataset, protocol)` names metrics; `auto` is embedded where a detector is recommended.

        UserError where `standard` is asked for and weights are missing.
        """
        check_choice(wanted)
        self._wanted, self._metrics_for, self._say = wanted, metrics_for, say
        self._cards = {card.name: card for card in cards}
        self._chosen: dict[str, str] = {}
        if wanted == "standard":  # its columns need the same weights on every dataset
            self._choose("")

    def __call__(self, dataset: str) -> Sequence[str]:
        """Names of the metrics of a dataset."""
        if dataset not in self._chosen:
            self._chosen[dataset] = self._choose(dataset)
        return self._metrics_for(dataset, self._chosen[dataset])

    def _choose(self, dataset: str) -> str:
        names = self._metrics_for(dataset, "standard")
        cards = [self._cards[name] for name in names if name in self._cards]
        if self._wanted == "standard":
            require_weights(cards, "--protocol standard")
        if self._wanted != "auto":
            return self._wanted
        needed = sorted({name for card in cards for name in card.weights})
        missing = missing_weights(cards)
        if dataset in RECOMMENDED:
            recommended = RECOMMENDED[dataset]
            taken, why = "embedded", f"{recommended.detector} is recommended for it: {recommended.why}"
        elif not needed:
            return "embedded"
        elif random_weights_seed() is not None:
            taken, why = "standard", "with random weights, a smoke test"
        elif missing:
            lacking = f"{len(missing)} of the {len(needed)} weight files of standard are not installed"
            taken, why = "embedded", f"{lacking}; {fetch_command(missing)} gets them"
        else:
            taken, why = "standard", f"all {len(needed)} weight files it needs are installed"
        self._say(f"protocol for {dataset}: {taken} ({why})")
        return taken
