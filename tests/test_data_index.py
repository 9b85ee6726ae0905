"""Image files that were decoded once are known again, until one of them changes."""

import io
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from data_files import encode, image_files, labels_json, rgb, write_files, write_zip
from eval_toys import TRAIN, make_data, make_pictures, make_run, register_toys

import fact_metrics.registry
from fact_eval import cli
from fact_eval.images import datasets
from fact_metrics.base import progress
from fact_metrics.base.errors import UserError
from fact_metrics.base.progress import Progress
from fact_train.data import folder as folder_module
from fact_train.data import index as module
from fact_train.data import open_dataset

COUNT = 6


@pytest.fixture
def decoded(monkeypatch, tmp_path):
    """Names of files in the order they are decoded; every file is old enough to be remembered."""
    decode, names = folder_module.decode, []

    def counted(stream, path, **options):
        names.append(os.path.basename(path))
        return decode(stream, path, **options)

    monkeypatch.setattr(folder_module, "decode", counted)
    monkeypatch.setattr(module, "SETTLED", -1.0)
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    return names


def files():
    labels = {f"img{i}.png": i % 2 for i in range(COUNT)}
    last = {f"img{COUNT - 1}.png": encode(rgb(0)), "dataset.json": labels_json(labels)}
    return {**image_files(COUNT - 1), **last}


def make(tmp_path, packed):
    return write_zip(tmp_path / "a.zip", files()) if packed else write_files(tmp_path / "a", files())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("lazy_first", [False, True])
def test_what_was_decoded_before_is_decoded_when_it_is_asked_for_and_once(
    tmp_path, decoded, packed, lazy_first
):
    path = make(tmp_path, packed)
    first = open_dataset(path, lazy=lazy_first)
    described, repeats, images = first.describe(), first.repeats, first.images(range(COUNT))
    assert sorted(decoded) == sorted(f"img{i}.png" for i in range(COUNT)) and repeats == 1
    decoded.clear()
    again = open_dataset(path, lazy=True)
    assert (again.describe(), again.repeats) == (described, 1)
    assert torch.equal(again.labels([1]), first.labels([1])) and decoded == []
    for indices in ([4, 2, 4], [2], torch.tensor([4, 1])):
        assert torch.equal(again.images(indices), images[torch.as_tensor(indices)])
    assert sorted(decoded) == ["img1.png", "img2.png", "img4.png"]
    with pytest.raises(IndexError):
        again.images([COUNT])
    fresh = open_dataset(path)
    assert fresh.describe() == described and torch.equal(fresh.images(range(COUNT)), images)


CHANGES = {
    "pixels": lambda folder: (folder / "img1.png").write_bytes(encode(rgb(9))),
    "pixels, with the old date": lambda folder: _write_dated(folder / "img1.png", encode(rgb(9))),
    "a file more": lambda folder: (folder / "img9.png").write_bytes(encode(rgb(9))),
    "a file less": lambda folder: (folder / "img1.png").unlink(),
    "labels": lambda folder: (folder / "dataset.json").write_bytes(
        labels_json({f"img{i}.png": 1 - i % 2 for i in range(COUNT)})
    ),
    "two names": lambda folder: _swap(folder / "img1.png", folder / "img2.png"),
}


def _write_dated(path, content):
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _swap(one, other):
    one.rename(one.with_suffix(".tmp")), other.rename(one), one.with_suffix(".tmp").rename(other)


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changed_is_seen(tmp_path, decoded, change):
    path = write_files(tmp_path / "a", {**files(), "dataset.json": labels_json(None)})
    if change == "labels":
        write_files(path, {"dataset.json": files()["dataset.json"]})
    before = open_dataset(path, lazy=True).sha256
    CHANGES[change](path)
    decoded.clear()
    after = open_dataset(path, lazy=True)
    assert len(decoded) == len(after)
    assert after.sha256 == open_dataset(shutil.copytree(path, tmp_path / "b")).sha256 != before


def test_a_change_after_opening_is_refused_and_does_not_reach_a_number(tmp_path, decoded):
    path = make(tmp_path, False)
    for spoil in (lambda p: p.write_bytes(encode(rgb(9))), lambda p: p.unlink()):
        open_dataset(path, lazy=True)
        dataset = open_dataset(path, lazy=True)
        dataset.images([0])
        spoil(path / "img3.png")
        with pytest.raises(UserError, match=r"img3\.png: (changed since it was opened; run|cannot be read)"):
            dataset.images([2, 3])
        assert len(dataset.images([0, 2])) == 2


def test_options_and_decoders_have_indexes_of_their_own(tmp_path, decoded, monkeypatch):
    path = make(tmp_path, False)
    seen = {open_dataset(path, lazy=True, **o).sha256 for o in ({}, {"channels": 1}, {"resolution": 4})}
    assert len(seen) == 3 and len(decoded) == 3 * COUNT
    monkeypatch.setattr(module, "_decoders", lambda: ["another Pillow"])
    assert open_dataset(path, lazy=True).sha256 in seen and len(decoded) == 4 * COUNT


def test_files_written_just_now_and_files_of_a_forged_index_are_decoded(tmp_path, decoded, monkeypatch):
    path = make(tmp_path, False)
    open_dataset(path, lazy=True)
    (kept,) = (tmp_path / "cache" / "datasets").glob("*.json")
    saved = json.loads(kept.read_text())
    right, saved["value"]["entries"]["sha256"] = saved["value"]["entries"]["sha256"], "f" * 64
    kept.write_text(json.dumps(saved))
    assert open_dataset(path, lazy=True).sha256 == right
    assert len(decoded) == 2 * COUNT
    monkeypatch.setattr(module, "SETTLED", 3600.0)
    assert open_dataset(path, lazy=True).repeats == 1 and len(decoded) == 3 * COUNT


def test_without_a_place_for_the_index_all_is_decoded(tmp_path, decoded, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "file"))
    path = make(tmp_path, False)
    assert open_dataset(path, lazy=True).sha256 == open_dataset(path, lazy=True).sha256
    assert len(decoded) == 2 * COUNT


def test_of_several_that_open_a_dataset_one_decodes_it(tmp_path, decoded):
    path = make(tmp_path, False)
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_dataset(path, lazy=True).sha256, range(4)))
    assert len(set(opened)) == 1 and len(decoded) == COUNT


def test_scoring_says_how_far_decoding_is_and_nothing_where_there_is_none(tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    path, said = make(tmp_path, False), []
    for _ in range(2):
        stream = io.StringIO()
        datasets.open_images(path, progress=Progress(stream=stream))
        said.append(stream.getvalue())
    assert said[0].startswith(f"{path} train, decoding: {COUNT} images in ") and said[1] == ""
    calls = []  # when opening is over, nobody listens any more
    open_dataset(path, lazy=True, progress=lambda *done: calls.append(done)).images(range(COUNT))
    assert not calls


def test_one_more_checkpoint_and_the_same_pictures_again_decode_nothing(tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    monkeypatch.chdir(tmp_path)
    register_toys()
    data, runs = make_data(tmp_path / "toy"), tmp_path / "runs"
    pictures = make_pictures(tmp_path / "mine", TRAIN)
    names = ["--metrics", "toy_distance,toy_distance_test", "--device", "cpu"]

    def score(*argv):
        decoded.clear()
        assert cli._run([str(a) for a in (*argv, *names)]) == 0
        return len(decoded)

    make_run(runs, data)
    assert score("all", runs) > 0
    make_run(runs, data, seed=1)
    assert score("all", runs) == 0
    assert score("images", pictures, "--reference", data) == TRAIN
    assert score("images", pictures, "--reference", data, "--force") == 0
