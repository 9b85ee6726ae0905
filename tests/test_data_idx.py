"""Bundled MNIST and any folder of idx files."""

import gzip
import shutil

import numpy as np
import pytest
import torch
from data_files import idx, idx_files, write_files
from PIL import Image

import fact_train.data.idx as idx_module
from fact_metrics.base.errors import UserError
from fact_train.data import open_dataset


@pytest.fixture(scope="module")
def mnist():
    return {split: open_dataset("mnist", split=split) for split in ("train", "test")}


def test_mnist_is_complete_gray_and_of_ten_classes(mnist):
    assert {split: len(dataset) for split, dataset in mnist.items()} == {"train": 60_000, "test": 10_000}
    for split, dataset in mnist.items():
        assert (dataset.name, dataset.split) == ("mnist", split)
        assert (dataset.resolution, dataset.num_channels, dataset.num_classes) == (32, 1, 10)
    # digits 0..9 in the test set, as published: http://yann.lecun.com/exdb/mnist/
    counts = torch.bincount(mnist["test"].labels(range(10_000))).tolist()
    assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_mnist_is_padded_by_two_zero_pixels_around_the_published_ones(mnist):
    raw = gzip.decompress((idx_module.MNIST_FOLDER / "t10k-images-idx3-ubyte.gz").read_bytes())
    raw = torch.from_numpy(np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28).copy())
    images = mnist["test"].images(range(10_000))
    assert images.dtype == torch.uint8 and images.shape == (10_000, 1, 32, 32)
    assert torch.equal(images[:, 0, 2:30, 2:30], raw)
    assert images.sum(dtype=torch.int64) == raw.sum(dtype=torch.int64)


def test_indexing_takes_lists_ranges_and_tensors_and_returns_copies(mnist):
    dataset = mnist["test"]
    by_list = dataset.images([5, 2, 5])
    assert torch.equal(by_list, dataset.images(torch.tensor([5, 2, 5])))
    assert torch.equal(by_list[1:2], dataset.images(range(2, 3)))
    assert dataset.images([]).shape == (0, 1, 32, 32) and dataset.labels([]).shape == (0,)
    assert dataset.labels([0, 1, 2]).tolist() == [7, 2, 1]
    kept = by_list.clone()
    by_list.zero_()
    assert torch.equal(dataset.images([5, 2, 5]), kept)
    with pytest.raises(IndexError):
        dataset.images([10_000])


def test_a_changed_pixel_inside_a_valid_gzip_fails_the_md5(tmp_path, monkeypatch):
    shutil.copytree(idx_module.MNIST_FOLDER, tmp_path / "mnist")
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[5_000] ^= 1
    path.write_bytes(gzip.compress(content, 1))
    monkeypatch.setattr(idx_module, "MNIST_FOLDER", tmp_path / "mnist")
    with pytest.raises(
        UserError, match=r"t10k-images-idx3-ubyte\.gz: md5 .*published is 2646ac64"
    ) as failure:
        open_dataset("mnist", split="test")
    assert "\n" not in str(failure.value)


def test_a_flipped_byte_of_the_gzip_is_refused_with_its_name(tmp_path, monkeypatch):
    shutil.copytree(idx_module.MNIST_FOLDER, tmp_path / "mnist")
    path = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    monkeypatch.setattr(idx_module, "MNIST_FOLDER", tmp_path / "mnist")
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz: .*fetch it again$") as failure:
        open_dataset("mnist", split="test")
    assert "\n" not in str(failure.value)


def test_the_mnist_folder_by_path_is_the_same_dataset(mnist):
    by_path = open_dataset(idx_module.MNIST_FOLDER, split="test")
    assert by_path.describe() == mnist["test"].describe()


def test_another_idx_folder_opens_gzipped_and_plain(tmp_path):
    files = idx_files(count=20)
    zipped = open_dataset(write_files(tmp_path / "fashion", files))
    plain = open_dataset(
        write_files(tmp_path / "plain", {name[:-3]: gzip.decompress(body) for name, body in files.items()})
    )
    assert (zipped.name, len(zipped), zipped.num_classes, zipped.resolution) == ("fashion", 20, 10, 32)
    assert zipped.sha256 == plain.sha256
    assert zipped.sha256 != open_dataset(tmp_path / "fashion", split="test").sha256
    assert zipped.labels(range(12)).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_classes_are_counted_over_both_splits(tmp_path):
    files = idx_files()
    files["train-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.zeros(20, np.uint8)))
    assert open_dataset(write_files(tmp_path, files)).num_classes == 10
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert open_dataset(tmp_path).num_classes == 1


@pytest.mark.parametrize("side, resolution", [(28, 32), (32, 32), (3, 4), (5, 8)])
def test_idx_images_are_centred_in_the_next_power_of_two(tmp_path, side, resolution):
    files = idx_files(count=3, side=side)
    dataset = open_dataset(write_files(tmp_path, files))
    assert dataset.resolution == resolution
    raw = np.frombuffer(gzip.decompress(files["train-images-idx3-ubyte.gz"]), np.uint8, offset=16)
    start = (resolution - side + 1) // 2
    inner = dataset.images(range(3))[:, 0, start : start + side, start : start + side]
    assert np.array_equal(inner.numpy(), raw.reshape(3, side, side))
    assert dataset.images(range(3)).sum(dtype=torch.int64) == int(raw.sum(dtype=np.int64))


def test_idx_images_are_resized_from_the_padded_square(tmp_path):
    write_files(tmp_path, idx_files(count=3))
    padded = open_dataset(tmp_path).images([1])[0, 0].numpy()
    for resolution, mode, resampling in (
        (16, "box", Image.Resampling.BOX),
        (64, "bicubic", Image.Resampling.BICUBIC),
    ):
        dataset = open_dataset(tmp_path, resolution=resolution, resize=mode)
        expected = np.asarray(Image.fromarray(padded).resize((resolution, resolution), resampling))
        assert np.array_equal(dataset.images([1])[0, 0].numpy(), expected)


def test_three_channels_repeat_the_gray_one(mnist):
    colour = open_dataset("mnist", split="test", channels=3)
    assert torch.equal(colour.images([3]), mnist["test"].images([3]).expand(-1, 3, -1, -1))


def test_idx_images_that_are_not_square_need_a_crop(tmp_path):
    files = idx_files(count=2)
    pixels = np.random.default_rng(0).integers(1, 256, (2, 8, 6), dtype=np.uint8)
    files["train-images-idx3-ubyte.gz"] = gzip.compress(idx(pixels))
    files["train-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.zeros(2, np.uint8)))
    write_files(tmp_path, files)
    with pytest.raises(UserError, match="6x8, not square; choose --crop"):
        open_dataset(tmp_path)
    padded = open_dataset(tmp_path, crop="pad").images([0, 1])[:, 0].numpy()
    assert np.array_equal(padded[:, :, 1:7], pixels) and not padded[:, :, [0, 7]].any()
    cropped = open_dataset(tmp_path, crop="center").images([0, 1])[:, 0].numpy()  # 6x6, padded to 8x8 again
    assert np.array_equal(cropped[:, 1:7, 1:7], pixels[:, 1:7])


def test_resize_none_refuses_another_resolution(tmp_path):
    write_files(tmp_path, idx_files(count=2))
    assert open_dataset(tmp_path, resize="none").resolution == 32
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte: .*32x32.*64; choose another --resize"):
        open_dataset(tmp_path, resize="none", resolution=64)


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    "name, spoil, reason",
    [
        ("train-images-idx3-ubyte.gz", _cut, "cannot be read or unpacked"),
        ("train-images-idx3-ubyte.gz", lambda content: b"", "cannot be read|not an idx3"),
        ("train-images-idx3-ubyte.gz", lambda content: b"no gzip", "cannot be read or unpacked"),
        ("train-labels-idx1-ubyte.gz", lambda c: gzip.compress(_cut(gzip.decompress(c))), "promises 20"),
        ("train-labels-idx1-ubyte.gz", lambda c: gzip.compress(b"text, no idx"), "not an idx1"),
        ("train-labels-idx1-ubyte.gz", lambda c: gzip.compress(b"\0\0\x08"), "not an idx1"),
        ("train-images-idx3-ubyte.gz", lambda c: gzip.compress(idx(np.zeros((0, 8, 8), "B"))), "nothing"),
        ("t10k-labels-idx1-ubyte.gz", _cut, "cannot be read or unpacked"),
    ],
)  # fmt: skip
def test_a_damaged_idx_file_is_refused_in_one_line_that_names_it(tmp_path, name, spoil, reason):
    files = idx_files()
    files[name] = spoil(files[name])
    write_files(tmp_path, files)
    with pytest.raises(UserError, match=f"{name}: .*({reason})") as failure:
        open_dataset(tmp_path)
    assert "\n" not in str(failure.value) and failure.value.exit_code == 1


def test_missing_labels_and_unequal_counts_are_refused(tmp_path):
    files = idx_files()
    write_files(
        tmp_path / "unequal",
        files | {"train-labels-idx1-ubyte.gz": gzip.compress(idx(np.zeros(3, np.uint8)))},
    )
    with pytest.raises(UserError, match="20 images in train-images-idx3-ubyte and 3 labels in train-labels"):
        open_dataset(tmp_path / "unequal")
    del files["train-labels-idx1-ubyte.gz"]
    with pytest.raises(UserError, match="train-labels-idx1-ubyte: no such file"):
        open_dataset(write_files(tmp_path / "missing", files))
