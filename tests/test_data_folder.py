"""Image folders and zips: which files count, splits, shapes, subsets, and what is refused."""

import os
import sys
import zipfile

import numpy as np
import pytest
import torch
from data_files import encode, gray, image_files, labels_json, rgb, write_files, write_zip
from PIL import Image

import fact_train.data.pixels as pixels_module
from fact_metrics.base.errors import UsageError, UserError
from fact_train.data import dataset_names, open_dataset
from fact_train.data.folder import open_folder
from fact_train.data.processing import RESIZES
from fact_train.datasets import DATASETS, DatasetEntry


def test_images_come_in_the_order_of_their_names_from_all_subfolders(tmp_path):
    files = {
        "b/2.PNG": rgb(3),
        "b/10.png": rgb(2),
        "a.webp": rgb(0),
        "c.JPG": rgb(4),
        "a/deep/er/1.jpeg": rgb(1),
    }
    for name, image in files.items():
        file_format = {"webp": "WEBP", "png": "PNG"}.get(name.rpartition(".")[2].lower(), "JPEG")
        options = {"lossless": True} if file_format == "WEBP" else {}
        write_files(tmp_path, {name: encode(image, file_format, **options)})
    write_files(
        tmp_path, {"notes.txt": b"x", ".hidden.png": b"x", ".git/a.png": b"x", "__MACOSX/a.png": b"x"}
    )
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 5 and dataset.name == tmp_path.name
    for index, name in enumerate(sorted(files)):
        expected = np.asarray(Image.open(tmp_path / name)).transpose(2, 0, 1)
        assert np.array_equal(dataset.images([index])[0].numpy(), expected), name


def test_linked_images_and_folders_are_read_and_a_link_upwards_ends(tmp_path):
    elsewhere = write_files(tmp_path / "elsewhere", image_files(2))
    write_files(tmp_path / "data", image_files(2, prefix="own/"))
    (tmp_path / "data" / "linked").symlink_to(elsewhere)
    (tmp_path / "data" / "one.png").symlink_to(elsewhere / "img0.png")
    (tmp_path / "data" / "own" / "loop").symlink_to(tmp_path / "data")
    dataset = open_dataset(tmp_path / "data")
    assert len(dataset) == 4  # one.png lies in the linked folder as well
    assert dataset.notes == ("2 of 6 files skipped: 2 linked twice",)


@pytest.mark.parametrize("enclosing", ["", "cats/", "deep/er/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_the_same_dataset_as_its_folder(tmp_path, enclosing, compression):
    files = image_files(3, prefix="00000/") | image_files(3, gray, prefix="00001/")
    files["dataset.json"] = labels_json({name: index for index, name in enumerate(files)})
    folder = open_dataset(write_files(tmp_path / "cats", files))
    members = {enclosing + name: content for name, content in reversed(files.items())}
    zipped = open_dataset(write_zip(tmp_path / "cats.zip", members, compression))
    assert zipped.describe() == folder.describe()
    assert torch.equal(zipped.images(range(6)), folder.images(range(6)))
    assert zipped.labels(range(6)).tolist() == [0, 1, 2, 3, 4, 5]
    enclosed = write_files(tmp_path / "outer", {f"{enclosing}{name}": body for name, body in files.items()})
    assert open_dataset(enclosed).sha256 == folder.sha256


def test_train_and_test_subfolders_are_the_splits(tmp_path):
    files = (
        image_files(3, prefix="train/") | image_files(2, gray, prefix="test/") | image_files(1, prefix="val/")
    )
    files["train/dataset.json"] = labels_json({"img0.png": 0, "img1.png": 1, "img2.png": 0})
    files["test/dataset.json"] = labels_json({"img0.png": 4, "img1.png": 0})
    for path in (write_files(tmp_path / "data", files), write_zip(tmp_path / "data.zip", files)):
        train, test = open_dataset(path), open_dataset(path, split="test")
        assert (len(train), train.num_channels, train.labels(range(3)).tolist()) == (3, 3, [0, 1, 0])
        assert (len(test), test.num_channels, test.labels(range(2)).tolist()) == (2, 1, [4, 0])
        assert train.num_classes == test.num_classes == 5
        assert (train.split, test.split) == ("train", "test")


def test_the_test_split_of_a_folder_without_one_is_refused_with_the_way_out(tmp_path):
    write_files(tmp_path, image_files(2, prefix="train/"))
    assert len(open_dataset(tmp_path)) == 2
    with pytest.raises(UserError, match="has no test split; put its images into subfolders train/ and test/"):
        open_dataset(tmp_path, split="test")


@pytest.mark.parametrize("mode", [name for name in RESIZES if name != "none"])
def test_each_resize_mode_is_pillows_filter_of_that_name(tmp_path, mode):
    write_files(tmp_path, {"a.png": encode(rgb(side=21)), "b.png": encode(rgb(1, side=16))})
    dataset = open_dataset(tmp_path, resolution=8, resize=mode)
    for index, image in enumerate((rgb(side=21), rgb(1, side=16))):
        expected = np.asarray(image.resize((8, 8), Image.Resampling[mode.upper()])).transpose(2, 0, 1)
        assert np.array_equal(dataset.images([index])[0].numpy(), expected)


def test_resize_modes_differ_in_pixels_and_hash(tmp_path):
    write_files(tmp_path, {"a.png": encode(rgb(side=21))})
    datasets = [open_dataset(tmp_path, resolution=8, resize=mode) for mode in RESIZES if mode != "none"]
    assert len({bytes(dataset.images([0]).flatten().tolist()) for dataset in datasets}) == len(datasets) == 6
    assert len({dataset.sha256 for dataset in datasets}) == 6


def test_resize_none_refuses_images_of_another_size(tmp_path):
    write_files(tmp_path, {"a.png": encode(rgb(side=8)), "b.png": encode(rgb(side=16))})
    with pytest.raises(UserError, match=r"b\.png is 16x16, not 8x8; choose another --resize than none"):
        open_dataset(tmp_path, resolution=8, resize="none")
    (tmp_path / "b.png").unlink()
    assert open_dataset(tmp_path, resolution=8, resize="none").resolution == 8


def test_crops_take_the_centre_or_pad_with_zeros(tmp_path):
    wide = np.random.default_rng(0).integers(1, 256, (4, 8, 3), dtype=np.uint8)
    tall = wide.transpose(1, 0, 2)
    write_files(tmp_path, {"a.png": encode(Image.fromarray(wide)), "b.png": encode(Image.fromarray(tall))})
    with pytest.raises(UserError, match=r"a\.png is 8x4, not square; choose --crop center or --crop pad"):
        open_dataset(tmp_path)
    cropped = open_dataset(tmp_path, crop="center").images([0, 1]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(cropped, np.stack([wide[:, 2:6], tall[2:6]]))
    padded = open_dataset(tmp_path, crop="pad").images([0, 1]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(padded[0, 2:6], wide) and np.array_equal(padded[1, :, 2:6], tall)
    assert not padded[0, [0, 1, 6, 7]].any() and not padded[1, :, [0, 1, 6, 7]].any()


def test_mixed_sizes_need_a_resolution_and_two_files_are_named(tmp_path):
    write_files(tmp_path, image_files(3) | {"z.png": encode(rgb(side=16))})
    with pytest.raises(UserError, match=r"img0\.png is 8x8 and .*z\.png is 16x16; choose --resolution"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, resolution=16).images(range(4)).shape == (4, 3, 16, 16)


def test_a_common_size_that_the_networks_cannot_have_is_refused_with_the_nearest(tmp_path):
    write_files(tmp_path, image_files(2, lambda seed: rgb(seed, side=100)))
    with pytest.raises(UsageError, match=r"image size 100: .*power of two.*try --resolution 128"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("resolution", [0, -8, 2, 3, 12, 100])
def test_resolutions_that_the_networks_cannot_have_are_refused(resolution):
    with pytest.raises(UsageError, match=f"--resolution {resolution}: .*power of two from 4 to 16384"):
        open_dataset("mnist", split="test", resolution=resolution)


def test_a_folder_or_zip_without_images_is_refused(tmp_path):
    for path in (write_files(tmp_path / "empty", {"a.txt": b""}), write_zip(tmp_path / "empty.zip", {})):
        with pytest.raises(UserError, match=rf"{path}: holds no image"):
            open_dataset(path)
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="bare: holds no image"):
        open_dataset(tmp_path / "bare")


def test_damaged_zips_are_refused_by_name(tmp_path):
    good = write_zip(tmp_path / "a.zip", image_files(3)).read_bytes()
    (tmp_path / "half.zip").write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError, match=r"half\.zip: not a readable zip"):
        open_dataset(tmp_path / "half.zip")
    flipped = bytearray(good)
    flipped[good.index(b"IDAT") + 20] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(flipped)
    with pytest.raises(UserError, match=r"flipped\.zip/img0\.png: cannot be read .*CRC"):
        open_dataset(tmp_path / "flipped.zip")


def test_a_link_to_nothing_is_refused_by_name(tmp_path):
    write_files(tmp_path, image_files(2))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"gone\.png: cannot be read"):
        open_dataset(tmp_path)


def test_max_images_keeps_a_seeded_subset_in_order(tmp_path):
    files = image_files(20)
    files["dataset.json"] = labels_json({name: int(name[3:-4]) for name in files})
    write_files(tmp_path, files)
    everything = open_dataset(tmp_path)
    subsets = {seed: open_dataset(tmp_path, max_images=7, seed=seed) for seed in range(3)}
    chosen = {seed: places_in(everything, subset) for seed, subset in subsets.items()}
    for seed, subset in subsets.items():
        assert len(subset) == 7 and chosen[seed] == sorted(set(chosen[seed]))
        assert subset.num_classes == 20
        assert subset.sha256 == open_dataset(tmp_path, max_images=7, seed=seed).sha256
    assert len({subset.sha256 for subset in subsets.values()}) == len(set(map(tuple, chosen.values()))) == 3
    for enough in (20, 1000):
        assert open_dataset(tmp_path, max_images=enough, seed=5).sha256 == everything.sha256


def places_in(everything, subset) -> list[int]:
    """Places of the subset's images in the whole, found by their pixels; the labels must agree."""
    whole = everything.images(range(len(everything))).flatten(1)
    found = [
        (whole == image).all(1).nonzero().item() for image in subset.images(range(len(subset))).flatten(1)
    ]
    assert subset.labels(range(len(subset))).tolist() == everything.labels(found).tolist()
    return found


def test_a_bad_file_outside_the_subset_does_not_matter_but_inside_does(tmp_path):
    write_files(tmp_path, {"a.png": b"text", "b.png": encode(rgb())})
    outcomes = set()
    for seed in range(20):
        try:
            outcomes.add(len(open_dataset(tmp_path, max_images=1, seed=seed)))
        except UserError as error:
            outcomes.add(str(error).partition(":")[0])
    assert outcomes == {1, str(tmp_path / "a.png")}


def test_pixels_beyond_the_memory_limit_lie_in_a_file_and_read_the_same(tmp_path, monkeypatch):
    write_files(tmp_path / "data", image_files(5))
    in_memory = open_dataset(tmp_path / "data")
    monkeypatch.setattr(pixels_module, "IN_MEMORY_BYTES", 5 * 3 * 8 * 8 - 1)
    made = []

    class Memmap(np.memmap):
        def __new__(cls, *args, **options):
            made.append(args)
            return super().__new__(cls, *args, **options)

    monkeypatch.setattr(np, "memmap", Memmap)
    in_file = open_dataset(tmp_path / "data")
    assert len(made) == 1
    assert in_file.sha256 == in_memory.sha256
    assert torch.equal(in_file.images([4, 0]), in_memory.images([4, 0]))


def test_no_room_for_the_pixels_is_one_line_that_names_tmpdir(tmp_path, monkeypatch):
    write_files(tmp_path, image_files(2))
    monkeypatch.setattr(pixels_module, "IN_MEMORY_BYTES", 0)

    def full(descriptor, offset, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"no room for .* of pixels .*No space left.*set TMPDIR"):
        open_dataset(tmp_path)


def test_progress_counts_up_to_the_number_of_images(tmp_path):
    write_files(tmp_path, image_files(9))
    seen = []
    open_dataset(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (9, 9) and seen == sorted(set(seen))


def test_nothing_is_read_again_after_opening(tmp_path):
    path = write_zip(tmp_path / "a.zip", image_files(3))
    dataset = open_dataset(path)
    path.unlink()
    for index in range(3):
        assert np.array_equal(dataset.images([index])[0].permute(1, 2, 0).numpy(), np.asarray(rgb(index)))


def test_a_new_named_dataset_is_one_entry(tmp_path, monkeypatch):
    folder = write_files(tmp_path / "cats", image_files(3))
    monkeypatch.setitem(DATASETS, "cats", DatasetEntry("cats", opener=f"{__name__}:open_cats"))
    monkeypatch.setattr(
        sys.modules[__name__], "open_cats", lambda **o: open_folder(folder, **o), raising=False
    )
    assert dataset_names() == ["cats", "mnist", "stacked-mnist"]
    assert open_dataset("cats", resolution=16).describe() == open_dataset(folder, resolution=16).describe()


def test_unknown_names_paths_and_options_suggest_what_was_meant(tmp_path):
    write_files(tmp_path / "cats", image_files(2))
    assert dataset_names() == ["mnist", "stacked-mnist"]
    for arguments, suggestion in (
        ({"data": "mnits"}, "unknown dataset or path 'mnits'; did you mean mnist?"),
        ({"data": tmp_path / "catz"}, f"did you mean {tmp_path / 'cats'}?"),
        ({"data": ""}, "unknown dataset or path ''; known: mnist, stacked-mnist."),
        ({"data": "no/such/place"}, "known: mnist, stacked-mnist."),
        ({"data": "mnist", "split": "tset"}, "unknown split 'tset'; did you mean test?"),
        ({"data": "mnist", "resize": "lanczoz"}, "unknown resize 'lanczoz'; did you mean lanczos?"),
        ({"data": "mnist", "resize": 7}, "unknown resize 7; known: "),
        ({"data": "mnist", "crop": "centre"}, "unknown crop 'centre'; did you mean center?"),
        ({"data": "mnist", "alpha": "blakc"}, "unknown alpha 'blakc'; did you mean black?"),
        ({"data": "mnist", "channels": 4}, "--channels 4: must be 1 (gray) or 3 (RGB)"),
        ({"data": "mnist", "max_images": 0}, "--max-images 0: must be at least 1"),
    ):
        with pytest.raises(UsageError) as failure:
            open_dataset(arguments.pop("data"), **arguments)
        assert suggestion in str(failure.value) and failure.value.exit_code == 2


def test_a_file_that_is_no_zip_is_refused(tmp_path):
    write_files(tmp_path, image_files(1))
    with pytest.raises(UserError, match=r"img0\.png: a single picture; give the folder that holds it"):
        open_dataset(tmp_path / "img0.png")
