"""A search: trials are ordinary runs, scored while they train; bad ones end early."""

import math
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fact_leaderboard.records import RESULTS, read_records
from fact_metrics.base.errors import UserError
from fact_metrics.base.processes import describe_error
from fact_train.run_folder import DIVERGED_FILE, list_snapshots
from fact_train.sweeps.plan import Plan, PlannedRun, add_setting
from fact_train.sweeps.search import COMPLETE, DIVERGED, FAILED, PRUNED, Search, Trial
from fact_train.sweeps.space import Dimension
from fact_train.sweeps.sweep import LOGS, LOOK, Watcher, Work, caught_signals, make_task, threads_environment
from fact_train.sweeps.worker import Outcome, run_task, worker_command


@dataclass(frozen=True)
class Goal:
    """What is searched: a preset with fixed changes, a space, and the metric at the end of `kimg`."""

    preset: str
    changes: Mapping[str, Any]
    space: tuple[Dimension, ...]
    metric: str
    seed: int
    every_kimg: float
    root: Path

    def head(self) -> dict[str, Any]:
        """The first line of the journal: a search with another one is another search."""
        fixed = {name: value for name, value in self.changes.items() if name not in MACHINE}
        return {
            "preset": self.preset,
            "changes": fixed,
            "space": [[d.name, d.text] for d in self.space],
            "metric": self.metric,
            "seed": self.seed,
        }

    def run_of(self, trial: Trial) -> PlannedRun:
        """The run of a trial. UserError where its settings contradict each other."""
        setting = {d.name: d.value(trial.chosen[d.name]) for d in self.space}
        plan = Plan([])
        add_setting(plan, self.preset, {**self.changes, **setting}, setting, (self.seed,), self.root)
        if plan.problems:
            raise UserError(plan.problems[0])
        return plan.runs[0]

    def command(self, run: PlannedRun) -> list[str]:
        """fact-train with scoring during training."""
        return [*run.command(), f"--eval={self.metric}", f"--eval-kimg={self.every_kimg:g}"]

    def values(self, run: PlannedRun) -> dict[int, float]:
        """The metric by thousand images, as far as the run is scored."""
        found = [r for r in read_records(run.outdir / RESULTS) if r.metric == self.metric and r.seed == 0]
        return {
            int(r.kimg): r.value
            for r in found
            if r.status == "ok" and r.value is not None and r.kimg is not None and math.isfinite(r.value)
        }


MACHINE = ("device", "threads")  # fields that may change between two starts


@dataclass
class _Running:
    trial: Trial
    run: PlannedRun
    halt_file: Path
    started: bool = False
    pruned: bool = False


@dataclass
class Tuning:
    """The loop of a search: `jobs` trials at a time until `trials` have ended."""

    goal: Goal
    search: Search
    executor: Executor
    watcher: Watcher
    jobs: int
    trials: int
    running: dict[Future, _Running] = field(default_factory=dict)

    def run(self, seconds: float | None = None) -> int:
        """The signal that stopped it, 0 without one; `open_trials` of the search are those left."""
        logs = (Path(self.goal.root) / LOGS).resolve()
        logs.mkdir(parents=True, exist_ok=True)
        stop_file = logs / f".stop-tune-{time.time_ns()}"
        end = None if seconds is None else time.monotonic() + seconds
        again = self.search.open_trials
        with caught_signals() as caught, self.executor:
            try:
                while True:
                    stop = bool(caught) or (end is not None and time.monotonic() > end)
                    if stop and not stop_file.exists():
                        stop_file.touch()
                    while not stop and len(self.running) < self.jobs and self._left(again):
                        trial = self.search.resume(again.pop(0)) if again else self.search.ask()
                        self._start(trial, logs, stop_file)
                    if not self.running:
                        return caught[0] if caught else 0
                    ended, _ = wait(self.running, timeout=LOOK, return_when=FIRST_COMPLETED)
                    for entry in self.running.values():
                        self._look(entry)
                    for future in ended:
                        self._settle(self.running.pop(future), future)
                    self.watcher.look([e.run for f, e in self.running.items() if f.running()])
            finally:
                stop_file.touch()
                for future in self.running:
                    future.cancel()
                self.executor.shutdown(wait=True)
                stop_file.unlink()

    def _left(self, again: list[Trial]) -> bool:
        return bool(again) or len(self.search.trials) < self.trials

    def _start(self, trial: Trial, logs: Path, stop_file: Path) -> None:
        try:
            run = self.goal.run_of(trial)
        except UserError as error:
            self.search.tell(trial, FAILED, why=str(error))
            return
        if not trial.name:
            self.search.named(trial, run.name)
        halt_file = logs / f"{run.name}.prune"
        halt_file.unlink(missing_ok=True)
        work = Work(
            run,
            worker_command("fact_train", self.goal.command(run)),
            run.outdir.resolve(),
            threads_environment(run.config.threads),
        )
        future = self.executor.submit(run_task, make_task(work, logs, stop_file, halt_file=halt_file))
        self.running[future] = _Running(trial, run, halt_file)
        self.watcher.started(run)

    def _look(self, entry: _Running) -> None:
        """Report what the run has scored since the last look, and end a run that is not worth going on."""
        final = int(entry.run.config.kimg)
        for kimg, value in sorted(self.goal.values(entry.run).items()):
            if kimg in entry.trial.steps:
                continue
            prune = self.search.report(entry.trial, kimg, value)
            if prune and kimg < final and not entry.pruned:
                entry.pruned = True
                entry.halt_file.touch()

    def _settle(self, entry: _Running, future: Future) -> None:
        entry.halt_file.unlink(missing_ok=True)
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            self.search.tell(entry.trial, FAILED, why=describe_error(error))
            return
        outcome: Outcome = future.result()
        self.watcher.ended(entry.run, outcome)
        if outcome.ok:
            last = int(list_snapshots(entry.run.outdir)[-1].stem.rpartition("-")[2])
            value = self.goal.values(entry.run).get(last)
            if value is None:
                self.search.tell(entry.trial, FAILED, why=f"no record of {self.goal.metric}")
            else:
                self.search.tell(entry.trial, COMPLETE, value)
        elif outcome.stopped and entry.pruned:
            self.search.tell(entry.trial, PRUNED)
        elif outcome.stopped:  # told to stop: the same command continues it
            return
        elif (entry.run.outdir / DIVERGED_FILE).exists():
            self.search.tell(entry.trial, DIVERGED, why=outcome.reason)
        else:
            self.search.tell(entry.trial, FAILED, why=outcome.reason)
