"""`fact-eval export`: a checkpoint's generator for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.options import say
from fact_metrics.base.errors import UsageError


def export(
    snapshot: Annotated[Path, typer.Argument(help="A checkpoint, or a run folder for its latest snapshot.")],
    out: Annotated[Path, typer.Option(metavar="PATH", help="File to write, .onnx.")],
    psi: Annotated[
        float, typer.Option(metavar="FLOAT", help="Truncation that the graph applies; 1 is none.")
    ] = 1.0,
) -> None:
    """Export a generator to ONNX.

    onnxruntime must compute the images of torch before the file is written. Noise is constant.
    """
    if out.suffix.lower() != ".onnx":
        raise UsageError(f"--out {out}: the file must end in .onnx")
    from fact_eval.reports.sampler import open_checkpoint
    from fact_train.onnx_export import export_onnx

    loaded = open_checkpoint(snapshot, device="cpu")
    difference = export_onnx(loaded, out, psi=psi)
    latent = ", ".join(map(str, loaded.G.z_shape))
    say(f"input z [N, {latent}]; onnxruntime differs from torch by at most {difference:.1g}")
    print(out)
