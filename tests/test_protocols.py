"""Which protocol is taken and why; weight hashes are in every fingerprint; smoke mode marks its rows."""

import json

import pytest
import torch
from eval_toys import COUNT, make_data, make_pictures
from metric_toys import toy_metric
from torch import nn
from weight_toys import publish, sha256, use_empty_folders

import fact_metrics.registry
from fact_eval.compare.records import compare
from fact_eval.jobs.protocols import ProtocolChoice
from fact_eval.weights.files import add_weights
from fact_leaderboard import columns
from fact_leaderboard.columns import Column
from fact_leaderboard.records import RESULTS, read_records
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.features import DETECTORS, Detector, detector_spec, get_detector, list_detectors
from fact_metrics.features.weight_files import load_weights
from fact_metrics.features.weight_store import (
    WEIGHTS,
    fingerprint_sha256,
    mentions_random_weights,
    random_weights,
)
from fact_metrics.registry import get_spec, get_specs, list_specs
from fact_metrics.spec import FeatureNeed, MetricValue
from fact_train.datasets import DATASETS, dataset_entry


class Projection(Detector):
    """Pixels of 8x8 images through a matrix out of a weight file."""

    name = "projection"
    width = 5
    summary = "a projection of the pixels"
    citation = "none"
    weights = ("toy",)
    _loaded = (None, None)

    def settings(self):
        return {"resize": "none", "weights_sha256": fingerprint_sha256("toy")}

    def embed(self, images):
        key = fingerprint_sha256("toy")
        if self._loaded[0] != key:
            self._loaded = (key, load_weights(nn.Linear(64, 5), "toy").requires_grad_(False))
        return self._loaded[1](images[:, 0].flatten(1).float() / 255)


def save_projection(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = torch.Generator().manual_seed(seed)
    state = {"weight": torch.randn(5, 64, generator=rng), "bias": torch.zeros(5)}
    torch.save(state, path)
    return path


@pytest.fixture
def toys(monkeypatch, tmp_path):
    """An embedded toy metric, a standard one on `projection`, one on both boards; nothing is installed."""
    use_empty_folders(monkeypatch, tmp_path)
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    monkeypatch.setitem(DETECTORS, "projection", Projection)
    get_detector("projection")._loaded = (None, None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fact_leaderboard.publish.RESULTS", tmp_path / "published")
    publish(monkeypatch, "toy", save_projection(tmp_path / "downloads" / "toy-1.pth"))
    projected = FeatureNeed("projection", "generated", count=COUNT)
    pixels = FeatureNeed("pixels", "generated", count=COUNT)

    @toy_metric(higher_is_better=True, needs=[projected])
    def toy_standard(inputs):
        """Norm of the mean projection."""
        rows = inputs.features(projected)
        return MetricValue(rows.mean(0).norm().item(), stderr=0.1, n_generated=len(rows))

    @toy_metric(higher_is_better=True, needs=[pixels])
    def toy_embedded(inputs):
        """Mean pixel."""
        rows = inputs.features(pixels)
        return MetricValue(rows.mean().item(), stderr=0.1, n_generated=len(rows))

    monkeypatch.setattr(
        columns,
        "COLUMNS",
        (Column("toy_standard", "standard", protocol="standard"), Column("toy_embedded", "embedded")),
    )
    return tmp_path / "downloads" / "toy-1.pth"


@pytest.fixture
def folders(tmp_path):
    return make_pictures(tmp_path / "samples", 40), make_data(tmp_path / "toy")


def measured(folder):
    return {r.metric: r for r in read_records(folder / RESULTS) if r.status == "ok"}


def chooser(wanted, said, **options):
    return ProtocolChoice(wanted, columns.metrics_for, say=said.append, **options)


def test_auto_is_embedded_without_the_weights_and_says_what_to_type(toys) -> None:
    said = []
    choose = chooser("auto", said)
    assert choose("cats") == ["toy_embedded"] and choose("cats") == ["toy_embedded"]
    assert len(said) == 1 and said[0].startswith("protocol for cats: embedded (1 of the 1 weight files")
    assert "`fact-eval weights fetch toy`" in said[0]


def test_auto_is_standard_with_the_weights(toys) -> None:
    add_weights(toys)
    said = []
    assert chooser("auto", said)("cats") == ["toy_standard"]
    assert said == ["protocol for cats: standard (all 1 weight files it needs are installed)"]


def test_auto_stays_embedded_on_digits(toys) -> None:
    add_weights(toys)
    said = []
    assert chooser("auto", said)("mnist") == ["toy_embedded"]
    assert len(said) == 1
    assert said[0].startswith("protocol for mnist: embedded (efficientnet_lite0 is recommended for it: ")


def test_a_recommended_detector_needs_no_download_and_ranks_its_board() -> None:
    measured = [entry for entry in DATASETS.values() if entry.evidence is not None]
    assert [entry.name for entry in measured] == ["mnist"]
    for entry in measured:
        specs = map(get_spec, columns.metrics_for(entry.name))
        first = next(spec for spec in specs if spec.fits(entry.traits))
        assert {need.detector for need in first.needs} == {entry.detector}
    for entry in (*DATASETS.values(), dataset_entry("cats")):
        assert not DETECTORS[entry.detector].weights
    assert dataset_entry("cats").evidence is None and not dataset_entry("cats").has_test_split


def test_what_is_asked_for_is_taken_without_a_word_or_refused(toys) -> None:
    said = []
    assert chooser("embedded", said)("cats") == ["toy_embedded"]
    with pytest.raises(UserError, match=r"--protocol standard: weights toy are not installed.*sha256"):
        chooser("standard", said)
    add_weights(toys)
    assert chooser("standard", said)("mnist") == ["toy_standard"]
    assert said == []
    with pytest.raises(UsageError, match="give auto, standard or embedded"):
        chooser("standart", said)


def test_the_command_takes_a_protocol(toys, call, folders, tmp_path) -> None:
    pictures, data = folders
    code, _, err = call("images", pictures, "--reference", data)
    assert code == 0 and "protocol for toy: embedded" in err
    assert set(measured(tmp_path / "runs" / "images-samples")) == {"toy_embedded"}
    code, out, err = call("images", pictures, "--reference", data, "--protocol", "standard")
    assert code == 1 and out == "" and "weights toy are not installed" in err
    assert call("weights", "add", toys)[0] == 0
    code, _, err = call("images", pictures, "--reference", data)
    assert code == 0 and "protocol for toy: standard (all 1 weight files" in err
    assert set(measured(tmp_path / "runs" / "images-samples")) == {"toy_embedded", "toy_standard"}
    code, _, err = call("images", pictures, "--reference", data, "--protocol", "embedded")
    assert code == 0 and "nothing left to do" in err


def test_named_metrics_need_their_weights_before_anything_is_read(toys, call, folders) -> None:
    pictures, data = folders
    code, out, err = call("images", pictures, "--reference", data, "--metrics", "toy_embedded,toy_standard")
    assert code == 1 and out == "" and len(err.splitlines()) == 1
    assert "--metrics: weights toy are not installed" in err
    both = ("--metrics", "toy_embedded", "--protocol", "standard")
    code, _, err = call("images", pictures, "--reference", data, *both)
    assert code == 2 and "give only one of them" in err


def test_all_metrics_are_those_whose_weights_are_there(toys, call, folders, tmp_path) -> None:
    pictures, data = folders
    code, _, err = call("images", pictures, "--reference", data, "--metrics", "all")
    assert code == 0 and "1 metrics are left out because weights are missing" in err
    assert set(measured(tmp_path / "runs" / "images-samples")) == {"toy_embedded"}
    options = ("--metrics", "all", "--protocol", "standard")
    assert call("images", pictures, "--reference", data, *options)[0] == 1
    add_weights(toys)
    assert call("images", pictures, "--reference", data, *options)[0] == 0
    assert set(measured(tmp_path / "runs" / "images-samples")) == {"toy_embedded", "toy_standard"}


def test_several_missing_files_are_a_line_each(toys, monkeypatch, tmp_path) -> None:
    publish(monkeypatch, "second", save_projection(tmp_path / "downloads" / "second.pth", 1))
    monkeypatch.setattr(Projection, "weights", ("toy", "second"))
    with pytest.raises(UserError) as error:
        chooser("standard", [])
    lines = str(error.value).splitlines()
    assert len(lines) == 3 and "`fact-eval weights fetch second toy`" in lines[0]
    assert WEIGHTS["second"].sha256 in lines[1] and WEIGHTS["toy"].sha256 in lines[2]


def test_the_hash_of_the_weights_in_use_is_in_the_protocol(toys, call, folders, tmp_path) -> None:
    pictures, data = folders
    before = get_specs(["toy_standard"])[0]
    add_weights(toys)
    published = get_specs(["toy_standard"])[0]
    assert published.protocol_sha256 == before.protocol_sha256  # the same where it cannot be computed
    assert published.protocol["detectors"]["projection"]["weights_sha256"] == sha256(toys)
    command = ("images", pictures, "--reference", data, "--metrics", "toy_standard")
    assert call(*command)[0] == 0
    first = measured(tmp_path / "runs" / "images-samples")["toy_standard"]
    mine = save_projection(tmp_path / "mine.pth", seed=5)
    assert call("weights", "add", mine, "--as", "toy", "--trust")[0] == 0
    assert call(*command)[0] == 0  # another key: measured, not "nothing left to do"
    second = measured(tmp_path / "runs" / "images-samples")["toy_standard"]
    assert second.protocol["detectors"]["projection"]["weights_sha256"] == sha256(mine)
    assert second.protocol_sha256 != first.protocol_sha256 and second.value != first.value
    comparisons, left_out = compare([first], [second])
    assert comparisons == [] and left_out == ["toy_standard: other protocol or other images"]


def test_random_weights_run_without_a_file_and_mark_their_rows(toys, call, folders, tmp_path) -> None:
    pictures, data = folders
    command = ("images", pictures, "--reference", data, "--random-weights")
    code, out, err = call(*command)
    assert code == 0 and "random weights: this is a smoke test" in err and "invalid" in err
    assert "protocol for toy: standard (with random weights, a smoke test)" in err
    assert "ok: random weights, a smoke test" in out
    record = measured(tmp_path / "runs" / "images-samples")["toy_standard"]
    assert record.invalid == "random weights, a smoke test" and record.label == "samples (random weights)"
    assert record.protocol["detectors"]["projection"]["weights_sha256"] == "random weights, seed 0"
    assert "nothing left to do" in call(*command)[2]
    # The mode ended with the command.
    assert call("images", pictures, "--reference", data, "--metrics", "toy_standard")[0] == 1
    add_weights(toys)
    assert call("images", pictures, "--reference", data, "--metrics", "toy_standard")[0] == 0
    real = measured(tmp_path / "runs" / "images-samples")["toy_standard"]
    assert real.invalid is None and real.protocol_sha256 != record.protocol_sha256
    assert real.value != record.value and real.label == "samples"
    assert compare([record], [real])[1] == ["toy_standard: random weights, a smoke test"]
    code, _, err = call("publish", "runs/images-samples", "--allow-dirty")
    assert code == 1 and "1 records are invalid: random weights" in err
    (published,) = (tmp_path / "published").iterdir()
    assert [r.invalid for r in read_records(published)] == [None]


def test_random_weights_do_not_touch_what_needs_no_download(toys, call, folders, tmp_path) -> None:
    pictures, data = folders
    call("images", pictures, "--reference", data, "--random-weights", "--metrics", "toy_embedded")
    record = measured(tmp_path / "runs" / "images-samples")["toy_embedded"]
    assert record.invalid is None and record.label == "samples"
    assert record.protocol_sha256 == get_specs(["toy_embedded"])[0].protocol_sha256


def test_the_protocol_follows_the_installed_weights(toys, tmp_path) -> None:
    """Without any cache in between: another weight file, and smoke mode, are seen at once."""
    hashes = [get_spec("toy_standard").protocol_sha256]
    add_weights(toys)
    assert get_spec("toy_standard").protocol_sha256 == hashes[0]  # the published file
    add_weights(save_projection(tmp_path / "mine.pth", 7), "toy", trust=True)
    hashes.append(get_spec("toy_standard").protocol_sha256)
    with random_weights():
        hashes.append(get_spec("toy_standard").protocol_sha256)
    assert len(set(hashes)) == 3


def test_published_metrics_state_their_weights_and_embedded_ones_have_none(monkeypatch, tmp_path) -> None:
    use_empty_folders(monkeypatch, tmp_path)
    specs = {spec.name: spec for spec in list_specs()}
    assert specs["fid50k_full"].weights == ("inception_fidelity",)
    assert specs["ppl2_wend"].weights == ("vgg16_torchvision",)
    assert specs["cmmd50k_full"].weights == ("clip_vit_l14_336",)
    assert specs["fid10k_full_digits"].weights == ()
    for detector in map(detector_spec, list_detectors()):
        hashes = json.dumps(detector.fingerprint)
        assert all(WEIGHTS[name].sha256 in hashes for name in detector.weights), detector.name
    with random_weights():
        for spec in specs.values():
            assert mentions_random_weights(spec.protocol) == bool(spec.weights), spec.name
