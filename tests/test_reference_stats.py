"""Statistics files: read as their makers wrote them, never run, known by content, refused where unfit."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from eval_toys import make_data, make_pictures
from metric_toys import toy_metric

import fact_metrics.registry
from fact_eval.features.reference_stats import is_statistics, read_statistics, save_statistics
from fact_leaderboard.records import RESULTS, read_records
from fact_metrics.base.errors import UserError
from fact_metrics.engines.frechet import compute_fid, compute_fid_from_statistics, compute_statistics
from fact_metrics.families import fid
from fact_metrics.family import Family, Source
from fact_metrics.features import DETECTORS, Detector
from fact_metrics.spec import FeatureNeed
from fact_train.datasets import DATASETS, DatasetEntry

WIDTH, N = 12, 300
DATASET = {"name": "toy", "split": "train", "n": N, "sha256": "d" * 64, "resolution": 8, "channels": 1}


@pytest.fixture(scope="module")
def real() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(N, WIDTH, generator=rng) @ torch.randn(WIDTH, WIDTH, generator=rng) + 1


@pytest.fixture(scope="module")
def gen() -> torch.Tensor:
    return torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(1)) * 2


def moments(features) -> dict[str, np.ndarray]:
    """mu and sigma as every peer in numpy makes them."""
    x = features.double().numpy()
    return {"mu": x.mean(axis=0), "sigma": np.cov(x, rowvar=False)}


def nvidia_stats(features) -> dict:
    """What StyleGAN2-ADA's FeatureStats pickles: its attributes, plain values and sums in float64."""
    x = features.double().numpy()
    return {
        "capture_all": False, "capture_mean_cov": True, "max_items": len(x), "num_items": len(x),
        "num_features": x.shape[1], "all_features": None, "raw_mean": x.sum(axis=0), "raw_cov": x.T @ x,
    }  # fmt: skip


def write_pickle(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


def fid_against(path: Path, gen: torch.Tensor, *, correction: int = 1) -> float:
    real = read_statistics(path).statistics(gen.shape[1], correction=correction)
    return compute_fid_from_statistics(compute_statistics(gen, correction=correction), real)


def test_torch_fidelity_reads_the_same_distance_off_its_own_cache(tmp_path, gen, real) -> None:
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )

    stat_gen, stat_real = (fid_features_to_statistics(x.double()) for x in (gen, real))
    path = tmp_path / "real-inception-v3-compat-features-2048-stat-fid-2048.pt"
    torch.save(stat_real, path)  # as its cache does
    theirs = fid_statistics_to_metric(stat_gen, stat_real, False)[KEY_METRIC_FID]
    assert fid_against(path, gen) == pytest.approx(theirs, rel=1e-10)  # eigenvalues against roots
    assert read_statistics(path).kind == "torch-fidelity"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["pytorch-fid", "clean-fid"])
def test_clean_fid_has_the_same_distance_from_mu_and_sigma(tmp_path, gen, real, save) -> None:
    from cleanfid.fid import frechet_distance

    path = tmp_path / "stats.npz"
    save(path, **moments(real))
    theirs = frechet_distance(*moments(gen).values(), *moments(real).values())
    assert fid_against(path, gen) == pytest.approx(theirs, rel=1e-9)


def test_statistics_do_for_the_features_they_are_of(tmp_path, gen, real) -> None:
    np.savez(tmp_path / "stats.npz", **moments(real))
    assert fid_against(tmp_path / "stats.npz", gen) == pytest.approx(compute_fid(gen, real), rel=1e-11)


def test_guided_diffusion_files_serve_both_layers_by_their_width(tmp_path, gen, real) -> None:
    spatial, images = real[:, :5] + 3, np.zeros((2, 4, 4, 3), dtype=np.uint8)
    of_spatial = moments(spatial)
    path = tmp_path / "VIRTUAL.npz"
    np.savez(path, arr_0=images, **moments(real), mu_s=of_spatial["mu"], sigma_s=of_spatial["sigma"])
    assert fid_against(path, gen) == pytest.approx(compute_fid(gen, real), rel=1e-11)
    assert fid_against(path, gen[:, :5]) == pytest.approx(compute_fid(gen[:, :5], spatial), rel=1e-11)
    with pytest.raises(UserError, match="holds statistics of 12 and 5 features, the metric's are 7"):
        fid_against(path, gen[:, :7])


def test_nvidia_metric_caches_divide_by_n_and_convert_exactly(tmp_path, gen, real) -> None:
    path = write_pickle(tmp_path / "afhq-0123.pkl", nvidia_stats(real))
    for correction in (0, 1):
        expected = compute_fid(gen, real, correction=correction)
        assert fid_against(path, gen, correction=correction) == pytest.approx(expected, rel=1e-10)
    assert compute_fid(gen, real, correction=0) != pytest.approx(compute_fid(gen, real), rel=1e-4)
    assert read_statistics(path).parts[0].n == N


def test_edm2_files_hold_a_pair_per_metric(tmp_path, gen, real) -> None:
    content = {"fid": moments(real), "fd_dinov2": moments(real[:, :4])}
    path = write_pickle(tmp_path / "img64.pkl", content)
    assert [part.width for part in read_statistics(path).parts] == [WIDTH, 4]
    assert fid_against(path, gen) == pytest.approx(compute_fid(gen, real), rel=1e-11)


def test_pickles_of_older_numpy_and_older_protocols_are_read(tmp_path, gen, real) -> None:
    for protocol in (2, 3, 4, 5):
        data = pickle.dumps(nvidia_stats(real), protocol=protocol)
        if protocol == 2:  # its names are lines of text
            data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        (tmp_path / "old.pkl").write_bytes(data)
        assert fid_against(tmp_path / "old.pkl", gen, correction=0) > 0


class Harmful:
    """Makes a file where it is unpickled."""

    target: ClassVar[str] = ""

    def __reduce__(self):
        return os.mkdir, (Harmful.target,)


@pytest.mark.parametrize("ending", ["pkl", "pt", "npz"])
def test_no_file_runs_code(tmp_path, real, ending) -> None:
    Harmful.target = str(tmp_path / "harm")
    path = tmp_path / f"stats.{ending}"
    harmful = {**moments(real), "extra": Harmful()}
    if ending == "pkl":
        write_pickle(path, harmful)
    elif ending == "pt":
        torch.save(harmful, path)
    else:
        np.savez(path, mu=np.array([Harmful()], dtype=object), sigma=moments(real)["sigma"])
    with pytest.raises(UserError) as error:
        read_statistics(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "harm").exists()
    if ending == "pkl":
        assert "a pickle can run code" in str(error.value) and "numpy.savez" in str(error.value)
        pickle.loads(path.read_bytes())  # it would have
        assert (tmp_path / "harm").exists()


def damaged_files(real) -> dict[str, object]:
    good = moments(real)
    skew = good["sigma"].copy()
    skew[0, 1] += 1
    infinite = good["mu"].copy()
    infinite[0] = np.inf
    return {
        "not a covariance": {**good, "sigma": skew},
        "not finite": {**good, "mu": infinite},
        "has no covariance of shape": {**good, "sigma": good["sigma"][:5]},
        "negative variance": {**good, "sigma": good["sigma"] - 1e3 * np.eye(WIDTH)},
        "called mu and sigma": {"mean": good["mu"]},
        "only floats and integers": {**good, "mu": np.array(["a"] * WIDTH)},
    }


@pytest.mark.parametrize("problem", list(damaged_files(torch.ones(3, WIDTH))))
def test_what_is_no_mean_and_covariance_is_refused_by_name(tmp_path, real, problem) -> None:
    path = tmp_path / "stats.npz"
    np.savez(path, **damaged_files(real)[problem])
    with pytest.raises(UserError, match=problem) as error:
        read_statistics(path)
    assert str(path) in str(error.value)


def test_a_damaged_stream_in_a_compressed_file_is_one_line(tmp_path, real) -> None:
    path, packed = tmp_path / "stats.pt", tmp_path / "packed.pt"
    torch.save(moments(real), path)
    with zipfile.ZipFile(path) as stored, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for info in stored.infolist():
            archive.writestr(info.filename, stored.read(info))
    assert read_statistics(packed).kind == "torch-fidelity"
    content = bytearray(packed.read_bytes())
    start = content.index(b"data.pkl") + len("data.pkl")
    content[start : start + 8] = b"\xff" * 8  # no block of deflate begins so
    packed.write_bytes(content)
    with pytest.raises(UserError, match=r"packed\.pt is not a statistics file of torch-fidelity"):
        read_statistics(packed)


@pytest.mark.parametrize("ending", ["npz", "pt", "pkl", "safetensors"])
def test_truncated_and_foreign_files_are_one_line(tmp_path, real, ending) -> None:
    path = tmp_path / f"stats.{ending}"
    if ending == "npz":
        np.savez(path, **moments(real))
    elif ending == "pt":
        torch.save(moments(real), path)
    elif ending == "pkl":
        write_pickle(path, nvidia_stats(real))
    else:
        save_statistics(path, compute_statistics(real), detector={"detector": "toy"}, dataset=DATASET)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            read_statistics(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_our_files_come_back_bit_for_bit_with_what_they_are_of(tmp_path, gen, real) -> None:
    path, fingerprint = tmp_path / "toy.safetensors", {"detector": "toy", "version": 1, "width": WIDTH}
    made = save_statistics(path, compute_statistics(real), detector=fingerprint, dataset=DATASET)
    found = read_statistics(path)
    assert (found.sha256, found.detector, found.dataset) == (made.sha256, fingerprint, DATASET)
    assert fid_against(path, gen) == compute_fid(gen, real)
    assert fid_against(path, gen, correction=0) == pytest.approx(
        compute_fid(gen, real, correction=0), rel=1e-11
    )
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged: its hash does not match"):
        read_statistics(path)
    with pytest.raises(UserError, match=r"saved as \.safetensors"):
        save_statistics(tmp_path / "x.npz", compute_statistics(real), detector={}, dataset={})


def test_a_reference_is_known_by_its_content(tmp_path, real) -> None:
    np.savez(tmp_path / "a.npz", **moments(real))
    np.savez_compressed(tmp_path / "b.npz", **moments(real))
    torch.save(moments(real), tmp_path / "c.pt")
    np.savez(tmp_path / "d.npz", **moments(real[:-1]))
    first, *same, other = (read_statistics(tmp_path / f).sha256 for f in ("a.npz", "b.npz", "c.pt", "d.npz"))
    assert set(same) == {first} and other != first


def test_files_of_images_are_no_statistics(tmp_path, real) -> None:
    np.savez(tmp_path / "images.npz", arr_0=np.zeros((2, 4, 4, 3), dtype=np.uint8))
    np.savez(tmp_path / "stats.npz", **moments(real))
    (tmp_path / "images.zip").write_bytes(b"")
    assert not is_statistics(tmp_path / "images.npz") and not is_statistics(tmp_path / "images.zip")
    assert not is_statistics("mnist") and not is_statistics(tmp_path / "none.npz")
    assert is_statistics(tmp_path / "stats.npz")


COUNT = 30


class Quarters(Detector):
    """Mean grey levels of the four quarters."""

    name = "quarters"
    width = 4
    summary = "mean grey levels of the four quarters"
    citation = "none"

    def settings(self):
        return {"resize": "none", "weights_sha256": None}

    def embed(self, images):
        return F.adaptive_avg_pool2d(images[:, :1].float() / 255, 2).flatten(1)


@pytest.fixture
def toys(monkeypatch, tmp_path):
    """FID on quarters of 8x8 pictures, and precision, which needs features."""
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    monkeypatch.setitem(DETECTORS, "quarters", Quarters)
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shared = {"compute": fid.compute, "settings": fid.settings, "from_statistics": True}
    by_n = {**shared, "settings": lambda choice: {**fid.settings(choice), "covariance": "N"}}
    for name, reals, detector, fields in (
        ("fid_toy", "full", "quarters", shared),
        ("fid_toy_n", "full", "quarters", by_n),
        ("fid_toy_test", "test", "quarters", shared),
        ("fid_toy_spectrum", "full", "spectrum", shared),
    ):
        fact_metrics.registry.register(
            Family(
                name=name,
                summary="Distance.",
                higher_is_better=False,
                source=Source("none", "none"),
                reals=(reals,),
                fixed_detector=detector,
                published={name: f"{name}{COUNT}_{reals}"},
                listed=(name,),
                **fields,
            )
        )

    @toy_metric(
        higher_is_better=True,
        needs=[
            FeatureNeed("quarters", "generated", count=COUNT),
            FeatureNeed("quarters", "real", split="train"),
        ],
    )
    def toy_features(inputs):
        """Needs features."""
        raise AssertionError("must not be asked")

    monkeypatch.setattr(
        "fact_leaderboard.columns.metrics_for", lambda *a: list(fact_metrics.registry.FAMILIES)
    )


@pytest.fixture
def folders(tmp_path):
    return make_data(tmp_path / "toy"), make_pictures(tmp_path / "samples", 40)


def values(folder: Path) -> dict[str, float]:
    return {r.metric: r.value for r in read_records(folder / RESULTS) if r.status == "ok"}


def test_pictures_have_the_same_fid_against_statistics_as_against_the_images(toys, call, folders, tmp_path):
    data, pictures = folders
    code, out, err = call("ref", data, "--save", "stats/toy.safetensors", "--detector", "quarters")
    assert code == 0 and "--reference stats/toy.safetensors" in err
    assert json.loads(out)["dataset"]["name"] == "toy" and json.loads(out)["parts"][0]["n"] == 40
    assert json.loads(call("ref", "stats/toy.safetensors")[1]) == json.loads(out)
    both = ("--metrics", "fid_toy,fid_toy_n")
    assert call("images", pictures, "--reference", data, "--out", "a", *both)[0] == 0
    code, _, err = call("images", pictures, "--reference", "stats/toy.safetensors", "--out", "b")
    assert code == 0, err
    a, b = values(tmp_path / "a" / "images-samples"), values(tmp_path / "b" / "images-samples")
    assert b == {name: pytest.approx(a[name], rel=1e-9) for name in ("fid_toy", "fid_toy_n")}
    left_out = [line for line in err.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 3
    assert any(
        "toy_features cannot be computed" in line and "give the real images" in line for line in left_out
    )
    assert any("fid_toy_test compares with test images" in line for line in left_out)
    assert any("fid_toy_spectrum uses spectrum" in line and "uses quarters" in line for line in left_out)
    record = read_records(tmp_path / "b" / "images-samples" / RESULTS)[0]
    assert record.dataset["sha256"] == read_statistics("stats/toy.safetensors").sha256
    assert record.dataset["statistics_of"]["name"] == "toy" and record.n_real == 40
    assert record.stderr == pytest.approx(
        read_records(tmp_path / "a" / "images-samples" / RESULTS)[0].stderr, rel=1e-6
    )


def test_statistics_of_unknown_make_are_used_for_named_metrics_only(toys, call, folders, tmp_path) -> None:
    data, pictures = folders
    assert call("ref", data, "--save", "own.safetensors", "--detector", "quarters")[0] == 0
    part = read_statistics("own.safetensors").parts[0]
    np.savez("peer.npz", mu=part.mean.numpy(), sigma=part.cov.numpy())
    code, _, err = call("images", pictures, "--reference", "peer.npz")
    assert code == 1 and "--metrics" in err and "does not name its detector" in err
    assert call("images", pictures, "--reference", "peer.npz", "--metrics", "fid_toy")[0] == 0
    assert call("images", pictures, "--reference", "own.safetensors", "--out", "own")[0] == 0
    found = values(tmp_path / "runs" / "images-samples")["fid_toy"]
    assert found == pytest.approx(values(tmp_path / "own" / "images-samples")["fid_toy"], rel=1e-12)
    (record,) = read_records(tmp_path / "runs" / "images-samples" / RESULTS)
    assert record.n_real is None and record.dataset["resolution"] == 8
    code, _, err = call("images", pictures, "--reference", "peer.npz", "--metrics", "fid_toy_spectrum")
    assert code == 1 and "takes 1 features" in err and "statistics of 4" in err
    code, _, err = call("images", pictures, "--reference", "peer.npz", "--metrics", "toy_features")
    assert code == 1 and "takes features: give the real images" in err


def test_without_a_detector_the_recommended_one_is_saved(toys, call, folders, monkeypatch) -> None:
    monkeypatch.setitem(DATASETS, "toy", DatasetEntry("toy", detector="quarters"))
    code, out, err = call("ref", folders[0], "--save", "toy.safetensors")
    assert code == 0, err
    assert json.loads(out)["detector"]["detector"] == "quarters"


def test_under_torchrun_one_process_saves(toys, call, folders, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, writes in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        code, out, _ = call("ref", folders[0], "--save", "toy.safetensors", "--detector", "quarters")
        assert code == 0
        assert Path("toy.safetensors").exists() == bool(out) == writes


def test_saving_needs_a_file_of_the_right_kind_and_a_known_detector(toys, call, folders) -> None:
    data, _ = folders
    assert "--detector quarters needs --save FILE" in call("ref", data, "--detector", "quarters")[2]
    assert ".safetensors" in call("ref", data, "--save", "x.npz", "--detector", "quarters")[2]
    code, _, err = call("ref", data, "--save", "x.safetensors", "--detector", "quarter")
    assert code == 2 and "did you mean quarters" in err


def test_an_unreadable_file_of_statistics_is_one_line(toys, call, folders, tmp_path) -> None:
    _, pictures = folders
    content = io.BytesIO()
    np.savez(content, mu=np.zeros(3))
    (tmp_path / "broken.pt").write_bytes(content.getvalue()[:40])
    code, out, err = call("images", pictures, "--reference", "broken.pt")
    assert code == 1 and out == "" and len(err.splitlines()) == 1 and "broken.pt" in err
