"""What the controls of an explanation say of its numbers: is a flip due to the classifier, and to it alone?

A method is flagged if its edits flip the explained classifier and not a second one (`own_only`), or if
attributes of a classifier with random weights flip more images than random coordinates (Adebayo et al. 2018,
arXiv:1810.03292: an explanation must depend on the weights).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from fact_leaderboard.records import Record

FLIPS = re.compile(r"flips\d+k?_(\w+)")
CONTROL, CHANCE = "control", "random"


def flips_by_method(records: Iterable[Record]) -> dict[str, Record]:
    """The records of flips of one explanation by method, such as attfind_greedy."""
    found = ((FLIPS.fullmatch(record.metric), record) for record in records)
    return {match[1]: record for match, record in found if match and record.value is not None}


def control_is_above_chance(flips: Mapping[str, Record]) -> bool | None:
    """Whether the intervals say so; None without both records."""
    control, chance = flips.get(CONTROL), flips.get(CHANCE)
    if not (control and chance and control.ci and chance.ci):
        return None
    return control.ci["low"] > chance.ci["high"]


def flagged_methods(flips: Mapping[str, Record]) -> dict[str, str]:
    """Methods whose flips mean less than they seem, and why."""
    reasons = {
        method: "flips its own classifier only, not the second one"
        for method, record in flips.items()
        if record.extras.get("own_only")
    }
    if control_is_above_chance(flips):
        said = (
            f"attributes of a classifier with random weights flip {flips[CONTROL].value:.2f}, random "
            f"coordinates {flips[CHANCE].value:.2f}: a flip does not depend on the classifier alone"
        )
        reasons |= {method: said for method in flips if method not in (CONTROL, CHANCE, *reasons)}
    return reasons


def flagged_metrics(records: Sequence[Record]) -> dict[str, str]:
    """Metrics of a row that are flagged in any of its runs: why, and in how many of them."""
    explanations: dict[tuple, list[Record]] = defaultdict(list)
    for record in records:
        explanations[record.run_id, record.seed].append(record)
    reasons: dict[str, list[str]] = defaultdict(list)
    for group in explanations.values():
        flips = flips_by_method(group)
        for method, reason in flagged_methods(flips).items():
            reasons[flips[method].metric].append(reason)
    of = len(explanations)
    return {
        metric: own[0] + (f" (in {len(own)} of {of} explanations)" if of > 1 else "")
        for metric, own in reasons.items()
    }
