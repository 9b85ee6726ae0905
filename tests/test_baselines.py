"""What papers report: files fit the schema, headline numbers are right, and boards keep them apart."""

import json

import pytest

from fact_baselines.load import ROOT, load_reported, measured_presets, read_reported
from fact_leaderboard.build import build_board
from fact_leaderboard.render import render_board
from fact_metrics.base.errors import UserError
from fact_train.settings.presets import PRESETS


def test_every_file_fits_the_schema_and_is_found():
    reported = load_reported()
    assert len(reported) == len(list(ROOT.glob("*/*.json"))) > 10
    for group in reported:
        assert group.source and group.resolution >= 28
        assert all(r.model and r.paper and r.protocol for r in group.results)


@pytest.mark.parametrize(
    ("dataset", "model", "metric", "value"),
    [
        # NVlabs/stylegan2 README, "Evaluation metrics"
        ("ffhq", "StyleGAN2 config F", "fid50k", 2.84),
        ("ffhq", "StyleGAN2 config F", "ppl2_wend", 145.0),
        ("ffhq", "StyleGAN2 config F", "recall50k3", 0.492),
        # clean-fid README, "CleanFID Leaderboard"
        ("lsun-church", "StyleGAN2 config F", "fid_clean", 4.08),
        ("metfaces", "StyleGAN2-ADA", "fid (reported)", 18.22),
        # Two CIFAR-10 numbers that are often mixed up
        ("cifar10", "StyleGAN2-ADA tuned, unconditional", "fid50k_full", 2.92),
        ("cifar10", "StyleGAN2-ADA tuned, conditional", "fid50k_full", 2.42),
        ("mnist", "WGAN", "fid", 6.7),
        # PacGAN, table 2; VEEGAN, table 2; R3GAN, table 3
        ("stacked-mnist", "PacDCGAN2", "KL", 0.06),
        ("stacked-mnist", "VEEGAN", "modes (max 1000)", 150),
        ("stacked-mnist", "DDGAN", "KL", 0.071),
        ("stacked-mnist", "R3GAN, Config E", "KL", 0.029),
        # Bosch et al. 2022, table 2
        ("ffhq-256", "StylEx", "sufficiency, 10 attributes", 0.939),
        ("ffhq-256", "Wu et al., StyleSpace selection", "sufficiency, 10 attributes", 0.169),
        ("afhq-64", "StylEx and AttFind", "sufficiency, 10 attributes", 0.042),
        ("ffhq-64", "StylEx and AttFind", "sufficiency, 10 attributes", 0.429),
    ],
)
def test_headline_numbers_are_those_of_their_sources(dataset, model, metric, value):
    found = [
        r.value
        for g in load_reported()
        if g.dataset == dataset
        for r in g.results
        if (r.model, r.metric) == (model, metric)
    ]
    assert value in found


def test_measured_baselines_name_presets_that_exist():
    for preset, entry in measured_presets().items():
        assert preset in PRESETS
        assert len(entry["train_seeds"]) >= 3 and entry["dataset"] == PRESETS[preset].config.data


def test_reported_numbers_stand_in_tables_of_their_own():
    text = render_board(build_board([]), reported=load_reported())
    assert "## What papers report" in text and "not measured here" in text
    assert "| StyleGAN2 config F" in text.split("## What papers report")[1]


def valid():
    row = {"model": "m", "paper": "p", "metric": "fid", "value": 1, "spread": None, "runs": None}
    row |= {"n_generated": 10, "n_real": None, "protocol": "x"}
    return {"schema": 1, "dataset": "toy", "resolution": 8, "source": "s", "results": [row]}


def write(tmp_path, data):
    path = tmp_path / "toy" / "x.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_a_valid_file_is_read_with_blanks_where_the_source_is_silent(tmp_path):
    group = read_reported(write(tmp_path, valid()))
    assert group.results[0].value == 1 and group.results[0].spread is None


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["results"][0].update(value="2.8"), "result 1: field 'value' is '2.8'"),
        (lambda d: d["results"][0].update(value=None), "result 1: field 'value' is None"),
        (lambda d: d["results"][0].update(colour="red"), "result 1: unknown field 'colour'"),
        (lambda d: d["results"][0].pop("paper"), "result 1: field 'paper' is missing"),
        (lambda d: d.pop("source"), "field 'source' is missing"),
        (lambda d: d.update(results=[]), "at least one number"),
        (lambda d: d.update(dataset="other"), "the folder is 'toy'"),
        (lambda d: d.update(schema=2), "schema must be 1"),
    ],
)
def test_a_file_that_breaks_the_schema_is_named_with_its_field(tmp_path, edit, message):
    data = valid()
    edit(data)
    with pytest.raises(UserError, match=message) as error:
        read_reported(write(tmp_path, data))
    assert "x.json" in str(error.value)


def test_a_file_that_is_no_json_is_named(tmp_path):
    with pytest.raises(UserError, match=r"x\.json is not valid JSON"):
        read_reported(write(tmp_path, "{"))
