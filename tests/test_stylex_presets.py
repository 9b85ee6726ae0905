"""StylEx's presets, narrowed, on synthetic pictures; one of them through the whole training loop."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from fact_train.classifiers.training import train_classifier
from fact_train.data import open_dataset
from fact_train.run_folder import ConfigConflict, list_snapshots, read_options
from fact_train.settings.config import TrainConfig
from fact_train.settings.presets import PRESETS
from fact_train.settings.stylex_presets import DATASETS, KINDS
from fact_train.snapshot import load_snapshot
from fact_train.training import checkpoint
from fact_train.training.loop import train
from fact_train.training.trainer import Trainer

NARROW = dict(
    z_dim=16,
    w_dim=16,
    map_depth=2,
    channel_base=256,
    channel_max=16,
    batch=8,
    batch_gpu=4,
    device="cpu",
    threads=1,
)
WITH_DATA = [f"{kind}-{data}" for kind in KINDS for data in DATASETS if data != "mnist"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> dict[str, str]:
    """A folder of 24 labelled 64 px colour pictures and a classifier of them."""
    root = tmp_path_factory.mktemp("presets")
    gen = torch.Generator().manual_seed(0)
    folder = root / "pictures"
    folder.mkdir()
    for i in range(24):
        x = torch.randint(0, 80, (64, 64, 3), generator=gen, dtype=torch.uint8)
        x[:, :, i % 2] += 150
        Image.fromarray(x.numpy()).save(folder / f"{i:02d}.png")
    labels = [[f"{i:02d}.png", i % 2] for i in range(24)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    out = root / "c.safetensors"
    train_classifier(out, data=str(folder), epochs=6, batch=8, report=lambda line: None)
    return {"data": str(folder), "classifier": str(out)}


def narrowed(preset: str, pictures: dict[str, str]) -> TrainConfig:
    shrink = {"lpips_batch_shrink": 4}  # the perceptual net is the one thing that cannot be narrowed
    return dataclasses.replace(PRESETS[preset].config, **NARROW, **shrink, **pictures)


def test_the_base_of_studies_is_the_large_preset_in_miniature() -> None:
    small, large = (PRESETS[f"mnist-stylex-{name}"].config.to_dict() for name in ("study", "alternating"))
    changed = {name for name, value in small.items() if value != large[name]}
    size = {"channel_base", "channel_max", "kimg", "r1_decay_kimg"}
    assert changed == size | {"snapshot_ticks", "image_ticks"}
    assert all(small[name] < large[name] for name in size)


def test_every_kind_stands_for_every_dataset() -> None:
    assert set(WITH_DATA) < set(PRESETS) and "mnist" in PRESETS
    for name in WITH_DATA:
        assert PRESETS[name].needs == ("data", "classifier")
    for kind in KINDS:
        name = "mnist" if kind == "stylex" else f"{kind}-mnist"
        assert PRESETS[name].needs == () and PRESETS[name].config.model == "stylex"


@pytest.mark.parametrize("preset", WITH_DATA)
def test_every_preset_takes_both_turns_on_64_px(preset: str, pictures) -> None:
    cfg = narrowed(preset, pictures)
    t = Trainer(cfg, open_dataset(cfg.data, resolution=cfg.resolution), torch.device("cpu"))
    for _ in range(2):
        t.step(regularise=True)
    seen = t.stats.collect()
    assert t.weights_finite() and t.dataset.resolution == 64
    assert {"Loss/rec_lpips", "Loss/rec_w", "Loss/rec_l1", "Loss/kl", "Loss/r1_penalty"} <= set(seen)
    assert "Loss/path_length_penalty" in seen


def test_a_run_leaves_pictures_and_a_snapshot_and_resumes_bitwise(pictures, tmp_path: Path) -> None:
    cfg = narrowed("stylex-reference-new-plants64", pictures)
    cfg = dataclasses.replace(cfg, kimg=0.032, kimg_per_tick=0.016, snapshot_ticks=1, image_ticks=1)
    options = dict(preset="stylex-reference-new-plants64", label="narrow")
    whole = train(cfg, tmp_path / "whole", **options)
    train(dataclasses.replace(cfg, kimg=0.016), tmp_path / "parts", **options)
    resumed = train(cfg, tmp_path / "parts", **options)
    assert whole.snapshot.read_bytes() == resumed.snapshot.read_bytes()
    files = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {"fakes000000.png", "reconstructions000000.png", "reals.png"} <= files
    assert "says of the training images: 0" in (tmp_path / "whole" / "log.txt").read_text()
    shown = read_options(tmp_path / "whole")["classifier"]
    snapshot = load_snapshot(list_snapshots(tmp_path / "whole")[-1])
    assert snapshot.classifier == shown and snapshot.E.img_channels == 3
    assert len(checkpoint.list_checkpoints(tmp_path / "whole")) >= 1

    again = Path(pictures["classifier"]).with_name("other.safetensors")
    train_classifier(again, data=cfg.data, epochs=6, batch=8, seed=1, report=lambda line: None)
    kept = Path(cfg.classifier).read_bytes()
    try:
        Path(cfg.classifier).write_bytes(again.read_bytes())  # another classifier under the same name
        with pytest.raises(ConfigConflict, match="explains another classifier"):
            train(cfg, tmp_path / "whole", **options)
    finally:
        Path(cfg.classifier).write_bytes(kept)
