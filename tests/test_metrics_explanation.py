"""Agreement, divergence and W-gap against closed forms and torch."""

import pytest
import torch
import torch.nn.functional as F
from metric_toys import ToyEncoder, ToyInputs

from fact_metrics.engines.explanation import compute_agreement, compute_class_kl
from fact_metrics.engines.w_gap import (
    compute_w_gap_frechet,
    compute_w_gap_kernel,
    describe_dimensions,
)
from fact_metrics.registry import compute_metric, get_spec


def normal(n, width, seed):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agreement_counts_equal_largest_classes() -> None:
    a = torch.tensor([[2.0, 1.0, 0.0], [0.0, 5.0, 1.0], [0.0, 1.0, 2.0]])
    b = torch.tensor([[9.0, 1.0, 0.0], [6.0, 5.0, 1.0], [0.0, 1.0, 1.5]])
    assert compute_agreement(a, b).tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="one shape"):
        compute_agreement(a, b[:2])


def test_divergence_is_torch_s() -> None:
    a, b = normal(20, 5, 0), normal(20, 5, 1)
    theirs = F.kl_div(b.log_softmax(1), a.log_softmax(1), log_target=True, reduction="none").sum(dim=1)
    torch.testing.assert_close(compute_class_kl(a, b), theirs, rtol=1e-10, atol=1e-12)
    assert float(compute_class_kl(a, a).max()) == 0.0


def test_w_gap_of_shifted_and_scaled_gaussians_has_its_closed_form() -> None:
    """Per dimension (shift^2 + (scale - 1)^2) in the mapping's own units, whatever these are."""
    mapping = normal(4000, 6, 0)
    mapping = (mapping - mapping.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(mapping.T.cov())).T
    units = torch.tensor([1.0, 10.0, 0.1, 3.0, 5.0, 0.5], dtype=torch.float64)
    encoder = (mapping * 1.5 + 2.0) * units
    # whitened to 1e-12, so the covariances are exact and the two Gaussians commute
    assert compute_w_gap_frechet(encoder, mapping * units) == pytest.approx(2.0**2 + 0.5**2, rel=1e-9)
    shown = describe_dimensions(encoder, mapping * units)
    assert shown["mean"] == pytest.approx([2.0] * 6) and shown["std"] == pytest.approx([1.5] * 6)


def test_w_gap_is_zero_for_equal_sets_and_tells_a_gap() -> None:
    a, b = normal(600, 5, 0), normal(600, 5, 1)
    assert compute_w_gap_frechet(a, a) == pytest.approx(0, abs=1e-9)
    same = compute_w_gap_kernel(a, b)
    assert abs(same.value) < 4 * same.stderr  # two samples of one distribution
    apart = compute_w_gap_kernel(a + 1, b)
    assert apart.value > 10 * apart.stderr
    with pytest.raises(ValueError, match="two sets"):
        compute_w_gap_frechet(a, b[:, :3])


def test_kernel_w_gap_is_the_unbiased_mmd_of_w_in_the_mappings_units() -> None:
    encoder, mapping = 3 * normal(50, 4, 2) + 1, 5 * normal(40, 4, 3) - 2
    x, y = ((w - mapping.mean(dim=0)) / mapping.std(dim=0) for w in (encoder, mapping))
    within = [((w @ w.T / 4 + 1) ** 3).fill_diagonal_(0).sum() / (len(w) * (len(w) - 1)) for w in (x, y)]
    between = ((x @ y.T / 4 + 1) ** 3).mean()
    expected = float(sum(within) - 2 * between)
    assert compute_w_gap_kernel(encoder, mapping).value == pytest.approx(expected, rel=1e-9)


def test_agreement_and_gap_show_their_parts() -> None:
    found = compute_metric(get_spec("agreement10k"), ToyInputs(encoder=ToyEncoder(0.0)))
    assert found.value == 1.0 and found.extras["per_class"] == [1.0] * 4 and found.n_generated == 200
    gap = compute_metric(get_spec("wgap10k_frechet"), ToyInputs(encoder=ToyEncoder(0.5)))
    assert len(gap.extras["mean"]) == len(gap.extras["std"]) == 6
