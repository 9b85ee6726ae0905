"""fact-train classifier: train the classifier that StylEx explains."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def classifier(
    out: Annotated[Path, typer.Option(help="file to write, .safetensors")],
    data: Annotated[str, typer.Option(help="labelled dataset: a name, image folder, zip, idx folder")],
    classes: Annotated[
        str, typer.Option(help="labels to tell apart: all; 8,9; or 8,rest for one against all others")
    ] = "all",
    arch: Annotated[
        Literal["convnet", "resnet18", "mobilenet_v2"], typer.Option(help="convnet is meant for 32 px")
    ] = "convnet",
    input_size: Annotated[
        int | None, typer.Option(min=8, help="resize to this side inside the network, e.g. 224")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="start from a state dict of the architecture (.pt, .safetensors)")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 3,
    batch: Annotated[int, typer.Option(min=2)] = 128,
    lr: Annotated[float, typer.Option(min=1e-6)] = 2e-3,
    seed: Annotated[int, typer.Option(help="random seed of weights and batches")] = 0,
    resolution: Annotated[int | None, typer.Option(help="as in training")] = None,
    resize: Annotated[str, typer.Option(help="as in training")] = "lanczos",
    crop: Annotated[str, typer.Option(help="as in training")] = "none",
    channels: Annotated[int | None, typer.Option(help="as in training")] = None,
    alpha: Annotated[str, typer.Option(help="as in training")] = "refuse",
    max_images: Annotated[int | None, typer.Option(help="train on a seeded subset of this many")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores without it")] = None,
) -> None:
    """Train the classifier that a StylEx run explains, and score it on images it has not seen."""
    import sys

    from fact_metrics.base.devices import resolve_device, set_threads
    from fact_metrics.base.errors import UsageError
    from fact_train.classifiers.training import train_classifier

    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: the file's name ends in .safetensors.")
    chosen = resolve_device(device)
    set_threads(threads)

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    train_classifier(
        out,
        data=data,
        classes=classes,
        arch=arch,
        input_size=input_size,
        init=init,
        epochs=epochs,
        batch=batch,
        lr=lr,
        seed=seed,
        device=chosen,
        report=report,
        resolution=resolution,
        resize=resize,
        crop=crop,
        channels=channels,
        alpha=alpha,
        max_images=max_images,
    )
    report(f"next: fact-train --preset stylex-plants64 --data {data} --classifier {out}")
    print(out)
