"""Commands that compare two sets of images pair by pair: `fact-eval fused`, `fact-eval reconstruct`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fact_metrics.base.plain_text import for_terminal

DeviceName = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Device: auto, cpu, cuda or cuda:N.")
]


def fused(
    snapshot: Annotated[Path, typer.Argument(help="A network snapshot (.safetensors).")],
    precisions: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Precisions, separated by commas. [default: all that the device supports]"
        ),
    ] = None,
    pairs: Annotated[int, typer.Option(min=2, metavar="INT", help="Images to compare.")] = 100,
    batch: Annotated[
        int, typer.Option(min=2, metavar="INT", help="Images for the times and the comparison of layers.")
    ] = 32,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Training images of a conditional generator, if their location has changed.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="INT", help="Evaluation seed.")] = 0,
    device: DeviceName = "auto",
) -> None:
    """Compare fused and unfused convolutions.

    The tables hold images, layers, precisions and times.
    """
    from fact_eval.compare.consistency import PRECISIONS, report
    from fact_eval.images.datasets import open_images
    from fact_eval.reports.fused import fused_tables
    from fact_metrics.base.devices import resolve_device
    from fact_train.imports import load_checkpoint

    device = str(resolve_device(device))
    loaded = load_checkpoint(snapshot, device=device)
    labels_of = None
    if loaded.G.c_dim:
        labels_of = open_images(data or loaded.config["data"], resolution=loaded.G.img_resolution)
    names = tuple(PRECISIONS) if precisions is None else tuple(precisions.split(","))
    found = report(
        loaded,
        device=device,
        labels_of=labels_of,
        seed=seed,
        pairs=pairs,
        batch=batch,
        precisions=names,
        say=_say,
    )
    print(fused_tables(found))


def reconstruct(
    originals: Annotated[Path, typer.Argument(help="Folder, zip or tar of images.")],
    reconstructions: Annotated[
        Path, typer.Argument(help="Folder, zip or tar with images of the same names.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="CSV file to write, one line per pair.")
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Measures, separated by commas. [default: all that need no download]"
        ),
    ] = None,
    worst: Annotated[int, typer.Option(min=0, metavar="INT", help="Number of the worst pairs to list.")] = 10,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Measure that orders the pairs. [default: the first]")
    ] = None,
    alpha: Annotated[
        str,
        typer.Option(
            metavar="refuse|white|black", help="Background behind transparent pixels; refuse rejects them."
        ),
    ] = "refuse",
    device: DeviceName = "auto",
) -> None:
    """Compare reconstructions with originals.

    Files of the same name form a pair.
    """
    from fact_eval.compare.reconstruct import OFFLINE, reconstruct_folders
    from fact_eval.reports.reconstruct import reconstruct_tables
    from fact_metrics.base.devices import resolve_device

    names = OFFLINE if measures is None else tuple(measures.split(","))
    result = reconstruct_folders(
        originals, reconstructions, out=out, measures=names, alpha=alpha, device=str(resolve_device(device))
    )
    if result.mixed:
        _say(f"warning: {result.mixed} of {len(result.names)} pairs compare gray with colour, both as RGB")
    print(reconstruct_tables(result, worst=worst, by=by))
    if out is not None:
        _say(f"one line per pair: {out}")


def _say(line: str) -> None:
    print(for_terminal(line), file=sys.stderr, flush=True)
