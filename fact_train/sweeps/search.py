"""The trials of a search in a journal, and Optuna's choice of the next one. One process drives a search.

The journal is a file of JSON lines. Optuna's study is built from it anew at every start, in memory.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fact_metrics.base.errors import UsageError, UserError
from fact_train.sweeps.space import Dimension

JOURNAL = "tune.jsonl"
# How a trial ends. A diverged one counts as worse than all others, a failed one does not count.
COMPLETE, PRUNED, DIVERGED, FAILED = "complete", "pruned", "diverged", "failed"
STARTUP = 5  # trials before the search prunes, or chooses by what it has seen


@dataclass
class Trial:
    """One configuration: what was chosen, the metric by thousand images, and how it ended."""

    number: int
    chosen: dict[str, Any]
    steps: dict[int, float] = field(default_factory=dict)
    state: str | None = None  # None: it runs, or was interrupted
    value: float | None = None
    name: str = ""  # of the run folder
    why: str = ""


class Search:
    """Trials that follow from those before. `head` fixes what is searched; another journal is refused."""

    def __init__(
        self, folder: Path, head: Mapping[str, Any], space: Sequence[Dimension], *, maximize: bool
    ) -> None:
        self._file = Path(folder) / JOURNAL
        self._space, self._maximize = space, maximize
        self.trials: dict[int, Trial] = {}
        self._asked: dict[int, Any] = {}  # Optuna's trials
        self._read(dict(head))
        self._study = self._open()

    @property
    def open_trials(self) -> list[Trial]:
        """Trials that were started and have not ended."""
        return [trial for trial in self.trials.values() if trial.state is None]

    def ended(self) -> list[Trial]:
        """Trials that have ended, the best first; those without a value last."""
        done = [trial for trial in self.trials.values() if trial.state is not None]
        sign = -1 if self._maximize else 1

        def key(trial: Trial) -> tuple:
            known = trial.state == COMPLETE
            return (not known, sign * trial.value if known else trial.number)

        return sorted(done, key=key)

    def ask(self) -> Trial:
        """The next trial."""
        asked = self._study.ask({d.name: d.distribution() for d in self._space})
        return self._begin(asked, Trial(len(self.trials), dict(asked.params)))

    def resume(self, trial: Trial) -> Trial:
        """An open trial of an earlier start, which is asked of Optuna again."""
        self._study.enqueue_trial(trial.chosen)
        asked = self._study.ask({d.name: d.distribution() for d in self._space})
        self._asked[trial.number] = asked
        for kimg, value in trial.steps.items():
            asked.report(value, kimg)
        return trial

    def report(self, trial: Trial, kimg: int, value: float) -> bool:
        """Note the metric during training; whether the trial is not worth going on."""
        trial.steps[kimg] = value
        self._write({"trial": trial.number, "kimg": kimg, "value": value})
        asked = self._asked[trial.number]
        asked.report(value, kimg)
        return asked.should_prune()

    def tell(self, trial: Trial, state: str, value: float | None = None, why: str = "") -> None:
        """End a trial."""
        from optuna.trial import TrialState

        trial.state, trial.value, trial.why = state, value, why
        self._write({"trial": trial.number, "state": state, "value": value, "why": why})
        asked = self._asked.pop(trial.number)
        if state == COMPLETE:
            self._study.tell(asked, value)
        else:
            self._study.tell(asked, state=TrialState.FAIL if state == FAILED else TrialState.PRUNED)

    def named(self, trial: Trial, name: str) -> None:
        """Note the run folder of a trial."""
        trial.name = name
        self._write({"trial": trial.number, "run": name})

    def _begin(self, asked: Any, trial: Trial) -> Trial:
        self.trials[trial.number] = trial
        self._asked[trial.number] = asked
        self._write({"trial": trial.number, "chosen": trial.chosen})
        return trial

    def _open(self) -> Any:
        """Optuna's study with all ended trials. Its seed moves on, so that a start repeats no choice."""
        import optuna
        from optuna.trial import TrialState, create_trial

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize" if self._maximize else "minimize",
            sampler=optuna.samplers.TPESampler(
                seed=len(self.trials), n_startup_trials=STARTUP, constant_liar=True
            ),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
        )
        states = {COMPLETE: TrialState.COMPLETE, FAILED: TrialState.FAIL}
        for trial in self.trials.values():
            if trial.state is not None:
                study.add_trial(
                    create_trial(
                        state=states.get(trial.state, TrialState.PRUNED),
                        value=trial.value if trial.state == COMPLETE else None,
                        params=trial.chosen,
                        distributions={d.name: d.distribution() for d in self._space},
                        intermediate_values={} if trial.state == FAILED else trial.steps,
                    )
                )
        return study

    def _read(self, head: dict[str, Any]) -> None:
        if not self._file.exists():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._write(head)
            return
        lines = self._file.read_bytes().split(b"\n")
        if lines[-1]:  # torn by a kill
            os.truncate(self._file, sum(len(line) + 1 for line in lines[:-1]))
        try:
            there, *events = [json.loads(line) for line in lines[:-1]]
            for name, value in head.items():
                if there.get(name) != value:
                    raise UsageError(
                        f"{self._file} is of another search: {name} is {there.get(name)} there and {value} "
                        "here. Choose another --runs."
                    )
            for event in events:
                self._apply(event)
        except (ValueError, KeyError) as error:
            raise UserError(f"{self._file} is damaged ({error!r}); choose another --runs.") from error

    def _apply(self, event: dict[str, Any]) -> None:
        number = event["trial"]
        if "chosen" in event:
            self.trials[number] = Trial(number, event["chosen"])
        elif "run" in event:
            self.trials[number].name = event["run"]
        elif "kimg" in event:
            self.trials[number].steps[event["kimg"]] = event["value"]
        else:
            trial = self.trials[number]
            trial.state, trial.value, trial.why = event["state"], event["value"], event["why"]

    def _write(self, event: Mapping[str, Any]) -> None:
        with open(self._file, "ab") as file:
            file.write(json.dumps(event).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
