"""dataset.json: class indices, vectors, null, and every way to get it wrong."""

import json
import unicodedata

import numpy as np
import pytest
import torch
from data_files import image_files, labels_json, write_files

from fact_metrics.base.errors import UsageError, UserError
from fact_train.data import open_dataset


def open_labelled(tmp_path, content: bytes, **options):
    return open_dataset(write_files(tmp_path, image_files(3) | {"dataset.json": content}), **options)


def test_class_indices_follow_the_names_not_the_order_in_the_file(tmp_path):
    dataset = open_labelled(tmp_path, labels_json({"img2.png": 0, "img0.png": 7, "img1.png": 2}))
    assert dataset.labels([0, 1, 2, 0]).tolist() == [7, 2, 0, 7]
    assert dataset.labels([0]).dtype == torch.int64 and dataset.num_classes == 8
    assert dataset.describe()["labels"] == "class"


def test_vectors_come_as_float32_rows(tmp_path):
    dataset = open_labelled(
        tmp_path, labels_json({"img0.png": [0.5, 1], "img1.png": [-2, 0], "img2.png": [3, 4]})
    )
    assert dataset.labels([1, 0]).tolist() == [[-2.0, 0.0], [0.5, 1.0]]
    assert dataset.labels([0]).dtype == torch.float32 and dataset.num_classes == 2
    assert dataset.describe()["labels"] == "vector"


def test_null_and_no_file_mean_unlabelled(tmp_path):
    null = open_labelled(tmp_path / "null", labels_json(None))
    without = open_dataset(write_files(tmp_path / "without", image_files(3)))
    for dataset in (null, without):
        assert dataset.labels([0]) is None and dataset.num_classes == 0
        assert dataset.describe()["labels"] is None
    assert null.sha256 == without.sha256


def test_backslashes_in_names_are_path_separators(tmp_path):
    files = image_files(2, prefix="a/") | image_files(2, prefix="b/")
    labels = {name.replace("/", "\\"): index for index, name in enumerate(files)}
    dataset = open_dataset(write_files(tmp_path, files | {"dataset.json": labels_json(labels)}))
    assert dataset.labels(range(4)).tolist() == [0, 1, 2, 3]


ALL = {"img0.png": 0, "img1.png": 1, "img2.png": 2}
WRONG = {
    "not json": (b"labels", "not in the form"),
    "empty file": (b"", "not in the form"),
    "not text": (b"\xff\xfe\x00", "not in the form"),
    "no labels entry": (b"{}", "not in the form"),
    "a list": (b"[]", "not in the form"),
    "labels is a dict": (json.dumps({"labels": ALL}).encode(), "must be null or a list"),
    "labels is empty": (b'{"labels": []}', "must be null or a list"),
    "not pairs": (b'{"labels": [["img0.png"]]}', "is not a \\[name, label\\] pair"),
    "missing": (labels_json({"img0.png": 0}), r"img1.png has no label \(the first of 2 such\); label all"),
    "extra": (labels_json(ALL | {"img9.png": 1}), "img9.png is labelled but not there; "),
    "twice": (b'{"labels": [["img0.png", 0], ["img0.png", 1]]}', "img0.png is labelled twice"),
    "negative": (labels_json(ALL | {"img1.png": -1}), "label -1 of img1.png is neither"),
    "fraction": (labels_json(ALL | {"img1.png": 1.5}), "label 1.5 of img1.png is neither"),
    "text": (labels_json(ALL | {"img1.png": "cat"}), 'label "cat" of img1.png is neither'),
    "truth": (labels_json(ALL | {"img1.png": True}), "label true of img1.png is neither"),
    "huge": (labels_json(ALL | {"img1.png": 10**30}), "of img1.png is neither"),
    "empty vector": (labels_json(ALL | {"img0.png": []}), "label \\[\\] of img0.png is neither"),
    "nan": (b'{"labels": [["img0.png", [NaN]]]}', "not in the form"),
    "mixed kinds": (labels_json(ALL | {"img1.png": [1.0]}), "a class index and .* a vector of 1"),
    "mixed lengths": (labels_json({"a.png": [1], "b.png": [1, 2]}), "vector of 1 and .* vector of 2"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_labels_are_refused_in_one_line_that_names_the_file(tmp_path, kind):
    content, reason = WRONG[kind]
    with pytest.raises(UserError, match=reason) as failure:
        open_labelled(tmp_path, content)
    assert str(failure.value).startswith(f"{tmp_path / 'dataset.json'}: ") and "\n" not in str(failure.value)


@pytest.mark.parametrize("place", ["dataset.json", "train/dataset.json", "train/sub/dataset.json"])
def test_labels_lie_anywhere_above_their_images(tmp_path, place):
    files = image_files(2, prefix="train/sub/") | image_files(2, prefix="test/")
    keys = {"train/sub/img0.png": 1, "train/sub/img1.png": 0}
    folder = place.removesuffix("dataset.json")
    labels = labels_json({key.removeprefix(folder): label for key, label in keys.items()})
    path = write_files(tmp_path, files | {place: labels})
    assert open_dataset(path).labels([0, 1]).tolist() == [1, 0]
    assert open_dataset(path, split="test").labels([0]) is None


def test_two_label_files_that_disagree_are_refused(tmp_path):
    files = image_files(2, prefix="a/") | image_files(1)
    files["dataset.json"] = labels_json({"a/img0.png": 0, "a/img1.png": 1, "img0.png": 0})
    path = write_files(tmp_path, files | {"a/dataset.json": labels_json({"img0.png": 0, "img1.png": 1})})
    assert open_dataset(path).labels([0, 1, 2]).tolist() == [0, 1, 0]
    write_files(tmp_path, {"a/dataset.json": labels_json({"img0.png": 0, "img1.png": 0})})
    with pytest.raises(UserError, match=r"img1\.png has another label than in .*a/dataset\.json; keep one"):
        open_dataset(path)


SPELT = {
    "dots": lambda name: f"./{name}",
    "backslashes": lambda name: name.replace("/", "\\"),
    "an absolute folder": lambda name: f"/home/me/set/{name}",
    "capitals in the extension": lambda name: name.replace(".png", ".PNG"),
    "decomposed letters": lambda name: unicodedata.normalize("NFD", name),
}


@pytest.mark.parametrize("how", SPELT)
def test_keys_are_matched_however_they_are_spelt(tmp_path, how):
    files = image_files(2, prefix="caf\u00e9/") | image_files(1, prefix="b/")
    labels = {SPELT[how](name): index for index, name in enumerate(files)}
    path = write_files(tmp_path, files | {"dataset.json": labels_json(labels)})
    assert open_dataset(path).labels(range(3)).tolist() == [2, 0, 1]


def test_keys_of_other_files_are_shown_beside_the_files(tmp_path):
    labels = labels_json({"img0.jpg": 0, "img1.jpg": 1, "img2.jpg": 2})
    message = r"img0\.png has no label \(the first of 3 such\), and img0\.jpg is labelled but not"
    with pytest.raises(UserError, match=message):
        open_labelled(tmp_path, labels)


def test_classes_without_images_are_said_and_indices_far_beyond_the_images_refused(tmp_path):
    dataset = open_labelled(tmp_path, labels_json({"img0.png": 7, "img1.png": 1, "img2.png": 1}))
    assert dataset.notes == ("6 of 8 classes have no image: 0, 2-6",)
    with pytest.raises(UserError, match=r"dataset\.json: 1,048,576 classes of 3 images .* number the"):
        open_labelled(tmp_path, labels_json({"img0.png": 2**20 - 1, "img1.png": 1, "img2.png": 1}))
    npz = tmp_path / "a.npz"
    np.savez(npz, np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 3, 3]))
    assert open_dataset(npz).notes == ("1 of 4 classes have no image: 2",)
    np.savez(npz, np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 3, 9999]))
    with pytest.raises(UserError, match="10,000 classes of 4 images"):
        open_dataset(npz)


def test_one_folder_per_class(tmp_path):
    files = image_files(2, prefix="train/dogs/") | image_files(1, prefix="train/cats/x/")
    path = write_files(tmp_path, files | image_files(1, prefix="test/dogs/"))
    train = open_dataset(path, labels="folders")
    assert train.labels(range(3)).tolist() == [0, 1, 1] and train.num_classes == 2
    assert "classes by folder: cats 0, dogs 1" in train.notes and train.describe()["labels_from"] == "folders"
    assert open_dataset(path, split="test", labels="folders").labels([0]).tolist() == [1]
    assert open_dataset(path).labels([0]) is None
    with pytest.raises(UsageError, match=r"write .*dataset\.json as .*add --labels folders .* cats, dogs"):
        open_dataset(path, need_labels=True)
    write_files(tmp_path, image_files(1, prefix="train/"))
    with pytest.raises(UserError, match=r"img0\.png is in no class folder"):
        open_dataset(path, labels="folders")
    for data in ("mnist", _npz(tmp_path)):
        with pytest.raises(UsageError, match=r"--labels folders: .* holds no folders"):
            open_dataset(data, labels="folders")


def _npz(folder):
    np.savez(folder / "n.npz", np.zeros((4, 8, 8, 3), np.uint8))
    return folder / "n.npz"


def test_labels_none_leaves_all_labels_unread(tmp_path):
    assert open_labelled(tmp_path, b"broken", labels="none").num_classes == 0
    assert open_dataset("mnist", split="test", labels="none").labels([0]) is None


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_labels_of_webdataset_samples_are_read(tmp_path, kind):
    files = {}
    for index, (name, image) in enumerate(image_files(3).items()):
        stem = name.removesuffix(".png")
        label = str(2 - index) if kind == "cls" else json.dumps({"label": 2 - index, "text": "a cat"})
        files |= {name: image, f"{stem}.{kind}": label.encode(), f"{stem}.txt": b"a cat"}
    dataset = open_dataset(write_files(tmp_path, files))
    assert dataset.labels(range(3)).tolist() == [2, 1, 0]
    assert dataset.notes == ("3 of 9 files skipped: 3 .txt",)
    (tmp_path / f"img1.{kind}").unlink()
    if kind == "cls":
        with pytest.raises(UserError, match=r"img1\.png has no label"):
            open_dataset(tmp_path)
    else:  # a description of some images is no label
        assert open_dataset(tmp_path).labels([0]) is None


@pytest.mark.parametrize("content", [b"cat", b"-1", b"1.5", b"[1]", b""])
def test_a_cls_file_without_a_class_index_is_refused_by_name(tmp_path, content):
    path = write_files(tmp_path, image_files(1) | {"img0.cls": content})
    with pytest.raises(UserError, match=r"img0\.cls: .* is not a class index"):
        open_dataset(path)
