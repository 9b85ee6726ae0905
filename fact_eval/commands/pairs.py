"""Commands that compare two sets of images pair by pair: `fact-eval fused`, `fact-eval reconstruct`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

DeviceName = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N")]


def fused(
    snapshot: Annotated[Path, typer.Argument(help="a network snapshot (.safetensors)")],
    precisions: Annotated[
        str | None, typer.Option(help="comma separated; all that the device has without it")
    ] = None,
    pairs: Annotated[int, typer.Option(min=2, help="images compared")] = 100,
    batch: Annotated[int, typer.Option(min=2, help="images timed and looked at layer by layer")] = 32,
    data: Annotated[
        str | None, typer.Option(help="training images of a conditional generator, if they were moved")
    ] = None,
    seed: Annotated[int, typer.Option(help="evaluation seed")] = 0,
    device: DeviceName = "auto",
) -> None:
    """Compare fused and unfused modulated convolution: images, layers, precisions, time."""
    from fact_eval.compare.consistency import PRECISIONS, report
    from fact_eval.images.datasets import open_images
    from fact_eval.reports.fused import fused_tables
    from fact_metrics.base.devices import resolve_device
    from fact_train.snapshot import load_snapshot

    device = str(resolve_device(device))
    loaded = load_snapshot(snapshot, device=device)
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
    originals: Annotated[Path, typer.Argument(help="folder or zip of images")],
    reconstructions: Annotated[Path, typer.Argument(help="folder or zip with images of the same names")],
    out: Annotated[Path | None, typer.Option(help="CSV with one line per pair")] = None,
    measures: Annotated[
        str | None, typer.Option(help="comma separated; without it all that need no download")
    ] = None,
    worst: Annotated[int, typer.Option(min=0, help="how many of the least alike pairs are listed")] = 10,
    by: Annotated[str | None, typer.Option(help="the measure that orders them; the first without it")] = None,
    alpha: Annotated[str, typer.Option(help="transparent pixels: refuse, white or black")] = "refuse",
    device: DeviceName = "auto",
) -> None:
    """Compare reconstructions with their originals, paired by name."""
    from fact_eval.compare.reconstruct import OFFLINE, reconstruct_folders
    from fact_eval.reports.reconstruct import reconstruct_tables
    from fact_metrics.base.devices import resolve_device

    names = OFFLINE if measures is None else tuple(measures.split(","))
    result = reconstruct_folders(
        originals, reconstructions, out=out, measures=names, alpha=alpha, device=str(resolve_device(device))
    )
    print(reconstruct_tables(result, worst=worst, by=by))
    if out is not None:
        _say(f"one line per pair: {out}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
