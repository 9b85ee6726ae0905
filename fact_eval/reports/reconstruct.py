"""Tables of `fact-eval reconstruct`: reconstructions against their originals."""

import math

from fact_eval.compare.reconstruct import MEASURES, WORST, Reconstruction
from fact_eval.reports.tables import plain_table


def reconstruct_tables(result: Reconstruction, *, worst: int = WORST, by: str | None = None) -> str:
    """Means with their errors, and the pairs that are least alike, as text."""
    means = []
    for measure, values in result.values.items():
        mean, stderr = result.mean(measure)
        equal = sum(math.isinf(value) for value in values)
        means.append(
            {
                "measure": measure + (" ↑" if MEASURES[measure].higher_is_better else " ↓"),
                "mean": f"{mean:.6g}",
                "± se": "" if stderr is None else f"{stderr:.2g}",
                "pairs": f"{len(values):,}",
                "": f"{equal:,} of them equal" if equal else "",
            }
        )
    by = by or next(iter(result.values))
    listed = [{"least alike": name, by: f"{value:.6g}"} for name, value in result.worst(worst, by=by)]
    return f"{plain_table(means)}\n\n{plain_table(listed)}"
