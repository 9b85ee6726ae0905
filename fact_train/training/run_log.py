"""Messages of a run: a progress bar on a terminal; a fixed-column line per tick in log.txt and on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from fact_metrics.base.plain_text import for_terminal


class RunLog:
    """Writes to stderr and log.txt; disabled in all processes but rank 0."""

    def __init__(self, outdir: Path, *, enabled: bool) -> None:
        self.enabled = enabled
        self.started = time.perf_counter()
        self.log = Path(outdir) / "log.txt"
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        self._task = None

    def say(self, line: str) -> None:
        """One line on stderr and in the log."""
        if not self.enabled:
            return
        line = for_terminal(line)
        self.console.print(line, markup=False)
        with open(self.log, "a", encoding="utf-8") as f:
            f.write(line + "\n")

    @contextmanager
    def live(self, *, target: int, done: int) -> Iterator[None]:
        """Show a progress bar while the block runs, where stderr is a terminal."""
        if not (self.enabled and self.console.is_terminal):
            yield
            return
        columns = (
            SpinnerColumn(),
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=self.console) as self._bar:
            self._task = self._bar.add_task("training", total=target, completed=done)
            try:
                yield
            finally:
                self._bar = None

    def advance(self, nimg: int) -> None:
        """Move the progress bar to `nimg` images."""
        if self._bar is not None:
            self._bar.update(self._task, completed=nimg)


def tick_line(tick: int, nimg: int, stats: dict, timing: dict) -> str:
    """The fixed-column line of a tick; terms that did not run in this tick show a dash."""

    def mean(name: str) -> str:
        return f"{stats[name]['mean']:7.3f}" if name in stats else "      -"

    more = f"p {mean('Augment/p')} r_t {mean('Augment/r_t')} " if "Augment/p" in stats else ""
    if "Loss/kl" in stats:
        more += f"rec {mean('Loss/rec')} kl {mean('Loss/kl')} agree {mean('Class/agreement')} "
    return (
        f"tick {tick:<5d} kimg {nimg / 1000:<9.1f} sec/kimg {timing['Timing/sec_per_kimg']:<7.2f} "
        f"img/s {timing['Timing/img_per_sec']:<7.0f} G {mean('Loss/G')} D {mean('Loss/D')} "
        f"r1 {mean('Loss/r1_penalty')} pl {mean('Path_length')} {more}"
        f"mem {timing['Resources/peak_mem_gb']:.2f} GiB"
    )
