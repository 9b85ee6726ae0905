"""Fused against unfused rendering: known defects, which path ran, and one pass for all."""

import math

import pytest
import torch
from metric_toys import MeanSquares, ToyGenerator, ToyInputs
from torch.nn import functional as F

from fact_metrics.base.errors import UserError
from fact_metrics.engines import consistency
from fact_metrics.engines.consistency import ConvolutionRecorder, compute_consistency_psnr, measure_pairs
from fact_metrics.engines.fid_error import compute_fid_stderr
from fact_metrics.registry import compute_metric, get_spec, list_metrics

NAMES = [name for name in list_metrics() if name.startswith("fused")]


class ConvolvingGenerator(ToyGenerator):
    """Runs one modulated convolution the way that `paths` has for each value of the flag."""

    def __init__(self, paths, **options):
        super().__init__(**options)
        self.paths = paths

    def synthesis(self, ws, noise, *, fused_modconv=None):
        n = len(ws)
        x, weight = torch.ones(n, 3, 8, 8), torch.ones(4, 3, 3, 3)
        if self.paths[fused_modconv] == "fused":
            F.conv2d(x.reshape(1, 3 * n, 8, 8), weight.repeat(n, 1, 1, 1), groups=n)
        else:
            F.conv2d(x, weight)
        F.conv2d(x, torch.ones(3, 1, 3, 3), groups=3)  # filters, which tell nothing
        F.conv_transpose2d(x[:, :1], torch.ones(1, 1, 4, 4), stride=2)
        return super().synthesis(ws, noise, fused_modconv=fused_modconv)


@pytest.fixture
def toy_detector(monkeypatch):
    monkeypatch.setattr(consistency, "get_detector", lambda name, device: MeanSquares(device))


def test_equal_renderings_are_recognised_as_bitwise_equal(toy_detector):
    pairs = measure_pairs(ToyGenerator(defect=0.0), pairs=60)
    assert pairs.max_abs.max() == 0 and pairs.changed.max() == 0 and pairs.lpips.max() == 0
    assert compute_consistency_psnr(pairs.mse) == 200.0


def test_a_known_defect_is_measured_exactly(toy_detector):
    pairs = measure_pairs(ToyGenerator(defect=0.02), pairs=60)
    # The toy generator adds 0.02 to or takes it from every pixel in float32 near 1: rounding of 6e-8.
    torch.testing.assert_close(pairs.max_abs, torch.full((60,), 0.02), rtol=1e-4, atol=0)
    torch.testing.assert_close(pairs.mean_abs, torch.full((60,), 0.02), rtol=1e-4, atol=0)
    assert compute_consistency_psnr(pairs.mse) == pytest.approx(10 * math.log10(4 / 0.02**2), abs=1e-3)
    assert pairs.changed.min() > 0.9


def test_a_step_of_a_tenth_of_a_grey_level_changes_a_tenth_of_the_values(toy_detector):
    pairs = measure_pairs(ToyGenerator(defect=0.1 / 127.5), pairs=60)
    # 61,440 values: the share's own error is 0.0012, as long as few are beyond [-1, 1].
    assert pairs.changed.mean().item() == pytest.approx(0.1, abs=0.006)


def test_each_pair_is_rendered_once_per_path_with_equal_noise(toy_detector):
    generator = ToyGenerator()
    measure_pairs(generator, pairs=60)
    assert generator.fused == [True, False, True, False]
    assert torch.equal(generator.noises[0], generator.noises[1])
    assert generator.reported == [(50, 60), (60, 60)]


def test_one_pass_over_the_generator_serves_all_metrics_of_the_family(toy_detector):
    inputs = ToyInputs(generator=ToyGenerator(defect=0.01))
    values = {name: compute_metric(get_spec(name), inputs) for name in NAMES}
    assert len(inputs.generator.fused) == 2 * 1000 / consistency.BATCH
    assert values["fused1k_maxabs"].value == pytest.approx(0.01, rel=1e-3)
    assert values["fused1k_psnr"].value == pytest.approx(10 * math.log10(4 / 0.01**2), abs=1e-2)
    changed = values["fused1k_pixels_changed"]
    assert changed.value == changed.extras["uint8_pixels_changed"] and 0 < changed.stderr < changed.value
    pairs = measure_pairs(inputs.generator, pairs=1000)
    fid = values["fused1k_fid_stlpips_alex"]
    assert fid.stderr == compute_fid_stderr(pairs.features_fused, pairs.features_unfused, reference="paired")
    assert 0 < fid.stderr < fid.value
    assert all(value.n_generated == 1000 for value in values.values())
    assert values["fused1k_maxabs"].extras["bitwise_equal"] == 0


def test_the_path_is_read_off_the_convolutions(toy_detector):
    generator = ConvolvingGenerator({True: "fused", False: "unfused"})
    # 51 pairs: a last batch of one, whose groups tell nothing, does not blur the answer.
    assert measure_pairs(generator, pairs=51).paths == ("fused", "unfused")
    assert measure_pairs(ToyGenerator(), pairs=51).paths == ("not seen", "not seen")


@pytest.mark.parametrize("path", ["fused", "unfused"])
def test_a_network_that_ignores_the_flag_is_refused_instead_of_called_perfect(toy_detector, path):
    with pytest.raises(UserError, match=f"True ran the {path} convolutions and False the {path} ones"):
        measure_pairs(ConvolvingGenerator({True: path, False: path}), pairs=60)


def test_paths_the_wrong_way_round_are_refused(toy_detector):
    with pytest.raises(UserError, match="True ran the unfused convolutions"):
        measure_pairs(ConvolvingGenerator({True: "unfused", False: "fused"}), pairs=60)


@pytest.mark.parametrize("grad", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_convolutions_are_counted_by_whose_weights_they_use(grad):
    n = 3
    x = torch.ones(n, 4, 8, 8, dtype=torch.float64)
    joined = x.reshape(1, 4 * n, 8, 8)
    weight, transposed = torch.ones(5, 4, 3, 3).double(), torch.ones(4, 5, 3, 3).double()
    with grad(), ConvolutionRecorder(n) as recorder:
        F.conv2d(x, weight)
        F.conv_transpose2d(x, transposed, stride=2)
        F.conv2d(joined, weight.repeat(n, 1, 1, 1), groups=n)
        F.conv2d(joined, torch.ones(n, 4, 1, 1).double(), groups=n)
        F.conv_transpose2d(joined, transposed.repeat(n, 1, 1, 1), groups=n)
        F.conv2d(x, torch.ones(4, 1, 4, 4).double(), groups=4)
        F.conv2d(joined, torch.ones(4 * n, 1, 4, 4).double(), groups=4 * n)
        F.conv2d(torch.ones(n, 1, 8, 8), torch.ones(1, 1, 4, 4))
    assert (recorder.shared, recorder.per_sample) == (2, 3)
    assert recorder.dtypes == {torch.float64} and recorder.path == "fused"
