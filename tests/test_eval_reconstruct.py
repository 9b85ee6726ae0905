"""Folders of reconstructions: pairs by name, what is refused and how, the CSV and the worst pairs."""

import csv
import io
import math

import numpy as np
import pytest
import torch
from data_files import encode, gray, rgb, write_files, write_zip
from PIL import Image

from fact_eval.compare import reconstruct
from fact_eval.compare.reconstruct import OFFLINE, Reconstruction, reconstruct_folders
from fact_eval.reports.reconstruct import reconstruct_tables
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.engines.pair_distances import compute_lpips, compute_mse, compute_psnr, compute_ssim

PIXELS = ("mse", "psnr", "ssim")


def files(seed, *, names=("b/2.png", "a.png", "b/10.png"), make=gray, side=32):
    return {name: encode(make(seed + i, side)) for i, name in enumerate(names)}


def tensor(content):
    array = np.asarray(Image.open(io.BytesIO(content)))
    return torch.from_numpy(array.copy()).reshape(1, *array.shape[:2], -1).permute(0, 3, 1, 2)


@pytest.fixture
def folders(tmp_path):
    a, b = files(0), files(50)
    return write_files(tmp_path / "a", a), write_files(tmp_path / "b", b), a, b


def test_every_pair_has_the_values_of_its_two_images_in_the_order_of_names(folders):
    a, b, files_a, files_b = folders
    found = reconstruct_folders(a, b)
    assert found.names == ["a", "b/10", "b/2"] and list(found.values) == list(OFFLINE)
    order = ["a.png", "b/10.png", "b/2.png"]
    x, y = (torch.cat([tensor(files[name]) for name in order]) for files in (files_a, files_b))
    for measure, expected in (
        ("mse", compute_mse(x, y, value_range=(0, 255))),
        ("psnr", compute_psnr(x, y, value_range=(0, 255))),
        ("ssim", compute_ssim(x, y, value_range=(0, 255))),
        ("lpips_stlpips_alex", compute_lpips(x, y, value_range=(0, 255))),
        ("lpips_stlpips_vgg", compute_lpips(x, y, value_range=(0, 255), detector="stlpips_vgg")),
    ):
        assert found.values[measure] == pytest.approx(expected.tolist(), rel=1e-4), measure


def test_extensions_archives_and_enclosing_folders_do_not_matter(tmp_path, folders):
    a, b, files_a, files_b = folders
    expected = reconstruct_folders(a, b, measures=PIXELS)
    renamed = {name.replace(".png", ".PNG"): content for name, content in files_b.items()}
    junk = {"__MACOSX/a.png": b"x", ".hidden.png": b"x", "notes.txt": b"x"}
    zipped = write_zip(tmp_path / "b.zip", {**{f"set/b/{n}": c for n, c in renamed.items()}, **junk})
    assert reconstruct_folders(a, zipped, measures=PIXELS) == expected
    assert reconstruct_folders(write_zip(tmp_path / "a.zip", files_a), b, measures=PIXELS) == expected


def test_images_without_a_partner_are_named_on_both_sides(tmp_path):
    a = write_files(tmp_path / "a", files(0, names=[f"{i}.png" for i in range(9)]))
    b = write_files(tmp_path / "b", files(0, names=["0.png", "x.png"]))
    with pytest.raises(UserError) as error:
        reconstruct_folders(a, b)
    assert f"8 of 9 in {a} (1, 2, 3, 4, 5, ...); 1 of 2 in {b} (x)" in str(error.value)


def test_two_files_of_one_name_are_refused(tmp_path, folders):
    a, b, *_ = folders
    write_files(b, {"a.jpg": encode(gray(), "JPEG")})
    with pytest.raises(UserError, match=r"a\.jpg and a\.png are both called a"):
        reconstruct_folders(a, b)


def test_sizes_may_differ_between_pairs_but_not_within_one(tmp_path):
    sizes = {"1.png": (40, 33), "2.png": (64, 64), "3.png": (40, 33)}

    def make(seed):
        rng = np.random.default_rng(seed)
        return {
            name: encode(Image.fromarray(rng.integers(0, 256, (h, w), dtype=np.uint8)))
            for name, (w, h) in sizes.items()
        }

    files_a, files_b = make(0), make(1)
    a, b = write_files(tmp_path / "a", files_a), write_files(tmp_path / "b", files_b)
    found = reconstruct_folders(a, b, measures=PIXELS)
    for i, name in enumerate(sizes):
        pair = (tensor(files[name]) for files in (files_a, files_b))
        assert found.values["mse"][i] == pytest.approx(compute_mse(*pair, value_range=(0, 255)).item())
    write_files(b, {"2.png": encode(gray(0, 32)), "3.png": encode(gray(0, 32))})
    with pytest.raises(UserError) as error:
        reconstruct_folders(a, b, measures=PIXELS)
    assert f"{a}/2.png is 64x64 and {b}/2.png 32x32" in str(error.value)
    assert "the first of 2 such pairs among 3" in str(error.value)


def test_pairs_of_gray_and_colour_are_said(tmp_path, capsys):
    from fact_eval.cli import _run

    a = write_files(tmp_path / "a", {f"{i}.png": encode(gray(i, 32)) for i in range(3)})
    b = write_files(tmp_path / "b", {f"{i}.png": encode((rgb, gray)[i % 2](i, 32)) for i in range(3)})
    assert _run(["reconstruct", str(a), str(b), "--measures", "mse"]) == 0
    assert "warning: 2 of 3 pairs compare gray with colour, both as RGB" in capsys.readouterr().err
    assert _run(["reconstruct", str(a), str(a), "--measures", "mse"]) == 0
    assert "gray" not in capsys.readouterr().err


def test_gray_stays_gray_and_a_gray_image_beside_a_colour_one_counts_as_its_three_channels(tmp_path):
    gray_file, colour_file = encode(gray(0, 32)), encode(rgb(1, 32))
    a = write_files(tmp_path / "a", {"1.png": gray_file, "2.png": gray_file})
    b = write_files(tmp_path / "b", {"1.png": encode(gray(3, 32)), "2.png": colour_file})
    found = reconstruct_folders(a, b, measures=["mse"])
    x, y = tensor(gray_file).expand(-1, 3, -1, -1), tensor(colour_file)
    assert found.values["mse"][1] == pytest.approx(compute_mse(x, y, value_range=(0, 255)).item())


def test_a_damaged_file_is_named_before_anything_is_computed(folders, monkeypatch):
    a, b, _, files_b = folders
    write_files(b, {"b/2.png": files_b["b/2.png"][:200]})
    monkeypatch.setattr(reconstruct, "MEASURES", {"mse": reconstruct.Measure(None, higher_is_better=False)})
    with pytest.raises(UserError, match=r"b/b/2\.png: cannot be decoded"):
        reconstruct_folders(a, b, measures=["mse"])


def test_images_too_small_for_a_measure_name_it_and_the_way_out(tmp_path):
    a, b = (write_files(tmp_path / name, files(0, side=8)) for name in "ab")
    with pytest.raises(UserError) as error:
        reconstruct_folders(a, b)
    assert "a/a.png is 8x8; lpips_stlpips_alex needs 32 pixels or more" in str(error.value)
    assert "leave out lpips_stlpips_alex, lpips_stlpips_vgg, ssim" in str(error.value)
    assert reconstruct_folders(a, b, measures=["mse", "psnr"]).values["mse"] == [0, 0, 0]


def test_transparent_pixels_are_refused_or_filled_as_the_caller_says(tmp_path):
    clear = encode(Image.new("RGBA", (32, 32), (0, 0, 0, 0)))
    a, b = (write_files(tmp_path / name, {"1.png": clear}) for name in "ab")
    with pytest.raises(UserError, match="transparent"):
        reconstruct_folders(a, b, measures=["mse"])
    write_files(b, {"1.png": encode(Image.new("RGB", (32, 32), (255, 255, 255)))})
    assert reconstruct_folders(a, b, measures=["mse"], alpha="white").values["mse"] == [0]
    assert reconstruct_folders(a, b, measures=["mse"], alpha="black").values["mse"] == [pytest.approx(4)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measures": ["ssmi"]}, "did you mean ssim"),
        ({"measures": []}, "--measures is empty"),
        ({"alpha": "whit"}, "did you mean white"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(folders, change, message):
    with pytest.raises(UsageError, match=message):
        reconstruct_folders(*folders[:2], **change)


def test_missing_and_empty_folders_and_broken_zips_are_named(tmp_path, folders):
    a, b = folders[:2]
    with pytest.raises(UsageError, match="nowhere does not exist"):
        reconstruct_folders(a, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds no image"):
        reconstruct_folders(tmp_path / "empty", b)
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"broken\.zip: not a readable zip"):
        reconstruct_folders(a, tmp_path / "broken.zip")


def test_the_csv_has_a_line_a_pair_in_full_precision(tmp_path, folders):
    a, b, files_a, _ = folders
    write_files(b, {"a.png": files_a["a.png"]})
    out = tmp_path / "pairs.csv"
    found = reconstruct_folders(a, b, out=out, measures=PIXELS)
    with out.open() as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == found.names
    for measure in PIXELS:
        assert [float(line[measure]) for line in lines] == found.values[measure]
    assert lines[0]["psnr"] == "inf" and lines[0]["mse"] == "0.0"


def test_a_failed_comparison_leaves_the_former_csv_alone(tmp_path, folders):
    a, b, *_ = folders
    out = tmp_path / "pairs.csv"
    out.write_text("former")
    write_files(b, {"a.png": b"nothing"})
    with pytest.raises(UserError):
        reconstruct_folders(a, b, out=out, measures=["mse"])
    assert out.read_text() == "former" and not list(tmp_path.glob(".*"))


def test_a_csv_that_cannot_be_written_is_a_users_error(tmp_path, folders):
    with pytest.raises(UserError, match=r"no/such/pairs\.csv: its folder does not exist; create it"):
        reconstruct_folders(*folders[:2], out=tmp_path / "no" / "such" / "pairs.csv", measures=["mse"])


def test_worst_pairs_come_first_by_the_direction_of_the_measure():
    found = Reconstruction(["x", "y", "z"], {"mse": [0.1, 0.3, 0.2], "psnr": [30.0, 10.0, math.inf]})
    assert found.worst(2) == [("y", 0.3), ("z", 0.2)]
    assert found.worst(by="psnr") == [("y", 10.0), ("x", 30.0), ("z", math.inf)]
    with pytest.raises(UsageError, match="did you mean psnr"):
        found.worst(by="psnrr")


def test_means_have_the_error_of_a_sample_mean_and_the_table_says_how_many_are_equal():
    found = Reconstruction(["x", "y", "z"], {"mse": [1.0, 2.0, 3.0], "psnr": [30.0, 10.0, math.inf]})
    assert found.mean("mse") == (2.0, pytest.approx(1 / 3**0.5))
    assert found.mean("psnr") == (math.inf, None)
    text = reconstruct_tables(found, worst=1)
    assert "mse ↓" in text and "psnr ↑" in text and "1 of them equal" in text
    assert text.splitlines()[-1].split() == ["z", "3"]


def test_progress_counts_every_pair_and_batches_do_not_change_values(folders, monkeypatch):
    a, b = folders[:2]
    whole = reconstruct_folders(a, b, measures=PIXELS)
    monkeypatch.setattr(reconstruct, "BATCH", 2)
    reported = []
    parts = reconstruct_folders(a, b, measures=PIXELS, progress=lambda *done: reported.append(done))
    assert reported == [(2, 3), (3, 3)]
    for measure in PIXELS:
        assert parts.values[measure] == pytest.approx(whole.values[measure], rel=1e-12)
