"""`fact-eval explain --classifier` on a toy StyleGAN2 run: records, document, resume, board, refusals."""

import json
import shutil

import pytest
import torch
from eval_toys import make_data, make_run
from group_toys import run_group

from fact_eval.commands.explain import explain
from fact_eval.explain import effects, explanation, filters
from fact_eval.explain.document import document_path, read_explanation
from fact_eval.explain.session import ExplainOptions, explain_jobs, plan_explanations
from fact_eval.images.sources import GeneratorSource
from fact_eval.jobs.runs import read_run
from fact_leaderboard import columns
from fact_leaderboard.build import build_board
from fact_leaderboard.columns import EXPLANATIONS, Column
from fact_leaderboard.records import read_records
from fact_leaderboard.render import render_board
from fact_leaderboard.self_check import check_record
from fact_metrics.base.errors import UsageError
from fact_train.classifiers.classifier import load_classifier, save_classifier
from fact_train.networks.classifier import Classifier
from fact_train.run_folder import list_snapshots
from fact_train.snapshot import load_snapshot

IMAGES = 8


def save_balanced(path, images, *, seed):
    """A random convnet whose bias gives half of the images either class."""
    torch.manual_seed(seed)
    net = Classifier(arch="convnet", img_channels=1, num_classes=2).eval()
    with torch.no_grad():
        logits = net(images)
        net.net[-1].bias[0] += (logits[:, 1] - logits[:, 0]).median()
    card = {
        "arch": "convnet",
        "channels": 1,
        "resolution": 8,
        "input_size": None,
        "classes": [{"name": "low", "labels": [0]}, {"name": "high", "labels": [1]}],
        "accuracy": 0.5,
    }
    save_classifier(path, net, card)
    return str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("explained")
    run = make_run(root / "runs", make_data(root / "data"))
    snapshot = load_snapshot(list_snapshots(run)[-1])
    source = GeneratorSource(snapshot, seed=0)
    images = source.synthesis(source.mapping(source.latents(range(64)), None), source.noise(range(64)))
    names = [
        save_balanced(root / f"{name}.safetensors", images.clone(), seed=i) for i, name in enumerate("cd")
    ]
    return {"run": run, "classifier": names[0], "second": names[1]}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FACT_CACHE", str(tmp_path_factory.mktemp("cache")))


def explained(place, capsys, **options):
    chosen = {"classifier": place["classifier"], "second": place["second"], "images": IMAGES, **options}
    explain([place["run"]], threads=1, device="cpu", batch=16, **chosen)
    return capsys.readouterr()


def test_a_plain_run_is_explained_once_and_its_numbers_are_records(place, capsys, monkeypatch) -> None:
    monkeypatch.setattr(explanation, "ONE_BY_ONE", 4)  # of 60 images that are explained one by one
    methods = "attfind-greedy,attfind-subset,random"
    shown = explained(place, capsys, methods=methods)
    assert "wrote" in shown.err and "attfind-subset" in shown.out and "ls320_w" in shown.out
    (curve,) = [line for line in shown.out.splitlines() if line.startswith("random") and "split FID" in line]
    split = next(
        record
        for record in read_records(place["run"] / "results.jsonl")
        if record.metric == f"cfsplitfid{IMAGES}_random_efficientnet_lite0"
    )
    assert curve.split()[-1] == f"{split.value:.3g}" and len(split.extras["curve"]) == 11
    records = [r for r in read_records(place["run"] / "results.jsonl") if r.seed == 0]
    values = {record.metric: record for record in records}
    assert {record.status for record in records} == {"ok"}
    assert not [fault for record in records for fault in check_record(record)]
    sha256 = load_classifier(place["classifier"])[1]["weights_sha256"]
    assert {r.protocol["settings"]["classifier"] for r in records} == {sha256}
    flips = values[f"flips{IMAGES}_attfind_greedy"]
    assert 0 <= flips.value <= 1 and len(flips.extras["curve"]) == len(flips.extras["second"]) == 10
    document = read_explanation(document_path(place["run"], "network-snapshot-000004", "c"))
    assert document.classifier.sha256 == sha256 and document.images.kind == "generated"
    assert document.snapshot_sha256 == records[0].snapshot_sha256
    assert len(document.attributes("attfind-greedy", 0)) == 10
    assert len(document.attributes("attfind-subset", 0, document.images.indices[0])) in (0, 10)
    again = explained(place, capsys, methods=methods, as_json=True)
    assert "wrote" not in again.err and len(read_records(place["run"] / "results.jsonl")) == len(records)
    assert len(json.loads(again.out)["explanations"]) == len(records)


def test_the_attributes_of_two_copies_of_a_run_agree(place, tmp_path, capsys) -> None:
    runs = [tmp_path / name for name in ("toy-seed0", "toy-seed1")]
    for run in runs:
        shutil.copytree(place["run"], run)
    options = {"classifier": place["classifier"], "images": IMAGES, "methods": "attfind-greedy", "seeds": "5"}
    with pytest.raises(UsageError, match="--across compares two or more runs"):
        explain(runs[:1], threads=1, device="cpu", batch=16, across=True, **options)
    capsys.readouterr()
    explain(runs, threads=1, device="cpu", batch=16, across=True, as_json=True, **options)
    found = json.loads(capsys.readouterr().out)["across"]
    assert {one["class_name"] for one in found} == {"low", "high"}
    assert all(one["value"] == pytest.approx(1, abs=1e-5) for one in found)


def test_the_board_has_a_section_for_each_classifier(place, capsys, monkeypatch) -> None:
    for name in (place["classifier"], place["second"]):
        explained(place, capsys, classifier=name, second=None, methods="random", seeds="7")
    shown = (Column(f"flips{IMAGES}_random", "flips", protocol=EXPLANATIONS),)
    monkeypatch.setattr(columns, "COLUMNS", shown)
    records = [r for r in read_records(place["run"] / "results.jsonl") if r.seed == 7]
    sections = build_board([], local=records)
    assert [section.protocol for section in sections] == [EXPLANATIONS] * 2
    text = render_board(sections)
    for name in (place["classifier"], place["second"]):
        sha256 = load_classifier(name)[1]["weights_sha256"]
        assert f"explanations of classifier {sha256[:12]} (low, high)" in text


def test_another_setting_is_another_protocol(place) -> None:
    run = read_run(place["run"])

    def hashes(**options):
        options = ExplainOptions(images=IMAGES, classifier=place["classifier"], **options)
        keys = plan_explanations([run], options, seeds=[0], snapshot="latest", data=None).keys
        return {key[4] for key in keys}

    plain = hashes()
    for options in ({"shift": 2.0}, {"discriminator_filter": 0.2}, {"second": place["second"]}):
        assert not plain & hashes(**options), options


def test_the_discriminator_filter_passes_attributes_over(place, tmp_path, monkeypatch) -> None:
    """With a threshold of 0 whatever changes the score is rejected; effects of the toy are below 0.2."""
    monkeypatch.setattr(filters, "AFFECTED", 0.0)
    run, lists = read_run(place["run"]), {}
    for threshold in (None, 0.0):
        options = ExplainOptions(
            images=IMAGES,
            classifier=place["classifier"],
            methods=("attfind-greedy",),
            discriminator_filter=threshold,
        )
        plan = plan_explanations([run], options, seeds=[3], snapshot="latest", data=None)
        explain_jobs(plan.jobs, options, device="cpu", batch=16, threads=1, root=tmp_path)
        path = document_path(place["run"], "network-snapshot-000004", "c-seed3")
        lists[threshold] = read_explanation(path).attributes("attfind-greedy", 1)
    assert lists[None] != lists[0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "low,hihg"}, "unknown class 'hihg'"),
        ({"classes": "low"}, "--classes low: give two or more of low, high"),
        ({"methods": "attfind"}, "unknown method 'attfind'"),
        ({"second": "mnist"}, "--second mnist: its classes are 0, 1, .* low, high"),
        ({"classifier": "mnsit"}, "unknown classifier or file 'mnsit'"),
        ({"classifier": None, "second": None}, "no StylEx run"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_wrong_options_are_named_before_anything_is_written(place, capsys, options, message) -> None:
    before = (
        (place["run"] / "results.jsonl").read_bytes() if (place["run"] / "results.jsonl").exists() else b""
    )
    with pytest.raises(UsageError, match=message):
        explained(place, capsys, **options)
    after = (
        (place["run"] / "results.jsonl").read_bytes() if (place["run"] / "results.jsonl").exists() else b""
    )
    assert before == after


def test_two_processes_share_the_effects_and_give_the_values_of_one(place, tmp_path, monkeypatch) -> None:
    values = {}
    monkeypatch.setattr(effects, "CHUNK", 2)  # four chunks for eight images
    for size in (1, 2):
        run = tmp_path / str(size) / place["run"].name
        shutil.copytree(place["run"], run)
        (run / "results.jsonl").unlink(missing_ok=True)
        monkeypatch.setenv("FACT_CACHE", str(tmp_path / f"cache{size}"))

        def call(rank, run=run):
            explain(
                [run],
                threads=1,
                device="cpu",
                images=IMAGES,
                classifier=place["classifier"],
                methods="attfind-greedy,random",
            )

        said = run_group(size, call, tmp_path / f"log{size}")
        values[size] = {r.metric: r.value for r in read_records(run / "results.jsonl")}
        assert all(other.out == "" for other in said[1:])
    assert "AttFind effects: 4 images" in said[0].err  # half of them
    assert values[1] == values[2]  # an image has the same batches in either case
