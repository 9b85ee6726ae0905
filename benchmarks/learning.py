"""How soon a preset draws well: legibility and FID against seconds of training, over the training seeds.

`python -m benchmarks.learning RUN ...` reads run folders whose snapshots were scored with
`fact-eval all RUN --snapshot all --metrics legible10k,covered10k,fid10k_full_digits`, prints a table and
writes benchmarks/results/learning.json and learning.png. Seconds are those of training steps: a run that was
interrupted counts as one; starting, pictures and checkpoints are not in them.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

from benchmarks.machine import RESULTS, write_result
from fact_leaderboard.records import find_results, latest_records, read_records
from fact_metrics.base.errors import UserError

METRICS = ("legible10k", "covered10k", "fid10k_full_digits")
FORMATS = (".3f", ".0f", ".1f")


def collect(run: Path) -> list[dict[str, float]]:
    """One row per scored snapshot: kimg, seconds and the metrics. UserError where a run has none."""
    values: dict[float, dict[str, float]] = defaultdict(dict)
    for path in find_results(run):
        for record in latest_records(read_records(path)):
            if record.source == "run" and record.metric in METRICS and record.value is not None:
                values[record.kimg][record.metric] = record.value
    seconds, total, done = {}, 0.0, 0
    for line in (run / "stats.jsonl").read_text().splitlines():
        tick = json.loads(line)
        total += tick["Timing/sec_per_kimg"] * (tick["nimg"] - done) / 1000
        done = tick["nimg"]
        seconds[done // 1000] = total
    rows = [
        {"kimg": kimg, "seconds": seconds[int(kimg)], **found}
        for kimg, found in sorted(values.items())
        if len(found) == len(METRICS) and int(kimg) in seconds
    ]
    if not rows:
        raise UserError(f"{run} has no scored snapshots; run fact-eval all {run} --snapshot all first")
    return rows


def table(curves: dict[str, list[dict[str, float]]]) -> str:
    """Mean (lowest - highest) over the runs at every kimg that all have, as Markdown."""
    by_kimg: dict[float, list[dict[str, float]]] = defaultdict(list)
    for rows in curves.values():
        for row in rows:
            by_kimg[row["kimg"]].append(row)
    lines = [
        "| kimg | seconds | legible | digits covered | FID digits |",
        "|---|---|---|---|---|",
    ]
    for kimg, rows in sorted(by_kimg.items()):
        if len(rows) < len(curves):
            continue
        cells = [_spread([row["seconds"] for row in rows], ".0f")]
        cells += [
            _spread([row[name] for row in rows], form) for name, form in zip(METRICS, FORMATS, strict=True)
        ]
        lines.append(f"| {kimg:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: list[float], form: str) -> str:
    low, mean, high = min(values), statistics.mean(values), max(values)
    return f"{mean:{form}}" if low == high else f"{mean:{form}} ({low:{form}} - {high:{form}})"


def draw(curves: dict[str, list[dict[str, float]]], out: Path) -> None:
    """Legibility and FID against seconds, a line per run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), dpi=120, layout="constrained")
    for axis, name, title in zip(
        axes, (METRICS[0], METRICS[2]), ("legible images", "FID, digit features"), strict=True
    ):
        for run, rows in curves.items():
            axis.plot([row["seconds"] for row in rows], [row[name] for row in rows], marker="o", label=run)
        axis.set(title=title, xlabel="seconds of training")
        axis.grid(alpha=0.3)
    axes[0].set_ylim(0, 1)
    axes[1].set_yscale("log")
    axes[0].legend(frameon=False)
    figure.savefig(out, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    runs = parser.parse_args().runs
    curves = {run.name: collect(run) for run in runs}
    print(table(curves))
    write_result("learning", {"curves": curves})
    draw(curves, RESULTS / "learning.png")


if __name__ == "__main__":
    main()
