"""The fused report of a snapshot: every precision, every layer, the path that ran, and planted defects."""

import dataclasses
import types

import pytest
import torch
from eval_toys import make_data, make_pictures, make_run

from fact_eval.compare import consistency
from fact_eval.compare.consistency import PRECISIONS, PrecisionSource, report
from fact_eval.reports.fused import fused_tables
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.pixels import to_uint8
from fact_metrics.base.tf32 import tf32
from fact_metrics.engines.fid_error import compute_fid_stderr
from fact_metrics.engines.frechet import compute_fid
from fact_metrics.features import get_detector
from fact_train.data import open_dataset
from fact_train.networks.injection import ModulatedConv
from fact_train.snapshot import load_snapshot

SMALL = {"pairs": 12, "batch": 4, "rounds": 2}
FORWARD = ModulatedConv.forward
ON_CPU = ("float64", "float32", "bfloat16", "float16")
LAYERS = [
    "b4.conv1", "b4.torgb", "b8.conv0", "b8.conv1", "b8.torgb",
    "b16.conv0", "b16.conv1", "b16.torgb", "b32.conv0", "b32.conv1", "b32.torgb",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fused")
    make_pictures(folder / "data", 20, side=32)
    return make_run(folder / "runs", folder / "data", channel_base=256)


@pytest.fixture
def snapshot(run):
    return load_snapshot(run / "network-snapshot-000004.safetensors")


@pytest.fixture(scope="module")
def whole(run):
    return report(load_snapshot(run / "network-snapshot-000004.safetensors"), **SMALL)


def test_every_precision_of_a_cpu_is_there_and_tf32_is_said_not_to_apply(whole):
    assert tuple(row.precision for row in whole.images) == ON_CPU
    assert whole.not_applicable == {"tf32": "not applicable: cpu has no TF32"}
    assert whole.snapshot == "network-snapshot-000004.safetensors" and whole.device == "cpu"


def test_what_differs_is_rounding_in_every_precision(whole):
    """The same multiple of the precision's eps everywhere: a defect would stay put as eps shrinks."""
    for row in whole.images:
        # A dozen layers of sums of up to 72 products each, on images near 1.
        assert 0 < row.max_abs < 200 * PRECISIONS[row.precision].eps, row
        assert row.mean_abs < row.max_abs
    for row in whole.layers:
        assert row.rounding == pytest.approx(row.relative / PRECISIONS[row.precision].eps)
        assert row.rounding < 30, row
    worst = {row.precision: row.max_abs for row in whole.images}
    assert worst["float64"] < 1e-6 * worst["float32"] < 1e-8 * worst["float16"] < 1e-8 * worst["bfloat16"]


def test_the_path_that_ran_is_read_off_for_the_images_and_for_every_layer(whole):
    assert {row.paths for row in whole.images} == {("fused", "unfused")}
    for row in whole.layers:  # a 1x1 kernel to the image is one matrix a sample, in either order
        one_path = row.layer.endswith("torgb")
        assert row.paths == (("one for both",) * 2 if one_path else ("fused", "unfused")), row.layer
    for name in ON_CPU:
        assert [row.layer for row in whole.layers if row.precision == name] == LAYERS


def test_errors_are_distances_from_float64(whole, snapshot):
    truth, float32 = (PrecisionSource(snapshot, PRECISIONS[name], seed=0) for name in ("float64", "float32"))
    indices = range(SMALL["batch"])
    inputs = truth.mapping(truth.latents(indices), None), truth.noise(indices)
    exact = truth.synthesis(*inputs, fused_modconv=False)
    assert exact.dtype == torch.float64
    row = next(row for row in whole.images if row.precision == "float32")
    for fused, found in ((True, row.error_fused), (False, row.error_unfused)):
        images = float32.synthesis(*inputs, fused_modconv=fused)
        assert images.dtype == torch.float32
        assert found == pytest.approx((images - exact).abs().max().item(), rel=1e-6)
    assert next(row for row in whole.images if row.precision == "float64").error_unfused == 0


def test_images_in_float32_are_those_of_the_snapshot(snapshot):
    source = PrecisionSource(snapshot, PRECISIONS["float32"], seed=0)
    plain = consistency.GeneratorSource(snapshot, seed=0)
    inputs = plain.mapping(plain.latents(range(3)), None), plain.noise(range(3))
    assert torch.equal(source.synthesis(*inputs), plain.synthesis(*inputs))
    assert snapshot.G.synthesis.b4.const.dtype == torch.float32


def test_lpips_fid_and_changed_values_compare_the_images_of_the_two_paths(whole, snapshot):
    source = PrecisionSource(snapshot, PRECISIONS["bfloat16"], seed=0)
    indices = range(SMALL["pairs"])
    inputs = source.mapping(source.latents(indices), None), source.noise(indices)
    fused, unfused = (source.synthesis(*inputs, fused_modconv=fused) for fused in (True, False))
    detector, pixels = get_detector("stlpips_alex"), [to_uint8(images) for images in (fused, unfused)]
    distances = detector.distance(fused, unfused).double()
    features = [detector(images) for images in pixels]
    changed = (pixels[0] != pixels[1]).double().flatten(1).mean(dim=1)
    row = next(row for row in whole.images if row.precision == "bfloat16")
    root = len(indices) ** 0.5
    assert (row.lpips, row.lpips_stderr) == pytest.approx(
        (distances.mean().item(), distances.std().item() / root), rel=1e-5
    )
    assert (row.pixels_changed, row.pixels_changed_stderr) == pytest.approx(
        (changed.mean().item(), changed.std().item() / root), rel=1e-9
    )
    assert row.fid == pytest.approx(compute_fid(*features), rel=1e-6) and row.fid > 0
    assert row.fid_stderr == pytest.approx(compute_fid_stderr(*features, reference="paired"), rel=1e-6)
    assert {row.precision for row in whole.images if row.pixels_changed == 0} >= {"float64"}


def test_calls_alternate_and_the_first_of_each_path_is_not_timed():
    calls = []
    batch = types.SimpleNamespace(ws=torch.zeros(1), render=lambda *, fused: calls.append(fused))
    fused, unfused = consistency._Batch.milliseconds(batch, 3)
    assert calls == [True, False] * 4 and fused >= 0 and unfused >= 0


def test_a_planted_defect_is_found_in_its_layer_in_every_precision(snapshot, monkeypatch):
    def wrong(self, x, w, *, fused, **options):
        return FORWARD(self, x, w, fused=fused, **options) * (1.2 if fused and hasattr(self, "off") else 1)

    monkeypatch.setattr(ModulatedConv, "forward", wrong)
    snapshot.G.synthesis.b16.conv1.inject.off = True
    found = report(snapshot, precisions=("float64", "float32", "bfloat16"), **SMALL)
    for row in found.images:
        assert found.worst_layer(row.precision) == "b16.conv1"
        assert row.max_abs > 0.01
    float64 = {row.layer: row for row in found.layers if row.precision == "float64"}
    assert float64["b16.conv1"].relative == pytest.approx(0.2) and float64["b16.conv0"].rounding < 30


def test_a_network_that_ignores_the_flag_is_refused(snapshot, monkeypatch):
    def unfused(self, *args, fused, **options):
        return FORWARD(self, *args, fused=False, **options)

    monkeypatch.setattr(ModulatedConv, "forward", unfused)
    with pytest.raises(UserError, match="True ran the unfused convolutions and False the unfused ones"):
        report(snapshot, precisions=("float32",), **SMALL)


def test_a_layer_that_computes_in_another_precision_is_refused(snapshot, monkeypatch):
    def in_float32(self, x, w, **options):
        if x.dtype == torch.bfloat16 and hasattr(self, "off"):
            return FORWARD(self, x.float(), w, **options).to(x.dtype)
        return FORWARD(self, x, w, **options)

    monkeypatch.setattr(ModulatedConv, "forward", in_float32)
    snapshot.G.synthesis.b8.conv1.inject.off = True
    with pytest.raises(UserError, match=r"b8\.conv1\.inject computed in torch\.float32 instead of bfloat16"):
        report(snapshot, precisions=("bfloat16",), **SMALL)


def test_a_precision_the_device_lacks_is_reported_not_raised(snapshot, monkeypatch):
    def conv2d(x, w, **options):
        if x.dtype == torch.float16:
            raise RuntimeError("\"conv\" not implemented for 'Half'\nC++ trace")
        return torch.ops.aten.conv2d(x, w, **options)

    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    reason = consistency._why_not(PRECISIONS["float16"], torch.device("cpu"))
    assert reason == "not supported on cpu: \"conv\" not implemented for 'Half'"
    assert consistency._why_not(PRECISIONS["bfloat16"], torch.device("cpu")) is None


def test_conditional_generators_take_labels_of_their_training_set(tmp_path):
    data = make_data(tmp_path / "data", labelled=True)
    snapshot = load_snapshot(make_run(tmp_path, data, cond=True) / "network-snapshot-000004.safetensors")
    with pytest.raises(UserError, match=r"generates images of 8 pixels; LPIPS needs 32 or more"):
        report(snapshot, **SMALL)
    source = PrecisionSource(snapshot, PRECISIONS["float64"], seed=0, labels_of=open_dataset(data))
    ws = source.mapping(source.latents([0, 1]), source.labels([0, 1]))
    assert source.synthesis(ws, source.noise([0, 1])).dtype == torch.float64


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_what_was_asked_for_inside_and_as_it_was_after_even_an_error(allowed):
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    with pytest.raises(KeyError), tf32(allowed):
        assert [backend.allow_tf32 for backend in backends] == [allowed] * 2
        raise KeyError
    assert [backend.allow_tf32 for backend in backends] == before


def test_unknown_precisions_and_single_images_are_refused(snapshot):
    with pytest.raises(UsageError, match="did you mean bfloat16"):
        report(snapshot, precisions=("bfloat",), **SMALL)
    for change in ({"pairs": 1}, {"batch": 1}):
        with pytest.raises(ValueError, match="at least 2 are needed"):
            report(snapshot, **{**SMALL, **change})


def test_the_tables_show_every_row_and_mark_the_layer_that_deviates_most(whole):
    text = fused_tables(whole)
    for name in ON_CPU:
        marked = [line for line in text.splitlines() if line.startswith(name) and line.endswith("most")]
        assert len(marked) == 1 and whole.worst_layer(name) in marked[0]
    ways = text.count("fused / unfused") + text.count("one for both / one for both")
    assert ways >= len(whole.images) + len(whole.layers)
    assert text.endswith("tf32: not applicable: cpu has no TF32")
    assert dataclasses.asdict(whole)["images"][0]["precision"] == "float64"
