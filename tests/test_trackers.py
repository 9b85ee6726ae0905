"""--log-to: what arrives at a real MLflow server and in W&B's offline files, and what failures do."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from fact_metrics.base.errors import UsageError, UserError
from fact_train.settings.config import TrainConfig
from fact_train.training import trackers
from fact_train.training.loop import train


def run(config: TrainConfig, outdir: Path, **changes):
    return train(dataclasses.replace(config, **changes), outdir, preset="toy", label="toy")


def ticks(outdir: Path) -> list[dict]:
    return [json.loads(line) for line in (outdir / "stats.jsonl").read_text().splitlines()]


@pytest.fixture
def mlflow_server(tmp_path: Path, monkeypatch):
    """A server with its data in the test's folder."""
    mlflow = pytest.importorskip("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    store = [f"--backend-store-uri=sqlite:///{tmp_path}/db", f"--artifacts-destination={tmp_path}/artifacts"]
    log = open(tmp_path / "server.log", "w")
    server = subprocess.Popen(
        [*command, *store], stdout=log, stderr=log, cwd=tmp_path, start_new_session=True
    )
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 150
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2)
                break
            except OSError:
                assert time.monotonic() < end and server.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.5)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        mlflow.set_tracking_uri(url)
        yield mlflow.MlflowClient(url)
    finally:
        os.killpg(server.pid, 9)
        server.wait()
        log.close()


def test_an_mlflow_server_gets_every_tick_and_a_resumed_run_goes_on_in_its_entry(
    mlflow_server, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny_config, log_to="mlflow", kimg_per_tick=1.0, image_ticks=1)
    run(config, tmp_path / "r", kimg=1.0)
    run(config, tmp_path / "r", kimg=2.0)
    (experiment,) = mlflow_server.search_experiments(filter_string=f"name = '{trackers.PROJECT}'")
    (entry,) = mlflow_server.search_runs([experiment.experiment_id])
    assert entry.info.run_name.startswith("toy-seed0") and entry.info.status == "FINISHED"
    assert entry.data.params["r1_gamma"] == str(config.r1_gamma)
    written = ticks(tmp_path / "r")
    for name in ("Loss/D", "Timing/sec_per_kimg", "Progress/kimg"):
        history = mlflow_server.get_metric_history(entry.info.run_id, name)
        expected = [tick[name]["mean"] if isinstance(tick[name], dict) else tick[name] for tick in written]
        assert [metric.step for metric in history] == [1, 2]
        assert [metric.value for metric in history] == pytest.approx(expected)
    pictures = [file.path for file in mlflow_server.list_artifacts(entry.info.run_id)]
    assert pictures == ["fakes000001.png", "fakes000002.png"]


def test_wandb_offline_writes_into_the_run_folder(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = dataclasses.replace(tiny_config, log_to="wandb", kimg_per_tick=0.1, image_ticks=1)
    run(config, tmp_path / "r", kimg=0.2)
    (file,) = (tmp_path / "r").glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert content.count(b"Timing/sec_per_kimg") >= len(ticks(tmp_path / "r")) == 2
    assert list(file.parent.rglob("fakes*.png"))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_one_line_before_training(
    name: str, tiny_config: TrainConfig, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UsageError, match=rf"--log-to {name} needs {name}: pip install 'fact-stylegan\[{name}\]'"
    ):
        run(tiny_config, tmp_path / "r", log_to=name)
    assert not (tmp_path / "r").exists()


class Broken:
    """A service that fails at the second tick."""

    def __init__(self, run: trackers.Tracked) -> None:
        self.ticks = 0

    def write(self, values, *, kimg: int) -> None:
        self.ticks += 1
        if self.ticks == 2:
            raise ConnectionError("the server is gone")

    def image(self, name, pixels, *, kimg: int) -> None: ...

    def close(self) -> None: ...


def test_a_service_that_fails_is_left_out_and_training_continues(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("fact_train.training.loop.check_tracker", lambda name: None)
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Broken)
    result = run(tiny_config, tmp_path / "r", log_to="wandb")
    assert result.snapshot.exists()
    lines = (tmp_path / "r" / "log.txt").read_text().splitlines()
    assert [line for line in lines if "--log-to" in line] == [
        "warning: --log-to wandb failed and is left out from here: ConnectionError: the server is gone"
    ]
    plain = run(tiny_config, tmp_path / "plain")
    assert plain.snapshot.read_bytes() == result.snapshot.read_bytes()


def test_a_service_that_cannot_be_opened_is_one_line(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch
) -> None:
    def refuse(run):
        raise ConnectionError("no route")

    monkeypatch.setattr("fact_train.training.loop.check_tracker", lambda name: None)
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", refuse)
    with pytest.raises(UserError, match=r"--log-to mlflow cannot be opened: .*no route"):
        run(tiny_config, tmp_path / "r", log_to="mlflow")
