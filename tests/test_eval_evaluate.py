"""Scoring end to end on toy runs: one pass, exact resumption, isolated failures, honest control rows."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import idx_files, write_files
from eval_toys import COUNT, SIDE, TEST, TRAIN, make_data, make_pictures, make_run, register_toys
from metric_toys import toy_metric

import fact_metrics.registry
from fact_eval.features.extract import FeatureExtractor
from fact_eval.features.store import FeatureCache
from fact_eval.images import open as module
from fact_eval.jobs.pictures import open_reference, plan_pictures
from fact_eval.jobs.plan import Request, plan_all, plan_controls
from fact_eval.jobs.runs import find_runs
from fact_eval.scoring import evaluation, record
from fact_eval.scoring.evaluation import Evaluation
from fact_leaderboard.records import RESULTS, read_records
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.registry import get_specs, list_specs
from fact_metrics.spec import FeatureNeed, MetricValue

CONTROL_METRICS = ("toy_distance", "toy_distance_test", "toy_sharpness")  # those that need no generator


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "toy", labelled=True)


@pytest.fixture
def toys(monkeypatch, tmp_path):
    """The registry holds toy metrics only; the cache is this test's own."""
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    register_toys()


@pytest.fixture
def broken_toys(toys):
    fact_metrics.registry.FAMILIES.clear()
    register_toys(broken=True)


def score(root, *, controls=False, again=False, batch=16, **request):
    """Scores every run under root; returns the jobs and the outcome."""
    jobs, problems = plan_all(
        find_runs([root]), root, Request(tuple(list_specs()), **request), controls=controls
    )
    assert not problems
    outcome = Evaluation(batch=batch, again=again).run(jobs)
    return jobs, outcome


def values(folder):
    return {(r.metric, r.seed): r.value for r in read_records(folder / RESULTS) if r.status == "ok"}


def test_every_metric_and_seed_leaves_one_complete_record(tmp_path, data, toys):
    folder = make_run(tmp_path / "runs", data)
    score(tmp_path / "runs", seeds=(0, 1))
    records = read_records(folder / RESULTS)
    assert len(records) == 8 and {r.status for r in records} == {"ok"}
    record = next(r for r in records if r.metric == "toy_distance_test" and r.seed == 1)
    options = json.loads((folder / "training_options.json").read_text())
    assert (record.n_requested, record.n_effective, record.n_real) == (COUNT, COUNT, 20)
    assert (record.run_id, record.config_sha256, record.kimg) == (
        options["run_id"],
        options["config_sha256"],
        4,
    )
    assert (record.dataset["split"], record.dataset["n"]) == ("test", TEST)
    assert record.protocol["detectors"]["pixels"] and record.protocol["sampling"]
    assert record.provenance["device"] == "cpu" and record.provenance["finished"]
    assert str(tmp_path) not in record.to_json()


def test_seeds_give_different_numbers_and_the_same_seed_the_same(tmp_path, data, toys):
    make_run(tmp_path / "a", data), make_run(tmp_path / "b", data)
    score(tmp_path / "a", seeds=(0, 1))
    score(tmp_path / "b", seeds=(1,))
    a, b = values(tmp_path / "a" / "toy-seed0"), values(tmp_path / "b" / "toy-seed0")
    for metric in ("toy_distance", "toy_path"):
        assert a[metric, 0] != a[metric, 1]
        assert a[metric, 1] == b[metric, 1]


@pytest.mark.parametrize("cond", [False, True])
def test_the_batch_changes_a_number_by_rounding_only(tmp_path, data, toys, monkeypatch, cond):
    folder = make_run(tmp_path / "runs", data, cond=cond)
    score(tmp_path / "runs")
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "other cache"))
    score(tmp_path / "runs", batch=7, force=True, again=True)
    first, second = read_records(folder / RESULTS)[:4], read_records(folder / RESULTS)[4:]
    assert [r.metric for r in first] == [r.metric for r in second]
    for a, b in zip(first, second, strict=True):
        assert a.value == pytest.approx(
            b.value, abs=1e-4
        )  # a grey level of one pixel in 30 images is 1.3e-4 / 2


def test_the_second_time_nothing_is_left_to_do(tmp_path, data, toys):
    folder = make_run(tmp_path / "runs", data)
    score(tmp_path / "runs", controls=True)
    before = (folder / RESULTS).read_bytes()
    jobs, outcome = score(tmp_path / "runs", controls=True)
    assert not any(job.missing for job in jobs) and not outcome.written
    assert (folder / RESULTS).read_bytes() == before


def test_only_missing_records_are_made(tmp_path, data, toys):
    folder = make_run(tmp_path / "runs", data)
    score(tmp_path / "runs")
    lines = (folder / RESULTS).read_text().splitlines(keepends=True)
    (folder / RESULTS).write_text("".join(lines[:2]) + lines[3])
    _, outcome = score(tmp_path / "runs")
    assert [r.metric for r in outcome.written] == [json.loads(lines[2])["metric"]]


def test_one_generation_pass_feeds_every_detector(tmp_path, data, toys, monkeypatch):
    made = []

    class Counting(module.GeneratorSource):
        def images(self, indices):
            made.extend(indices)
            return super().images(indices)

    monkeypatch.setattr(module, "GeneratorSource", Counting)
    make_run(tmp_path / "runs", data)
    score(tmp_path / "runs")
    assert made == list(range(COUNT))


def test_a_pass_opens_its_images_once_extracts_once_and_then_appends_every_record(
    tmp_path, data, toys, monkeypatch
):
    """The walk of a value enters images, features, metrics and records in this order, each once."""
    walk = []

    def watch(owner, name):
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: walk.append(name) or function(*a, **k))

    watch(evaluation, "open_for_scoring"), watch(FeatureExtractor, "extract_all")
    watch(evaluation, "compute_metric"), watch(record, "append_records")
    make_run(tmp_path / "runs", data, cond=True)
    score(tmp_path / "runs", seeds=(0, 1))
    one_seed = ["open_for_scoring", "extract_all", *["compute_metric", "append_records"] * 4]
    assert walk == one_seed * 2


def test_what_follows_from_the_reals_alone_is_made_once_for_all_runs(tmp_path, data, toys):
    needs = [FeatureNeed("pixels", "generated", count=COUNT), FeatureNeed("pixels", "real", split="train")]
    made = []

    def mean_of(features):
        made.append(len(features))
        return features.double().mean().item()

    @toy_metric(needs=needs)
    def toy_kept(inputs):
        """Distance of the mean pixel, kept for the reals."""
        generated = inputs.features(needs[0]).double().mean().item()
        return MetricValue(abs(generated - inputs.cached_real(needs[1], "mean", mean_of)), n_generated=COUNT)

    for seed in (0, 1):
        make_run(tmp_path / "runs", data, seed=seed)
    score(tmp_path / "runs")
    assert made == [TRAIN]
    found = [values(tmp_path / "runs" / f"toy-seed{seed}")["toy_kept", 0] for seed in (0, 1)]
    assert found[0] != found[1]


def test_cached_features_spare_the_pass_and_give_the_same_numbers(tmp_path, data, toys, monkeypatch):
    folder = make_run(tmp_path / "runs", data)
    score(tmp_path / "runs")
    first = values(folder)
    (folder / RESULTS).unlink()
    monkeypatch.setattr(module.GeneratorSource, "images", lambda *_: pytest.fail("images were made again"))
    score(tmp_path / "runs")
    assert values(folder) == first


def test_a_damaged_cache_entry_is_made_again_with_the_same_numbers(tmp_path, data, toys):
    folder = make_run(tmp_path / "runs", data)
    score(tmp_path / "runs")
    first = values(folder)
    (folder / RESULTS).unlink()
    for chunk in FeatureCache().root.rglob("*.safetensors"):
        chunk.write_bytes(chunk.read_bytes()[:-3])
    score(tmp_path / "runs")
    assert values(folder) == first


def test_a_cache_that_cannot_be_used_costs_time_and_not_the_number(tmp_path, data, toys, monkeypatch, capfd):
    folder = make_run(tmp_path / "runs", data)
    (tmp_path / "no folder").touch()
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "no folder"))
    score(tmp_path / "runs")
    assert len(values(folder)) == 4
    assert "are not cached" in capfd.readouterr().err


def test_a_failing_metric_leaves_a_record_and_stops_no_other(tmp_path, data, broken_toys):
    folder = make_run(tmp_path / "runs", data)
    _, outcome = score(tmp_path / "runs")
    by_metric = {r.metric: r for r in read_records(folder / RESULTS)}
    assert len(by_metric) == 6
    failed = {name: r for name, r in by_metric.items() if r.status == "failed"}
    assert failed["toy_failing"].error == "RuntimeError: out of luck"
    assert failed["toy_nan"].value is None and "came out as nan" in failed["toy_nan"].error
    assert len(failed) == len(outcome.failures) == 2
    jobs, _ = score(tmp_path / "runs")
    assert {spec.name for spec, _ in jobs[0].missing} == set(failed)  # a failure is tried again


def test_a_damaged_snapshot_fails_its_run_and_no_other(tmp_path, data, toys):
    good, bad = make_run(tmp_path / "runs", data), make_run(tmp_path / "runs", data, seed=1)
    snapshot = bad / "network-snapshot-000004.safetensors"
    snapshot.write_bytes(snapshot.read_bytes()[:-100])
    _, outcome = score(tmp_path / "runs")
    assert len(values(good)) == 4 and not values(bad)
    assert len(outcome.problems()) == 1 and "truncated or damaged" in outcome.problems()[0]
    assert "4 metrics" in outcome.problems()[0]


def test_an_altered_snapshot_is_not_scored(tmp_path, data, toys):
    folder = make_run(tmp_path / "runs", data)
    snapshot = folder / "network-snapshot-000004.safetensors"
    content = bytearray(snapshot.read_bytes())
    content[-3] ^= 1
    snapshot.write_bytes(content)
    _, outcome = score(tmp_path / "runs")
    assert not values(folder) and "altered" in outcome.problems()[0]


def test_a_failing_detector_fails_the_metrics_that_need_it_alone(tmp_path, data, toys, monkeypatch):
    from fact_metrics.features.detectors.spectrum import Spectrum

    def no_weights(self, images):
        raise UserError("weights are missing")

    monkeypatch.setattr(Spectrum, "embed", no_weights)
    folder = make_run(tmp_path / "runs", data)
    _, outcome = score(tmp_path / "runs")
    assert len(values(folder)) == 3
    assert [(metric, error) for _, metric, error in outcome.failures] == [
        ("toy_sharpness", "weights are missing")
    ]


def test_ctrl_c_leaves_a_cancelled_record_and_keeps_what_is_done(tmp_path, data, toys, monkeypatch):
    folder = make_run(tmp_path / "runs", data)

    def interrupted(spec, inputs):
        raise KeyboardInterrupt

    whole = fact_metrics.registry.FAMILIES["toy_path"]
    fact_metrics.registry.FAMILIES["toy_path"] = dataclasses.replace(whole, compute=interrupted)
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "runs")
    statuses = {r.metric: r.status for r in read_records(folder / RESULTS)}
    assert statuses.pop("toy_path") == "cancelled" and set(statuses.values()) == {"ok"}
    fact_metrics.registry.FAMILIES["toy_path"] = whole
    _, outcome = score(tmp_path / "runs")
    assert outcome.written[0].metric == "toy_path"
    assert len(values(folder)) == 4


def test_snapshots_are_chosen_by_name(tmp_path, data, toys):
    folder = make_run(tmp_path / "runs", data, kimgs=(2, 4, 8))
    score(tmp_path / "runs")
    assert {r.kimg for r in read_records(folder / RESULTS)} == {8}
    score(tmp_path / "runs", snapshot="2")
    assert {r.kimg for r in read_records(folder / RESULTS)} == {2, 8}
    score(tmp_path / "runs", snapshot="all")
    assert {r.kimg for r in read_records(folder / RESULTS)} == {2, 4, 8}
    _, problems = plan_all(
        find_runs([tmp_path / "runs"]), tmp_path, Request(tuple(list_specs()), snapshot="3")
    )
    assert problems == [f"--snapshot 3: {folder} has 2, 4, 8"]


def test_held_out_reals_are_never_of_the_reference_split(tmp_path, data, toys):
    reference = open_reference(str(data))
    request = Request(tuple(list_specs()))
    jobs = plan_controls([reference, reference], tmp_path, request)
    assert [job.source for job in jobs] == ["reals", "noise"]
    Evaluation().run(jobs)
    records = {r.metric: r for r in read_records(jobs[0].results) if r.source == "reals"}
    assert set(records) == set(CONTROL_METRICS)
    # Against train: all 24 test images, fewer than asked for and said so. Against test: 30 train images.
    against_train, against_test = records["toy_distance"], records["toy_distance_test"]
    assert (against_train.n_requested, against_train.n_effective, against_train.n_real) == (
        COUNT,
        TEST,
        TRAIN,
    )
    assert (against_test.n_effective, against_test.dataset["split"]) == (COUNT, "test")
    assert against_train.value > 0 and against_test.value > 0


def idx_folder_without_test_files(folder: Path) -> Path:
    """Train files alone of a dataset like Fashion-MNIST."""
    files = idx_files(count=TRAIN, side=8)
    return write_files(folder, {name: content for name, content in files.items() if "t10k" not in name})


def npz(folder: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (TRAIN, 8, 8), dtype=np.uint8)
    np.savez(folder.with_suffix(".npz"), arr_0=images)
    return folder.with_suffix(".npz")


@pytest.mark.parametrize(
    "make", [lambda folder: make_pictures(folder, TRAIN), idx_folder_without_test_files, npz]
)
def test_a_dataset_without_test_split_has_no_ceiling_and_asks_only_once(tmp_path, toys, make):
    single = make(tmp_path / "single")
    make_run(tmp_path / "runs", single)
    _, outcome = score(tmp_path / "runs", controls=True)
    assert not outcome.failures
    blank = {(r.source, r.metric) for r in outcome.written if r.value is None}
    assert {metric for source, metric in blank if source == "reals"} == set(CONTROL_METRICS)
    assert {(s, m) for s, m in blank if s != "reals"} == {(s, "toy_distance_test") for s in ("run", "noise")}
    assert all("has no test split" in r.error for r in outcome.written if r.value is None)
    jobs, _ = score(tmp_path / "runs", controls=True)
    assert not any(job.missing for job in jobs)


def test_another_dataset_in_the_place_of_the_training_data_is_refused(tmp_path, toys):
    data = make_data(tmp_path / "data")
    folder = make_run(tmp_path / "runs", data)
    moved = data.rename(tmp_path / "moved")
    make_pictures(tmp_path / "data" / "train", TRAIN)
    make_pictures(tmp_path / "data" / "test", TEST)
    _, outcome = score(tmp_path / "runs")
    assert "is not the data of the run" in outcome.problems()[0]
    score(tmp_path / "runs", data=str(moved))
    assert len(values(folder)) == 4


def test_too_few_real_images_fail_that_metric_alone(tmp_path, toys):
    data = make_data(tmp_path / "data", splits={"train": TRAIN, "test": 10})
    folder = make_run(tmp_path / "runs", data)
    _, outcome = score(tmp_path / "runs")
    assert [(m, e) for _, m, e in outcome.failures] == [
        ("toy_distance_test", "data test has 10 images; the metric needs 20")
    ]
    assert len(values(folder)) == 3


def test_pictures_are_scored_by_feature_metrics_alone(tmp_path, data, toys):
    pictures = make_pictures(tmp_path / "mine", 50)
    job, left_out = plan_pictures(
        pictures, open_reference(str(data)), tmp_path / "runs", Request(tuple(list_specs()))
    )
    assert left_out == ["toy_path needs a generator, not pictures"]
    outcome = Evaluation().run([job])
    assert {r.metric for r in outcome.written} == set(CONTROL_METRICS)
    assert all(r.source == "images" and r.n_effective == r.n_requested for r in outcome.written)
    assert job.results == tmp_path / "runs" / "images-mine" / RESULTS


def test_pictures_too_few_for_a_named_metric_are_refused_and_for_others_left_out(tmp_path, data, toys):
    pictures = make_pictures(tmp_path / "mine", 25)
    reference = open_reference(str(data))
    named = Request(tuple(get_specs(["toy_distance"])), named=True)
    with pytest.raises(UserError, match="toy_distance needs 30 pictures, there are 25"):
        plan_pictures(pictures, reference, tmp_path, named)
    job, left_out = plan_pictures(pictures, reference, tmp_path, Request(tuple(list_specs())))
    assert [spec.name for spec, _ in job.missing] == ["toy_sharpness"] and len(left_out) == 3
    few = make_pictures(tmp_path / "few", 3)
    with pytest.raises(UserError, match="too few for every metric: "):
        plan_pictures(few, reference, tmp_path, Request(tuple(list_specs())))


def test_pictures_of_another_size_than_the_reference_are_refused(tmp_path, data, toys):
    pictures = make_pictures(tmp_path / "mine", 40, side=2 * SIDE)
    with pytest.raises(UserError, match="holds 16x16 pictures, toy is 8x8"):
        plan_pictures(pictures, open_reference(str(data)), tmp_path, Request(tuple(list_specs())))


def test_a_metric_for_other_datasets_is_left_out_or_refused_by_name(data, toys):
    toy = fact_metrics.registry.FAMILIES["toy_path"]
    fact_metrics.registry.FAMILIES["toy_path"] = dataclasses.replace(toy, fixed_detector="digits")
    assert "toy_path" not in {spec.name for spec in Request(tuple(list_specs())).specs_for("toy")}
    with pytest.raises(UsageError, match="toy_path is for digits only, not for toy"):
        Request(tuple(get_specs(["toy_path"])), named=True).specs_for("toy")


def test_memory_of_a_pass_does_not_hold_more_than_a_batch_of_images(tmp_path, data, toys, monkeypatch):
    sizes = []
    images = module.GeneratorSource.images

    def watched(self, indices):
        sizes.append(len(indices))
        return images(self, indices)

    monkeypatch.setattr(module.GeneratorSource, "images", watched)
    make_run(tmp_path / "runs", data)
    score(tmp_path / "runs", batch=8)
    assert sizes == [8, 8, 8, 6]


def test_scoring_computes_in_full_float32_and_gives_the_setting_back(tmp_path, data, toys, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []
    toy = fact_metrics.registry.FAMILIES["toy_path"]

    def watching(spec, inputs):
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return toy.compute(spec, inputs)

    fact_metrics.registry.FAMILIES["toy_path"] = dataclasses.replace(toy, compute=watching)
    make_run(tmp_path / "runs", data)
    score(tmp_path / "runs")
    assert seen == [(False, False)] and torch.backends.cudnn.allow_tf32 is True


def test_scoring_leaves_the_global_random_state_alone(tmp_path, data, toys):
    make_run(tmp_path / "runs", data)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    score(tmp_path / "runs")
    assert torch.equal(torch.get_rng_state(), before)
