"""`fact-eval generate`: the images of scoring, by seed, in every kind of file; nothing half-written."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from eval_toys import SIDE, make_data, make_run, make_stylex_run
from foreign_checkpoints import stylegan2_ada, toy_networks, write_pickle
from PIL import Image

from fact_eval import cli
from fact_eval.images.sampling import SEED_STRIDE
from fact_eval.images.sources import GeneratorSource
from fact_eval.reports import sample_files
from fact_eval.reports.sampler import Sampler, interpolate_seeds, labels_for, mix_styles
from fact_metrics.base.pixels import to_uint8
from fact_train.classifiers.training import train_classifier
from fact_train.data import open_dataset
from fact_train.imports import load_checkpoint
from fact_train.run_folder import list_snapshots
from fact_train.snapshot import load_snapshot


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), labelled=True)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), data)


@pytest.fixture(scope="module")
def conditional(data, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("conditional"), data, cond=True)


@pytest.fixture
def call(capfd):
    def generate(*argv):
        code = cli._run(["generate", *map(str, argv), "--device", "cpu"])
        out, err = capfd.readouterr()
        return code, out, err

    return generate


def snapshot_of(folder):
    return load_snapshot(list_snapshots(folder)[-1])


def scored_images(folder, indices, *, seed=0, labels_of=None):
    return GeneratorSource(snapshot_of(folder), seed=seed, labels_of=labels_of).images(indices)


def pixels(path) -> torch.Tensor:
    array = np.array(Image.open(path))
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def test_a_folder_has_the_images_of_scoring_with_their_seeds(run, tmp_path, call) -> None:
    out = tmp_path / "images"
    code, stdout, err = call(run, "--seeds", "5,0-2", "--out", out)
    assert (code, stdout.strip()) == (0, str(out)), err
    assert sorted(p.name for p in out.iterdir()) == [f"seed{i:08d}.png" for i in (0, 1, 2, 5)]
    expected = scored_images(run, [5, 0, 1, 2])
    for number, image in zip((5, 0, 1, 2), expected, strict=True):
        path = out / f"seed{number:08d}.png"
        assert torch.equal(pixels(path), image)
        text = Image.open(path).text
        assert text["seed"] == str(number) and text["truncation_psi"] == "1"
        assert text["snapshot_sha256"] == snapshot_of(run).sha256


def test_seeds_above_ten_million_are_images_of_another_evaluation_seed(run, tmp_path, call) -> None:
    numbers = [1, 3 * SEED_STRIDE + 1, 3 * SEED_STRIDE + 2]
    assert call(run, "--seeds", ",".join(map(str, numbers)), "--out", tmp_path / "x.npz")[0] == 0
    with np.load(tmp_path / "x.npz") as made:
        assert made["seeds"].tolist() == numbers and str(made["truncation_psi"]) == "1"
        images = torch.from_numpy(made["images"]).permute(0, 3, 1, 2)
    expected = torch.cat([scored_images(run, [1]), scored_images(run, [1, 2], seed=3)])
    assert (images.int() - expected.int()).abs().max() <= 1  # other batches: products may round differently


def test_a_zip_and_an_npz_hold_the_images_of_the_folder_and_can_be_scored(run, tmp_path, call) -> None:
    for name in ("folder", "a.zip", "b.zip", "x.npz"):
        assert call(run, "--seeds", "0-4", "--batch", "2", "--out", tmp_path / name)[0] == 0
    opened = [open_dataset(tmp_path / name) for name in ("folder", "a.zip", "x.npz")]
    images = [dataset.images(range(5)) for dataset in opened]
    assert torch.equal(images[0], images[1]) and torch.equal(images[0], images[2])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        for name in archive.namelist():
            assert archive.read(name) == (tmp_path / "folder" / name).read_bytes()


def test_conditional_images_have_labels_as_in_scoring_or_one_class(conditional, data, tmp_path, call) -> None:
    assert call(conditional, "--seeds", "0-5", "--out", tmp_path / "drawn")[0] == 0
    expected = scored_images(conditional, range(6), labels_of=open_dataset(data))
    drawn = torch.stack([pixels(path) for path in sorted((tmp_path / "drawn").iterdir())])
    assert torch.equal(drawn, expected)
    assert (
        call(conditional, "--seeds", "0-5", "--class", "2", "--data", "nowhere", "--out", tmp_path / "two")[0]
        == 0
    )
    snapshot = snapshot_of(conditional)
    source = GeneratorSource(snapshot, seed=0, labels_of=open_dataset(data))
    c = torch.eye(3)[[2] * 6]
    of_class = to_uint8(source.synthesis(source.mapping(source.latents(range(6)), c), source.noise(range(6))))
    made = torch.stack([pixels(path) for path in sorted((tmp_path / "two").iterdir())])
    assert torch.equal(made, of_class) and not torch.equal(made, drawn)
    assert Image.open(tmp_path / "two" / "seed00000000.png").text["class"] == "2"


def test_in_stylex_a_class_is_the_class_parts_of_its_images(data, tmp_path) -> None:
    out = tmp_path / "c.safetensors"
    train_classifier(out, data=str(data), epochs=3, batch=8, report=lambda line: None)
    snapshot = snapshot_of(make_stylex_run(tmp_path, data, str(out)))
    reals = open_dataset(data)
    answers = snapshot.class_logits(reals.images(range(len(reals)))).argmax(dim=1)
    wanted = int(answers.mode().values)
    sampler = Sampler(snapshot, labels_of=labels_for(snapshot, data=None, class_index=wanted))
    _, c = sampler.latents(range(30))
    assert c.argmax(dim=1).tolist() == [wanted] * 30 and len(c.unique(dim=0)) > 5


def test_truncation_moves_w_towards_its_mean_and_psi_0_gives_one_image(run) -> None:
    snapshot = snapshot_of(run)
    snapshot.G.mapping.w_avg.copy_(torch.linspace(-1, 1, 8))
    full, half = Sampler(snapshot).ws(range(3)), Sampler(snapshot, psi=0.5).ws(range(3))
    torch.testing.assert_close(half, (full + snapshot.G.mapping.w_avg) / 2)
    ((_, images),) = Sampler(snapshot, psi=0.0, noise="const").draw(range(3))
    assert torch.equal(images[0], images[1]) and torch.equal(images[0], images[2])


def test_noise_is_that_of_scoring_constant_or_off(run) -> None:
    snapshot = snapshot_of(run)
    made = {}
    for noise in ("random", "const", "off"):
        ((_, made[noise]),) = Sampler(snapshot, noise=noise).draw(range(2))
        ws = Sampler(snapshot).ws(range(2))
        if noise != "random":
            assert torch.equal(made[noise], to_uint8(snapshot.G.synthesis(ws, noise_mode=noise)))
    assert torch.equal(made["random"], scored_images(run, range(2)))
    assert not torch.equal(made["const"], made["off"])


@pytest.mark.parametrize("space", ["z", "w"])
@pytest.mark.parametrize("loop", [True, False])
def test_an_interpolation_passes_its_seeds_and_ends_where_it_should(run, space: str, loop: bool) -> None:
    sampler = Sampler(snapshot_of(run), batch=5)
    made = torch.stack(list(interpolate_seeds(sampler, [3, 1, 7], space=space, frames=4, loop=loop)))
    assert len(made) == (12 if loop else 9)
    ends = sampler.images_of(sampler.ws([3, 1, 7]))
    # z returns from the sphere with rounding: one grey level.
    assert (made[0:9:4][: len(ends)].int() - ends[: len(made[0:9:4])].int()).abs().max() <= 1
    halves = made[2].int()
    assert (halves != ends[0].int()).any() and (halves != ends[1].int()).any()
    last_step = (made[-1].int() - (ends[0] if loop else ends[2]).int()).abs().max()
    assert last_step <= 1 if not loop else last_step > 1


def test_w_moves_on_lines_and_z_on_circles(run) -> None:
    sampler = Sampler(snapshot_of(run))
    z, _ = sampler.latents([0, 1])
    ws = sampler.ws([0, 1])
    middle = {s: list(interpolate_seeds(sampler, [0, 1], space=s, frames=2, loop=False))[1] for s in "zw"}
    unit = z / z.norm(dim=1, keepdim=True)  # halfway on a circle: the sum of the unit vectors
    assert (middle["w"].int() - sampler.images_of(ws.mean(dim=0, keepdim=True))[0].int()).abs().max() <= 1
    expected = sampler.images_of(sampler.map(unit.sum(dim=0, keepdim=True), None))[0]
    assert (middle["z"].int() - expected.int()).abs().max() <= 1
    assert not torch.equal(middle["z"], middle["w"])


def test_a_matrix_takes_its_layers_from_the_column_and_the_others_from_the_row(data, tmp_path) -> None:
    vectors = make_run(tmp_path, data, injection="vectors", style_vectors=2, name="vectors")
    for folder in (make_run(tmp_path, data), vectors):
        sampler = Sampler(snapshot_of(folder))
        cells = torch.cat(mix_styles(sampler, [0, 1], [2, 3, 4], layers=[0, 2])).reshape(3, 4, 1, SIDE, SIDE)
        assert (cells[0, 0] == 255).all()
        rows, columns = sampler.ws([0, 1]), sampler.ws([2, 3, 4])
        assert (cells[1:, 0].int() - sampler.images_of(rows).int()).abs().max() <= 1
        assert torch.equal(cells[0, 1:], sampler.images_of(columns))
        per_layer = rows.shape[1] // sampler.G.num_ws
        mixed = rows[1].unflatten(0, (-1, per_layer)).clone()
        mixed[[0, 2]] = columns[2].unflatten(0, (-1, per_layer))[[0, 2]]
        expected = sampler.images_of(mixed.flatten(0, 1)[None])[0]
        assert (cells[2, 3].int() - expected.int()).abs().max() <= 1
        assert not torch.equal(cells[2, 3], cells[2, 0]) and not torch.equal(cells[2, 3], cells[0, 3])


def test_a_grid_is_filled_row_by_row_and_its_rest_is_white(run, tmp_path, call) -> None:
    assert call(run, "--seeds", "0-4", "--grid", "--columns", "3", "--out", tmp_path / "g.png")[0] == 0
    sheet = pixels(tmp_path / "g.png")
    assert sheet.shape == (1, 2 * SIDE, 3 * SIDE)
    for i, image in enumerate(scored_images(run, range(5))):
        row, column = divmod(i, 3)
        cell = sheet[:, row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
        assert torch.equal(cell, image)
    assert (sheet[:, SIDE:, 2 * SIDE :] == 255).all()


@pytest.mark.parametrize("ending", ["webp", "gif"])
def test_an_animation_has_all_frames_its_speed_and_no_end(run, tmp_path, call, ending: str) -> None:
    out = tmp_path / f"x.{ending}"
    code, _, err = call(
        *(run, "--seeds", "0-2", "--interpolate", "w", "--frames", "4", "--fps", "20", "--out", out)
    )
    assert code == 0, err
    with Image.open(out) as made:
        assert (made.n_frames, made.info["loop"]) == (12, 0)
        made.load()
        assert made.info["duration"] == 50
        sampler = Sampler(snapshot_of(run))
        expected = list(interpolate_seeds(sampler, [0, 1, 2], space="w", frames=4, loop=True))
        for number in (0, 5, 11):
            made.seek(number)
            frame = torch.from_numpy(np.array(made.convert("L"))).int()
            # gif is exact for 64 grey pixels; webp at quality 90 is lossy.
            limit = {"gif": 1, "webp": 40}[ending]
            assert (frame - expected[number][0].int()).abs().max() <= limit


def test_an_mp4_gets_every_frame_through_ffmpeg(run, tmp_path, call, monkeypatch) -> None:
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys, pathlib\n"
        "path = pathlib.Path(sys.argv[-1])\n"
        "path.write_bytes(' '.join(sys.argv[1:-1]).encode() + b'|' + sys.stdin.buffer.read())\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    out = tmp_path / "x.mp4"
    flags = (run, "--seeds", "0,1", "--interpolate", "w", "--frames", "3", "--no-loop", "--out", out)
    assert call(*flags)[0] == 0
    command, raw = out.read_bytes().split(b"|", 1)
    assert b"-s 8x8 -r 25" in command and b"-f mp4" in command
    sampler = Sampler(snapshot_of(run))
    frames = interpolate_seeds(sampler, [0, 1], space="w", frames=3, loop=False)
    assert raw == b"".join(frame.expand(3, -1, -1).permute(1, 2, 0).numpy().tobytes() for frame in frames)
    out.unlink()
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no\\nencoder')\n")
    code, stdout, err = call(*flags)
    assert (code, stdout) == (1, "") and "ffmpeg failed: no encoder" in err and not out.exists()
    program.unlink()
    code, _, err = call(*flags)
    assert code == 2 and "mp4 needs ffmpeg" in err and list(tmp_path.glob(".x*")) == []


REFUSED = [
    (["--seeds", "x"], "--seeds 'x': give numbers"),
    (["--seeds", "4300000000"], "--seeds 4300000000: an image seed is at most"),
    (["--seeds", "0-2000000"], "--seeds 0-2000000: at most 1,000,000 numbers"),
    (["--class", "0"], "--class 0: network-snapshot-000004.safetensors is not conditional"),
    (["--grid"], "--grid writes .png"),
    (["--columns", "3"], "--columns needs --grid"),
    (["--frames", "3"], "--frames needs --interpolate"),
    (["--no-loop"], "--loop needs --interpolate"),
    (["--mix-layers", "0"], "--mix-layers needs --mix"),
    (["--grid", "--mix", "1"], "--grid and --mix write different files"),
    (["--out", "x.png"], "--out x.png: single images go to a folder or .zip or .npz"),
    (["--out", "nowhere/x"], "the folder nowhere does not exist"),
    (["--out", "taken"], "--out taken exists"),
    (["--out", "x.png", "--mix", "1", "--mix-layers", "9"], "--mix-layers 9: the generator has layers 0"),
    (["--out", "x.png", "--mix", "1", "--noise", "random"], "--noise random would differ"),
    (["--out", "x.gif", "--interpolate", "w", "--seeds", "1,1"], "needs two seeds or more"),
    (["--out", "x.gif", "--interpolate", "w", "--fps", "0"], "--fps 0: it must be above 0"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "message"), REFUSED, ids=lambda x: " ".join(x) if isinstance(x, list) else ""
)
def test_a_mistake_is_one_line_and_writes_nothing(run, tmp_path, call, monkeypatch, flags, message) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    out = [] if "--out" in flags else ["--out", "new"]
    code, stdout, err = call(run, *out, *flags)
    assert (code, stdout) == (2, "") and message in err and len(err.splitlines()) == 1, err
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_a_class_that_does_not_exist_and_noise_that_was_not_trained_are_refused(
    conditional, data, tmp_path, call
) -> None:
    code, _, err = call(conditional, "--class", "3", "--out", tmp_path / "x")
    assert code == 2 and "--class 3: network-snapshot-000004.safetensors has classes 0 to 2" in err
    quiet = make_run(tmp_path, data, noise="off")
    code, _, err = call(quiet, "--noise", "const", "--out", tmp_path / "x")
    assert code == 2 and "was trained with --noise off" in err
    code, _, err = call(tmp_path, "--out", tmp_path / "x")
    assert code == 2 and "holds no snapshot" in err


def test_an_imported_checkpoint_makes_images_of_a_class_or_with_the_labels_of_data(tmp_path, call) -> None:
    cfg, G, D = toy_networks(classes=3, channels=1, resolution=SIDE)
    path = write_pickle(tmp_path / "ada.pkl", stylegan2_ada(cfg, G, D), protocol=4)
    code, _, err = call(path, "--out", tmp_path / "x")
    assert code == 2 and "is imported and conditional; choose --class, or --data" in err
    assert call(path, "--seeds", "0-2", "--class", "1", "--psi", "0.5", "--out", tmp_path / "x")[0] == 0
    loaded = load_checkpoint(path)
    source = GeneratorSource(loaded, seed=0, labels_of=open_dataset(make_data(tmp_path / "d", labelled=True)))
    ws = G.mapping(source.latents(range(3)), torch.eye(3)[[1, 1, 1]], 0.5)
    expected = to_uint8(G.synthesis(ws, noise_inputs=source.noise(range(3))))
    made = torch.stack([pixels(file) for file in sorted((tmp_path / "x").iterdir())])
    assert torch.equal(made, expected)
    assert call(path, "--seeds", "0-2", "--data", tmp_path / "d", "--out", tmp_path / "y")[0] == 0
    made = torch.stack([pixels(file) for file in sorted((tmp_path / "y").iterdir())])
    assert torch.equal(made, source.images(range(3)))
    code, _, err = call(path, "--data", make_data(tmp_path / "plain"), "--out", tmp_path / "z")
    assert code == 2 and "0 classes, ada.pkl has 3" in err


@pytest.mark.parametrize("name", ["folder", "x.zip", "x.npz"])
def test_nothing_is_left_of_a_run_that_fails_half_way(run, tmp_path, monkeypatch, name: str) -> None:
    def batches():
        yield [0], torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_files.write_images(Path(tmp_path / name), batches(), count=2, text={})
    assert list(tmp_path.iterdir()) == []
