"""`python -m benchmarks [NAME ...]`: run, print tables, write benchmarks/results/<name>.json."""

import argparse
import json
from pathlib import Path

from benchmarks import training

BENCHMARKS = {"training": training}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which ones; default all")
    parser.add_argument("--seconds", type=float, default=20.0, help="about this long per case")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    for name in args.names or BENCHMARKS:
        result = BENCHMARKS[name].run(seconds=args.seconds, device=args.device, threads=args.threads)
        print(BENCHMARKS[name].table(result))
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
