"""What the rest of a plan costs: time and disk, from the runs that are there. No torch."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fact_train.settings.presets import get_preset
from fact_train.sweeps.plan import PlannedRun
from fact_train.sweeps.progress import PARTIAL, TRAINED, Progress, last_tick

# A run on one thread takes this many times the minutes of the same run on two cores: two of them side by
# side make about 1.4 times the images of one run with two threads.
ONE_THREAD = 2 / 1.4
SIZED = 20  # finished folders whose size is read


@dataclass(frozen=True)
class Estimate:
    """Expected cost of the runs that are due."""

    kimg: float
    minutes: float | None  # on one worker; None: no speed is known
    measured: int  # runs whose speed was read
    run_mb: float | None  # of one finished folder
    runs: int

    def describe(self, jobs: int) -> list[str]:
        """Lines of a dry run."""
        source = f"the speed of {self.measured} runs here" if self.measured else "the minutes of the presets"
        time = "time: unknown until one run has trained here"
        if self.minutes is not None:
            time = f"time: about {self.minutes / jobs:.0f} min with {jobs} jobs, from {source}"
        disk = "disk: unknown until one run has finished here"
        if self.run_mb is not None:
            disk = f"disk: about {self.run_mb * self.runs / 1000:.1f} GB, {self.run_mb:.0f} MB per run"
        return [f"left: {self.runs} runs, {self.kimg:,.0f} kimg", time, disk]


def estimate(
    due: Sequence[PlannedRun], runs: Iterable[PlannedRun], progress: Mapping[str, Progress]
) -> Estimate:
    """Cost of the `due` among all `runs`. Scoring is not counted.

    The speed is the median of the runs of the same preset, otherwise of all, otherwise that of the preset.
    """
    speeds: dict[str, list[float]] = {}
    sizes: list[float] = []
    for run in runs:
        state = progress[run.name].state
        tick = last_tick(run.outdir) if state in (PARTIAL, TRAINED) else None
        if "Timing/sec_per_kimg" in (tick or {}):
            speeds.setdefault(run.preset, []).append(tick["Timing/sec_per_kimg"])
        if state == TRAINED and len(sizes) < SIZED:
            sizes.append(sum(p.stat().st_size for p in run.outdir.iterdir() if p.is_file()) / 1e6)
    measured = [speed for each in speeds.values() for speed in each]
    kimg = [max(run.config.kimg - progress[run.name].kimg, 0.0) for run in due]
    rates = [_sec_per_kimg(run, speeds.get(run.preset, measured)) for run in due]
    minutes = None if None in rates else sum(a * b for a, b in zip(kimg, rates, strict=True)) / 60
    size = statistics.median(sizes) if sizes else None
    return Estimate(sum(kimg), minutes, len(measured), size, len(due))


def _sec_per_kimg(run: PlannedRun, measured: Sequence[float]) -> float | None:
    if measured:
        return statistics.median(measured)
    preset = get_preset(run.preset)
    if preset.minutes is None or run.config.device.startswith("cuda"):
        return None
    return ONE_THREAD * preset.minutes * 60 / preset.config.kimg
