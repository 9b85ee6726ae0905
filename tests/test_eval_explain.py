"""A StylEx run on the evaluation path: class parts, reconstructions, records, the W-gap's picture, health."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from eval_toys import make_data, make_record, make_run, make_stylex_run, register_toys
from group_toys import run_group
from safetensors.torch import load_file

from fact_eval.explain.explanation import Explanation
from fact_eval.explain.subject import Images, NamedClassifier, Subject
from fact_eval.images.encoder import ReconstructionSource, SnapshotEncoder
from fact_eval.images.sources import GeneratorSource
from fact_eval.jobs.history import read_ticks
from fact_eval.jobs.plan import Request, plan_controls, plan_run
from fact_eval.jobs.runs import read_run
from fact_eval.reports.explain import draw_w_gap, measure_health
from fact_eval.scoring.evaluation import Evaluation
from fact_leaderboard.records import append_records, read_records
from fact_metrics.base.errors import UsageError
from fact_metrics.base.pixels import to_uint8
from fact_metrics.registry import FAMILIES, get_spec, get_specs
from fact_train.classifiers.training import train_classifier
from fact_train.data import open_dataset
from fact_train.run_folder import list_snapshots
from fact_train.snapshot import load_snapshot

SMALL = ["recon10k_mse", "recon10k_psnr", "agreement10k", "kl10k", "wgap10k_frechet", "wgap10k_kernel"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("explain")
    data = make_data(root / "data", labelled=True)
    out = root / "c.safetensors"
    train_classifier(out, data=str(data), epochs=3, batch=8, report=lambda line: None)
    runs = root / "runs"
    return {"data": data, "run": make_stylex_run(runs, data, str(out)), "runs": runs}


@pytest.fixture
def snapshot(place):
    return load_snapshot(list_snapshots(place["run"])[-1])


def test_a_snapshot_rebuilds_encoder_and_classifier_without_other_files(place, snapshot) -> None:
    assert snapshot.classifier["classes"][2]["name"] == "2" and snapshot.C.num_classes == 3
    assert snapshot.E.w_dim == 8 and snapshot.G.synthesis.w_dim == 11 and snapshot.G.c_dim == 3
    images = open_dataset(place["data"], split="test").images(range(3))
    x = images.float() / 127.5 - 1
    with torch.no_grad():
        ws = torch.cat([snapshot.E(x), snapshot.C(x).softmax(dim=1)], dim=1)
    assert torch.allclose(snapshot.reconstruction_ws(images)[:, 0], ws, atol=1e-6)
    saved = load_file(snapshot.path)
    for prefix, net in {"G_ema": snapshot.G, "D": snapshot.D, "E_ema": snapshot.E, "C": snapshot.C}.items():
        weights = net.state_dict()
        assert [n for n in weights if not torch.equal(weights[n], saved[f"{prefix}.{n}"])] == [], prefix


def test_generated_images_take_the_class_parts_of_seeded_training_images(place, snapshot) -> None:
    train = open_dataset(place["data"], split="train")
    source = GeneratorSource(snapshot, seed=3, labels_of=train)
    c = source.labels(range(20))
    all_parts = snapshot.class_parts(train.images(range(len(train))))
    # By differences: cdist's default, |a|^2 + |b|^2 - 2ab, leaves the root of float32's epsilon, 2e-4.
    nearest = torch.cdist(c, all_parts, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
    assert float(nearest.max()) < 1e-5 and len(c.unique(dim=0)) > 5
    assert torch.allclose(source.labels([7]), c[7:8], atol=1e-6)  # whatever the batch
    assert source.images(range(4)).shape == (4, 1, 8, 8)


def test_reconstructions_are_those_of_held_out_images_untruncated(place, snapshot) -> None:
    test = open_dataset(place["data"], split="test")
    generator = GeneratorSource(snapshot, seed=1, labels_of=open_dataset(place["data"]))
    source = ReconstructionSource(generator, test)
    images = source.pictures.images(range(5))
    noise = generator.noise(range(5), stream="reconstruction")
    expected = to_uint8(generator.synthesis(snapshot.reconstruction_ws(images), noise))
    assert torch.equal(source.images(range(5)), expected) and source.size == len(test)
    pairs = SnapshotEncoder(generator, test, batch=7).pairs(12)
    assert len(pairs.originals) == 12 and pairs.w.shape == (12, 8)
    off = (pairs.reconstructions[:5].int() - expected.int()).abs()
    assert int(off.max()) <= 1  # batches of other sizes round otherwise
    assert torch.equal(pairs.originals[:5], images)
    assert torch.allclose(pairs.logits_original[:5], snapshot.class_logits(images), atol=1e-5)


def test_explained_images_are_the_reconstructions_and_cycles_go_through_the_encoder(place, snapshot) -> None:
    test = open_dataset(place["data"], split="test")
    generator = GeneratorSource(snapshot, seed=1, labels_of=open_dataset(place["data"]))
    classifier = NamedClassifier("c", snapshot.C, snapshot.classifier)
    subject = Subject(generator, classifier, held_out=test, batch=4)
    source = ReconstructionSource(generator, test)
    once = to_uint8(subject.render(subject.styles(range(5)), range(5)))
    off = (once.int() - source.images(range(5)).int()).abs()
    assert int(off.max()) <= 1 and float(off.float().mean()) < 0.01  # another order of sums
    explanation = Explanation.__new__(Explanation)
    explanation.subject, explanation.batch = subject, 4
    explanation.judged = Images(list(range(5)), torch.zeros(5, 1), torch.zeros(5, 3))
    cycles = explanation.cycles((0, 1, 2))
    assert torch.equal(cycles[0], subject.pictures.images(range(5))) and torch.equal(cycles[1], once)
    again = subject.space.read(snapshot.reconstruction_ws(once))
    assert torch.equal(cycles[2], to_uint8(subject.render(again, range(5))))


def test_records_of_a_stylex_run_and_none_of_another(place, tmp_path) -> None:
    specs = tuple(get_specs(SMALL))
    jobs = plan_run(read_run(place["run"]), Request(specs, named=True))
    outcome = Evaluation().run(jobs)
    assert not outcome.failures and len(outcome.written) == len(SMALL)
    values = {record.metric: record.value for record in read_records(place["run"] / "results.jsonl")}
    assert values["recon10k_mse"] > 0 and 0 <= values["agreement10k"] <= 1
    plain = make_run(tmp_path, place["data"])
    with pytest.raises(UsageError, match="StylEx runs"):
        plan_run(read_run(plain), Request(specs, named=True))
    assert plan_run(read_run(plain), Request(specs))[0].missing == ()
    controls = plan_controls([jobs[0].reference], tmp_path, Request(specs, named=True))
    assert [job.missing for job in controls] == [(), ()]


def test_without_held_out_images_only_the_encoder_s_metrics_have_no_value(place, tmp_path) -> None:
    """A record without a value and with the reason; what needs no encoder is measured."""
    config = read_run(place["run"]).config
    bare = tmp_path / "bare"
    shutil.copytree(place["data"] / "train", bare)
    run = make_stylex_run(tmp_path, bare, config["classifier"])
    blank = ["agreement10k", "recon10k_mse", "reconfid10k_full_efficientnet_lite0"]
    register_toys()
    try:
        specs = tuple(get_specs([*blank, "toy_distance"]))
        Evaluation().run(plan_run(read_run(run), Request(specs, named=True)))
    finally:
        for name in ("toy_distance", "toy_distance_test", "toy_sharpness", "toy_path"):
            FAMILIES.pop(name)
    found = {record.metric: record for record in read_records(run / "results.jsonl")}
    assert found["toy_distance"].value > 0
    for name in blank:
        assert found[name].value is None and "no test split" in found[name].error
        assert found[name].status == "ok"


def test_a_run_without_a_trained_encoder_has_no_encoder_metrics(place) -> None:
    run = read_run(place["run"])
    run.options["config"]["branches"] = "mapping"
    assert plan_run(run, Request(tuple(get_specs(SMALL))))[0].missing == ()


def test_health_counts_spikes_seconds_and_the_way_to_legibility(place) -> None:
    run = read_run(place["run"])
    health = measure_health(run)
    assert health.kimg == 4 and health.sec_per_kimg == pytest.approx((3 * 2 + 6 * 2) / 4)
    assert health.spikes_per_1k_steps == pytest.approx(1000 * (0.01 * 100 + 0.02 * 200) / 300)
    assert health.kimg_to_legible is None and health.snapshots_scored == 0
    spec = get_spec("legible10k")
    common = dict(run_id=run.run_id, metric=spec.name, higher_is_better=True, protocol=spec.protocol)
    records = [
        make_record(**common, kimg=kimg, value=value, snapshot_sha256=str(kimg) * 64)
        for kimg, value in ((1.0, 0.5), (2.0, 0.85), (4.0, 0.9))
    ]
    append_records(place["run"] / "results.jsonl", records)
    health = measure_health(run)
    assert (health.kimg_to_legible, health.seconds_to_legible) == (2.0, 6.0)
    assert [(tick.kimg, tick.seconds) for tick in read_ticks(run.folder)] == [(2.0, 6.0), (4.0, 18.0)]


def test_the_picture_of_the_gap_shows_mean_and_deviation_of_every_dimension(tmp_path, monkeypatch) -> None:
    from matplotlib import pyplot as plt

    monkeypatch.setattr(plt, "close", lambda figure: None)
    extras = {"mean": [0.0, 2.0, -1.0], "std": [1.0, 0.5, 2.0]}
    record = dataclasses.replace(make_record(), metric="wgap10k_frechet", extras=extras)
    path = draw_w_gap(record, tmp_path / "wgap.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    (axes,) = plt.gcf().axes
    monkeypatch.undo()
    plt.close(axes.figure)
    (line,) = axes.lines
    assert line.get_ydata().tolist() == [-1.0, 0.0, 2.0]  # sorted by the mean
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices[:, 1].tolist()
    assert set(corners) == {-3.0, 1.0, -1.0, 1.5, 2.5}  # mean less and plus deviation


def test_explain_refuses_runs_of_another_model(place, tmp_path) -> None:
    plain = make_run(tmp_path, place["data"])
    command = [sys.executable, "-m", "fact_eval", "explain", str(plain)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "no StylEx run" in done.stderr


def test_explain_prints_records_and_health_as_json(place, tmp_path, monkeypatch, capsys) -> None:
    """The whole command, with the metrics that 8x8 pictures allow."""
    from fact_eval.commands.explain import explain

    some = get_specs(SMALL)
    monkeypatch.setattr("fact_metrics.registry.list_specs", lambda: some)
    explain([place["run"]], threads=1, device="cpu", as_json=True, images=0)
    shown = json.loads(capsys.readouterr().out)
    assert {record["metric"] for record in shown["records"]} == set(SMALL)
    assert shown["health"][0]["kimg"] == 4


@pytest.mark.parametrize("as_json", [True, False])
def test_of_two_processes_the_first_explains_alone(place, tmp_path, monkeypatch, as_json) -> None:
    from fact_eval.commands.explain import explain

    run = tmp_path / "runs" / "stylex"
    shutil.copytree(place["run"], run)
    (run / "results.jsonl").unlink(missing_ok=True)
    some = get_specs(SMALL)
    monkeypatch.setattr("fact_metrics.registry.list_specs", lambda: some)
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    first, second = run_group(
        2, lambda rank: explain([run], threads=1, device="cpu", as_json=as_json, images=0), tmp_path / "log"
    )
    assert second.out == "" and second.err == ""
    if as_json:
        assert {record["metric"] for record in json.loads(first.out)["records"]} == set(SMALL)
    else:
        assert all(first.out.count(name) == 1 for name in SMALL)
    assert first.err.count(f"wrote {run}") == 1 and len(read_records(run / "results.jsonl")) == len(SMALL)
    assert Path(place["run"], "wgap000004.png").is_file()
