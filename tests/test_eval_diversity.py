"""Style and noise diversity of snapshots of every kind, from the evaluation to record and table."""

import json

import pytest
import torch
from eval_toys import make_data, make_run, make_stylex_run

from fact_eval.jobs.plan import Request, plan_run
from fact_eval.jobs.runs import read_run
from fact_eval.reports.tables import records_table
from fact_eval.scoring.evaluation import Evaluation
from fact_leaderboard.records import RESULTS, read_records
from fact_metrics.engines.conventions import COLLAPSED
from fact_metrics.registry import get_specs
from fact_train.classifiers.training import train_classifier
from fact_train.networks.mapping import Mapping

STYLE, NOISE = "style_diversity200_full_pixels", "noise_diversity200_full_pixels"
KINDS = {
    "random": {},
    "off": {"noise": "off"},
    "const": {"noise": "const"},
    "w_plus": {"latent_space": "w_plus", "style_mixing_prob": 0.0},
    "vectors": {"injection": "vectors", "style_vectors": 4},
    "labels": {"cond": True},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(
        tmp_path_factory.mktemp("data") / "toy", labelled=True, splits={"train": 1000, "test": 6}
    )


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """The features of the reals are made once."""
    monkeypatch.setenv("FACT_CACHE", str(tmp_path_factory.getbasetemp() / "diversity"))


def score(folder):
    """Records of both metrics by name."""
    request = Request(tuple(get_specs([STYLE, NOISE])), named=True)
    outcome = Evaluation().run(plan_run(read_run(folder), request))
    assert not outcome.failures
    return {record.metric: record for record in read_records(folder / RESULTS)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_has_both_diversities(tmp_path, data, kind):
    folder = make_run(tmp_path, data, name=kind, **KINDS[kind])
    records = score(folder)
    style, noise = records[STYLE], records[NOISE]
    assert style.status == noise.status == "ok"
    assert style.value > 0.1 and 0 < style.stderr < style.value
    assert style.extras["verdict"] == "varied" and "ok, varied" in records_table([style])
    assert (style.n_effective, style.n_real, style.dataset["split"]) == (200, 1000, "train")
    assert ("z_alone" in style.extras) == (kind == "labels")
    if kind in ("off", "const"):
        assert (noise.value, noise.stderr, noise.n_effective) == (0.0, 0.0, None)
    else:
        assert noise.value > 0 and 0 < noise.stderr < noise.value and noise.n_effective == 200


def test_a_stylex_run_has_both_diversities(tmp_path, data):
    few, classifier = tmp_path / "few", tmp_path / "c.safetensors"
    make_data(few, labelled=True)
    train_classifier(classifier, data=str(few), epochs=3, batch=8, report=lambda line: None)
    records = score(make_stylex_run(tmp_path, data, str(classifier), noise="random"))
    assert {name: record.status for name, record in records.items()} == {STYLE: "ok", NOISE: "ok"}
    assert 0 < records[STYLE].extras["z_alone"] and records[STYLE].value > 0


def test_a_generator_whose_mapping_is_constant_is_recorded_and_shown_as_collapsed(
    tmp_path, data, monkeypatch
):
    forward = Mapping.forward
    monkeypatch.setattr(Mapping, "forward", lambda self, z, *args: forward(self, torch.ones_like(z), *args))
    records = score(make_run(tmp_path, data))
    style, noise = records[STYLE], records[NOISE]
    assert (style.value, style.extras["verdict"]) == (0.0, "collapsed") and noise.value > 0
    assert "ok, collapsed" in records_table([style])


def test_protocol_says_what_is_fixed_and_under_what_it_is_called_collapsed():
    (spec,) = get_specs(["style_diversity1k_train_pixels"])
    settings = json.loads(json.dumps(spec.protocol))["settings"]
    assert settings["collapsed"] == f"value or z_alone < {COLLAPSED}"
    assert settings["noise"] == "where it is random, one draw for all images"
    assert spec.protocol["needs"] == [{"detector": "pixels", "side": "real", "split": "train", "count": 1000}]
