"""Snapshots: what is in a file, what loading one imports, which networks one may hold."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fact_train.data import open_dataset
from fact_train.networks.build import build_networks
from fact_train.run_folder import list_snapshots, snapshot_name
from fact_train.settings.config import TrainConfig
from fact_train.snapshot import load_snapshot, save_snapshot
from fact_train.training.loop import train

LOADED = """
import json, sys
from pathlib import Path
from fact_train.snapshot import load_snapshot
snapshot = load_snapshot(sys.argv[1])
ours = ("fact_train.", "fact_metrics.", "fact_eval.")
modules = {name: module for name, module in sys.modules.items() if name.startswith(ours)}
sources = {name: Path(module.__file__).read_text() for name, module in modules.items() if module.__file__}
print(json.dumps({"model": snapshot.config["model"], "modules": sorted(modules),
                  "optimise": sorted(name for name, text in sources.items() if "torch.optim" in text)}))
"""


@pytest.mark.parametrize("model", ["stylegan2", "stylex"])
def test_loading_a_snapshot_imports_nothing_of_training(
    tiny_config: TrainConfig, stylex_config: TrainConfig, tmp_path: Path, model: str
) -> None:
    cfg = dataclasses.replace({"stylegan2": tiny_config, "stylex": stylex_config}[model], kimg=0)
    path = train(cfg, tmp_path, preset="tiny", label="tiny").snapshot
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(path)], capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout)
    assert loaded["model"] == model and "fact_train.networks.generator" in loaded["modules"]
    training = ("fact_train.training", "fact_train.augment", "fact_train.classifiers.training")
    assert [name for name in loaded["modules"] if name.startswith(training)] == []
    assert loaded["optimise"] == []


def test_a_snapshot_needs_networks_and_their_description_alone(tiny_config: TrainConfig, tmp_path) -> None:
    dataset = open_dataset(tiny_config.data).describe()
    G, D = build_networks(tiny_config, dataset)
    about = dict(cfg=tiny_config, dataset=dataset, nimg=4000, run_id="tiny")
    path = tmp_path / snapshot_name(4000)
    save_snapshot(path, {"G_ema": G, "D": D}, **about)
    snapshot = load_snapshot(path)
    assert (snapshot.kimg, snapshot.run_id, snapshot.dataset) == (4.0, "tiny", dataset)
    z = torch.randn(2, 8)
    assert torch.equal(snapshot.G(z, noise_mode="const"), G.eval()(z, noise_mode="const"))
    assert list_snapshots(tmp_path) == [path]
    again = tmp_path / "again.safetensors"
    save_snapshot(again, {"D": D, "G_ema": G}, **about)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="a stylegan2 snapshot holds"):
        save_snapshot(tmp_path / "half.safetensors", {"G_ema": G}, **about)
