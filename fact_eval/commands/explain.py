"""`fact-eval explain`: the full report on StylEx runs."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.options import finish, say
from fact_metrics.base.errors import UsageError
from fact_metrics.base.processes import is_rank_zero


def explain(
    runs: Annotated[
        list[Path], typer.Argument(help="StylEx run folders, or folders that contain such runs.")
    ],
    seeds: Annotated[
        str,
        typer.Option(
            metavar="SEEDS", help="Evaluation seeds: 0, a list such as 0,1,2 or a range such as 0-4."
        ),
    ] = "0",
    snapshot: Annotated[
        str, typer.Option(metavar="WHICH", help="latest, all, or the kimg of a snapshot.")
    ] = "latest",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Location of the real images, if it has changed since training."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="Device: auto, cpu, cuda or cuda:N.")
    ] = "auto",
    batch: Annotated[int, typer.Option(min=1, metavar="INT", help="Images per call of a network.")] = 64,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="INT", help="CPU threads. [default: all available cores]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Report on StylEx runs.

    The report covers the encoder, the classifier, the W-gap with its picture, and the stability of training.
    """
    from fact_eval.images.sampling import parse_seeds
    from fact_eval.jobs.plan import Request, plan_run
    from fact_eval.jobs.runs import find_runs
    from fact_eval.reports.explain import draw_w_gap, health_lines, measure_health
    from fact_eval.reports.tables import records_table
    from fact_eval.scoring.session import score
    from fact_leaderboard.records import RESULTS, latest_records, read_records
    from fact_metrics.registry import list_specs

    found = [run for run in find_runs(runs) if run.config.get("model") == "stylex"]
    if not found:
        where = ", ".join(map(str, runs))
        raise UsageError(f"no StylEx run in {where}; fact-train --preset mnist trains one")
    specs = tuple(spec for spec in list_specs() if spec.needs_encoder)
    names = {spec.name for spec in specs}
    request = Request(specs, parse_seeds(seeds), snapshot=snapshot, data=data)
    jobs = [job for run in found for job in plan_run(run, request)]
    failures = []
    if any(job.missing for job in jobs):
        failures = score(jobs, device=device, batch=batch, threads=threads).problems()
    if not is_rank_zero():  # rank 0 has the records, and speaks
        return
    wanted = {job.content_sha256 for job in jobs}
    records = [
        record
        for run in found
        for record in latest_records(read_records(run.folder / RESULTS))
        if record.metric in names and record.snapshot_sha256 in wanted
    ]
    folders = {run.run_id: run.folder for run in found}
    for record in records:
        if record.metric == "wgap10k_frechet" and record.value is not None and record.seed == 0:
            path = folders[record.run_id] / f"wgap{int(record.kimg):06d}.png"
            say(f"wrote {draw_w_gap(record, path)}")
    health = [measure_health(run) for run in found]
    if as_json:
        shown = {
            "records": [json.loads(record.to_json()) for record in records],
            "health": [dataclasses.asdict(one) for one in health],
        }
        print(json.dumps(shown, indent=1))
    else:
        print(records_table(records))
        print("\n".join(line for one in health for line in health_lines(one)))
    finish(failures)
