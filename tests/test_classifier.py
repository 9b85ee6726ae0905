"""The explained classifier: its classes, its file, its honesty about itself, and who is refused."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import confusion_matrix as sklearn_confusion

from fact_metrics.base.errors import UsageError, UserError
from fact_train.classifiers import classifier
from fact_train.classifiers.classifier import bundled_names, load_classifier
from fact_train.classifiers.training import confusion_matrix, parse_classes, targets_of, train_classifier
from fact_train.data import open_dataset
from fact_train.networks.classifier import CLASSIFIERS, Classifier, class_part
from fact_train.training.trainer import Trainer

CPU = torch.device("cpu")


def test_classes_are_all_or_some_or_one_against_the_rest() -> None:
    assert [g["labels"] for g in parse_classes("all", num_classes=3)] == [[0], [1], [2]]
    assert parse_classes("8,9", num_classes=10) == [
        {"name": "8", "labels": [8]},
        {"name": "9", "labels": [9]},
    ]
    against = parse_classes("8,rest", num_classes=10)
    assert [g["name"] for g in against] == ["8", "rest"]
    assert targets_of(torch.tensor([8, 1, 9, 8]), against).tolist() == [0, 1, 1, 0]
    assert targets_of(torch.tensor([8, 1]), parse_classes("8,9", num_classes=10)).tolist() == [0, -1]


@pytest.mark.parametrize("text", ["8", "8,8", "8,12", "eight,nine", "", "0,1,2,rest"])
def test_classes_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--classes"):
        parse_classes(text, num_classes=3 if "rest" in text else 10)


def test_confusion_matrix_is_scikit_learn_s() -> None:
    gen = torch.Generator().manual_seed(0)
    true, said = (torch.randint(4, (200,), generator=gen) for _ in range(2))
    ours = confusion_matrix(said, true, num_classes=4)
    assert ours.tolist() == sklearn_confusion(true, said).tolist()


def test_a_trained_classifier_comes_back_with_its_card(tiny_images, tiny_classifier) -> None:
    net, card = load_classifier(tiny_classifier)
    data = open_dataset(str(tiny_images))
    said = classifier.classify(net, data, torch.arange(24)).argmax(dim=1)
    assert (said == data.labels(range(24))).float().mean() > 0.9  # it can be told at a glance
    assert card["classes"] == [{"name": "0", "labels": [0]}, {"name": "1", "labels": [1]}]
    assert sum(map(sum, card["confusion"])) == card["held_out"]["n"] == 2  # a tenth of 24
    assert card["dataset"]["sha256"] == data.sha256 and len(card["weights_sha256"]) == 64
    assert not any(p.requires_grad for p in net.parameters()) and not net.training


def test_same_seed_same_classifier(tiny_images, tiny_classifier, tmp_path) -> None:
    again = train_classifier(
        tmp_path / "again.safetensors", data=str(tiny_images), epochs=12, batch=8, report=lambda line: None
    )
    assert again["weights_sha256"] == load_classifier(tiny_classifier)[1]["weights_sha256"]


def test_an_altered_a_foreign_and_a_torn_file_are_refused(tiny_classifier, tmp_path) -> None:
    from safetensors import safe_open

    tensors = load_file(tiny_classifier)
    with safe_open(tiny_classifier, framework="pt") as f:
        meta = f.metadata()
    name = next(iter(tensors))
    changed = {**tensors, name: tensors[name] + 1}
    save_file(changed, tmp_path / "altered.safetensors", metadata=meta)
    save_file(tensors, tmp_path / "foreign.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(Path(tiny_classifier).read_bytes()[:500])
    for file, message in (
        ("altered", "been altered"),
        ("foreign", "is not a classifier"),
        ("torn", "damaged"),
    ):
        with pytest.raises(UserError, match=message):
            load_classifier(str(tmp_path / f"{file}.safetensors"))
    with pytest.raises(UsageError, match="did you mean mnist"):
        load_classifier("mnits")


def test_a_classifier_that_says_one_class_is_refused_at_start_up(
    stylex_config, tiny_classifier, tmp_path, monkeypatch
) -> None:
    """As in one of the reproductions, whose MNIST classifier always said 8."""
    net, card = load_classifier(tiny_classifier)
    with torch.no_grad():
        net.net[-1].bias.copy_(torch.tensor([100.0, 0.0]))
    path = tmp_path / "degenerate.safetensors"
    classifier.save_classifier(path, net, {k: v for k, v in card.items() if k != "weights_sha256"})
    cfg = dataclasses.replace(stylex_config, classifier=str(path))
    with pytest.raises(UserError, match=r"calls 100.0% of .* '0'"):
        Trainer(cfg, open_dataset(cfg.data), CPU)


def test_a_classifier_of_other_images_is_refused(stylex_config, tiny_classifier32) -> None:
    cfg = dataclasses.replace(stylex_config, classifier=tiny_classifier32)
    with pytest.raises(UserError, match=r"is for 1x32x32 images, .* has 1x8x8"):
        Trainer(cfg, open_dataset(cfg.data), CPU)
    with pytest.raises(UsageError, match="--model stylex needs --classifier"):
        Trainer(dataclasses.replace(cfg, classifier=None), open_dataset(cfg.data), CPU)


def test_class_balance_is_told_at_start_up(stylex_config) -> None:
    (note,) = Trainer(stylex_config, open_dataset(stylex_config.data), CPU).model.notes
    assert "held-out accuracy" in note and "0 5" in note and "1 5" in note  # about half each


def test_unlabelled_data_are_refused(tiny_images, tmp_path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_images, bare)
    (bare / "dataset.json").unlink()
    with pytest.raises(UserError, match="no labels"):
        train_classifier(tmp_path / "c.safetensors", data=str(bare), report=lambda line: None)


@pytest.mark.parametrize("arch", CLASSIFIERS)
def test_every_architecture_classifies_and_passes_gradients(arch: str) -> None:
    torch.manual_seed(0)
    net = Classifier(arch=arch, img_channels=3, num_classes=3, input_size=32).eval()
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    logits = net(x)
    logits.square().sum().backward()
    assert logits.shape == (2, 3) and float(x.grad.abs().sum()) > 0
    assert class_part(logits, "softmax", 1.0).sum(dim=1).allclose(torch.ones(2))
    assert torch.equal(class_part(logits, "logits", 1.0), logits)
    assert torch.equal(class_part(logits, "logits", 0.2), 0.2 * logits)


def test_weights_of_the_same_architecture_can_be_started_from(tmp_path, monkeypatch) -> None:
    """As torchvision's trained ones: another last layer stays new."""
    torch.manual_seed(0)
    data = tmp_path / "colour"
    data.mkdir()
    for i in range(20):
        x = torch.full((16, 16, 3), 40 + 150 * (i % 2), dtype=torch.uint8)
        Image.fromarray(x.numpy()).save(data / f"{i:02d}.png")
    labels = [[f"{i:02d}.png", i % 2] for i in range(20)]
    (data / "dataset.json").write_text(json.dumps({"labels": labels}))
    trained = CLASSIFIERS["resnet18"](3, 1000).state_dict()
    torch.save(trained, tmp_path / "resnet18.pt")
    options = dict(data=str(data), arch="resnet18", epochs=1, batch=4, lr=1e-6, report=lambda line: None)
    # trained for five tiny steps, it may say one class
    monkeypatch.setattr("fact_train.classifiers.training.check_not_degenerate", lambda *args: None)
    train_classifier(tmp_path / "c.safetensors", init=tmp_path / "resnet18.pt", **options)
    net, card = load_classifier(str(tmp_path / "c.safetensors"))
    close = net.net.state_dict()["layer3.0.conv1.weight"] - trained["layer3.0.conv1.weight"]
    assert float(close.abs().max()) < 1e-4 and card["recipe"]["init"] == "resnet18.pt"
    with pytest.raises(UserError, match="holds 0 of"):
        torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
        train_classifier(tmp_path / "d.safetensors", init=tmp_path / "other.pt", **options)


@pytest.mark.parametrize("name", ["mnist", "mnist-8-9", "mnist-8"])
def test_the_bundled_classifiers_are_as_good_as_their_cards_say(name: str) -> None:
    assert name in bundled_names()
    net, card = load_classifier(name)
    test = open_dataset("mnist", split="test")
    targets = targets_of(test.labels(range(len(test))), card["classes"])
    index = (targets >= 0).nonzero().flatten()[:2000]
    said = classifier.classify(net, test, index).argmax(dim=1)
    accuracy = float((said == targets[index]).double().mean())
    noise = (card["accuracy"] * (1 - card["accuracy"]) / len(index)) ** 0.5
    assert card["accuracy"] > 0.99 and abs(accuracy - card["accuracy"]) < 5 * noise


def test_the_command_writes_a_classifier_and_refuses_in_one_line(tiny_images, tmp_path) -> None:
    out = tmp_path / "c.safetensors"
    command = [sys.executable, "-m", "fact_train", "classifier", "--data", str(tiny_images)]
    flags = ["--epochs", "12", "--batch", "8", "--device", "cpu", "--threads", "1"]
    done = subprocess.run([*command, *flags, "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out) and out.is_file()
    assert "training images of each class: 0 " in done.stderr and "held-out accuracy" in done.stderr
    bad = subprocess.run([*command, "--out", str(tmp_path / "c.pt")], capture_output=True, text=True)
    assert bad.returncode == 2 and bad.stderr.startswith("fact-train: --out")
    assert len(bad.stderr.splitlines()) == 1
