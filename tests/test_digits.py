"""The digit classifier: weights are what their card says, junk is not legible, the recipe repeats."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import fact_metrics.features
from fact_eval.weights import train_digits as train_digits_module
from fact_eval.weights.train_digits import JUNK, augment, fit_digits, make_junk, score_digits, train_digits
from fact_metrics.engines.legibility import compute_classes_covered, compute_legibility, find_legible
from fact_metrics.features import get_detector
from fact_metrics.features.detectors.digits import digits_card, load_digits
from fact_train.data import open_dataset

WEIGHTS = Path(fact_metrics.features.__file__).parent / "weights"


@pytest.fixture(scope="module")
def test_split():
    dataset = open_dataset("mnist", split="test")
    everything = range(len(dataset))
    return dataset.images(everything), dataset.labels(everything)


@pytest.fixture(scope="module")
def probabilities(test_split):
    return get_detector("digits_probs")(test_split[0])


def test_card_has_the_hash_of_the_weights_the_recipe_and_the_command():
    card = digits_card()
    assert card["sha256"] == hashlib.sha256((WEIGHTS / "digits.safetensors").read_bytes()).hexdigest()
    assert card["command"] == "fact-eval train-digits"
    assert card["recipe"]["dataset_sha256"] == open_dataset("mnist", split="train", channels=1).sha256
    assert {"seed", "epochs", "batch", "lr"} <= set(card["recipe"])


def test_accuracy_on_the_test_split_is_what_the_card_says_and_over_99_4_percent(probabilities, test_split):
    accuracy = (probabilities.argmax(dim=1) == test_split[1]).double().mean().item()
    # A handful of digits may fall the other way on another machine's rounding.
    assert accuracy == pytest.approx(digits_card()["accuracy"], abs=5e-4)
    assert accuracy >= 0.994


def test_real_digits_are_legible_and_cover_all_classes(probabilities):
    assert 0.97 <= compute_legibility(probabilities) <= 0.995
    assert compute_classes_covered(probabilities) == 10


def test_legible_digits_are_read_correctly(probabilities, test_split):
    legible = find_legible(probabilities)
    right = (probabilities.argmax(dim=1) == test_split[1])[legible].double().mean().item()
    assert right > 0.998


def _random_network_images(n):
    """Images of networks that were never trained: smooth blobs at many contrasts."""
    images = []
    for seed in range(10):
        rng = torch.Generator().manual_seed(seed)
        x = torch.randn(n // 10, 32, 4, 4, generator=rng)
        for size in (8, 16, 32):
            weight = torch.randn(32, 32, 3, 3, generator=rng) / 17
            x = F.conv2d(F.interpolate(x, size=(size, size), mode="bilinear"), weight, padding=1)
            x = F.leaky_relu(x, 0.2) * 1.4
        x = x[:, :1] / x[:, :1].std() * torch.rand(1, generator=rng) * 2 - torch.rand(1, generator=rng)
        images.append(x)
    return torch.cat(images)


def _junk():
    rng = torch.Generator().manual_seed(0)
    return {
        "uniform noise": torch.rand(500, 1, 32, 32, generator=rng) * 2 - 1,
        "normal noise": torch.randn(500, 1, 32, 32, generator=rng) * 0.5,
        "sparse dots": (torch.rand(500, 1, 32, 32, generator=rng) < 0.1).float() * 2 - 1,
        "blank": torch.linspace(-1, 1, 500).view(-1, 1, 1, 1).expand(-1, 1, 32, 32),
        "untrained networks": _random_network_images(500),
        "blobs": F.interpolate(torch.randn(500, 1, 4, 4, generator=rng), size=(32, 32), mode="bicubic"),
    }


@pytest.mark.parametrize("kind", _junk())
def test_junk_the_classifier_was_not_trained_on_is_not_legible(kind):
    images = (_junk()[kind] * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    assert compute_legibility(get_detector("digits_probs")(images)) <= 0.01


def test_digits_with_halves_swapped_are_not_legible_and_slightly_blurred_ones_are(test_split):
    images = test_split[0][:1000]
    assert compute_legibility(get_detector("digits_probs")(images.roll(16, dims=2))) < 0.02
    blurred = F.avg_pool2d(images.float(), 3, stride=1, padding=1).to(torch.uint8)
    assert compute_legibility(get_detector("digits_probs")(blurred)) > 0.9


def test_features_of_junk_are_not_one_point():
    # Behind the last ReLU they would be: FID could not tell noise from blank paper.
    features = get_detector("digits")((_junk()["uniform noise"] * 127.5 + 128).clamp(0, 255).to(torch.uint8))
    assert features.std(dim=0).mean() > 0.05


def test_features_tell_the_classes_apart(test_split):
    images, labels = test_split[0][:2000], test_split[1][:2000]
    features = get_detector("digits")(images)
    centres = torch.stack([features[labels == label].mean(dim=0) for label in range(10)])
    assert (torch.cdist(features, centres).argmin(dim=1) == labels).double().mean() > 0.98


def test_folded_network_has_no_batchnorm_and_no_gradients():
    net = load_digits()
    assert not any(isinstance(m, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d) for m in net.modules())
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_every_kind_of_junk_is_a_picture_in_range_and_no_digit_as_it_was(test_split):
    digits, labels = test_split[0][:64].float() / 255, test_split[1][:64]
    junk = make_junk(digits, labels, count=70, rng=torch.Generator().manual_seed(0))
    assert junk.shape == (70, 1, 32, 32) and junk.min() >= 0 and junk.max() <= 1
    for make in JUNK.values():
        part = make(digits, labels, torch.Generator().manual_seed(1))
        assert part.shape == digits.shape and not torch.equal(part, digits)


def test_all_kinds_of_junk_take_part_in_equal_shares(monkeypatch):
    kinds = {str(i): lambda digits, labels, rng, i=i: torch.full_like(digits, i / 4) for i in range(4)}
    monkeypatch.setattr(train_digits_module, "JUNK", kinds)
    digits, labels = torch.zeros(5, 1, 32, 32), torch.zeros(5, dtype=torch.int64)
    junk = make_junk(digits, labels, count=10, rng=torch.Generator().manual_seed(0))
    assert sorted((junk.mean(dim=(1, 2, 3)) * 4).long().bincount().tolist()) == [2, 2, 3, 3]


def test_augmentation_moves_digits_little_and_follows_its_generator(test_split):
    digits = test_split[0][:100].float() / 255
    first, again, other = (augment(digits, rng=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    # Ink stays: shape moves, but a digit keeps its amount of ink within a third on average.
    assert first.sum() / digits.sum() == pytest.approx(1, abs=0.34)


def test_recipe_is_deterministic_leaves_the_global_generator_alone_and_learns(test_split):
    images, labels = test_split[0][:1536], test_split[1][:1536]
    options = {"epochs": 3, "batch": 96, "junk_batch": 32, "lr": 4e-3, "weight_decay": 1e-2}
    before = torch.random.get_rng_state()
    first = fit_digits(images, labels, seed=0, report=lambda line: None, **options)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)  # another state of the global generator
    again = fit_digits(images, labels, seed=0, report=lambda line: None, **options)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    score = score_digits(first.eval(), test_split[0][5000:6000], test_split[1][5000:6000], seed=0)
    assert score["accuracy"] > 0.5  # 48 steps; one class in ten would be 0.1
    assert set(score["legible_junk"]) == set(JUNK)


def test_command_writes_weights_and_card_that_the_detector_loads(tmp_path, monkeypatch, test_split):
    class Small:
        sha256 = "of the small set"

        def __len__(self):
            return 256

        def images(self, indices):
            return test_split[0][:256]

        def labels(self, indices):
            return test_split[1][:256]

    monkeypatch.setattr("fact_train.data.open_dataset", lambda name, split, channels: Small())
    card = train_digits(tmp_path, seed=3, epochs=1, report=lambda line: None)
    assert json.loads((tmp_path / "digits.json").read_text()) == card
    assert card["recipe"]["seed"] == 3 and card["recipe"]["dataset_sha256"] == "of the small set"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.json", "digits.safetensors"]
    monkeypatch.setattr("fact_metrics.features.detectors.digits._weights_folder", lambda: tmp_path)
    assert load_digits()(torch.zeros(1, 1, 32, 32))[1].shape == (1, 10)
