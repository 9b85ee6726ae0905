"""`fact-eval audit`: finds bad and unusual image files before scoring."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.options import AsJson, say
from fact_metrics.base.errors import UsageError
from fact_metrics.base.plain_text import for_terminal


def audit_(
    path: Annotated[Path, typer.Argument(help="Folder, zip or tar of images.")],
    reference: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Real images to compare with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all bad and unusual image files."""
    if not path.exists():
        raise UsageError(f"{path} does not exist; give a folder, zip or tar of images")
    from fact_eval.jobs.audit import audit, audit_data, check_counts, compare_with_reference, lines
    from fact_metrics.base.progress import Progress
    from fact_metrics.registry import list_specs
    from fact_train.datasets import dataset_entry

    with Progress(quiet=as_json).stage(f"{path}, image files", 1) as stage:
        found = audit(path, progress=stage.update)
    findings, real = list(found.findings), {}
    if reference is not None:
        theirs = audit_data(reference)
        findings += compare_with_reference(found, theirs)
        real = theirs.splits
    traits = dataset_entry(reference or "").traits
    specs = [spec for spec in list_specs() if spec.fits(traits) and not spec.needs_encoder]
    findings += check_counts(specs, generated=found.count, real=real)
    if as_json:
        report = {"path": str(path), "images": found.count, "size": found.size, "lossy": found.lossy}
        print(json.dumps({**report, "findings": [dataclasses.asdict(f) for f in findings]}, indent=1))
    else:
        print("\n".join(map(for_terminal, lines(findings))))
    errors = sum(f.error for f in findings)
    say(f"{found.count:,} images: {errors} errors, {len(findings) - errors} warnings")
    if errors:
        raise typer.Exit(1)
