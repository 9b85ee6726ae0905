"""Stacked MNIST: each channel is a digit of the bundled MNIST, drawn by index, and nothing is stored."""

import hashlib

import pytest
import torch

from fact_metrics.base.errors import UsageError
from fact_train.data import open_dataset
from fact_train.data.stacked import draw_parts
from fact_train.datasets import DATASETS
from fact_train.settings.config import differing_fields
from fact_train.settings.presets import PRESETS
from fact_train.settings.schedules import parse_schedules


@pytest.fixture(scope="module")
def stacked():
    return {split: open_dataset("stacked-mnist", split=split) for split in ("train", "test")}


def test_there_are_128000_training_and_26000_test_images_of_1000_classes(stacked):
    assert {split: len(dataset) for split, dataset in stacked.items()} == {"train": 128_000, "test": 26_000}
    for split, dataset in stacked.items():
        assert (dataset.name, dataset.split) == ("stacked-mnist", split)
        assert (dataset.resolution, dataset.num_channels, dataset.num_classes) == (32, 3, 1000)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_channel_is_a_digit_of_the_same_split_and_the_class_spells_all_three(stacked, split):
    digits, parts = (
        open_dataset("mnist", split=split),
        draw_parts(split, len(open_dataset("mnist", split=split))),
    )
    index = torch.randint(len(stacked[split]), (300,), generator=torch.Generator().manual_seed(0))
    images, classes = stacked[split].images(index), stacked[split].labels(index)
    for channel in range(3):
        of_channel = parts[index, channel]
        assert torch.equal(images[:, channel], digits.images(of_channel)[:, 0])
        assert torch.equal(classes // 10 ** (2 - channel) % 10, digits.labels(of_channel))


def test_digits_are_drawn_evenly_and_independently(stacked):
    parts = draw_parts("train", 60_000)
    assert (parts.min().item(), parts.max().item()) == (0, 59_999)
    # 384,000 draws of 60,000 digits: 6.4 of each, Poisson; without replacement all would have 6 or 7.
    counts = parts.flatten().bincount(minlength=60_000).double()
    assert counts.var().item() == pytest.approx(6.4, rel=0.03)
    correlations = torch.corrcoef(parts.double().T)[[0, 0, 1], [1, 2, 2]]
    assert correlations.abs().max() < 0.015  # five standard errors, 5 / sqrt(128,000)
    classes = stacked["train"].labels(range(128_000)).bincount(minlength=1000)
    assert classes.min() > 70  # digits are 9 to 11 % of MNIST: 90 to 180 expected


def test_the_images_are_the_published_ones(stacked):
    for split, dataset in stacked.items():
        assert dataset.sha256 == DATASETS["stacked-mnist"].sha256[split, 32]
        assert not dataset.repeats


def test_images_take_no_memory_but_the_digits(stacked):
    dataset = stacked["train"]
    dataset.images(range(64))
    held = [value for value in vars(dataset._pixels).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.nbytes for tensor in held) == 128_000 * 3 * 8  # the table of three indices an image


def test_indexing_returns_copies_and_refuses_what_is_not_there(stacked):
    dataset = stacked["test"]
    first = dataset.images([5, 2, 5])
    kept = first.clone()
    first.zero_()
    assert torch.equal(dataset.images(torch.tensor([5, 2, 5])), kept) and torch.equal(kept[0], kept[2])
    assert dataset.images([]).shape == (0, 3, 32, 32)
    with pytest.raises(IndexError):
        dataset.images([26_000])


def test_another_resolution_resizes_each_digit_and_a_subset_is_one_of_the_whole(stacked):
    large = open_dataset("stacked-mnist", split="test", resolution=64)
    digits = open_dataset("mnist", split="test", resolution=64)
    assert torch.equal(large.images([7])[0, 1], digits.images([draw_parts("test", 10_000)[7, 1]])[0, 0])
    few = open_dataset("stacked-mnist", split="test", max_images=100, seed=3)
    every = {hashlib.sha256(image.numpy()).digest() for image in stacked["test"].images(range(26_000))}
    assert len(few) == 100 and few.sha256 != stacked["test"].sha256
    assert {hashlib.sha256(image.numpy()).digest() for image in few.images(range(100))} <= every
    assert few.describe()["max_images"] == 100


def test_gray_images_are_refused_with_the_way_out():
    with pytest.raises(UsageError) as refused:
        open_dataset("stacked-mnist", channels=1)
    assert str(refused.value) == ("--channels 1: each channel of stacked-mnist holds a digit; leave it out")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("stacked-mnist-vectors-64", {"injection", "style_vectors", "fused_modconv"}),
        (
            "stacked-mnist-relativistic",
            {"loss", "r1_gamma", "r2_gamma", "schedule", "beta2", "ema_kimg", "ema_rampup"},
        ),
    ],
)
def test_presets_differ_from_the_base_by_what_their_names_say(name, fields):
    base, config = (PRESETS[preset].config for preset in ("stacked-mnist-stylegan2", name))
    assert set(differing_fields(base, config)) == fields and config.kimg == base.kimg
    assert base.data == "stacked-mnist" and base.channels is None and not base.cond


def test_schedules_of_the_relativistic_preset_have_the_shares_of_r3gan():
    """Huang et al. 2024, table 9: 2 of 10 million images to the end values; the EMA ends at 0.5 million."""
    config = PRESETS["stacked-mnist-relativistic"].config
    schedules = parse_schedules(config.schedule)
    assert {(one.shape, one.kimg / config.kimg) for one in schedules.values()} == {("cosine", 0.2)}
    assert schedules["ema_kimg"].end / config.kimg == 0.05 and config.ema_kimg == 0.0
    assert (config.beta2, schedules["beta2"].end) == (0.9, 0.99)
    for name in ("r1_gamma", "r2_gamma"):
        assert schedules[name].end / getattr(config, name) == pytest.approx(0.1)
    assert not {"g_lr", "d_lr"} & set(schedules)  # a constant rate, as there
