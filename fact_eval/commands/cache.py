"""Commands of the feature store: `fact-eval cache ls`, `gc`, `verify`."""

import json
import time
from typing import Annotated

import typer

from fact_eval.commands.options import AsJson, finish, say

cache_app = typer.Typer(help="List, clean up or verify stored features.")


@cache_app.command("ls")
def cache_ls(as_json: AsJson = False) -> None:
    """List the stored features."""
    from fact_eval.features.store import FeatureCache

    cache = FeatureCache()
    entries = cache.entries()
    rows = [entry.describe() for entry in entries]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from fact_eval.reports.tables import plain_table

    print(plain_table([{k: str(v) for k, v in row.items()} for row in rows]))
    say(f"{len(entries)} entries, {sum(e.size for e in entries) / 1e6:.1f} MB in {cache.root}")


@cache_app.command("gc")
def cache_gc(
    days: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="Also remove features unused for this many days."),
    ] = None,
    max_gb: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="GB", help="Also remove the least recently used features above this total size."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only print what would be removed.")
    ] = False,
) -> None:
    """Remove features that are damaged or belong to other code."""
    from fact_eval.features.code_key import features_code
    from fact_eval.features.store import FeatureCache, garbage

    cache = FeatureCache(report=say)
    entries = cache.entries()
    reasons = garbage(
        entries,
        code=features_code(),
        now=time.time(),
        days=days,
        max_bytes=None if max_gb is None else max_gb * 1e9,
    )
    going = [entry for entry in entries if entry.path in reasons]
    for entry in going:
        print(f"{entry.path.name[:12]}  {entry.size / 1e6:9.2f} MB  {reasons[entry.path]}")
    freed = sum(entry.size for entry in going) if dry_run else cache.remove(going)
    freed += cache.remove_leftovers(dry_run=dry_run)
    verb = "would free" if dry_run else "freed"
    say(f"{verb} {freed / 1e6:.1f} MB of {sum(e.size for e in entries) / 1e6:.1f} MB in {cache.root}")


@cache_app.command("verify")
def cache_verify() -> None:
    """Verify all stored features.

    Damaged ones are listed; the exit code is then 1.
    """
    from fact_eval.features.store import FeatureCache

    cache = FeatureCache()
    entries = cache.entries()
    own = [entry for entry in entries if cache.is_own(entry)]
    bad = [path for entry in own for path in cache.damaged(entry)]
    keyless = [entry.path for entry in entries if entry.key is None and entry.chunks]
    if foreign := len(entries) - len(own) - len(keyless):
        say(f"{foreign} entries are signed with another key: not read here, not verified")
    say(f"{sum(e.chunks for e in entries)} chunks of {len(entries)} entries read in {cache.root}")
    finish(
        [f"{path}: damaged; the next scoring computes it again" for path in bad]
        + [f"{path}: its key is unreadable; fact-eval cache gc removes it" for path in keyless]
    )
