"""Precision and recall against torch-fidelity, against brute force in float64, and where ties decide."""

import pytest
import torch
from metric_toys import ToyInputs, cloud, squared_distances
from torch_fidelity.metric_prc import calculate_precision_recall_full

from fact_metrics.engines import neighbours, overlap
from fact_metrics.engines.conventions import IMPROVED, PRDC
from fact_metrics.engines.overlap import measure_overlap
from fact_metrics.engines.precision_recall import compute_precision, compute_recall
from fact_metrics.registry import compute_metric, get_spec


def brute_force_precision(gen, real, *, k=3, closed=True):
    radii = squared_distances(real, real).fill_diagonal_(torch.inf).kthvalue(k, dim=1).values
    distances = squared_distances(gen, real)
    inside = distances <= radii if closed else distances < radii
    return inside.any(dim=1).double().mean().item()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 37)


@pytest.mark.parametrize("width", [2, 32, 512])
def test_counts_equal_torch_fidelity_on_the_same_features(width, small_blocks):
    gen, real = cloud(600, width, seed=0, shift=0.1), cloud(500, width, seed=1)
    precision, recall = calculate_precision_recall_full(gen.double(), real.double())
    assert round(compute_precision(gen, real) * 600) == round(precision * 600)
    assert round(compute_recall(gen, real) * 500) == round(recall * 500)


@pytest.mark.parametrize(("k", "closed"), [(1, True), (3, True), (5, False)])
def test_values_equal_brute_force_in_float64(k, closed, small_blocks):
    gen, real = cloud(200, 16, seed=2, scale=0.9), cloud(250, 16, seed=3)
    chosen = {"k": k, "closed": closed}
    assert compute_precision(gen, real, **chosen) == brute_force_precision(gen, real, **chosen)
    assert compute_recall(gen, real, **chosen) == brute_force_precision(real, gen, **chosen)


def test_precision_and_recall_are_not_swapped():
    # Generated images of one mode of two: all are good, half of the reals are missed.
    left, right = cloud(300, 4, seed=4), cloud(300, 4, seed=5, shift=100.0)
    gen, real = cloud(300, 4, seed=6), torch.cat([left, right])
    assert compute_precision(gen, real) > 0.8
    assert compute_recall(gen, real) < 0.5


def test_ties_on_a_lattice_count_where_the_convention_says_so(small_blocks):
    # On integers every distance is exact and many equal a radius: `<` and `<=` differ here.
    rng = torch.Generator().manual_seed(7)
    gen = torch.randint(0, 6, (150, 3), generator=rng).float() * 3
    real = torch.randint(0, 6, (120, 3), generator=rng).float() * 3
    open_, closed = (compute_precision(gen, real, closed=closed) for closed in (False, True))
    assert open_ == brute_force_precision(gen, real, closed=False)
    assert closed == brute_force_precision(gen, real)
    assert open_ < closed


def test_rounding_of_float32_products_decides_nothing(small_blocks):
    # Far from the origin with tiny differences: float32 |a|^2 + |b|^2 - 2ab would be pure noise here.
    real = cloud(150, 8, seed=8, scale=1e-3) + 1000.0
    gen = cloud(150, 8, seed=9, scale=1e-3) + 1000.0
    outlier = torch.full((1, 8), -1e4)
    real = torch.cat([real, outlier])
    assert compute_precision(gen, real) == brute_force_precision(gen, real)
    assert compute_recall(gen, real) == brute_force_precision(real, gen)


def test_an_image_at_exactly_the_radius_is_inside_and_one_ulp_farther_is_not():
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0], [500.0], [501.0], [502.0], [503.0]])
    farther = torch.nextafter(torch.tensor(6.0), torch.tensor(7.0))
    assert compute_precision(torch.tensor([[6.0]]), real) == 1.0
    assert compute_precision(torch.tensor([[farther]]), real) == 0.0
    assert compute_precision(torch.tensor([[6.0]]), real, closed=False) == 0.0


def test_a_collapsed_generator_has_recall_zero_and_keeps_its_precision():
    real = cloud(300, 8, seed=10)
    collapsed = real[:1].expand(100, -1)
    assert compute_precision(collapsed, real) == 1.0
    assert compute_recall(collapsed, real) == pytest.approx(1 / 300)
    assert compute_recall(collapsed, real, closed=False) == 0.0


def test_k_or_fewer_images_are_refused():
    with pytest.raises(ValueError, match="more than 3 images, got 3"):
        compute_precision(torch.rand(10, 4), torch.rand(3, 4))
    assert 0 <= compute_precision(torch.rand(10, 4), torch.rand(4, 4)) <= 1


def test_other_widths_and_non_finite_values_are_refused():
    with pytest.raises(ValueError, match="width"):
        compute_precision(torch.rand(10, 4), torch.rand(10, 5))
    with pytest.raises(ValueError, match="not finite"):
        compute_precision(torch.full((10, 4), torch.inf), torch.rand(10, 4))


def test_the_standard_error_is_the_spread_over_repeated_draws():
    real, rng = cloud(300, 4, seed=11), torch.Generator().manual_seed(12)
    found = [
        measure_overlap(torch.randn(200, 4, generator=rng) + 0.5, real, conventions=[IMPROVED])[0]
        for _ in range(200)
    ]
    spread = torch.tensor([one.precision for one in found]).std().item()
    stated = torch.tensor([one.precision_stderr for one in found]).mean().item()
    # The spread of 200 draws is itself known to 1 / sqrt(400) = 5 %; four times that.
    assert stated == pytest.approx(spread, rel=0.2)


def test_none_or_all_inside_is_not_certain():
    real = cloud(100, 4, seed=13)
    for gen, precision in ((real[:50], 1.0), (real[:50] + 1e3, 0.0)):
        (found,) = measure_overlap(gen, real, conventions=[IMPROVED])
        assert found.precision == precision
        assert 0 < found.precision_stderr < 1 / 50


def test_metrics_on_the_same_features_measure_distances_once(monkeypatch):
    measured = []
    measure = overlap.measure_overlap
    monkeypatch.setattr(
        overlap, "measure_overlap", lambda *args, **options: measured.append(1) or measure(*args, **options)
    )
    gen, real = cloud(60, 8, seed=14), cloud(60, 8, seed=15)
    inputs = ToyInputs(lambda need: gen if need.side == "generated" else real)
    for name in ("precision10k3", "recall10k3", "density10k5", "coverage10k5"):
        compute_metric(get_spec(f"{name}_test_stlpips_alex"), inputs)
    assert len(measured) == 1
    compute_metric(get_spec("precision10k3_full_stlpips_alex"), inputs)  # other features
    compute_metric(get_spec("precision10k3_test_stlpips_alex"), ToyInputs(inputs.make))  # other images
    assert len(measured) == 3


def test_both_conventions_of_one_pass_are_those_of_passes_of_their_own():
    gen, real = cloud(150, 8, seed=16, scale=0.8), cloud(170, 8, seed=17)
    for balls, found in zip(
        (IMPROVED, PRDC), measure_overlap(gen, real, conventions=(IMPROVED, PRDC)), strict=True
    ):
        chosen = {"k": balls.k, "closed": balls.closed}
        assert found.precision == compute_precision(gen, real, **chosen)
        assert found.recall == compute_recall(gen, real, **chosen)
