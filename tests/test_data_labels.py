"""dataset.json: class indices, vectors, null, and every way to get it wrong."""

import json

import pytest
import torch
from data_files import image_files, labels_json, write_files

from fact_metrics.base.errors import UserError
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


@pytest.mark.parametrize("place", ["dataset.json", "train/sub/dataset.json"])
def test_a_label_file_that_would_go_unread_is_refused(tmp_path, place):
    files = image_files(2, prefix="train/") | image_files(2, prefix="test/")
    with pytest.raises(
        UserError, match=f"{place}: labels are read from train/dataset.json and test/dataset.json only"
    ):
        open_dataset(write_files(tmp_path, files | {place: labels_json({"train/img0.png": 0})}))
