"""TRACKERS: services that a run's ticks and pictures are sent to with --log-to, beside TensorBoard.

Project and server come from the variables that each service reads, such as WANDB_PROJECT or
MLFLOW_TRACKING_URI. A resumed run goes on in its entry there.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from fact_metrics.base.errors import UserError
from fact_metrics.base.extras import need
from fact_metrics.base.processes import describe_error

PROJECT = "fact-stylegan"
TAG = "fact.run"  # by which MLflow finds the entry of a resumed run


@dataclass(frozen=True)
class Tracked:
    """What is told of a run at its start."""

    name: str
    folder: Path
    config: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The same for every start in this folder."""
        return hashlib.sha256(f"{self.name} {Path(self.folder).resolve()}".encode()).hexdigest()[:16]


class Tracker(Protocol):
    """One run at a service."""

    def write(self, values: Mapping[str, float], *, kimg: int) -> None: ...

    def image(self, name: str, pixels: Tensor, *, kimg: int) -> None: ...

    def close(self) -> None: ...


class WandbTracker:
    """Weights & Biases; WANDB_MODE=offline keeps everything in the run folder."""

    def __init__(self, run: Tracked) -> None:
        self._wandb = need("wandb", "wandb", "--log-to wandb")
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.key,
            name=run.name,
            dir=str(run.folder),
            config=dict(run.config),
            resume="allow",
            settings=self._wandb.Settings(silent=True),
        )
        self._run.define_metric("*", step_metric="kimg")

    def write(self, values: Mapping[str, float], *, kimg: int) -> None:
        self._run.log({**values, "kimg": kimg})

    def image(self, name: str, pixels: Tensor, *, kimg: int) -> None:
        self._run.log({name: self._wandb.Image(_rows(pixels)), "kimg": kimg})

    def close(self) -> None:
        self._run.finish()


class MlflowTracker:
    """MLflow, at the server or folder of MLFLOW_TRACKING_URI."""

    def __init__(self, run: Tracked) -> None:
        mlflow = need("mlflow", "mlflow", "--log-to mlflow")
        self._metric = mlflow.entities.Metric
        self._client = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        found = self._client.search_runs([place], f"tags.`{TAG}` = '{run.key}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._client.create_run(place, run_name=run.name, tags={TAG: run.key}).info.run_id
        parameters = [mlflow.entities.Param(key, str(value)) for key, value in run.config.items()]
        for start in range(0, len(parameters), 100):  # most that one call takes
            self._client.log_batch(self._id, params=parameters[start : start + 100])

    def write(self, values: Mapping[str, float], *, kimg: int) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._id, metrics=[self._metric(name, value, now, kimg) for name, value in values.items()]
        )

    def image(self, name: str, pixels: Tensor, *, kimg: int) -> None:
        self._client.log_image(self._id, _rows(pixels), artifact_file=f"{name}{kimg:06d}.png")

    def close(self) -> None:
        self._client.set_terminated(self._id)


TRACKERS: dict[str, Callable[[Tracked], Tracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker}
_MODULES = {"wandb": "wandb", "mlflow": "mlflow"}


def check_tracker(name: str) -> None:
    """UsageError before training where the service's package is missing."""
    if name in _MODULES:
        need(_MODULES[name], name, f"--log-to {name}")


class SafeTracker:
    """A tracker whose failures end the logging and not the training: one line says so.

    UserError where it cannot be opened.
    """

    def __init__(self, name: str, run: Tracked, say: Callable[[str], None]) -> None:
        self._name, self._say = name, say
        try:
            self._tracker: Tracker | None = TRACKERS[name](run)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"--log-to {name} cannot be opened: {describe_error(error)}") from error

    def call(self, method: str, *values: Any, **named: Any) -> None:
        """One method of the tracker."""
        if self._tracker is None:
            return
        try:
            getattr(self._tracker, method)(*values, **named)
        except Exception as error:
            self._tracker = None
            self._say(
                f"warning: --log-to {self._name} failed and is left out from here: {describe_error(error)}"
            )


def _rows(pixels: Tensor) -> Any:
    """A [C, H, W] uint8 picture as the array [H, W, 3] that services take."""
    return pixels.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
