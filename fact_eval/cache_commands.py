"""Commands of the feature store: `fact-eval cache ls`, `clear`."""

import json

import typer

from fact_eval.options import AsJson, say

cache_app = typer.Typer(help="List or clear the cached features.")


@cache_app.command("ls")
def cache_ls(as_json: AsJson = False) -> None:
    """List the cached features."""
    from fact_eval.cache import FeatureCache

    cache = FeatureCache()
    entries = cache.entries()
    rows = [entry.describe() for entry in entries]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from fact_eval.tables import plain_table

    print(plain_table([{k: str(v) for k, v in row.items()} for row in rows]))
    say(f"{len(entries)} entries, {sum(e.size for e in entries) / 1e6:.1f} MB in {cache.root}")


@cache_app.command("clear")
def cache_clear() -> None:
    """Remove all cached features."""
    from fact_eval.cache import FeatureCache

    cache = FeatureCache()
    say(f"freed {cache.clear() / 1e6:.1f} MB in {cache.root}")
