"""Study files and records of their runs, without training; imported by tests/test_studies*.py."""

import random
from collections.abc import Callable, Iterable
from pathlib import Path

from fact_leaderboard.records import Record
from fact_metrics.registry import get_spec
from fact_train.sweeps.study import Study, StudyRun

CLEAN = {"commit": "c" * 40, "dirty": False}
FID = "fid5k_full_efficientnet_lite0"
QUESTION = """
question = "Which R1 weight gives the best images?"
list = "injection"
source = "style experiments"
base = "mnist-stylegan2"
held_fixed = "Everything else."
primary = "fid5k_full_efficientnet_lite0"
relevant_difference = 25
"""
R1 = """
axis = "r1_gamma"
settings = [1, 100]
"""


def write_study(folder: Path, text: str = QUESTION + R1, *, name: str = "r1-weight") -> Path:
    path = folder / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run_record(run: StudyRun, metric: str, number: float, **changes) -> Record:
    """The record of a run as `fact-eval publish` leaves it."""
    spec = get_spec(metric)
    fields = dict(
        run_id=run.name,
        source="run",
        label=run.label,
        snapshot="network-snapshot.safetensors",
        snapshot_sha256=run.name.ljust(64, "0"),
        kimg=run.config.kimg,
        train_seed=run.seed,
        config_sha256=run.config.sha256(),
        metric=metric,
        metric_version=spec.version,
        summary=spec.summary,
        citation=spec.citation,
        protocol=spec.protocol,
        protocol_sha256=spec.protocol_sha256,
        seed=0,
        higher_is_better=spec.higher_is_better,
        value=number,
        n_requested=5000,
        n_effective=5000,
        n_real=60000,
        status="ok",
        dataset={
            "name": "mnist",
            "split": "train",
            "sha256": "d" * 64,
            "n": 60000,
            "resolution": 32,
            "channels": 1,
        },
        training={"git": CLEAN, "seconds": 60.0},
        provenance={"git": CLEAN, "finished": "2026-01-01T00:00:00Z"},
    )
    return Record(**{**fields, **changes})


def study_records(
    study: Study,
    truth: Callable[[str], float],
    *,
    spread: float = 8.0,
    seed: int = 0,
    metrics: Iterable[str] = (FID,),
) -> list[Record]:
    """One record a run and metric: `truth` of the setting's name, and normal noise of this spread."""
    return [
        run_record(run, metric, draw(run, metric, seed).gauss(truth(run.setting.name), spread))
        for run in study.runs()
        for metric in metrics
    ]


def draw(run: StudyRun, metric: str, seed: int) -> random.Random:
    """Random numbers of one value, the same for a run in whatever study it stands."""
    return random.Random(f"{run.name} {metric} {seed}")
