"""`fact-train bake` and `fact-train cost`: options and printing, no logic."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fact_metrics.base.errors import UserError


def bake(
    snapshot: Annotated[Path, typer.Argument(help="A network snapshot (.safetensors).")],
    seed: Annotated[
        int, typer.Option(min=0, metavar="INT", help="Evaluation seed; the latent is that of its image 0.")
    ] = 0,
    label: Annotated[
        int | None, typer.Option(min=0, metavar="INT", help="Class label of a conditional network.")
    ] = None,
    truncation_psi: Annotated[
        float,
        typer.Option(
            metavar="FLOAT", help="Truncation: 1 keeps w, smaller values pull it towards its average."
        ),
    ] = 1.0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="File to write. [default: SNAPSHOT-baked-seedSEED.safetensors]"),
    ] = None,
    borders: Annotated[
        bool,
        typer.Option(
            "--borders",
            help="Also write a network that differs at the borders alone: one with unbaked 3x3 styles.",
        ),
    ] = False,
) -> None:
    """Bake one style into plain weights.

    The command compares both networks layer by layer and writes the baked one if they are equal.
    """
    from fact_train import bake as baked
    from fact_train.snapshot import load_snapshot

    loaded = load_snapshot(snapshot)
    ws = baked.draw_ws(loaded.G, seed=seed, label=label, truncation_psi=truncation_psi)
    proof = baked.prove(loaded.G, ws)
    print(baked.proof_table(proof), file=sys.stderr)
    if proof.borders_differ:
        if not borders:
            raise UserError(
                f"{snapshot} was trained with --fused-modconv {loaded.config['fused_modconv']}: "
                f"baked, its image differs by {proof.image:.2g}. "
                "Train with --fused-modconv always, or add --borders."
            )
    elif not proof.holds:
        raise UserError(f"{snapshot} cannot be baked: the layers listed above differ by more than rounding.")
    path = out or snapshot.with_name(f"{snapshot.stem}-baked-seed{seed}.safetensors")
    baked.save_baked(path, loaded, ws)
    print(path)


def cost(
    resolution: Annotated[int, typer.Option(metavar="INT", help="Resolution of the layer in pixels.")] = 32,
    channels: Annotated[
        int, typer.Option(min=4, metavar="INT", help="Input and output channels of the layer.")
    ] = 64,
    batch: Annotated[int, typer.Option(min=1, metavar="INT", help="Images per call.")] = 8,
    w_dim: Annotated[int, typer.Option(min=1, metavar="INT", help="Dimensions of w.")] = 128,
    seconds: Annotated[
        float, typer.Option(min=0.0, metavar="FLOAT", help="Measuring time per row of the table.")
    ] = 1.0,
    threads: Annotated[int, typer.Option(min=1, metavar="INT", help="CPU threads.")] = 1,
) -> None:
    """Compare the cost of style injections.

    The table holds parameters, multiply-adds and times of one layer, and the break-even of baking.
    """
    from fact_train import cost as costs

    print(
        costs.report(
            resolution=resolution,
            channels=channels,
            batch=batch,
            w_dim=w_dim,
            seconds=seconds,
            threads=threads,
        )
    )
