"""`fact-eval audit` names every bad or odd file at once, and scoring asks it before the costly part."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from data_files import encode, gray, png_16bit, rgb, write_files
from PIL import Image

from fact_eval import cli
from fact_eval.jobs.audit import audit, audit_data, check_counts, compare_with_reference
from fact_metrics.base.errors import UserError
from fact_metrics.registry import get_specs
from fact_train.data import open_dataset
from fact_train.data.processing import ANY_SHAPE

SIDE = 8


def with_alpha(level):
    image = rgb(50).convert("RGBA")
    image.putalpha(level)
    return encode(image)


ODD = {
    "16bit.png": png_16bit(np.full((SIDE, SIDE), 4000, np.uint16)),
    "16bit-colour.png": png_16bit(np.full((SIDE, SIDE, 3), 4000, np.uint16)),
    "opaque.png": with_alpha(255),
    "transparent.png": with_alpha(100),
    "palette.png": encode(rgb(60).quantize(8)),
    "large.png": encode(rgb(70, side=16)),
    "copy.png": encode(rgb(0), compress_level=1),
    "gray.png": encode(gray(80)),
    "lossy.jpg": encode(rgb(90), "JPEG"),
    "lossy.webp": encode(rgb(91), "WEBP", quality=50),
    "corrupt.png": b"\x89PNG\r\n\x1a\n" + b"x" * 60,
    "truncated.png": encode(rgb(92))[:-60],
    "text.png": b"no image",
    "empty.png": b"",
    "key.png": encode(rgb(94), transparency=(1, 2, 3)),
}
GOOD = {f"a{i}.png": encode(rgb(i)) for i in range(6)} | {
    "lossless.webp": encode(rgb(93), "WEBP", lossless=True)
}
EXPECTED = {
    ("unusable", True): ["corrupt.png", "empty.png", "key.png", "text.png", "truncated.png"],
    ("mixed sizes", True): ["large.png"],
    ("transparent", True): ["transparent.png"],
    ("16-bit", False): ["16bit-colour.png", "16bit.png"],
    ("palette", False): ["palette.png"],
    ("alpha", False): ["opaque.png"],
    ("gray and colour", False): ["16bit.png", "gray.png"],
    ("duplicates", False): ["copy.png = a0.png"],
    ("lossy", False): ["lossy.jpg", "lossy.webp"],
}


@pytest.fixture
def call(capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))

    def run(*argv):
        code = cli._run([str(a) for a in argv])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def by_kind(findings):
    found = {}
    for finding in findings:
        found.setdefault((finding.kind, finding.error), []).extend(finding.files)
    return {kind: sorted(files) for kind, files in found.items()}


@pytest.mark.parametrize("packed", [False, True])
def test_one_of_each_bad_file_is_named_once_and_no_good_one(tmp_path, packed):
    path = write_files(tmp_path / "set", {**GOOD, **ODD})
    if packed:
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**GOOD, **ODD}.items():
                archive.writestr(name, content)
    assert by_kind(audit(path).findings) == EXPECTED


def test_headers_alone_find_what_they_hold_and_decode_nothing(tmp_path, monkeypatch):
    path = write_files(tmp_path / "set", {**GOOD, **ODD})
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    found = by_kind(audit(path, decode=False).findings)
    assert found["unusable", True] == ["corrupt.png", "empty.png", "key.png", "text.png"]
    assert found["mixed sizes", True] == ["large.png"] and found["16-bit", False] == EXPECTED["16-bit", False]
    assert found["alpha", False] == ["opaque.png", "transparent.png"]
    assert ("duplicates", False) not in found


def test_files_that_the_audit_calls_errors_are_those_that_scoring_refuses(tmp_path):
    errors = {name for f in audit(write_files(tmp_path / "set", {**GOOD, **ODD})).errors for name in f.files}
    for name, content in ODD.items():
        folder = write_files(tmp_path / name, {"a0.png": GOOD["a0.png"], name: content})
        try:
            open_dataset(folder)
            refused = False
        except Exception:
            refused = True
        assert refused == (name in errors), name


def turned(image, file_format="JPEG"):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(image, file_format, exif=exif)


SETS = {
    "wide": {f"{i}.png": encode(rgb(i).resize((16, 8))) for i in range(2)},
    "no power of two": {f"{i}.png": encode(rgb(i, side=12)) for i in range(2)},
    "wide but for EXIF": {"a.png": encode(rgb(0)), "b.jpg": turned(rgb(1).resize((16, 8)))},
    "turned": {"a.png": encode(rgb(0)), "b.jpg": turned(rgb(1)), "c.tif": turned(rgb(2), "TIFF")},
    "one label short": {
        "0.png": encode(rgb(0)),
        "1.png": encode(rgb(1)),
        "dataset.json": b'{"labels":[["0.png",0]]}',
    },
    "a class far off": {"0.png": encode(rgb(0)), "dataset.json": b'{"labels":[["0.png",9999]]}'},
    "an empty class": {"0.png": encode(rgb(0)), "dataset.json": b'{"labels":[["0.png",1]]}'},
    "other files": {"0.png": encode(rgb(0)), "a.txt": b"", "b.gif": encode(gray(1), "GIF")},
    "pairs": {f"s{i}.{kind}.png": encode(rgb(i)) for i in range(2) for kind in ("a", "b")},
    "splits": {"train/a.png": encode(rgb(0)), "val/b.png": encode(rgb(1)), "c.png": b"not read"},
    "only text": {"a.txt": b""},
}  # fmt: skip


@pytest.mark.parametrize("kind", SETS)
def test_the_audit_refuses_a_set_if_scoring_does(tmp_path, kind):
    path = write_files(tmp_path / "set", SETS[kind])
    try:
        dataset, refused = open_dataset(path, resolution=ANY_SHAPE), False  # as a reference is opened
    except UserError:
        refused = True
    try:
        findings = audit(path).findings
        assert any(finding.error for finding in findings) == refused
    except UserError:
        assert refused
    else:
        if not refused:
            said = " ".join(finding.message for finding in findings)
            assert all(note in said for note in dataset.notes if "skipped" in note or "class" in note)


def test_the_audit_sees_pictures_upright(tmp_path):
    wide = [rgb(i).resize((8, 4)) for i in range(2)]
    path = write_files(tmp_path, {"a.png": encode(wide[0].rotate(90, expand=True)), "b.jpg": turned(wide[1])})
    found = audit(path)
    assert found.size == (4, 8) and "mixed sizes" not in {f.kind for f in found.findings}
    assert [f.files for f in found.findings if f.kind == "EXIF"] == [("b.jpg",)]


def test_arrays_are_audited_by_opening_them(tmp_path, call):
    np.savez(tmp_path / "a.npz", np.zeros((3, 8, 8, 3), np.uint8), np.array([0, 2, 2]))
    code, out, err = call("audit", tmp_path / "a.npz")
    assert code == 0 and "1 of 3 classes have no image: 1" in out and err.startswith("3 images: 0 errors")


def test_a_clean_folder_has_no_finding(tmp_path):
    assert audit(write_files(tmp_path / "set", GOOD)).findings == ()


def test_png_against_jpeg_and_another_size_are_told(tmp_path):
    pngs = audit(write_files(tmp_path / "png", GOOD))
    jpegs = {f"{i}.jpg": encode(rgb(i, side=16), "JPEG") for i in range(3)}
    theirs = audit_data(str(write_files(tmp_path / "jpg", jpegs)))
    assert {f.kind for f in compare_with_reference(pngs, theirs)} == {"compression", "size"}
    assert compare_with_reference(pngs, pngs) == []


def test_too_few_images_for_a_metric_and_for_a_covariance_are_told():
    specs = get_specs(["fid10k_full_efficientnet_lite0", "kid10k_full_efficientnet_lite0"])
    findings = check_counts(specs, generated=500, real={"train": 60_000})
    assert [f.kind for f in findings] == ["sample size", "rank"]
    assert "500 generated images, 10,000 requested" in findings[0].message
    assert "kid10k" in findings[0].message and "kid10k" not in findings[1].message
    assert check_counts(specs, generated=None, real={"train": 60_000}) == []
    (real,) = check_counts(specs, generated=None, real={"train": 1000})
    assert real.kind == "rank" and "1,000 real images and 1,280 features" in real.message
    both = get_specs(["fid10k_full_efficientnet_lite0", "fid10k_full_digits"])
    (real,) = check_counts(both, generated=None, real={"train": 50})  # a line, however many metrics
    assert "50 real images and 64 to 1,280 features" in real.message
    assert "fid10k_full_efficientnet_lite0, fid10k_full_digits" in real.message


def test_duplicates_among_opened_images_are_found_whatever_the_files(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    images[3], images[4] = images[1], images[1]
    np.savez(tmp_path / "a.npz", images)
    assert open_dataset(tmp_path / "a.npz").repeats == 2


def test_the_command_lists_and_exits_with_1_on_errors_alone(tmp_path, call):
    code, out, err = call("audit", write_files(tmp_path / "set", {**GOOD, **ODD}))
    assert code == 1 and "error: unusable: truncated.png: cannot be decoded" in out
    assert "warning: palette: expanded to RGB (palette.png)" in out and "7 errors" in err
    code, out, err = call("audit", write_files(tmp_path / "good", GOOD), "--json")
    report = json.loads(out)
    assert code == 0 and report["images"] == len(GOOD) and report["size"] == [SIDE, SIDE]
    assert {f["kind"] for f in report["findings"]} == {"sample size", "rank"}
    assert call("audit", tmp_path / "nowhere")[0] == 2
    assert call("audit", write_files(tmp_path / "none", {"a.txt": b""}))[0] == 1


def test_pictures_are_audited_before_they_are_scored(tmp_path, call):
    real = write_files(tmp_path / "real", {f"{i}.png": encode(rgb(i)) for i in range(9)})
    code, out, err = call("images", write_files(tmp_path / "set", {**GOOD, **ODD}), "--reference", real)
    assert code == 1 and out == ""
    for name in ("corrupt.png", "text.png", "large.png", "truncated.png"):
        assert name in err  # all at once, though the headers do not tell of the last
    ok = {name: content for name, content in ODD.items() if name in ("truncated.png",)}
    code, _, err = call(
        "images",
        write_files(tmp_path / "two", {**GOOD, **ok, "b.png": ok["truncated.png"]}),
        "--reference",
        real,
    )
    assert code == 1 and "truncated.png" in err and "b.png" in err  # found while decoding, once


def test_the_real_images_of_runs_are_audited_before_anything_is_generated(tmp_path, call, monkeypatch):
    from eval_toys import make_data, make_run

    from fact_eval.images.sources import GeneratorSource

    data = make_data(tmp_path / "data")
    make_run(tmp_path / "runs", data)
    (data / "train" / "000.png").write_bytes(b"broken")
    monkeypatch.setattr(GeneratorSource, "images", lambda *_: pytest.fail("generated before the audit"))
    code, _, err = call("all", tmp_path / "runs", "--no-controls")
    assert code == 1 and "unusable: train/000.png" in err
    shutil.rmtree(data / "train"), shutil.rmtree(data / "test")
    code, _, err = call("all", tmp_path / "runs", "--no-controls")
    assert code == 1 and "failed: " in err and "holds no image" in err


def test_a_checksum_of_a_zip_is_checked_beyond_the_pixels(tmp_path):
    path = tmp_path / "crc.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", encode(rgb(0)))
        archive.writestr("b.png", encode(rgb(1)))
    content = bytearray(path.read_bytes())
    at = content.index(b"IEND", content.index(b"b.png"))
    content[at + 6] ^= 1  # after the pixels: only the zip's checksum sees it
    path.write_bytes(content)
    (finding,) = audit(path).findings
    assert finding.kind == "unusable" and finding.files == ("b.png",)
