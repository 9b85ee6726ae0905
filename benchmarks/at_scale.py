"""What `fact-eval all` asks of eight GPUs and their disk for 1,000 checkpoints of 50,000 images.

`python -m benchmarks at_scale` measures nothing. Counts of bytes and files are exact: tests/test_at_scale.py
compares them with a small real evaluation. Seconds are simulated from unit costs that other benchmarks have
recorded, most of them on a CPU (`units`). A network on a GPU is taken to be SPEEDUPS times as fast as there.
Two ways are compared: one torchrun of all GPUs, and `--executor` with one process per GPU and run.
"""

import heapq
import json
from dataclasses import dataclass
from typing import Any

from benchmarks.machine import RESULTS
from fact_eval.features.store import CHUNK
from fact_leaderboard.columns import COLUMNS
from fact_metrics.features import get_detector
from fact_metrics.registry import get_specs

CHECKPOINTS, IMAGES, GPUS, RUNS = 1000, 50_000, 8, 50
PAIRS = 50_000  # of path length, two images each
FLOAT = 4  # bytes
DETECTORS = 4  # that see every image, each at the cost of an Inception
SPEEDUPS = (30, 100, 300)
# Forward passes in a training step, where G and D cost the same and backward costs two: G's phase has a pass
# of both with gradients, D's one of G without and two of D with gradients.
PASSES = 6 + 1 + 6
START_UP = 10.0  # seconds of a process: imports, the GPU, the data


@dataclass(frozen=True)
class Volume:
    """What the features of one source are: rows in chunks, a file per chunk and detector."""

    stored: int  # bytes of features in the store
    files: int  # of chunks
    sent: int  # bytes that reach rank 0 from other ranks
    reduced: int  # bytes that would, if every rank sent all rows


def widths() -> dict[str, int]:
    """The columns of every detector that sees all images for the board's standard metrics."""
    metrics = [column.metric for column in COLUMNS if column.protocol == "standard"]
    needs = [need for spec in get_specs(metrics) for need in spec.needs if need.count == IMAGES]
    return {need.detector: get_detector(need.detector, "cpu").width for need in needs}


def volume(images: int, widths: dict[str, int], *, ranks: int = 1, chunk: int = CHUNK) -> Volume:
    """The volume of one source; chunks are dealt to the ranks in turn."""
    sizes = [min(chunk, images - start) for start in range(0, images, chunk)]
    per_image = sum(widths.values()) * FLOAT
    own = sum(sizes[::ranks]) * per_image  # those of rank 0
    stored = images * per_image
    return Volume(stored, len(sizes) * len(widths), stored - own, (ranks - 1) * stored)


@dataclass(frozen=True)
class Costs:
    """Seconds of one checkpoint: its images and detectors on one GPU, and what one process does alone."""

    networks: float
    path_length: float
    statistics: float
    real_side: float  # of a process, once


def units() -> dict[str, float]:
    """Seconds of the units, from the published results files."""
    inception, neighbours, frechet = (_read(name) for name in ("inception", "neighbours", "frechet"))
    seconds = {case["work"]: _middle(case["ours_seconds"]) / case["count"] for case in inception["cases"]}
    fid = frechet["cases"]["d = 2048, n = 10000"]
    training = _read("gpu-h200")["parts"]["training"]["results"]
    (image,) = (r for r in training if (r["preset"], r["precision"]) == ("auto", "tf32"))
    return {
        "network": seconds["Inception pool3, 64 images of 256 px"],  # an image through one detector, CPU
        "pair": seconds["LPIPS-VGG, 8 pairs of 128 px"],  # a pair of path length, CPU
        "generation": 1 / image["img_per_sec"] / PASSES,  # an image of 256 px, GPU
        "neighbours": neighbours["memory"]["seconds"],  # precision and recall of 50,000 x 4,096, CPU
        "statistics": fid["statistics_seconds"] * IMAGES / 10_000 / 2,  # of one side, linear in the images
        "distance": _middle(fid["peers"]["torch-fidelity"]["ours_seconds"]),
    }


def costs(unit: dict[str, float], speedup: float) -> Costs:
    """Seconds on a GPU on which networks and products are `speedup` times as fast as on the recorded CPU."""
    networks = IMAGES * (unit["generation"] + DETECTORS * unit["network"] / speedup)
    path_length = PAIRS * (2 * unit["generation"] + unit["pair"] / speedup)
    neighbours = unit["neighbours"] / speedup
    # FID twice (two Inceptions); the real side's radii are half of the neighbours
    statistics = 2 * (unit["statistics"] + unit["distance"]) + neighbours / 2
    return Costs(networks, path_length, statistics, 2 * unit["statistics"] + neighbours / 2)


def simulate_torchrun(cost: Costs, *, checkpoints: int, gpus: int) -> dict[str, float]:
    """All GPUs share images and pairs of a checkpoint; one computes its statistics while the others wait."""
    shared, alone = cost.networks + cost.path_length, cost.statistics
    total = START_UP + cost.real_side + checkpoints * (shared / gpus + alone)
    busy = START_UP * gpus + cost.real_side + checkpoints * (shared + alone)
    return {"hours": total / 3600, "busy": busy / (gpus * total), "alone": checkpoints * alone / total}


def simulate_executor(cost: Costs, *, checkpoints: int, gpus: int, runs: int) -> dict[str, float]:
    """A process per run and GPU; the next run starts where one has ended. Each makes the real side again."""
    alone = cost.path_length + cost.statistics
    free = [0.0] * gpus
    busy = 0.0
    for run in range(runs):
        own = checkpoints // runs + (run < checkpoints % runs)
        task = START_UP + cost.real_side + own * (cost.networks + alone)
        busy += task
        heapq.heapreplace(free, free[0] + task)
    total = max(free)
    return {"hours": total / 3600, "busy": busy / (gpus * total), "alone": 0.0}


def run(*, seconds: float = 0.0, device: str = "auto", threads: int | None = None) -> dict[str, Any]:
    """Volumes, unit costs, and both ways for every speed-up; the arguments of other benchmarks do nothing."""
    unit = units()
    one = volume(IMAGES, widths(), ranks=GPUS)
    size = dict(checkpoints=CHECKPOINTS, gpus=GPUS)
    ways = {
        speedup: {
            "costs": vars(cost := costs(unit, speedup)),
            "torchrun": simulate_torchrun(cost, **size),
            "executor": simulate_executor(cost, **size, runs=RUNS),
        }
        for speedup in SPEEDUPS
    }
    return {
        "setting": {**size, "images": IMAGES, "runs": RUNS},
        "volume": vars(one),
        "units": unit,
        "ways": ways,
    }


def table(result: dict[str, Any]) -> str:
    """Volumes and both ways, as Markdown."""
    setting, one = result["setting"], result["volume"]
    count = setting["checkpoints"]
    terabytes = {name: one[name] * count / 1e12 for name in ("stored", "sent", "reduced")}
    lines = [
        "| features | one checkpoint | all |",
        "|---|---|---|",
        f"| in the store | {one['stored'] / 1e9:.2f} GB | {terabytes['stored']:.2f} TB |",
        f"| files in the store | {one['files']:,} | {one['files'] * count:,} |",
        f"| torchrun: sent to rank 0 | {one['sent'] / 1e9:.2f} GB | {terabytes['sent']:.2f} TB |",
        f"| the same as a sum over ranks | {one['reduced'] / 1e9:.1f} GB | {terabytes['reduced']:.1f} TB |",
        f"| `--executor`: real features read | – | {one['stored'] * setting['runs'] / 1e12:.2f} TB |",
        "",
        "| networks on a GPU | way | hours | GPUs busy | one works, all wait | store, MB/s | files/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for speedup, ways in result["ways"].items():
        for way in ("torchrun", "executor"):
            found = ways[way]
            rate = count / (found["hours"] * 3600)
            lines.append(
                f"| {speedup}x | {way} | {found['hours']:.0f} | {found['busy']:.0%} | {found['alone']:.0%} | "
                f"{one['stored'] * rate / 1e6:.0f} | {one['files'] * rate:.0f} |"
            )
    return "\n".join(lines)


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
