"""What a sweep shows on stderr: a live table on a terminal, one line per event in a log."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from fact_train.sweeps.plan import PlannedRun
from fact_train.sweeps.progress import last_tick
from fact_train.sweeps.worker import Outcome

LINE_SECONDS = 30.0  # between two lines about progress in a log
SHOWN_ENDED = 5


class Lines:
    """A Watcher that writes a line per event."""

    def __init__(self, *, total: int, finished: int) -> None:
        from rich.console import Console

        self._console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._total, self._finished, self._failed = total, finished, 0
        self._started = time.monotonic()

    def say(self, line: str) -> None:
        """One line that stays."""
        self._console.print(line, markup=False)

    def started(self, run: Any) -> None:
        self.say(f"start   {run.name}")

    def ended(self, run: Any, outcome: Outcome) -> None:
        self._count(outcome)
        self.say(self._line(run, outcome))

    def look(self, running: Sequence[Any]) -> None:
        pass

    def _count(self, outcome: Outcome) -> None:
        self._finished += outcome.ok
        self._failed += not (outcome.ok or outcome.stopped)

    def _line(self, run: Any, outcome: Outcome) -> str:
        why = "" if outcome.ok or outcome.stopped else f": {outcome.reason}"
        return f"{_word(outcome):<7} {run.name} in {outcome.seconds:.0f} s{why} ({self._counts()})"

    def _counts(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._finished} of {self._total} finished{failed}"


class Display(Lines):
    """A Watcher of training runs: a live table on a terminal. Use it as a context manager."""

    def __init__(self, *, total: int, finished: int) -> None:
        super().__init__(total=total, finished=finished)
        self._ended: list[tuple[str, str]] = []
        self._said = self._started
        self._live = None

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, run: PlannedRun) -> None:
        if self._live is None:
            super().started(run)

    def ended(self, run: PlannedRun, outcome: Outcome) -> None:
        self._ended.append((_word(outcome), run.name))
        self._count(outcome)
        if self._live is None or not (outcome.ok or outcome.stopped):
            self.say(self._line(run, outcome))

    def look(self, running: Sequence[PlannedRun]) -> None:
        if self._live is not None:
            self._live.update(self._table(running), refresh=True)
        elif running and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            ticks = [last_tick(run.outdir) or {} for run in running]
            rates = [tick.get("Timing/img_per_sec", 0.0) for tick in ticks]
            self.say(
                f"running {len(running)}, {sum(rates):,.0f} img/s at their last ticks; {self._counts()}, "
                f"{(time.monotonic() - self._started) / 60:.1f} min"
            )

    def _table(self, running: Sequence[PlannedRun]):
        from rich.table import Table

        minutes = (time.monotonic() - self._started) / 60
        table = Table(title=f"{self._counts()}, {minutes:.1f} min", title_justify="left", box=None)
        for name in ("run", "kimg", "img/s", "state"):
            table.add_column(name, justify="left" if name in ("run", "state") else "right", no_wrap=True)
        room = max(self._console.height - 5, 4)
        for word, name in self._ended[-min(SHOWN_ENDED, room // 3) :]:
            table.add_row(name, "", "", word)
        for run in running[: room - SHOWN_ENDED]:
            tick = last_tick(run.outdir) or {}
            table.add_row(
                run.name,
                f"{tick.get('nimg', 0) / 1000:.1f} / {run.config.kimg:g}",
                f"{tick['Timing/img_per_sec']:.0f}" if "Timing/img_per_sec" in tick else "",
                "scoring" if tick and tick["nimg"] >= run.config.kimg * 1000 else "training",
            )
        return table


def _word(outcome: Outcome) -> str:
    return "done" if outcome.ok else "stopped" if outcome.stopped else "FAILED"
