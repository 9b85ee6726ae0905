"""FID, KID, precision, recall and inception score of PNG files: ours against torch-fidelity's command.

`python -m benchmarks one_pass --files 5000`. Both are whole processes that start with files on a disk and end
with numbers, on the same randomly initialised Inception-v3 and VGG16 (values mean nothing, equality does).
torch-fidelity finds both networks in $TORCH_HOME, because its command takes one weights path for two; ours
finds the same files in $FACT_WEIGHTS, as files that the user trusts. The store is empty at the first run of
ours and full at the second.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fact_metrics.base.devices import resolve_device, set_threads
from fact_metrics.features.weight_store import trust

FILES, SIDE = 5000, 64
NETWORKS = {
    "inception_fidelity": "weights-inception-2015-12-05-6726825d.pth",
    "vgg16_torchvision": "vgg16-397923af.pth",
}
# torch-fidelity's names of what `score` returns; relative tolerances say what may differ
KEYS = {
    "fid": ("frechet_inception_distance", 1e-3),  # its eigenvalue route is off in the 6th digit where n < d
    "kid": ("kernel_inception_distance_mean", 1e-4),
    "isc": ("inception_score_mean", 1e-4),
    "precision": ("precision", 1e-2),  # a rounded distance may move one file over a radius
    "recall": ("recall", 1e-2),
}
# KID of like sets is a difference near 0 of means of kernel values, which are 1 and more: features that agree
# to 1e-6 leave it so much
ABSOLUTE = 1e-6


def run(
    *, seconds: float = 0.0, device: str = "auto", threads: int | None = None, files: int = FILES
) -> dict[str, Any]:
    """Wall seconds and values of both commands on `files` generated and as many real PNG files."""
    threads, chosen = set_threads(threads), resolve_device(device)
    with tempfile.TemporaryDirectory(prefix="one-pass-") as name:
        home = Path(name)
        folders = [
            make_files(home / kind, files, seed=seed) for seed, kind in enumerate(("generated", "real"))
        ]
        environment = {**os.environ, **_make_networks(home), "OMP_NUM_THREADS": str(threads)}
        size = min(1000, files // 2)
        on = [] if chosen.type == "cpu" else ["--gpu", str(chosen.index)]
        peer = ["fidelity", "--isc", "--fid", "--kid", "--prc", "--json", "--silent", "--no-cache"]
        peer += ["--kid-subset-size", str(size), *(on or ["--cpu"])]
        peer += ["--input1", str(folders[0]), "--input2", str(folders[1])]
        peer[0] = str(Path(sys.executable).with_name("fidelity"))
        ours = [sys.executable, "-m", "benchmarks.one_pass", *map(str, folders), str(chosen), str(size)]
        peer_seconds, theirs = _clock(peer, environment)
        first_seconds, values = _clock(ours, environment)
        second_seconds, again = _clock(ours, environment)
    if values != again:
        raise RuntimeError(f"the store gave other numbers: {values} and then {again}")
    for key, (name, tolerance) in KEYS.items():
        if not np.isclose(values[key], theirs[name], rtol=tolerance, atol=ABSOLUTE):
            raise RuntimeError(f"{key} is {values[key]}, torch-fidelity says {theirs[name]}")
    return {
        "files": files,
        "side": SIDE,
        "device": str(chosen),
        "threads": threads,
        "seconds": {"torch-fidelity": peer_seconds, "ours": first_seconds, "ours again": second_seconds},
        "ratio": peer_seconds / first_seconds,
        "values": {key: {"ours": values[key], "theirs": theirs[name]} for key, (name, _) in KEYS.items()},
    }


def table(result: dict[str, Any]) -> str:
    """Seconds and values, as Markdown."""
    names = list(result["values"])
    lines = [
        f"| {result['files']} + {result['files']} PNG, {result['side']} px | seconds | {' | '.join(names)} |",
        "|---" * (2 + len(names)) + "|",
    ]
    for who, key in (("torch-fidelity", "theirs"), ("ours", "ours"), ("ours again", "ours")):
        values = " | ".join(f"{result['values'][name][key]:.8g}" for name in names)
        lines.append(f"| {who} | {result['seconds'][who]:.1f} | {values} |")
    return "\n".join([*lines, f"\ntorch-fidelity / ours: {result['ratio']:.2f}"])


def score(generated: Path, real: Path, *, device: str, subset_size: int) -> dict[str, float]:
    """What torch-fidelity's command computes: one pass over each folder for all detectors, files in order."""
    from fact_eval.features.chunks import FeatureRequest
    from fact_eval.features.extract import FeatureExtractor
    from fact_eval.images.sources import PicturesSource
    from fact_metrics.base.memory import keep_freed_memory
    from fact_metrics.engines.frechet import compute_fid
    from fact_metrics.engines.inception_score import compute_inception_score
    from fact_metrics.engines.kid import compute_kid
    from fact_metrics.engines.precision_recall import compute_precision, compute_recall
    from fact_train.data import open_dataset

    class InOrder(PicturesSource):
        """KID and IS draw their subsets from the order of the files."""

        def __init__(self, dataset):
            super().__init__(dataset)
            self._order = torch.arange(self.size)

        def describe(self):
            return {**super().describe(), "order": "of the files"}

    def features(folder: Path, *detectors: str):
        source = InOrder(open_dataset(folder))
        request = FeatureRequest(source, dict.fromkeys(detectors, source.size), folder.name)
        rows = FeatureExtractor(device=device).extract(request)
        return [rows.get(name, source.size) for name in detectors]

    keep_freed_memory()  # as the command does
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    pool_gen, vgg_gen, logits = features(generated, "inception_pool3", "vgg16_fc2", "inception_logits")
    pool_real, vgg_real = features(real, "inception_pool3", "vgg16_fc2")
    return {
        "fid": compute_fid(pool_gen, pool_real),
        "kid": compute_kid(pool_gen, pool_real, subset_size=subset_size).subset_mean,
        "isc": compute_inception_score(logits, logits=True).value,
        "precision": compute_precision(vgg_gen, vgg_real),
        "recall": compute_recall(vgg_gen, vgg_real),
    }


def make_files(folder: Path, count: int, *, seed: int, side: int = SIDE) -> Path:
    """Smooth random pictures, so that PNG decoding costs what it does for pictures."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i:06d}.png")
    return folder


def _make_networks(home: Path) -> dict[str, str]:
    """Random networks, one file each, where torch-fidelity and we look; the environment that says where."""
    from unittest.mock import patch

    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Peer
    from torchvision.models import vgg16

    torch.manual_seed(0)
    module = "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url"
    with patch(module, lambda *args, **kwargs: {}), patch.object(Peer, "load_state_dict", lambda *args: None):
        networks = [Peer("inception-v3-compat", ["2048"]), vgg16()]
    folder, ours, files = home / "torch" / "hub" / "checkpoints", home / "weights", {}
    folder.mkdir(parents=True), ours.mkdir()
    for (name, filename), net in zip(NETWORKS.items(), networks, strict=True):
        for parameter in net.parameters():
            if parameter.ndim > 1:  # keeps the scale of activations through the depth
                torch.nn.init.kaiming_normal_(parameter.detach())
        path = folder / filename
        torch.save(net.state_dict(), path)
        (ours / filename).hardlink_to(path)  # in torch's folder only published files are taken
        files[name] = _entry(path)
    weights = {"schema": 1, "files": files}
    (ours / "manifest.json").write_text(json.dumps(weights))
    environment = {"FACT_CONFIG": str(home / "config"), "FACT_CACHE": str(home / "cache")}
    with patch.dict(os.environ, environment):
        for name, entry in files.items():
            trust(entry["sha256"], name)
    return environment | {"TORCH_HOME": str(home / "torch"), "FACT_WEIGHTS": str(ours)}


def _entry(path: Path) -> dict[str, Any]:
    import hashlib

    stat = path.stat()
    return {
        "filename": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "format": "state_dict",
        "trusted": True,
    }


def _clock(command: list[str], environment: dict[str, str]) -> tuple[float, dict[str, float]]:
    """Wall seconds of a command and the JSON object on its stdout, which may stand among other lines."""
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{command[0]} exited with {done.returncode}: {done.stderr[-2000:]}")
    text = done.stdout[done.stdout.index("{") : done.stdout.rindex("}") + 1]
    return seconds, json.loads(text)


if __name__ == "__main__":
    first, second, on_device, kid_size = sys.argv[1:]
    found = score(Path(first), Path(second), device=on_device, subset_size=int(kid_size))
    print(json.dumps(found))
