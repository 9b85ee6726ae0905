"""`python -m benchmarks [NAME ...]`: run, print tables, write benchmarks/results/<name>.json."""

import argparse
import importlib
import json
import platform
import time
from pathlib import Path

import torch

BENCHMARKS = ("training",)
RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, object]:
    """Processor, core count and versions: what a figure depends on beside the code."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(names) or None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which ones, of {', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--seconds", type=float, default=20.0, help="about this long per case")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    for name in args.names or BENCHMARKS:
        module = importlib.import_module(f"benchmarks.{name}")
        result = module.run(seconds=args.seconds, device=args.device, threads=args.threads)
        print(module.table(result))
        result = {"machine": machine(), "date": time.strftime("%Y-%m-%d", time.gmtime()), **result}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
