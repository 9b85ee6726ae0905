"""Two runs image by image: the difference and its error from stored features, or why there is none."""

import dataclasses

import pytest
import torch
from eval_toys import COUNT, make_data, make_run
from metric_toys import toy_metric

import fact_metrics.registry
from fact_eval.compare.paired import PairedImages
from fact_eval.compare.records import compare
from fact_eval.features.store import FeatureCache
from fact_eval.jobs.plan import Request, plan_run
from fact_eval.jobs.runs import read_run
from fact_eval.scoring.evaluation import Evaluation
from fact_leaderboard.records import RESULTS, read_records
from fact_metrics.base.progress import Progress
from fact_metrics.engines.fid_error import compute_fid_difference
from fact_metrics.registry import compute_difference, get_spec, list_specs
from fact_metrics.spec import FeatureNeed, MetricValue

NEEDS = (FeatureNeed("pixels", "generated", count=COUNT), FeatureNeed("pixels", "real", split="test"))


def register(name, *, difference=None):
    """A metric of its own: the mean feature's distance to that of the reals."""

    def compute(inputs):
        gen, real = (inputs.features(need) for need in NEEDS)
        value = (gen.mean() - real.mean()).item()
        return MetricValue(value, stderr=0.5, n_generated=len(gen), n_real=len(real))

    compute.__name__, compute.__doc__ = name, "A distance of means."
    toy_metric(needs=NEEDS, difference=difference)(compute)


def difference_of_means(gen_a, gen_b, real):
    assert len(gen_a) == len(gen_b) == COUNT and len(real) == 24
    return (gen_b.mean() - gen_a.mean()).item(), 0.01


@pytest.fixture
def scored(monkeypatch, tmp_path):
    """Records of two runs with shared latents and the store of their features."""
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    register("toy_paired", difference=difference_of_means)
    register("toy_alone")
    cache = FeatureCache(tmp_path / "cache")
    data = make_data(tmp_path / "data")
    runs = []
    for seed in (0, 1):
        folder = make_run(tmp_path / "runs", data, seed=seed)
        jobs = plan_run(read_run(folder), Request(tuple(list_specs()), named=True))
        Evaluation(cache=cache, progress=Progress(quiet=True)).run(jobs)
        runs.append(read_records(folder / RESULTS))
    return *runs, cache


def compared(a, b, cache):
    paired = PairedImages(cache, progress=Progress(quiet=True))
    return {c.metric: c for c in compare(a, b, paired=paired.difference)[0]}


def test_one_seed_is_compared_image_by_image_and_says_so(scored):
    a, b, cache = scored
    found = compared(a, b, cache)
    paired, alone = found["toy_paired"], found["toy_alone"]
    assert paired.difference.method == f"paired images, n={COUNT}"
    assert (paired.difference.stderr, alone.difference.stderr) == (0.01, pytest.approx(0.5 * 2**0.5))
    # The difference from stored features is that of the numbers that were scored.
    assert paired.difference.value == pytest.approx(paired.b - paired.a, abs=1e-6)
    assert alone.difference.method == "independent standard errors" and alone.better == "tie"


def test_a_run_and_itself_are_a_tie(scored):
    a, _, cache = scored
    found = compared(a, a, cache)["toy_paired"]
    assert (found.difference.value, found.better) == (0.0, "tie")


def test_without_stored_features_the_errors_are_independent_and_why_is_said(scored, tmp_path):
    a, b, cache = scored
    (generated,) = [e for e in cache.entries() if e.key["images"].get("snapshot") == a[0].snapshot_sha256]
    next(generated.path.glob("*.safetensors")).write_bytes(b"torn")
    for store in (cache, FeatureCache(tmp_path / "nothing")):
        found = compared(a, b, store)["toy_paired"]
        assert found.difference.method == "independent standard errors: features are not in the store"
        assert found.difference.stderr == pytest.approx(0.5 * 2**0.5)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"source": "images"}, "only runs share latents"),
        ({"n_effective": 29}, "not as many images on both sides"),
        ({"seed": 7}, "no shared evaluation seed"),
    ],
)
def test_what_shares_no_latents_is_not_paired(scored, changes, why):
    a, b, cache = scored
    other = [dataclasses.replace(record, **changes) for record in b]
    assert compared(a, other, cache)["toy_paired"].difference.method.endswith(f": {why}")


def test_a_metric_that_changed_since_is_not_paired(scored, monkeypatch):
    a, b, cache = scored
    metric = fact_metrics.registry.FAMILIES["toy_paired"]
    changed = dataclasses.replace(metric, settings=lambda choice: {"k": 4})
    monkeypatch.setitem(fact_metrics.registry.FAMILIES, "toy_paired", changed)
    assert "another version of the metric" in compared(a, b, cache)["toy_paired"].difference.method


def test_registered_fids_and_kids_of_shared_latents_have_a_difference():
    rng = torch.Generator().manual_seed(0)
    a = torch.rand(40, 6, generator=rng)
    b, real = a + 0.02 * torch.rand(40, 6, generator=rng), torch.rand(30, 6, generator=rng)
    for name in ("fid10k_full_digits", "fid10k_test_efficientnet_lite0", "kid10k_full_digits", "fid50k_full"):
        spec = get_spec(name)
        assert spec.paired
        value, stderr = compute_difference(spec, a, b, real)
        swapped = compute_difference(spec, b, a, real)
        assert stderr > 0 and swapped == pytest.approx((-value, stderr), rel=1e-6)
    expected = compute_fid_difference(a, b, real, paired=True, correction=0)
    assert (value, stderr) == (expected.value, expected.stderr)
    assert not get_spec("precision50k3_full").paired
