"""Where a number comes from: packages, device, command, and no absolute paths. The commit: test_git_state."""

import sys
from pathlib import Path

from fact_metrics.base.provenance import collect, portable_argv


def test_the_recorded_command_names_no_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [
        f"{tmp_path}/bin/fact-eval",
        "all",
        f"{tmp_path}/runs",
        "--data=/elsewhere/mnist",
        "--seeds",
        "0-2",
    ]
    assert portable_argv(argv) == ["fact-eval", "all", "runs", "--data=mnist", "--seeds", "0-2"]
    assert portable_argv([]) == []


def test_provenance_names_packages_python_device_and_command():
    origin = collect(device="cpu", threads=2, argv=["fact-eval", "all", "runs"])
    assert {"torch", "numpy", "safetensors"} <= origin["packages"].keys()
    assert origin["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert (origin["device"], origin["threads"], origin["world_size"]) == ("cpu", 2, 1)
    assert origin["argv"] == ["fact-eval", "all", "runs"]
    assert str(Path.home()) not in str(origin)
