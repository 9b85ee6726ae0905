"""Tables for a terminal, from records and specs; `--json` prints the same data."""

from collections.abc import Sequence

from fact_eval.compare.records import Comparison
from fact_leaderboard.records import Record
from fact_leaderboard.verifications import Verification
from fact_metrics.base.plain_text import DEGENERATE, for_terminal
from fact_metrics.family import Family
from fact_metrics.features import DetectorSpec
from fact_metrics.spec import MetricSpec


def records_table(records: Sequence[Record]) -> str:
    """One line per record: value, error, sample, status."""
    rows = [
        {
            "run": r.run_id,
            "kimg": "" if r.kimg is None else f"{r.kimg:g}",
            "metric": r.metric + (" ↑" if r.higher_is_better else " ↓"),
            "seed": str(r.seed),
            "value": "" if r.value is None else _marked(f"{r.value:.6g}", r.degenerate),
            "± se": "" if r.stderr is None else f"{r.stderr:.2g}",
            "interval": _interval(r.ci),
            "generated": "" if r.n_effective is None else f"{r.n_effective:,}",
            "real": "" if r.n_real is None else f"{r.n_real:,}",
            "status": _status(r),
        }
        for r in records
    ]
    return plain_table(rows)


def specs_list(specs: Sequence[MetricSpec]) -> str:
    """Four lines per metric: name with direction, meaning, what it needs, its source."""
    blocks = []
    for spec in specs:
        arrow = "↑" if spec.higher_is_better else "↓"
        unit = f" ({spec.unit})" if spec.unit else ""
        confined = f", datasets of {spec.needs_trait} only" if spec.needs_trait else ""
        lines = [f"{spec.name} {arrow}", spec.summary + unit, _needs(spec) + confined, spec.citation]
        blocks.append("\n    ".join(lines))
    return "\n".join(blocks)


def family_list(families: Sequence[Family]) -> str:
    """The grammar of a family and its variants: how names read, the detectors that fit, published names."""
    blocks = []
    for family in families:
        lines = [family.pattern]
        if family.gives:
            lines.append(f"detectors: {', '.join(family.fitting_detectors())}")
        lines += [f"{name} is {stands}" for name, stands in family.published.items()]
        blocks.append("\n    ".join(lines))
    return "\n".join(blocks)


def detectors_list(detectors: Sequence[DetectorSpec]) -> str:
    """Four lines per detector: name, what it is, its width and weights, its source."""
    blocks = []
    for detector in detectors:
        weights = detector.settings.get("weights_sha256")
        known = f", weights sha256 {weights[:12]}" if weights else ""
        lines = [detector.name, detector.summary, f"width {detector.width}{known}", detector.citation]
        blocks.append("\n    ".join(lines))
    return "\n".join(blocks)


def comparisons_table(comparisons: Sequence[Comparison]) -> str:
    """One line per metric: A, B, the difference with its standard error, corrected p, which is better."""
    rows = [
        {
            "metric": c.metric + (" ↑" if c.higher_is_better else " ↓"),
            "A": _marked(f"{c.a:.6g}", c.degenerate[0]),
            "B": _marked(f"{c.b:.6g}", c.degenerate[1]),
            "B - A": f"{c.difference.value:+.4g}",
            "± se": "" if c.difference.stderr is None else f"{c.difference.stderr:.2g}",
            "p (Holm)": "" if c.p is None else f"{c.p:.3g}",
            "better": c.better,
            "error from": c.difference.method,
        }
        for c in comparisons
    ]
    reasons = [
        for_terminal(f"{DEGENERATE} {c.metric} of {side}: {reason}")
        for c in comparisons
        for side, reason in zip("AB", c.degenerate, strict=True)
        if reason
    ]
    return "\n".join([plain_table(rows), *reasons])


def verifications_table(verifications: Sequence[Verification]) -> str:
    """One line per checked value: claimed, found, how far apart they may be, and whether they agree."""
    rows = [
        {
            "run": v.run_id,
            "metric": v.metric,
            "claimed": f"{v.claimed:.8g}",
            "found": f"{v.found:.8g}",
            "difference": f"{v.difference:.1e}",
            "tolerance": "unknown" if v.tolerance is None else f"{v.tolerance:.1e}",
            "digits": str(v.digits),
            "holds": {True: "yes", False: "NO", None: "undecided"}[v.holds],
            "by": v.by,
            "from": v.basis,
        }
        for v in verifications
    ]
    return plain_table(rows)


def plain_table(rows: Sequence[dict[str, str]]) -> str:
    """Dictionaries of texts as a table; "" for no rows."""
    import pandas as pd
    from tabulate import tabulate

    if not rows:
        return ""
    rows = [{name: for_terminal(text) for name, text in row.items()} for row in rows]
    return tabulate(
        pd.DataFrame(rows), headers="keys", tablefmt="simple", showindex=False, disable_numparse=True
    )


def _status(record: Record) -> str:
    if reason := record.error or record.invalid:
        return f"{record.status}: {reason}"
    notes = (record.extras.get("verdict"), record.degenerate and f"{DEGENERATE} {record.degenerate}")
    return ", ".join([record.status, *(str(note) for note in notes if note)])


def _marked(number: str, degenerate: str | None) -> str:
    return f"{number} {DEGENERATE}" if degenerate else number


def _interval(ci: dict | None) -> str:
    return "" if ci is None else f"[{ci['low']:.6g}, {ci['high']:.6g}]"


def _needs(spec: MetricSpec) -> str:
    parts = []
    for need in spec.needs:
        count = "all" if need.count is None else f"{need.count:,}"
        what = {"generated": "generated images", "reconstructed": f"reconstructed {need.split} images"}
        parts.append(f"{count} {what.get(need.side, f'{need.split} images')}")
    if spec.needs_generator:
        parts.append("the generator")
    if spec.needs_encoder:
        parts.append("the encoder of a StylEx run")
    if spec.needs_training:
        parts.append("the statistics of the training")
    if spec.detectors:
        parts.append(f"detector {' and '.join(spec.detectors)}")
    if spec.weights:
        parts.append(f"weights {' and '.join(spec.weights)}")
    return ", ".join(parts)
