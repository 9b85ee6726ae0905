"""Specs of metrics: published protocols stay as they are; the grammar of names; needs are declared."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from metric_toys import ToyEncoder, ToyGenerator, ToyInputs, cloud, toy_metric

from fact_leaderboard.columns import COLUMNS
from fact_metrics import registry
from fact_metrics.base.canonical import canonical_sha256
from fact_metrics.base.errors import UsageError
from fact_metrics.features import DETECTORS
from fact_metrics.inputs import UndeclaredNeed
from fact_metrics.registry import (
    FAMILIES,
    compute_metric,
    find_spec,
    get_spec,
    get_specs,
    list_metrics,
    list_specs,
    published_names,
)
from fact_metrics.spec import SAMPLING, FeatureNeed, MetricValue

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = json.loads((ROOT / "tests" / "golden" / "protocols.json").read_text())
NEED = ("detector", "side", "split", "count")


def golden_protocol(name):
    """The protocol of a metric as it was when the golden file was written."""
    stored = GOLDEN["metrics"][name]
    return {
        "metric": name,
        "version": stored["version"],
        "needs": [dict(zip(NEED, need, strict=True)) for need in stored["needs"]],
        "detectors": {detector: GOLDEN["detectors"][detector] for detector in stored["detectors"]},
        "settings": stored["settings"],
        "sampling": GOLDEN["sampling"],
    }


@pytest.mark.parametrize("name", GOLDEN["metrics"])
def test_a_published_metric_keeps_its_protocol_to_the_hash(name):
    spec = get_spec(name)
    assert spec.protocol == golden_protocol(name)
    assert spec.protocol_sha256 == GOLDEN["metrics"][name]["protocol_sha256"]
    assert canonical_sha256(golden_protocol(name)) == spec.protocol_sha256


# Records of the floor and ceiling rows from before the protocol named its standard error. Both metrics were
# measured again since; the old lines stay, as records are only ever appended.
SUPERSEDED = {
    "5b6820826c24cd075329f191ae505e5e04919f12b5177957c1943a2b6300009f": "fid10k_full_digits",
    "b251e38da842c486332b51c02ad7fc7dc42a51d7f7d018db59598eaba1f7f3e4": "fid10k_test_efficientnet_lite0",
}


# What `fact-eval explain` adds to the settings of a metric: the question that a run was asked.
OF_THE_QUESTION = ("classes", "classifier", "discriminator_filter", "second_classifier", "shift")


def committed_protocols():
    """(metric, version, protocol hash) of every committed record, each once, without the question asked."""
    found = set()
    for path in sorted((ROOT / "leaderboard" / "results").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            protocol, sha256 = record["protocol"], record["protocol_sha256"]
            if "classifier" in protocol.get("settings", {}):
                assert canonical_sha256(protocol) == sha256
                kept = {key: v for key, v in protocol["settings"].items() if key not in OF_THE_QUESTION}
                sha256 = canonical_sha256({**protocol, "settings": kept})
            found.add((record["metric"], record["metric_version"], sha256))
    return sorted(found)


@pytest.mark.parametrize(("name", "version", "sha256"), committed_protocols())
def test_a_committed_record_was_measured_by_the_protocol_its_metric_has_now(name, version, sha256):
    spec = get_spec(name)
    if SUPERSEDED.get(sha256) == name:
        assert (name, version, spec.protocol_sha256) in committed_protocols()
    else:
        assert (spec.version, spec.protocol_sha256) == (version, sha256)


def test_the_superseded_protocols_are_still_among_the_records():
    committed = {sha256: name for name, _, sha256 in committed_protocols()}
    assert SUPERSEDED.items() <= committed.items()


def test_all_names_that_were_ever_listed_are_listed_and_say_what_they_said():
    listed = {spec.name: spec for spec in list_specs()}
    assert listed.keys() >= GOLDEN["metrics"].keys()
    for name, stored in GOLDEN["metrics"].items():
        spec = listed[name]
        assert (spec.higher_is_better, spec.unit) == (stored["higher_is_better"], stored["unit"])
        assert list(spec.weights) == stored["weights"] and spec.paired == stored["paired"]
        assert spec.from_statistics == stored["from_statistics"]
        needed = (spec.needs_generator, spec.needs_encoder)
        assert needed == (stored["needs_generator"], stored["needs_encoder"])
        assert (spec.needs_trait == "digits") == stored["digits_only"]


@pytest.mark.parametrize(
    ("name", "counts", "splits", "detectors"),
    [
        ("fid5k_test_dinov2_b", [5000, None], [None, "test"], {"dinov2_b"}),
        ("kid10k_full_pixels", [10_000, None], [None, "train"], {"pixels"}),
        ("kid500_train_digits", [500, 500], [None, "train"], {"digits"}),
        ("precision5k7_full_vgg16_fc2", [5000, None], [None, "train"], {"vgg16_fc2"}),
        ("fid2500_test_digits", [2500, None], [None, "test"], {"digits"}),
        ("sfid10k_test_inception_spatial", [10_000, None], [None, "test"], {"inception_spatial"}),
        ("is5k_digits_probs", [5000], [None], {"digits_probs"}),
        ("legible2k", [2000], [None], {"digits_probs"}),
        ("sharpness5k_test", [5000, None], [None, "test"], {"spectrum"}),
        ("reconfid5k_train_pixels", [5000, 5000], ["test", "train"], {"pixels"}),
        ("reconsharpness5k_full", [5000, None], ["test", "train"], {"spectrum"}),
        ("style_diversity500_test_pixels", [None], ["test"], {"pixels"}),
        ("ppl5k_wend_lpips_vgg", [], [], {"lpips_vgg"}),
        ("fused2k_lpips_lpips_alex", [], [], {"lpips_alex"}),
        ("recon2k_mse", [], [], set()),
    ],
)
def test_a_name_of_the_grammar_is_the_metric_it_spells(name, counts, splits, detectors):
    spec = get_spec(name)
    assert spec.name == name and name not in list_metrics()
    assert [need.count for need in spec.needs] == counts
    assert [need.split for need in spec.needs] == splits
    assert set(spec.detectors) == detectors and spec.protocol["metric"] == name
    assert spec.summary.endswith(".") and "{" not in spec.summary


def test_settings_follow_the_name():
    assert get_spec("precision5k7_full_pixels").settings["k"] == 7
    assert get_spec("ppl5k_zfull_crop_lpips_vgg").settings["samples"] == 5000
    assert get_spec("ppl5k_zfull_crop_lpips_vgg").settings["space"] == "z, spherical"
    assert get_spec("fid5k_test_pixels").settings["reals"] == "sample"
    assert get_spec("fid5k_full_inception_nvidia").settings["covariance"] == "N"
    assert get_spec("mifid5k_full_inception_pool3").settings["threshold"] == 0.1
    assert get_spec("kl500").settings["count"] == 500


def test_a_published_name_and_its_spelling_in_the_grammar_are_one_metric_with_one_name():
    published = published_names()
    assert {"fid50k_full", "kid50k_full", "is50k", "ppl2_wend", "fid50k_full_clean"} <= published.keys()
    for name, spelled in published.items():
        assert get_spec(spelled).name == get_spec(name).name == name
    assert [spec.name for spec in get_specs(["is50k", "is50k_inception_logits", "kl10k"])] == [
        "is50k",
        "kl10k",
    ]


def test_every_listed_name_is_spelled_as_the_grammar_spells_it():
    for name in set(list_metrics()) - published_names().keys():
        family, spec = registry._resolve(name)
        assert spec.name == name and name in family.listed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fdi10k_full_digits", "unknown family 'fdi'; did you mean fd or fid"),
        ("fid_full_digits", r"the number of images is missing: fid<N>_<full\|train\|test>_<detector>"),
        ("fid", "the number of images is missing"),
        ("fid10000_full_digits", "10,000 images are written 10k"),
        ("fid010k_full_digits", "'010k' is not a number of images"),
        ("fid10k3_full_digits", "fid takes no number of neighbours, here 3"),
        ("precision10k_full_pixels", "the number of neighbours is missing"),
        ("precision2500_full_pixels", "images come in thousands if neighbours follow them"),
        ("precision1k1000_full_pixels", "1000 neighbours of 1,000 images; give 1 to 999"),
        ("fid10k_digits", "'digits' is no split.*give full, train, test"),
        ("fid10k", "the split is missing"),
        ("reconfid10k_test_digits", "reconfid does not compare with test images; give full, train"),
        ("fid10k_full", "the detector is missing.*efficientnet_lite0"),
        ("fid10k_full_digit", "unknown detector 'digit'; did you mean digits"),
        (
            "is10k_pixels",
            "is needs a detector of class logits or class probabilities, and pixels gives features",
        ),
        ("sfid10k_full_digits", "needs a detector of spatial features.*these fit: inception_spatial"),
        ("ppl2k_wend_digits", "needs a detector of distance.*lpips_vgg"),
        ("mifid10k_full_digits", "mifid is not defined on digits; these fit: efficientnet_lite0"),
        ("legible10k_digits_probs", "'_digits_probs' is left over: legible<N>, which is on digits_probs"),
        ("fused1k_fast", "'fast' begins with none of maxabs, psnr"),
        ("ppl2k", "give one of wend.*after ppl<N>"),
        ("is5_inception_logits", "is takes 10 images or more"),
        ("noise_diversity12_full_pixels", "takes 10 images or more, in multiples of 5"),
        ("", "unknown family ''"),
    ],
)
def test_a_name_that_cannot_be_resolved_says_in_one_line_which_part_is_wrong(name, message):
    with pytest.raises(UsageError, match=message) as error:
        get_spec(name)
    assert "\n" not in str(error.value) and repr(name) in str(error.value)
    assert find_spec(name) is None


def test_every_family_takes_every_detector_that_it_names_as_fitting():
    for family in FAMILIES.values():
        assert not family.gives or family.fitting_detectors(), family.key
        assert set(family.detectors) <= set(family.fitting_detectors())
        for detector in family.fitting_detectors():
            name = family.example.replace(next(iter(get_spec(family.example).detectors)), detector)
            assert get_spec(name).detectors == (detector,)


@pytest.mark.parametrize("name", ["fid100_test_pixels", "kid100_test_pixels"])
def test_a_metric_of_the_grammar_has_value_error_and_paired_difference(name):
    spec, gen, real = get_spec(name), cloud(60, 5, seed=1, shift=0.2), cloud(80, 5, seed=2)
    found = compute_metric(spec, ToyInputs(lambda need: real if need.side == "real" else gen))
    assert found.value > 0 and 0 < found.stderr < 1 and (found.n_generated, found.n_real) == (60, 80)
    value, stderr = registry.compute_difference(spec, gen, gen + 0.3, real)
    assert value > 0 and stderr > 0


def test_what_is_known_of_the_reals_is_computed_once_for_names_of_the_grammar():
    computed = []

    class Caching(ToyInputs):
        def cached_real(self, need, name, function):
            computed.append((need, name))
            return function(self.make(need))

    inputs = Caching(lambda need: cloud(60, 5, seed=len(need.side)))
    for name in ("fid60_full_pixels", "kid60_full_pixels"):
        compute_metric(get_spec(name), inputs)
    reals = FeatureNeed("pixels", "real", split="train")
    known = ["mean and covariance over N - 1", "polynomial kernel sums"]
    assert [name for need, name in computed if need == reals and name in known] == known


def test_every_column_of_the_board_is_a_metric():
    for column in COLUMNS:
        assert get_spec(column.metric).name == column.metric


# Reading specs --------------------------------------------------------------------------------------------

WITHOUT_TORCH = """
import sys
from fact_metrics.registry import list_specs
from fact_metrics.features import detector_spec, list_detectors
from fact_train.datasets import DATASETS
protocols = [spec.protocol for spec in list_specs()]
fingerprints = [detector_spec(name).fingerprint for name in list_detectors()]
print(len(protocols), len(fingerprints), sorted({"torch", "numpy"} & set(sys.modules)))
"""


def test_specs_of_all_metrics_and_detectors_are_read_without_torch():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(list_metrics())), str(len(DETECTORS)), "[]"]


def test_fact_eval_list_needs_no_torch():
    code = "import sys; from fact_eval import cli; cli._run(['list']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False" and "fid50k_full ↓" in done.stdout


def test_the_protocol_states_the_seeds_that_sampling_uses():
    from fact_eval.images.sampling import SEED_STRIDE

    assert f"seed * {SEED_STRIDE} + index" in SAMPLING["latents"]


# Adding and computing -------------------------------------------------------------------------------------


def test_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="fid: registered twice"):
        registry.register(registry.FAMILIES["fid"])
    with pytest.raises(ValueError, match="fid50k_full: registered twice"):
        toy_metric()(_named("fid50k_full"))
    assert get_spec("fid50k_full").detectors == ("inception_pool3",)


def _named(name):
    def compute(inputs):
        """A metric of a taken name."""

    compute.__name__ = name
    return compute


@pytest.mark.parametrize(
    "reads",
    [
        lambda inputs: inputs.features(FeatureNeed("pixels", "generated", count=11)),
        lambda inputs: inputs.features(FeatureNeed("pixels", "real", split="train")),
        lambda inputs: inputs.cached_real(FeatureNeed("pixels", "real", split="train"), "mean", torch.mean),
        lambda inputs: inputs.statistics(FeatureNeed("pixels", "generated", count=10), correction=1),
        lambda inputs: inputs.generator,
        lambda inputs: inputs.encoder,
    ],
    ids=["another count", "another side", "cached", "statistics", "generator", "encoder"],
)
def test_a_metric_that_reads_what_its_spec_does_not_declare_fails(monkeypatch, reads):
    monkeypatch.setattr(registry, "FAMILIES", {})
    declared = FeatureNeed("pixels", "generated", count=10)

    @toy_metric(needs=[declared])
    def honest(inputs):
        """Reads what it declares."""
        return MetricValue(inputs.features(declared).mean().item())

    @toy_metric(needs=[declared])
    def sly(inputs):
        """Reads more than it declares."""
        reads(inputs)
        return MetricValue(0.0)

    inputs = ToyInputs(lambda need: torch.ones(4, 2), generator=ToyGenerator(), encoder=ToyEncoder(0.0))
    assert compute_metric(get_spec("honest"), inputs).value == 1.0
    with pytest.raises(UndeclaredNeed, match="metric sly reads"):
        compute_metric(get_spec("sly"), inputs)
