"""`python -m benchmarks [NAME ...]`: run, print tables, write benchmarks/results/<name>.json."""

import argparse
import importlib
from pathlib import Path

from benchmarks.machine import write_result

BENCHMARKS = (
    "training",
    "peer",
    "busy",
    "presets",
    "losses",
    "frechet",
    "fid_error",
    "kid",
    "neighbours",
    "detectors",
    "inception",
    "one_pass",
    "at_scale",
    "checkpoints",
    "again",
    "known",
    "verdicts",
    "growth",
    "hostile",
    "faults",
    "attfind",
    "sufficiency",
)
OPTIONS = {
    "peer": ("peer", "only"),
    "one_pass": ("files",),
    "known": ("files",),
    "detectors": ("images", "only"),
    "sufficiency": ("images",),
    "faults": ("kills", "inputs", "every", "seed", "parts", "only"),
}  # of one benchmark alone


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which ones, of {', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--seconds", type=float, default=20.0, help="about this long per case")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--kills", type=int, help="faults: how many kills; default 20, 100 are published")
    parser.add_argument("--inputs", type=int, help="faults: bad inputs per kind of file; default 1000")
    parser.add_argument("--every", type=int, help="faults: a full disk at every n-th write; default 1")
    parser.add_argument("--seed", type=int, help="faults: of kills and inputs; default 0")
    parser.add_argument("--files", type=int, help="one_pass, known: how many; default 5000 of each, 2000")
    parser.add_argument(
        "--images",
        type=int,
        help="detectors: how many a level; sufficiency: how many are searched; into NAME-IMAGES.json",
    )
    parser.add_argument("--only", help="detectors, faults: names with commas between; peer: fp32 or bf16")
    parser.add_argument("--minutes", type=float, default=8.0, help="gpu: at most this long")
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark"), help="gpu: folder of its tables")
    parser.add_argument("--parts", help="gpu, faults: these alone, by names with commas between")
    parser.add_argument("--peer", type=Path, help="peer, gpu: checkout of NVlabs/stylegan2-ada-pytorch")
    args = parser.parse_args()
    if args.peer and not (args.peer / "training" / "networks.py").exists():
        parser.error(f"--peer {args.peer}: no stylegan2-ada-pytorch, training/networks.py is missing")
    if args.names == ["gpu"]:
        from benchmarks import gpu

        parts = tuple(name for name in (args.parts or "").split(",") if name)
        known = [part.name for part in gpu.PARTS]
        if unknown := [name for name in parts if name not in known]:
            parser.error(f"--parts {unknown[0]}: no such part; there are {', '.join(known)}")
        options = dict(minutes=args.minutes, out=args.out, device=args.device, parts=parts, peer=args.peer)
        print(gpu.table(gpu.run(**options)))
        return
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    if "peer" in args.names and not args.peer:
        parser.error("peer: needs a checkout of NVlabs/stylegan2-ada-pytorch; give --peer DIR")
    every = [name for name in BENCHMARKS if name != "peer" or args.peer]  # a checkout is fetched by hand
    for name in args.names or every:
        module = importlib.import_module(f"benchmarks.{name}")
        own = {option: getattr(args, option) for option in OPTIONS.get(name, ()) if getattr(args, option)}
        result = module.run(seconds=args.seconds, device=args.device, threads=args.threads, **own)
        if hasattr(module, "publish"):
            result = module.publish(result)
        print(module.table(result))
        named = module.result_name(result) if hasattr(module, "result_name") else name
        write_result(f"{named}-{args.images}" if "images" in own else named, result)


if __name__ == "__main__":
    main()
