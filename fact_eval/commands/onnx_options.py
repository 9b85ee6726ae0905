"""Options of `fact-eval run FILE.onnx`."""

from typing import Annotated, Literal

import typer

ZDim = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="INT", help="With an ONNX file: dimensions of the latent. [default: as the graph says]"
    ),
]
ZName = Annotated[
    Literal["normal", "uniform", "sphere"] | None,
    typer.Option(
        "--z",
        metavar="NAME",
        help="With an ONNX file: distribution of the latent. normal: N(0, 1). uniform: from -1 to 1. sphere: "
        "normal, scaled to length sqrt(dimensions). [default: normal]",
    ),
]
LabelSource = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="data|uniform|CLASS",
        help="With an ONNX file that takes labels: those of random training images, uniform, or one class. "
        "[default: data]",
    ),
]
PixelRange = Annotated[
    Literal["signed", "unit", "byte"] | None,
    typer.Option(
        metavar="signed|unit|byte",
        help="With an ONNX file: floats from -1 to 1, 0 to 1, or 0 to 255. [default: signed]",
    ),
]
