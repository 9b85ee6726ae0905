"""The same images are the same dataset, whatever holds them; what cannot be used is refused or counted."""

import io
import os
import socket
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from data_files import encode, gray, image_files, labels_json, rgb, write_files, write_zip
from PIL import Image, features

from fact_metrics.base.errors import UsageError, UserError
from fact_train.data import open_dataset
from fact_train.data.errors import MissingSplit

COUNT = 6
LABELS = [2, 0, 1, 0, 2, 1]
FILES = image_files(COUNT)
DOCUMENT = {"dataset.json": labels_json(dict(zip(FILES, LABELS, strict=True)))}
PIXELS = np.stack([np.asarray(rgb(i)) for i in range(COUNT)])


def write_tar(path, files, *extra):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def webdataset(path):
    samples = {}
    for (name, content), label in zip(FILES.items(), LABELS, strict=True):
        samples |= {name: content, name.replace(".png", ".cls"): str(label).encode()}
    return write_tar(path, samples)


def arrays(path):
    np.savez(path, PIXELS, np.array(LABELS))
    return path


def hugging_face(path):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": content, "path": None} for content in FILES.values()], "label": LABELS}
    names = datasets.ClassLabel(names=["a", "b", "c"])
    table = datasets.Dataset.from_dict(
        rows, features=datasets.Features({"image": datasets.Image(), "label": names})
    )
    return table


def arrow(path):
    hugging_face(path).save_to_disk(str(path))
    return f"hf:{path}"


def parquet(path):
    path.mkdir()
    hugging_face(path).to_parquet(str(path / "train-00000-of-00001.parquet"))
    return f"hf:{path}"


WAYS = {
    "folder": lambda at: write_files(at / "folder", FILES | DOCUMENT),
    "zip": lambda at: write_zip(at / "a.zip", FILES | DOCUMENT),
    "zip of Windows": lambda at: write_zip(
        at / "w.zip", {f"top\\{name}": content for name, content in (FILES | DOCUMENT).items()}
    ),
    "tar": lambda at: write_tar(at / "a.tar", FILES | DOCUMENT),
    "WebDataset": lambda at: webdataset(at / "wds.tar"),
    "npz": lambda at: arrays(at / "a.npz"),
    "NPZ": lambda at: arrays(at / "b.npz").rename(at / "A.NPZ"),
    "arrow": lambda at: arrow(at / "arrow"),
    "parquet": lambda at: parquet(at / "parquet"),
}
MEMORY = {
    "tensor": lambda: torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
    "array": lambda: PIXELS,
    "pictures": lambda: [rgb(i) for i in range(COUNT)],
}


@pytest.fixture
def expected(tmp_path, monkeypatch):
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    return open_dataset(WAYS["folder"](tmp_path)).sha256


@pytest.mark.parametrize("way", WAYS)
def test_one_dataset_has_one_hash_whatever_holds_it(tmp_path, expected, way):
    dataset = open_dataset(WAYS[way](tmp_path))
    assert dataset.labels(range(COUNT)).tolist() == LABELS
    assert dataset.sha256 == expected


@pytest.mark.parametrize("way", MEMORY)
def test_images_in_memory_have_the_hash_of_their_files(expected, way):
    assert open_dataset(MEMORY[way](), labels=LABELS).sha256 == expected


def test_an_npy_is_a_dataset_without_labels(tmp_path, expected):
    np.save(tmp_path / "a.npy", PIXELS)
    unlabelled = open_dataset(write_files(tmp_path / "plain", FILES))
    assert open_dataset(tmp_path / "a.npy").sha256 == unlabelled.sha256
    np.save(tmp_path / "a.npy", PIXELS.astype(float))
    with pytest.raises(UserError, match=r"a\.npy: arr_0 is float64 .*; save uint8 images"):
        open_dataset(tmp_path / "a.npy")


def test_every_ending_of_jpeg_is_read(tmp_path):
    names = ("a.jpg", "b.jpeg", "c.jpe", "d.jfif", "e.mpo", "f.JPG")
    dataset = open_dataset(write_files(tmp_path, {name: encode(rgb(), "JPEG") for name in names}))
    assert len(dataset) == len(names) and dataset.notes == ()


def test_gray_images_among_colour_are_counted(tmp_path):
    files = {"a.png": encode(rgb()), "b.png": encode(gray()), "c.png": encode(gray(1))}
    dataset = open_dataset(write_files(tmp_path, files))
    assert dataset.notes == ("2 of 3 images are gray, read as RGB",) and dataset.images([1]).shape[1] == 3


@pytest.mark.parametrize("file_format, name", [("BMP", "a.bmp"), ("TIFF", "a.TIF"), ("GIF", "a.gif")])
def test_other_lossless_formats_are_read(tmp_path, file_format, name):
    image = gray() if file_format == "GIF" else rgb()
    dataset = open_dataset(write_files(tmp_path, {name: encode(image, file_format)}))
    found = dataset.images([0])[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found, np.asarray(image.convert("RGB"))) and dataset.notes == ()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_what_pillow_decodes(tmp_path):
    path = write_files(tmp_path, {"a.avif": encode(rgb(side=16), "AVIF")})
    expected = np.asarray(Image.open(path / "a.avif").convert("RGB"))
    assert np.array_equal(open_dataset(path).images([0])[0].permute(1, 2, 0).numpy(), expected)


def test_heic_is_read_with_its_extra_and_named_without(tmp_path, monkeypatch):
    from fact_train.data import decode, splits

    path = write_files(tmp_path, image_files(1) | {"a.heic": b"x"})
    without = tuple(name for name in decode.formats() if name != "HEIF")
    monkeypatch.setattr(decode, "formats", lambda: without)
    monkeypatch.setattr(splits, "formats", lambda: without)
    hint = "1 of 2 files skipped: 1 .heic (needs pip install fact-stylegan[heic])"
    assert open_dataset(path).notes == (hint,)


def test_the_first_frame_of_a_gif_is_read_and_counted(tmp_path):
    frames = [gray(0), gray(1)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    dataset = open_dataset(write_files(tmp_path, {"a.gif": content, "b.png": encode(rgb(2))}))
    assert np.array_equal(dataset.images([0])[0, 0].numpy(), np.asarray(frames[0]))
    assert dataset.notes == ("1 images animated, first frame read",)
    assert dataset.describe()["first_frames"] == 1


def test_a_tiff_of_pages_and_float_values_are_refused(tmp_path):
    pages = encode(rgb(0), "TIFF", save_all=True, append_images=[rgb(1)])
    floats = encode(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF")
    whole = encode(Image.fromarray(np.full((8, 8), 70_000, np.int32)), "TIFF")
    for content, message in (
        (pages, "2 pages; save"),
        (floats, "pixel format F is not read"),
        (whole, "pixel format I is not read"),
    ):
        with pytest.raises(UserError, match=rf"a\.tiff: {message}"):
            open_dataset(write_files(tmp_path, {"a.tiff": content}))


def test_turned_images_are_counted_and_recorded(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 8, 3), dtype=np.uint8))
    files = {"a.png": encode(rgb()), "b.jpg": encode(rgb(1), "JPEG", exif=exif)}
    dataset = open_dataset(write_files(tmp_path / "a", files))
    assert dataset.notes == ("1 images turned or flipped as their EXIF says",)
    assert dataset.describe()["exif_turned"] == 1
    assert "exif_turned" not in open_dataset(write_files(tmp_path / "b", image_files(2))).describe()
    for file_format in ("PNG", "JPEG", "TIFF", "WEBP"):  # upright both are 4x8
        tall = encode(wide.transpose(Image.Transpose.ROTATE_90))
        turned = encode(wide, file_format, exif=exif)
        at = write_files(tmp_path / file_format, {f"a.{file_format.lower()}": turned, "b.png": tall})
        with pytest.raises(UserError, match="is 4x8, not square"):
            open_dataset(at)


def test_whatever_is_passed_over_is_counted(tmp_path):
    files = {"notes.txt": b"", "a.csv": b"", "b.csv": b"", ".DS_Store": b"", ".git/x": b"", "bare": b""}
    dataset = open_dataset(write_files(tmp_path, image_files(2) | files | DOCUMENT_OF_2))
    assert dataset.notes == ("6 of 9 files skipped: 2 .csv, 2 hidden, 1 .txt, 1 without extension",)


DOCUMENT_OF_2 = {"dataset.json": labels_json({"img0.png": 0, "img1.png": 1})}


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    for files, seen in (
        ({"a.svg": b"", "b.svg": b"", ".x": b""}, r"it holds 2 \.svg, 1 hidden; give a folder that does"),
        ({"a.npz": b"", "b.npy": b""}, r"it holds 1 \.npy, 1 \.npz; give the \.npz or \.npy file itself"),
    ):
        with pytest.raises(UserError, match=rf"holds no image .*; {seen}"):
            open_dataset(write_files(tmp_path / next(iter(files)), files))


def test_fifos_sockets_and_devices_are_never_opened(tmp_path):
    write_files(tmp_path, image_files(2))
    os.mkfifo(tmp_path / "z.png")
    (tmp_path / "y.png").symlink_to("/dev/zero")
    (tmp_path / "x.png").symlink_to(tmp_path / "z.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "w.png"))
        dataset = open_dataset(tmp_path)
    assert len(dataset) == 2
    assert dataset.notes == ("4 of 6 files skipped: 2 FIFO, 1 device, 1 socket",)
    with pytest.raises(UserError, match=r"z\.png: a FIFO, never opened; give a folder"):
        open_dataset(tmp_path / "z.png")


def test_folders_that_link_to_each_other_are_read_once(tmp_path):
    write_files(tmp_path, image_files(3, prefix="a/") | image_files(3, gray, prefix="b/"))
    (tmp_path / "a" / "b").symlink_to("../b")
    (tmp_path / "b" / "a").symlink_to("../a")
    (tmp_path / "a" / "up").symlink_to("../..")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 6
    assert dataset.notes[0] == "3 of 9 files skipped: 2 linked twice, 1 link upwards"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for index in range(2):
            archive.writestr("i0.png", encode(rgb(index)))
    write_tar(tmp_path / "a.tar", {"i0.png": encode(rgb()), "./i0.png": encode(rgb(1))})
    for name in ("a.zip", "a.tar"):
        with pytest.raises(UserError, match=rf"{name}: two members are called i0\.png; keep one"):
            open_dataset(tmp_path / name)


def test_links_in_archives_are_those_of_a_folder(tmp_path):
    folder = write_files(tmp_path / "folder", FILES)
    (folder / "lnk.png").symlink_to("img0.png")
    os.link(folder / "img1.png", folder / "hard.png")
    packed = write_tar(
        tmp_path / "a.tar",
        FILES,
        link("lnk.png", "img0.png"),
        link("hard.png", "img1.png", tarfile.LNKTYPE),
        link("pipe.png", "", tarfile.FIFOTYPE),
    )
    plain, tarred = open_dataset(folder), open_dataset(packed)
    assert len(plain) == len(tarred) == COUNT + 1 and plain.sha256 == tarred.sha256
    assert plain.notes == ("1 of 8 files skipped: 1 linked twice",)
    assert tarred.notes == ("2 of 9 files skipped: 1 FIFO, 1 linked twice",)
    for target in ("/etc/passwd", "../outside.png", "nowhere.png"):
        with pytest.raises(UserError, match=r"lnk\.png: cannot be read \(a link to what is not in"):
            open_dataset(write_tar(tmp_path / "b.tar", FILES, link("lnk.png", target)))
    zipped = zipfile.ZipInfo("lnk.png")
    zipped.external_attr = 0o120777 << 16
    with zipfile.ZipFile(write_zip(tmp_path / "a.zip", FILES), "a") as archive:
        archive.writestr(zipped, "img0.png")
    assert open_dataset(tmp_path / "a.zip").notes == ("1 of 7 files skipped: 1 linked twice",)


def test_a_file_beside_the_enclosing_folder_changes_nothing(tmp_path):
    files = {f"top/{name}": content for name, content in (FILES | DOCUMENT).items()}
    dataset = open_dataset(write_zip(tmp_path / "a.zip", files | {"README.txt": b"x"}))
    assert dataset.labels(range(COUNT)).tolist() == LABELS
    assert dataset.notes == ("1 of 8 files skipped: 1 .txt",)


SPLITS = {
    "training testing": (
        {"training": 3, "testing": 2},
        "training/ is the train split and testing/ the test split",
    ),
    "Train Test": ({"Train": 3, "Test": 2}, "Train/ is the train split and Test/ the test split"),
    "train val": ({"train": 3, "val": 2}, "train/ is the train split and val/ the test split"),
    "train test val": ({"train": 3, "test": 2, "val": 1}, "1 of 6 files skipped: 1 outside train/ and test/"),
}  # fmt: skip


@pytest.mark.parametrize("how", SPLITS)
def test_splits_are_recognised_however_they_are_spelt(tmp_path, how):
    folders, note = SPLITS[how]
    for index, (folder, count) in enumerate(folders.items()):
        write_files(
            tmp_path, image_files(count, lambda i, index=index: rgb(10 * index + i), prefix=f"{folder}/")
        )
    assert len(open_dataset(tmp_path)) == 3 and len(open_dataset(tmp_path, split="test")) == 2
    assert open_dataset(tmp_path).notes == (note,)


def test_unclear_splits_are_refused_or_named(tmp_path):
    both = write_files(tmp_path / "both", image_files(1, prefix="test/") | image_files(1, prefix="val/"))
    with pytest.raises(UserError, match=r"has test/ and val/ but no train/; give one of these folders"):
        open_dataset(both)
    twice = write_files(
        tmp_path / "twice", image_files(1, prefix="Train/") | image_files(1, prefix="training/")
    )
    with pytest.raises(UserError, match="Train/ and training/ both read as the train split; keep one"):
        open_dataset(twice)
    one = write_files(tmp_path / "one", image_files(1, prefix="test/") | image_files(1, prefix="cats/"))
    assert open_dataset(one).notes == ("test/ is read as training images: there is no train/",)


PAIRS = {
    f"s{i}.{kind}.png": encode(rgb(10 * i + k)) for i in range(3) for k, kind in enumerate(("input", "mask"))
}


def test_samples_of_several_images_need_a_key(tmp_path):
    path = write_tar(tmp_path / "a.tar", PAIRS)
    with pytest.raises(
        UsageError, match=r"each sample has 2 images; choose --image-key input\.png or mask\.png"
    ):
        open_dataset(path)
    with pytest.raises(UsageError, match=r"--image-key edges: .* has images 3 input\.png, 3 mask\.png"):
        open_dataset(path, image_key="edges")
    masks = open_dataset(path, image_key="mask")
    assert len(masks) == 3 and np.array_equal(masks.images([1])[0].permute(1, 2, 0), np.asarray(rgb(11)))
    assert masks.describe()["image_key"] == "mask"
    assert masks.notes == ("3 of 6 files skipped: 3 images of other keys than mask",)
    with pytest.raises(UsageError, match=r"--image-key mask: .* holds no image files"):
        open_dataset("mnist", image_key="mask")


@pytest.mark.parametrize(
    "names", [("z.png", "z.bmp"), ("a.0.png", "a.1.png", "b.0.png", "b.1.png"), ("my.a.png", "my.b.png")]
)
def test_dots_in_plain_names_need_no_key(tmp_path, names):
    files = {name: encode(rgb(i), name.rpartition(".")[2].upper()) for i, name in enumerate(names)}
    assert len(open_dataset(write_files(tmp_path, files))) == len(names)


def test_a_hugging_face_dataset_says_what_it_lacks(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    data = arrow(tmp_path / "arrow")
    with pytest.raises(MissingSplit, match="has no test split; it has train"):
        open_dataset(data, split="test")
    with pytest.raises(UsageError, match="has the splits train; choose one of these"):
        open_dataset(f"{data}:valid")
    with pytest.raises(UsageError, match="is not a folder"):
        open_dataset("hf:someone/something")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "text"))
    with pytest.raises(UserError, match="no column of text holds images"):
        open_dataset(f"hf:{tmp_path / 'text'}")
    with pytest.raises(UserError, match="not a folder of arrow or parquet files"):
        open_dataset(f"hf:{write_files(tmp_path / 'plain', FILES)}")


def test_without_the_datasets_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"needs datasets; pip install fact-stylegan\[hf\]"):
        open_dataset(f"hf:{tmp_path}")


BLOCKED = """
import os, signal, sys, threading
from fact_eval import cli
from fact_train.data import files
reading, _ = os.pipe()
def blocked(*_):
    os.write(1, b"waiting\\n")  # whole, whichever threads write at once
    os.read(reading, 1)
files.use = blocked
cli.main(["audit", sys.argv[1]])
"""


@pytest.mark.parametrize("signal_name, code", [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_ends_a_command_whose_threads_hang(tmp_path, signal_name, code):
    import signal

    path = write_files(tmp_path, image_files(2))
    command = [sys.executable, "-c", BLOCKED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(getattr(signal, signal_name))
            _, errors = process.communicate(timeout=60)  # a thread would hang for ever
        finally:
            process.kill()
    assert process.returncode == code
    assert errors.splitlines()[-1].startswith("fact-eval: ") and "Traceback" not in errors


def test_a_classifier_is_trained_on_the_labels_of_folders(tmp_path, capsys):
    from fact_train.cli import app

    files = {f"{kind}/{i}.png": encode(rgb(i + 40 * (kind == "b"))) for i in range(20) for kind in "ab"}
    data, out = write_files(tmp_path / "data", files), tmp_path / "c.safetensors"
    argv = [
        "classifier",
        "--data",
        data,
        "--out",
        out,
        "--labels",
        "folders",
        "--epochs",
        "12",
        "--batch",
        "8",
    ]
    try:
        app([*map(str, argv), "--device", "cpu", "--threads", "1"], standalone_mode=False)
    except UserError as error:  # noise may be too much for it; the labels were read
        assert "same class" in str(error)
    said = capsys.readouterr().err
    assert "training images of each class: 0 18, 1 18" in said
