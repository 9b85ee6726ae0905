"""Tables of a user study's scores."""

from collections.abc import Sequence

from fact_eval.explain.ratings import Described, Identified
from fact_eval.reports.tables import plain_table


def identified_table(scores: Sequence[Identified]) -> str:
    """One line per method: the share of right answers, and how far raters agree."""
    rows = [
        {
            "method": s.method,
            "right": f"{s.right} of {s.answers}",
            "share": f"{s.rate:.3f}",
            "95 % interval": f"[{s.low:.3f}, {s.high:.3f}]",
            "p (guessing)": f"{s.chance_p:.2g}",
            "raters": str(s.raters),
            "mean ± sd over raters": f"{s.rater_mean:.3f}{_known(s.rater_std, ' ± {:.3f}')}",
            "Fleiss' kappa": _known(s.fleiss_kappa),
            "Cohen's kappa": _known(s.cohen_kappa),
            "common questions": str(s.common),
        }
        for s in scores
    ]
    return plain_table(rows)


def described_table(scores: Sequence[Described]) -> str:
    """One line per described attribute: the word that most raters used."""
    rows = [
        {
            "method": s.method,
            "question": s.question,
            "class": s.class_name,
            "attribute": s.attribute,
            "word": s.word,
            "raters": f"{s.count} of {s.raters}",
            "share": f"{s.share:.2f}",
            "95 % interval": f"[{s.low:.2f}, {s.high:.2f}]",
            "agreeing pairs": _known(s.agreeing_pairs),
        }
        for s in scores
    ]
    return plain_table(rows)


def _known(value: float | None, form: str = "{:.3f}") -> str:
    return "" if value is None else form.format(value)
