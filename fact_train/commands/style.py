"""`fact-train bake` and `fact-train cost`: options and printing, no logic."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fact_metrics.base.errors import UserError


def bake(
    snapshot: Annotated[Path, typer.Argument(help="a network snapshot (.safetensors)")],
    seed: Annotated[
        int, typer.Option(min=0, help="of the latent, as in evaluation: image 0 of this seed")
    ] = 0,
    label: Annotated[int | None, typer.Option(min=0, help="class, where the network has classes")] = None,
    truncation_psi: Annotated[float, typer.Option(help="pulls w towards its average")] = 1.0,
    out: Annotated[
        Path | None, typer.Option(help="file to write; default <snapshot>-baked-seed<seed>.safetensors")
    ] = None,
) -> None:
    """Fold the style of one w into plain weights, prove the equality, and write the network."""
    from fact_train import bake as baked
    from fact_train.snapshot import load_snapshot

    loaded = load_snapshot(snapshot)
    ws = baked.draw_ws(loaded.G, seed=seed, label=label, truncation_psi=truncation_psi)
    proof = baked.prove(loaded.G, ws)
    print(baked.proof_table(proof), file=sys.stderr)
    if not proof.holds:
        raise UserError(f"{snapshot} does not bake: the layers above differ by more than rounding.")
    path = out or snapshot.with_name(f"{snapshot.stem}-baked-seed{seed}.safetensors")
    baked.save_baked(path, loaded, ws)
    print(path)


def cost(
    resolution: Annotated[int, typer.Option(help="of the layer, pixels")] = 32,
    channels: Annotated[int, typer.Option(min=4, help="into and out of the layer")] = 64,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    w_dim: Annotated[int, typer.Option(min=1)] = 128,
    seconds: Annotated[float, typer.Option(min=0.0, help="timed for about this long per row")] = 1.0,
    threads: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Parameters, multiply-adds and measured time of one layer for every injection, and the break-even."""
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
