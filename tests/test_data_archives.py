"""A tar (WebDataset) and an npz hold the same dataset as the folder they were made of, or are refused."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from data_files import encode, gray, image_files, rgb, write_files, write_zip

from fact_metrics.base.errors import UserError
from fact_train.data import open_dataset
from fact_train.data.errors import UnusableFiles

FILES = {f"{i:04d}.png": encode(rgb(i)) for i in range(5)}


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def folder(tmp_path):
    write_files(tmp_path / "folder", FILES)
    return open_dataset(tmp_path / "folder")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_webdataset_tar_is_the_same_dataset_as_its_folder(tmp_path, folder, suffix):
    shuffled = {name: FILES[name] for name in sorted(FILES, reverse=True)}
    with_texts = {**shuffled, **{name.replace("png", "txt"): b"a caption" for name in FILES}}
    compression = suffix.partition(".")[2]
    path = write_tar(tmp_path / f"samples.{suffix}", with_texts, f"w:{compression}")
    dataset = open_dataset(path)
    assert dataset.sha256 == folder.sha256 and dataset.name == "samples"


def test_a_tar_of_a_folder_is_entered(tmp_path, folder):
    path = write_tar(tmp_path / "a.tar", {f"./made/{name}": content for name, content in FILES.items()})
    assert open_dataset(path).sha256 == folder.sha256


def test_a_truncated_tar_is_refused_by_name(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz", FILES, "w:gz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"a\.tar\.gz: not a readable"):
        open_dataset(path)


def test_all_damaged_files_of_an_archive_are_in_the_error(tmp_path):
    bad = {name: FILES[name][: 40 * (i + 1)] if i in (1, 3) else FILES[name] for i, name in enumerate(FILES)}
    with pytest.raises(UnusableFiles, match="first of 2 such files among 5") as caught:
        open_dataset(write_tar(tmp_path / "a.tar", bad))
    assert [("0001" in line, "0003" in line) for line in caught.value.problems] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    ("name", "layout"), [("arr_0", "NHWC"), ("images", "NCHW"), ("samples", "NHWC"), ("images", "NHW")]
)
def test_an_npz_is_the_same_dataset_as_its_folder(tmp_path, name, layout):
    make = gray if layout == "NHW" else rgb
    write_files(tmp_path / "folder", {f"{i}.png": encode(make(i)) for i in range(5)})
    arrays = np.stack([np.asarray(make(i)) for i in range(5)])
    if layout == "NCHW":
        arrays = arrays.transpose(0, 3, 1, 2)
    np.savez(tmp_path / "made.npz", **{name: arrays})
    dataset = open_dataset(tmp_path / "made.npz")
    assert dataset.sha256 == open_dataset(tmp_path / "folder").sha256 and dataset.name == "made"


def test_an_npz_is_processed_as_a_folder_is(tmp_path):
    write_files(tmp_path / "folder", {f"{i}.png": encode(rgb(i, side=16)) for i in range(5)})
    np.savez(tmp_path / "made.npz", np.stack([np.asarray(rgb(i, side=16)) for i in range(5)]))
    options = {"resolution": 8, "resize": "box", "channels": 1, "max_images": 3}
    ours = open_dataset(tmp_path / "made.npz", **options)
    assert ours.sha256 == open_dataset(tmp_path / "folder", **options).sha256


def test_labels_of_an_npz_are_read(tmp_path):
    np.savez(tmp_path / "made.npz", np.zeros((3, 8, 8, 3), np.uint8), np.array([2, 0, 1]))
    dataset = open_dataset(tmp_path / "made.npz")
    assert dataset.labels([0, 1, 2]).tolist() == [2, 0, 1] and dataset.num_classes == 3


def damaged_zip(path, kind):
    """A zip of two images and a link to one, spoilt after it was written."""
    link = zipfile.ZipInfo("lnk.png")
    link.external_attr, link.compress_type = 0o120777 << 16, zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(write_zip(path, image_files(2)), "a") as archive:
        archive.writestr(link, b"./" * 3000 * (kind == "long link") + b"img0.png")
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # in the table of contents, that of the link
    if kind == "version":
        content[entry + 6] = 255
    elif kind == "link":
        content[entry + 16] ^= 1  # of its checksum
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("version", r"a\.zip: not a readable zip or tar \(zip file version 25\.5\); give a folder"),
        ("link", r"lnk\.png: cannot be read \(a link to what is not in the archive\)"),
        ("long link", r"lnk\.png: cannot be read \(a link to what is not in the archive\)"),
    ],
)
def test_a_zip_with_a_damaged_table_or_link_is_refused_by_name(tmp_path, kind, message):
    with pytest.raises(UserError, match=message):
        open_dataset(damaged_zip(tmp_path / "a.zip", kind))
    assert len(open_dataset(damaged_zip(tmp_path / "good.zip", None))) == 2


def broken_files(at):
    """Archives that decoders refuse in ways of their own, and what is said of each."""
    made = {}
    with zipfile.ZipFile(at / "lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", encode(rgb(side=64)))
    with zipfile.ZipFile(at / "lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        packed = io.BytesIO()
        np.save(packed, np.zeros((3, 8, 8, 3), np.uint8))
        archive.writestr("arr_0.npy", packed.getvalue())
    with zipfile.ZipFile(at / "names.zip", "w") as archive:
        archive.writestr("\u00e9.png", FILES["0000.png"])
    write_tar(at / "short.tar.gz", FILES, mode="w:gz")
    for path in sorted(at.iterdir()):
        content = bytearray(path.read_bytes())
        if path.suffix == ".npz":
            content[60:90] = b"\xff" * 30
        elif path.name == "lzma.zip":  # beyond the header of the image
            content[8000:8030] = b"\xff" * 30
        elif path.name == "names.zip":
            content[30:32] = b"\xff\xff"  # in the member's own header; the table of contents is whole
        else:
            del content[40:]
        made[path.name] = bytes(content)
    return made


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lzma.zip", r"lzma\.zip/a\.png: cannot be read \(Corrupt input data\)"),
        ("lzma.npz", r"lzma\.npz: arr_0 is not a readable array"),
        ("names.zip", r"names\.zip/\u00e9\.png: cannot be read \('utf-8' codec"),
        ("short.tar.gz", r"short\.tar\.gz: not a readable tar \(Compressed file ended"),
    ],
)
def test_whatever_a_decoder_raises_is_one_line(tmp_path, name, message):
    (tmp_path / "good").mkdir()
    path = tmp_path / name
    path.write_bytes(broken_files(tmp_path / "good")[name])
    assert len(open_dataset(tmp_path / "good" / name)) in (1, 3, 5)
    with pytest.raises(UserError, match=message):
        open_dataset(path)


@pytest.mark.parametrize("label, shown", [(-1, "-1"), (10**9, "1,000,000,000")])
def test_a_label_of_an_npz_that_is_no_class_is_named(tmp_path, label, shown):
    np.savez(tmp_path / "made.npz", np.zeros((3, 8, 8, 3), np.uint8), np.array([0, label, 1]))
    with pytest.raises(UserError, match=rf"arr_1 holds the class {shown}; number the classes from 0"):
        open_dataset(tmp_path / "made.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3), "b": np.zeros(3)}, "holds a, b; call the array of images arr_0 or images"),
        ({"images": np.zeros((2, 8, 8, 3))}, "images is float64 2 x 8 x 8 x 3; save uint8"),
        ({"images": np.zeros((2, 8, 8, 7), np.uint8)}, "2 x 8 x 8 x 7; save uint8"),
        ({"images": np.zeros((2, 8, 4, 3), np.uint8)}, "4x8, not square"),
        (
            {"arr_0": np.zeros((2, 8, 8, 3), np.uint8), "arr_1": np.zeros(5, int)},
            "not a list of 2 class indices",
        ),
        ({"images": np.array([{}], dtype=object)}, "not a readable array of plain numbers"),
    ],
)
def test_an_npz_that_holds_no_images_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "made.npz", **arrays)
    with pytest.raises(UserError, match=message):
        open_dataset(tmp_path / "made.npz")
