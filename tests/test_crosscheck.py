"""`fact-eval crosscheck`: other code confirms a right value to many digits and denies a wrong one."""

import dataclasses
from importlib.metadata import version

import pytest
import torch
from eval_toys import make_data, make_pictures, make_run
from metric_toys import cloud
from typer.testing import CliRunner

from fact_eval.checks import crosscheck, peers
from fact_eval.cli import app
from fact_leaderboard.records import read_records
from fact_leaderboard.verifications import read_verifications
from fact_metrics.engines.memorization import compute_authpct
from fact_metrics.engines.overlap import measure_overlap
from fact_metrics.features import get_detector
from fact_metrics.registry import FAMILIES

METRICS = (
    "fid30_full_pixels",
    "kid24_test_pixels",
    "precision1k3_full_pixels",
    "recall1k3_test_pixels",
    "density1k5_full_pixels",
    "coverage1k5_full_pixels",
    "authpct30_full_pixels",
    "sharpness1k_full",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def scored(tmp_path):
    run = make_run(tmp_path / "runs", make_data(tmp_path / "data"))
    assert call("run", run, "--metrics", ",".join(METRICS)).exit_code == 0
    return run


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_every_number_with_a_peer_is_confirmed_and_the_others_are_named(scored):
    done = call("crosscheck", scored)
    assert done.exit_code == 0, done.stderr
    assert "no independent implementation: sharpness1k_full" in done.stderr
    found = {(v.metric, v.by.split()[0]): v for v in read_verifications(scored / "verifications.jsonl")}
    assert set(found) == {
        *((METRICS[0], package) for package in ("torch-fidelity", "clean-fid")),
        *((METRICS[1], package) for package in ("scikit-learn", "clean-fid")),
        *((metric, package) for metric in METRICS[2:4] for package in ("scikit-learn", "torch-fidelity")),
        *((metric, "scikit-learn") for metric in METRICS[4:7]),
    }
    assert all(v.holds and v.kind == "crosscheck" for v in found.values())
    assert min(v.digits for (metric, _), v in found.items() if not metric.startswith("kid")) >= 6
    assert found[METRICS[0], "clean-fid"].by == f"clean-fid {version('clean-fid')}"


@pytest.mark.parametrize("metric", METRICS[:7])
def test_a_wrong_value_is_denied(scored, metric):
    path = scored / "results.jsonl"
    wrong = [
        dataclasses.replace(r, value=r.value / 2 + 1, extras={}) if r.metric == metric else r
        for r in read_records(path)
    ]
    path.write_text("".join(r.to_json() + "\n" for r in wrong))
    done = call("crosscheck", scored, "--metrics", metric)
    assert done.exit_code == 1 and f"{metric} is " in done.stderr
    found = read_verifications(scored / "verifications.jsonl")
    assert found and not any(v.holds for v in found)


def test_every_family_of_peers_exists_and_every_package_is_a_dependency():
    names = {family.name for family in FAMILIES.values()}
    assert set(crosscheck.PEERS) <= names
    packages = {name for of_family in crosscheck.PEERS.values() for name, _ in of_family}
    assert packages == {"torch-fidelity", "clean-fid", "lpips", "scikit-learn"}
    assert all(peers.package(name) for name in packages)


def test_a_package_that_fails_here_is_said_and_stops_nothing(scored, monkeypatch):
    def broken(*arguments, **options):
        raise TypeError("sqrtm() got an unexpected keyword argument 'disp'")

    monkeypatch.setattr("cleanfid.fid.frechet_distance", broken)
    done = call("crosscheck", scored, "--metrics", METRICS[0])
    assert done.exit_code == 0 and "clean-fid fails here: sqrtm()" in done.stderr
    (found,) = read_verifications(scored / "verifications.jsonl")
    assert found.by.startswith("torch-fidelity")


def test_pictures_are_refused_in_one_line(tmp_path):
    pictures, data = make_pictures(tmp_path / "pictures", 30), make_data(tmp_path / "data")
    options = ["--reference", data, "--out", tmp_path / "runs", "--metrics", "fid30_full_pixels"]
    assert call("images", pictures, *options).exit_code == 0
    done = call("crosscheck", tmp_path / "runs")
    assert done.exit_code == 1 and "score them with fact-eval images" in done.stderr


# The adapters.


def test_kid_of_scikit_learn_is_kid_of_clean_fid_on_sets_of_one_size():
    gen, real = cloud(300, 8, seed=0, shift=0.2), cloud(300, 8, seed=1)
    value, kernel = peers.kid_scikit_learn(gen, real)
    assert value == pytest.approx(peers.kid_clean_fid(gen, real), rel=1e-12)
    assert kernel == pytest.approx(((torch.cat([gen, real]).double() ** 2).mean(1) + 1).pow(3).mean().item())
    with pytest.raises(ValueError, match="one size"):
        peers.kid_clean_fid(gen, real[:-1])


@pytest.mark.parametrize("closed", [True, False])
def test_overlap_of_scikit_learn_is_ours_on_lattices_where_ties_decide(closed, monkeypatch):
    from fact_metrics.engines.conventions import Balls

    monkeypatch.setattr(peers, "BLOCK", 37)
    rng = torch.Generator().manual_seed(7)
    gen, real = (torch.randint(0, 6, (n, 3), generator=rng).float() for n in (150, 120))
    (ours,) = measure_overlap(gen, real, conventions=[Balls(3, closed=closed)])
    theirs = peers.overlap_scikit_learn(gen, real, k=3, closed=closed)
    for name in ("precision", "density", "coverage"):
        assert theirs[name] == pytest.approx(getattr(ours, name), abs=1e-12), name
    exchanged = peers.overlap_scikit_learn(real, gen, k=3, closed=closed)
    assert exchanged["precision"] == pytest.approx(ours.recall, abs=1e-12)


def test_authpct_of_scikit_learn_is_ours():
    gen, real = cloud(200, 8, seed=2), cloud(250, 8, seed=3)
    assert peers.authentic_scikit_learn(gen, real) == compute_authpct(gen, real)


def test_probabilities_score_as_the_logits_that_they_come_from():
    logits = 4 * cloud(200, 10, seed=4).double()
    options = {"splits": 5, "shuffle": False}
    of_logits = peers.inception_score_torch_fidelity(logits, logits=True, **options)
    of_probabilities = peers.inception_score_torch_fidelity(logits.softmax(dim=1), logits=False, **options)
    assert of_probabilities == pytest.approx(of_logits, rel=1e-12) and of_logits > 2


@pytest.mark.parametrize("name", ["stlpips_alex", "stlpips_vgg"])
def test_lpips_by_its_package_is_our_distance(name):
    detector = get_detector(name, "cpu")
    rng = torch.Generator().manual_seed(5)
    a = torch.rand(5, 3, 32, 32, generator=rng) * 2 - 1
    b = (a + 0.3 * torch.randn(a.shape, generator=rng)).clamp(-1, 1)
    ours, theirs = detector.distance(a, b), peers.lpips_on(detector.net, a, b)
    assert torch.allclose(ours, theirs, rtol=1e-5) and ours.min() > 1e-3
