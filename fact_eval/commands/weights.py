"""Commands of the weight files: `fact-eval weights list`, `where`, `add`, `fetch`, `check`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.options import AsJson, finish, say
from fact_metrics.base.errors import UserError
from fact_metrics.features.weight_store import (
    WEIGHTS,
    Installed,
    find_weights,
    look_up,
    weight_file,
    weights_folder,
)

weights_app = typer.Typer(help="Install and check weight files.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name from fact-eval weights list.")]


@weights_app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the weight files and the detectors that use them."""
    from fact_metrics.features import DETECTORS

    readers = {
        name: [reader for reader in sorted(DETECTORS) if name in DETECTORS[reader].weights]
        for name in WEIGHTS
    }
    rows = [_row(name, readers[name]) for name in WEIGHTS]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from fact_eval.reports.tables import plain_table

    shown = ("name", "installed", "size", "sha256", "read by")
    print(plain_table([{key: row[key] for key in shown} for row in rows]))
    for row in rows:
        for problem in row["problems"]:
            say(f"{row['name']}: {problem}")
    say(f"install weights into {weights_folder()}: fact-eval weights fetch NAME, or add FILE")


@weights_app.command()
def where(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Weights to find. [default: print the folder]")
    ] = None,
) -> None:
    """Print the path of an installed weight file, or of the folder."""
    print(weights_folder() if name is None else find_weights(name))


@weights_app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A weight file that you downloaded.")],
    as_: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="Name of these weights. [default: found by hash or file name]"
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="With --as: accept a file that differs from the published one. Only its tensors are read.",
        ),
    ] = False,
) -> None:
    """Verify a weight file and copy it into the folder."""
    from fact_eval.weights.files import add_weights

    installed = add_weights(file, as_, trust=trust)
    print(installed.path)
    if installed.trusted:
        say(f"accepted unverified: sha256 {installed.sha256}; scores with it have a separate protocol")


@weights_app.command()
def fetch(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Names from fact-eval weights list, or all.")
    ],
) -> None:
    """Download weight files; an interrupted download resumes."""
    from fact_eval.weights.files import fetch_weights
    from fact_metrics.base.progress import Progress

    progress, failures = Progress(), []
    names = list(WEIGHTS) if names == ["all"] else names
    for name in names:
        wanted = weight_file(name)
        with progress.stage(f"{name}, {wanted.filename}", round(wanted.bytes / 1e6), unit="MB") as stage:
            try:
                installed, fetched = fetch_weights(name, report=lambda done: stage.update(done // 1_000_000))
            except UserError as error:
                failures.append(str(error))
                continue
        say(f"{name}: {'fetched' if fetched else 'nothing left to do'}: {installed.path}")
    finish(failures)


@weights_app.command()
def check() -> None:
    """Verify all installed weight files.

    Files with a wrong hash are listed; the exit code is then 1.
    """
    from fact_eval.weights.files import check_weights

    checked = check_weights()
    for file in checked:
        if file.problem is None:
            print(f"{file.path}: verified ({file.name})")
    if not checked:
        say(f"no weight files in {weights_folder()}; fact-eval weights fetch NAME installs one")
    finish([f"{file.path}: {file.problem}" for file in checked if file.problem])


def _row(name: str, readers: list[str]) -> dict:
    wanted = weight_file(name)
    installed, problems = look_up(name)
    return {
        "name": name,
        "installed": _state(installed),
        "size": wanted.size,
        "sha256": (installed.sha256 if installed else wanted.sha256)[:12],
        "read by": ", ".join(readers),
        "file": wanted.filename,
        "url": wanted.url,
        "origin": wanted.origin,
        "path": str(installed.path) if installed else None,
        "problems": problems,
    }


def _state(installed: Installed | None) -> str:
    from fact_eval.weights.files import source_of

    if installed is None:
        return "no"
    found = {"own": "yes", "shared": "yes, shared", "torch": "yes, torch's"}[source_of(installed.path)]
    return f"{found}, trusted" if installed.trusted else found
