"""Precision and recall against torch-fidelity, against brute force in float64, and where rounding decides."""

import pytest
import torch
from torch_fidelity.metric_prc import calculate_precision_recall_full

from metrics import precision_recall
from metrics.precision_recall import compute_precision, compute_radii, compute_recall, find_covered


def squared_distances(a, b):
    return (a.double()[:, None] - b.double()[None]).square().sum(dim=2)


def brute_force_precision(gen, real, *, k=3):
    radii = squared_distances(real, real).fill_diagonal_(torch.inf).kthvalue(k, dim=1).values
    return (squared_distances(gen, real) <= radii).any(dim=1).double().mean().item()


def cloud(n, width, *, seed, shift=0.0, scale=1.0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)) * scale + shift


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that do not divide the sets, so that every seam between blocks is crossed."""
    monkeypatch.setattr(precision_recall, "ROWS", 37)
    monkeypatch.setattr(precision_recall, "COLUMNS", 53)


@pytest.mark.parametrize("width", [2, 32, 512])
def test_counts_equal_torch_fidelity_on_the_same_features(width, small_blocks):
    gen, real = cloud(600, width, seed=0, shift=0.1), cloud(500, width, seed=1)
    precision, recall = calculate_precision_recall_full(gen.double(), real.double())
    assert round(compute_precision(gen, real) * 600) == round(precision * 600)
    assert round(compute_recall(gen, real) * 500) == round(recall * 500)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_values_equal_brute_force_in_float64(k, small_blocks):
    gen, real = cloud(200, 16, seed=2, scale=0.9), cloud(250, 16, seed=3)
    assert compute_precision(gen, real, k=k) == brute_force_precision(gen, real, k=k)
    assert compute_recall(gen, real, k=k) == brute_force_precision(real, gen, k=k)


def test_precision_and_recall_are_not_swapped():
    # Generated images of one mode of two: all are good, half of the reals are missed.
    left, right = cloud(300, 4, seed=4), cloud(300, 4, seed=5, shift=100.0)
    gen, real = cloud(300, 4, seed=6), torch.cat([left, right])
    assert compute_precision(gen, real) > 0.8
    assert compute_recall(gen, real) < 0.5


def test_ties_on_a_lattice_count_as_inside(small_blocks):
    # On integers every distance is exact and many equal a radius: `<` and `<=` differ here.
    rng = torch.Generator().manual_seed(7)
    gen = torch.randint(0, 6, (150, 3), generator=rng).float() * 3
    real = torch.randint(0, 6, (120, 3), generator=rng).float() * 3
    radii = squared_distances(real, real).fill_diagonal_(torch.inf).kthvalue(3, dim=1).values
    strict = (squared_distances(gen, real) < radii).any(dim=1).double().mean().item()
    assert compute_precision(gen, real) == brute_force_precision(gen, real)
    assert compute_precision(gen, real) > strict


def test_rounding_of_float32_products_decides_nothing(small_blocks):
    # Far from the origin with tiny differences: float32 |a|^2 + |b|^2 - 2ab would be pure noise here.
    real = cloud(150, 8, seed=8, scale=1e-3) + 1000.0
    gen = cloud(150, 8, seed=9, scale=1e-3) + 1000.0
    outlier = torch.full((1, 8), -1e4)
    real = torch.cat([real, outlier])
    assert compute_precision(gen, real) == brute_force_precision(gen, real)
    assert compute_recall(gen, real) == brute_force_precision(real, gen)


def test_a_query_at_exactly_the_radius_is_inside_and_one_ulp_farther_is_not():
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0], [500.0], [501.0], [502.0], [503.0]])
    farther = torch.nextafter(torch.tensor(6.0), torch.tensor(7.0))
    covered = find_covered(torch.tensor([[6.0], [farther]]), real, compute_radii(real))
    assert covered.tolist() == [True, False]


def test_radii_count_duplicates_as_neighbours():
    assert compute_radii(torch.zeros(10, 4)).tolist() == [0.0] * 10
    real = torch.tensor([[0.0]] * 3 + [[5.0]])
    assert compute_radii(real).tolist() == [25.0, 25.0, 25.0, 25.0]


def test_a_collapsed_generator_has_recall_zero_and_keeps_its_precision():
    real = cloud(300, 8, seed=10)
    collapsed = real[:1].expand(100, -1)
    assert compute_precision(collapsed, real) == 1.0
    assert compute_recall(collapsed, real) == pytest.approx(1 / 300)


def test_k_or_fewer_images_are_refused():
    with pytest.raises(ValueError, match="more than 3 images, got 3"):
        compute_precision(torch.rand(10, 4), torch.rand(3, 4))
    assert 0 <= compute_precision(torch.rand(10, 4), torch.rand(4, 4)) <= 1


def test_other_widths_and_non_finite_values_are_refused():
    with pytest.raises(ValueError, match="width"):
        compute_precision(torch.rand(10, 4), torch.rand(10, 5))
    with pytest.raises(ValueError, match="not finite"):
        compute_precision(torch.full((10, 4), torch.inf), torch.rand(10, 4))


def test_no_matrix_of_all_pairs_is_held():
    # All 3,000 x 3,000 pairs in float32 are 36 MB; the largest block is 1,024 x 3,000.
    peak = _peak_bytes(lambda: compute_precision(cloud(3000, 4, seed=11), cloud(3000, 4, seed=12)))
    assert 0 < peak < 3000 * 3000 * 4 / 2


def _peak_bytes(call):
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel() * result.element_size())
            return result

    with Watch():
        call()
    return largest
