"""Progress for people, on stderr: live bars with time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fact_metrics.base.plain_text import for_terminal, lines_for_terminal

LINE_SECONDS = 20.0
PATIENCE = 2.0  # what is opened sooner is not worth a line


class Progress:
    """Says what is going on. `quiet` says nothing but `note`s."""

    def __init__(self, *, quiet: bool = False, stream=None):
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._live = not quiet and self._stream.isatty()
        self._bars = None

    def note(self, line: str) -> None:
        """One line that stays, or a traceback."""
        line = lines_for_terminal(line)
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self._stream, flush=True)

    def remark(self, line: str) -> None:
        """One line that stays, unless this is quiet."""
        if not self._quiet:
            self.note(line)

    @contextmanager
    def stage(
        self, title: str, total: int, *, unit: str = "images", patience: float = 0.0
    ) -> Iterator["Stage"]:
        """A piece of work of `total` units; the stage's `update(done)` moves it on.

        Done within `patience` seconds it leaves no line.
        """
        if self._live and self._bars is None:  # one bar at a time
            stage = self._bar(title, total, unit, patience)
        else:
            stage = Stage(self, title, total, unit, patience, quiet=self._quiet)
        try:
            yield stage
            stage.finish()
        finally:
            stage.close()

    @contextmanager
    def decoding(self, data: object) -> Iterator[Callable[[int, int], None]]:
        """What `open_dataset` calls while it decodes files; says nothing where that takes no time."""
        with self.stage(f"{data}, decoding", 1, patience=PATIENCE) as stage:
            yield stage.update

    def _bar(self, title: str, total: int, unit: str, patience: float) -> "Stage":
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(file=self._stream),
            transient=True,
        )
        self._bars = bars
        bars.start()
        return _BarStage(self, title, total, unit, patience, bars)


class Stage:
    """Progress of one piece of work as lines: a line every LINE_SECONDS, one when it is done."""

    def __init__(
        self, progress: Progress, title: str, total: int, unit: str, patience: float, *, quiet: bool = False
    ):
        self._progress, self._patience, self._quiet = progress, patience, quiet
        self._title, self._total, self._unit = title, total, unit
        self._started = self._said = time.monotonic()
        self.done = 0

    def update(self, done: int, total: int | None = None) -> None:
        """`done` units are done; a total given here replaces the first guess."""
        self.done, self._total = done, self._total if total is None else total
        now = time.monotonic()
        if now - self._said >= LINE_SECONDS and not self._quiet:
            self._said = now
            left = (now - self._started) / max(1, done) * (self._total - done)
            self._progress.note(
                f"{self._title}: {done:,} of {self._total:,} {self._unit}, about {left:.0f} s left"
            )

    def finish(self) -> None:
        """Say that it is done, with its time and rate."""
        seconds = time.monotonic() - self._started
        if not self._quiet and self._total > 1 and seconds >= self._patience:
            rate = f", {self._total / seconds:,.0f} {self._unit}/s" if seconds > 0 else ""
            self._progress.note(f"{self._title}: {self._total:,} {self._unit} in {seconds:.1f} s{rate}")

    def close(self) -> None:
        """Put away what the stage shows."""


class _BarStage(Stage):
    def __init__(self, progress: Progress, title: str, total: int, unit: str, patience: float, bars):
        super().__init__(progress, title, total, unit, patience)
        self._bars, self._task = bars, bars.add_task(for_terminal(title), total=total)

    def update(self, done: int, total: int | None = None) -> None:
        self.done, self._total = done, self._total if total is None else total
        self._bars.update(self._task, completed=done, total=self._total)

    def close(self) -> None:
        self._bars.stop()
        self._progress._bars = None
