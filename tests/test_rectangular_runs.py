"""Runs of rectangular images: every kind of model trains, resumes bitwise, is scored, baked and exported."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from eval_toys import make_run, make_stylex_run, register_toys, toy_config
from PIL import Image
from stylex_toys import CPU, differing

import fact_metrics.registry
from fact_eval.images.open import ImageRequest, _open_source
from fact_eval.images.sources import GeneratorSource
from fact_eval.jobs.pictures import open_reference, plan_pictures
from fact_eval.jobs.plan import Request, plan_all
from fact_eval.jobs.runs import find_runs
from fact_eval.scoring.evaluation import Evaluation
from fact_leaderboard import columns
from fact_leaderboard.build import build_board
from fact_leaderboard.records import RESULTS, read_records
from fact_leaderboard.render import section_title
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.engines.path_length import measure_path
from fact_metrics.features import get_detector
from fact_metrics.registry import list_specs
from fact_train import bake
from fact_train.classifiers.classifier import check_fits, load_classifier
from fact_train.classifiers.training import train_classifier
from fact_train.data import open_dataset
from fact_train.imports.export import to_stylegan2_ada
from fact_train.run_folder import list_snapshots
from fact_train.settings.config import TrainConfig
from fact_train.snapshot import load_snapshot
from fact_train.training.loop import train
from fact_train.training.trainer import Trainer

SIZE = "16x8"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Labelled gray pictures, 16 high and 8 wide: bright on the left (class 0) or at the top (class 1)."""
    folder, gen = tmp_path_factory.mktemp("rectangular") / "toy", np.random.default_rng(0)
    for split, n in (("train", 24), ("test", 20)):
        (folder / split).mkdir(parents=True)
        labels = []
        for i in range(n):
            x = gen.integers(0, 60, (16, 8), dtype=np.uint8)
            (x[:, :4] if i % 2 == 0 else x[:8])[:] += 180
            Image.fromarray(x).save(folder / split / f"{i:03d}.png")
            labels.append([f"{i:03d}.png", i % 2])
        (folder / split / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


@pytest.fixture(scope="module")
def classifier(data: Path, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("classifier") / "c.safetensors"
    options = dict(epochs=12, batch=8, resolution=SIZE, report=lambda line: None)
    assert train_classifier(out, data=str(data), **options)["accuracy"] > 0.9
    return str(out)


def config(data: Path, **changes) -> TrainConfig:
    options = dict(batch=8, r1_interval=2, pl_interval=2, device="cpu", threads=1, kimg=0.064)
    options |= dict(kimg_per_tick=0.032, snapshot_ticks=1, image_ticks=1)
    return toy_config(data, resolution=SIZE, **{**options, **changes})


FUSED = {"fused_modconv": "always"}
MODELS = {
    "skip": {"d_arch": "skip", "cond": True},
    "resnet": {"g_arch": "resnet"},
    "orig": {"g_arch": "orig", "d_arch": "orig"},
    "adain": {"injection": "adain"},
    "vectors": {"injection": "vectors", "style_vectors": 4, "pl_weight": 0.0},
    "matrix": {"injection": "matrix", "style_vectors": 8, "pl_weight": 0.0},
    "baked matrix": {"injection": "matrix", "style_vectors": 8, "pl_weight": 0.0, **FUSED},
    "adaconv": {"injection": "adaconv"},
    "ada": {"augment": "ada", "augment_p": 0.5, "augment_set": "bgcfnc", "ada_interval": 2},
    "diffaugment": {"augment": "diffaugment"},
    "stylex": {"model": "stylex", "w_lpips": 0.0},
}


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_a_rectangular_run_resumes_bitwise(data: Path, classifier: str, changes: dict) -> None:
    """All regularisers act within the steps."""
    given = {"classifier": classifier} if "model" in changes else {}
    cfg = config(data, **changes, **given)
    straight, resumed = (Trainer(cfg, open_dataset(data, resolution=SIZE), CPU) for _ in range(2))
    straight.step(), straight.step()
    saved = torch.load(_saved(straight), weights_only=True)
    resumed.load_state_dict(saved)
    before = straight.model.gan.G.synthesis.b4.const.clone()
    for t in (straight, resumed):
        t.step(), t.step()
    assert differing(straight.state_dict(), resumed.state_dict()) == []
    assert before.shape[1:] == (4, 2) and not torch.equal(before, straight.model.gan.G.synthesis.b4.const)


def _saved(t: Trainer):
    file = io.BytesIO()
    torch.save(t.state_dict(), file)
    file.seek(0)
    return file


def test_a_run_writes_grids_and_snapshots_of_its_shape_and_goes_on_from_them(
    data: Path, tmp_path: Path
) -> None:
    cfg = config(data)
    whole = train(cfg, tmp_path / "a", preset="mnist-stylegan2", label="a")
    train(dataclasses.replace(cfg, kimg=0.032), tmp_path / "b", preset="mnist-stylegan2", label="b")
    parts = train(cfg, tmp_path / "b", preset="mnist-stylegan2", label="b")
    one, other = (load_snapshot(run.snapshot) for run in (whole, parts))
    assert one.G.img_resolution == SIZE == one.dataset["resolution"] == one.config["resolution"]
    assert differing(one.G.state_dict(), other.G.state_dict()) == []
    for name in ("reals.png", "fakes_init.png"):
        with Image.open(tmp_path / "a" / name) as picture:
            assert picture.width % 8 == 0 and picture.height % 16 == 0 and picture.width > 8
    options = json.loads((tmp_path / "a/training_options.json").read_text())
    assert options["dataset"]["resolution"] == SIZE
    with pytest.raises(UsageError, match="holds another run: resolution is 16x8 there and 8x16 here"):
        train(
            dataclasses.replace(cfg, resolution="8x16", crop="center"), tmp_path / "a", preset="p", label="a"
        )


def test_a_square_snapshot_does_not_start_a_rectangular_run(data: Path, tiny_config, tmp_path: Path) -> None:
    square = dataclasses.replace(tiny_config, kimg=0.0, resolution=16)
    start = train(square, tmp_path / "square", preset="p", label="s").snapshot
    cfg = dataclasses.replace(square, data=str(data), resolution=SIZE, init=str(start))
    with pytest.raises(UsageError, match="resolution 16 there and 16x8 here"):
        train(cfg, tmp_path / "r", preset="p", label="r")


# Scoring


@pytest.fixture
def toys(monkeypatch, tmp_path):
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    register_toys()


def test_a_rectangular_run_is_scored_and_is_on_the_board_of_its_size(
    data, tmp_path, toys, monkeypatch
) -> None:
    folder = make_run(tmp_path / "runs", data, resolution=SIZE)
    make_run(tmp_path / "runs", data, name="square", resolution=8, crop="center")
    found = find_runs([tmp_path / "runs"])
    jobs, problems = plan_all(found, tmp_path / "runs", Request(tuple(list_specs())), controls=True)
    assert not problems
    Evaluation(batch=16).run(jobs)
    records = read_records(folder / RESULTS)
    assert len(records) == 4 and {r.status for r in records} == {"ok"}
    assert {r.dataset["resolution"] for r in records} == {SIZE}
    monkeypatch.setattr(columns, "COLUMNS", (columns.Column("toy_distance", "distance", ".2f"),))
    sections = build_board([], local=[*records, *read_records(tmp_path / "runs/square" / RESULTS)])
    assert [section_title(s) for s in sections] == ["toy, 8x8, gray", "toy, 16x8, gray"]


def test_pictures_of_the_size_are_scored_and_others_refused_by_name(data, tmp_path, toys) -> None:
    reference = open_reference(str(data))
    assert reference.train["resolution"] == SIZE
    request = Request(tuple(spec for spec in list_specs() if spec.name == "toy_sharpness"))
    job, _ = plan_pictures(data / "train", reference, tmp_path, request)
    assert job.pictures.resolution == SIZE
    squares = make_squares(tmp_path / "squares")
    turned = tmp_path / "turned"
    turned.mkdir()
    Image.new("L", (16, 8)).save(turned / "a.png")
    for folder, size in ((turned, "8x16"), (squares, "16x16")):
        with pytest.raises(UserError, match=f"holds {size} pictures, toy is 16x8; save the pictures"):
            plan_pictures(folder, reference, tmp_path, request)
    with pytest.raises(UserError, match=r"a\.png is 16x8, not square; save the pictures at 16x16"):
        plan_pictures(turned, open_reference(str(squares)), tmp_path, request)


def make_squares(folder: Path) -> Path:
    folder.mkdir()
    Image.new("L", (16, 16)).save(folder / "a.png")
    return folder


def test_the_audit_says_that_images_are_rectangles_and_what_does_not_fit(data, tmp_path, call) -> None:
    code, out, err = call("audit", data)
    assert (
        code == 0
        and "rectangles, 16 high and 8 wide; to train on them, choose --resolution 16x8" in out + err
    )
    (tmp_path / "odd").mkdir()
    Image.new("L", (9, 16)).save(tmp_path / "odd/a.png")
    code, out, err = call("audit", tmp_path / "odd")
    assert code == 1 and "image size 16x9: the networks double a base shape" in out + err


def test_path_length_measures_rectangles(data, tmp_path) -> None:
    """Of 64x32 images: LPIPS networks need 32 pixels; smaller ones are undefined, with the reason."""
    cfg = dict(resolution="64x32", channel_base=64)
    source = GeneratorSource(
        load_snapshot(next(iter(list_snapshots(make_run(tmp_path, data, **cfg))))), seed=0
    )
    distances = measure_path(source, get_detector("stlpips_alex", "cpu"), pairs=range(2))
    assert distances.shape == (2,) and bool((distances > 0).all())


# Pictures, baked weights, other formats


def snapshot_of(folder: Path, data: Path, **changes):
    return load_snapshot(
        make_run(folder, data, resolution=SIZE, **changes) / "network-snapshot-000004.safetensors"
    )


@pytest.mark.parametrize("injection", ["modconv", "adain", "matrix"])
def test_a_baked_rectangular_network_makes_the_same_image(data, tmp_path, injection: str) -> None:
    vectors = {"style_vectors": 8} if injection == "matrix" else {}
    snapshot = snapshot_of(tmp_path, data, injection=injection, **vectors)
    ws = bake.draw_ws(snapshot.G, seed=3, label=None, truncation_psi=1.0)
    assert bake.prove(snapshot.G, ws).holds
    bake.save_baked(tmp_path / "plain.safetensors", snapshot, ws)
    plain = bake.load_baked(tmp_path / "plain.safetensors")(torch.zeros_like(ws), noise_mode="const")
    assert plain.shape[2:] == (16, 8)
    torch.testing.assert_close(plain, snapshot.G.synthesis(ws, noise_mode="const"), rtol=0, atol=1e-4)


def test_generate_writes_pictures_grids_mixes_and_animations_of_the_shape(data, tmp_path, call) -> None:
    run = make_run(tmp_path, data, resolution=SIZE)
    wanted = {
        "one": (["--seeds", "0"], (8, 16)),
        "grid.png": (["--seeds", "0-5", "--grid", "--columns", "3"], (24, 32)),
        "mix.png": (["--seeds", "0-1", "--mix", "2-4"], (32, 48)),
        "way.webp": (["--seeds", "0-1", "--interpolate", "w", "--frames", "2"], (8, 16)),
    }
    for name, (options, size) in wanted.items():
        code, _, err = call("generate", run, *options, "--out", tmp_path / name)
        assert code == 0, err
        path = tmp_path / name
        with Image.open(next(path.glob("*.png")) if path.is_dir() else path) as picture:
            assert picture.size == size, name


def test_stylegan2_ada_cannot_hold_a_rectangle_and_is_told_by_name(data, tmp_path) -> None:
    with pytest.raises(UserError, match="StyleGAN2-ADA has square images, this is --resolution 16x8"):
        to_stylegan2_ada(snapshot_of(tmp_path, data))


def test_an_onnx_graph_of_a_rectangular_network_is_scored_as_such(data, tmp_path, toys) -> None:
    pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from fact_eval.images.onnx_graph import GraphOptions
    from fact_eval.jobs.graphs import plan_graph
    from fact_train.onnx_export import export_onnx

    graph = tmp_path / "g.onnx"
    assert export_onnx(snapshot_of(tmp_path, data), graph) < 1e-4
    request = Request(tuple(s for s in list_specs() if s.name == "toy_sharpness"), data=str(data))
    job, _ = plan_graph(graph, GraphOptions(), tmp_path, request)
    assert job.reference.train["resolution"] == SIZE
    squares = dataclasses.replace(request, data=str(make_squares(tmp_path / "squares")))
    with pytest.raises(UserError, match=r"makes 16x8 images \(height x width\), squares is 16x16"):
        plan_graph(graph, GraphOptions(), tmp_path, squares)


def test_a_classifier_belongs_to_its_shape(data, classifier: str) -> None:
    _, card = load_classifier(classifier)
    check_fits("c", card, open_dataset(data, resolution=SIZE))
    with pytest.raises(UserError, match="is for 1x16x8 images, toy has 1x8x16"):
        check_fits("c", card, open_dataset(data, resolution="8x16", crop="center"))


def test_a_rectangular_stylex_snapshot_is_read_again(data, classifier, tmp_path) -> None:
    run = make_stylex_run(tmp_path, data, classifier, resolution=SIZE)
    snapshot = load_snapshot(next(iter(list_snapshots(run))))
    images = open_dataset(data, resolution=SIZE).images([0, 1])
    assert snapshot.class_parts(images).shape == (2, 2)
    assert snapshot.E(images.float() / 127.5 - 1).shape == (2, 8)


def test_noise_of_the_floor_row_has_the_shape(data) -> None:
    train_set = open_dataset(data, resolution=SIZE).describe()
    fields = {f.name: None for f in dataclasses.fields(ImageRequest)}
    request = ImageRequest(**{**fields, "kind": "noise", "train": train_set, "seed": 0})
    assert _open_source(request, None, device="cpu").images([0, 1]).shape == (2, 1, 16, 8)
