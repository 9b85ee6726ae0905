"""fact-train classifier: train the classifier that StylEx explains."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def classifier(
    out: Annotated[Path, typer.Option(metavar="PATH", help="File to write; its name ends in .safetensors.")],
    data: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="Labelled dataset, as in fact-train --data.")
    ],
    classes: Annotated[
        str,
        typer.Option(
            metavar="LABELS",
            help="Labels to distinguish: all, a list such as 8,9, or 8,rest for one against all others.",
        ),
    ] = "all",
    arch: Annotated[
        Literal["convnet", "resnet18", "mobilenet_v2"],
        typer.Option(metavar="convnet|resnet18|mobilenet_v2", help="Architecture; convnet is for 32 px."),
    ] = "convnet",
    input_size: Annotated[
        int | None,
        typer.Option(
            min=8, metavar="INT", help="Resize images to this side inside the network, such as 224."
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Start from this state dict of the architecture (.pt or .safetensors)."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, metavar="INT", help="Passes over the training images.")] = 3,
    batch: Annotated[int, typer.Option(min=2, metavar="INT", help="Images per step.")] = 128,
    lr: Annotated[float, typer.Option(min=1e-6, metavar="FLOAT", help="Learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(metavar="INT", help="Random seed of weights and batches.")] = 0,
    resolution: Annotated[
        str | None, typer.Option(metavar="INT|HEIGHTxWIDTH", help="As in fact-train --resolution.")
    ] = None,
    resize: Annotated[str, typer.Option(metavar="NAME", help="As in fact-train --resize.")] = "lanczos",
    crop: Annotated[str, typer.Option(metavar="NAME", help="As in fact-train --crop.")] = "none",
    channels: Annotated[int | None, typer.Option(metavar="INT", help="As in fact-train --channels.")] = None,
    alpha: Annotated[str, typer.Option(metavar="NAME", help="As in fact-train --alpha.")] = "refuse",
    max_images: Annotated[
        int | None, typer.Option(metavar="INT", help="As in fact-train --max-images.")
    ] = None,
    labels: Annotated[str, typer.Option(metavar="NAME", help="As in fact-train --labels.")] = "auto",
    image_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="As in fact-train --image-key.")
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="Device: auto, cpu, cuda or cuda:N.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="INT", help="CPU threads. [default: all available cores]")
    ] = None,
) -> None:
    """Train a classifier for StylEx.

    The command prints its accuracy on held-out images.
    """
    import sys

    from fact_metrics.base.devices import resolve_device, set_threads
    from fact_metrics.base.errors import UsageError
    from fact_train.classifiers.training import train_classifier

    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: the name must end in .safetensors.")
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
        labels=labels,
        image_key=image_key,
    )
    report(f"next: fact-train --preset stylex-plants64 --data {data} --classifier {out}")
    print(out)
