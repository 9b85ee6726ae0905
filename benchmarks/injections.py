"""Fused against unfused evaluation of every style injection, in every precision the device has.

`python -m benchmarks.injections` prints a table and writes benchmarks/results/injections.json. Networks are
untrained, of the width of the preset mnist-stylegan2, with a skip trunk; the comparison is that of
`fact-eval fused`. A 3x3 style is left out: baked and unbaked it is two functions, which differ at the
borders.
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from benchmarks.machine import write_result
from fact_eval.compare.consistency import PRECISIONS, ImagesRow, report
from fact_metrics.base.devices import resolve_device, set_threads
from fact_train.networks.build import build_networks
from fact_train.settings.presets import get_preset
from fact_train.snapshot import Snapshot

DATASET = {"resolution": 32, "channels": 1, "classes": 0}
MATRIX = {"injection": "matrix", "style_vectors": 64, "matrix_centre": True}
CASES = {
    "modconv": {},
    "adain": {"injection": "adain"},
    **{f"vectors, K = {k}": {"injection": "vectors", "style_vectors": k} for k in (4, 16, 64)},
    "matrix, composite": {**MATRIX, "matrix_scale": "rsqrt", "matrix_identity": True},
    **{
        f"matrix, {name}": {**MATRIX, "matrix_scale": "rsqrt", "matrix_postnorm": name}
        for name in ("weight", "instance")
    },
    "adaconv": {"injection": "adaconv"},
}


def run(*, device: str = "auto", pairs: int = 20, batch: int = 8, rounds: int = 3) -> dict:
    """{injection: {precision: figures}} of networks drawn with one seed."""
    dev = resolve_device(device)
    found: dict[str, dict[str, dict]] = {}
    for name, style in CASES.items():
        cfg = dataclasses.replace(get_preset("mnist-stylegan2").config, g_arch="skip", **style)
        torch.manual_seed(0)
        G, D = (net.eval().requires_grad_(False).to(dev) for net in build_networks(cfg, DATASET))
        snapshot = Snapshot(Path(name), G, D, cfg.to_dict(), DATASET, name, 0, name)
        result = report(snapshot, device=str(dev), pairs=pairs, batch=batch, rounds=rounds)
        found[name] = {row.precision: dataclasses.asdict(row) for row in result.images}
    return {"device": str(dev), "pairs": pairs, "batch": batch, "cases": found}


def table(result: dict) -> str:
    """Largest and mean difference, PSNR, distances from float64 and times, as Markdown."""
    lines = [
        "| injection | precision | max abs | PSNR, dB | from float64, fused / unfused | ms, in this order |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in result["cases"].items():
        for precision in PRECISIONS:
            if precision in rows:
                row = ImagesRow(**rows[precision])
                lines.append(
                    f"| {name} | {precision} | {row.max_abs:.1e} | {row.psnr:.0f} | "
                    f"{row.error_fused:.1e} / {row.error_unfused:.1e} | "
                    f"{row.milliseconds_fused:.0f} / {row.milliseconds_unfused:.0f} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.injections", description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--pairs", type=int, default=20)
    args = parser.parse_args()
    set_threads(args.threads)
    result = run(device=args.device, pairs=args.pairs)
    print(table(result))
    print(f"wrote {write_result('injections', result)}")


if __name__ == "__main__":
    main()
