"""The perceptual distance as a loss: the detector's number, with the gradient of finite differences."""

import pytest
import torch

from fact_metrics.features import DETECTORS, get_detector

ABLE = [name for name, kind in DETECTORS.items() if hasattr(kind, "differentiable_distance")]
OFFLINE = [name for name in ABLE if name.startswith("stlpips")]


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(0)
    a, b = (torch.nn.functional.avg_pool2d(torch.randn(2, 1, 64, 64, generator=gen), 2) for _ in range(2))
    return a, b


def test_every_detector_with_a_distance_can_be_a_loss() -> None:
    assert [name for name, kind in DETECTORS.items() if hasattr(kind, "distance")] == ABLE and OFFLINE


@pytest.mark.parametrize("name", OFFLINE)
def test_the_loss_is_the_detector_s_distance_also_where_that_was_asked_first(name: str) -> None:
    a, b = pair()
    detector = DETECTORS[name]("cpu")  # fresh: its weights are read by the first of the two calls
    distance = detector.distance(a, b)
    b.requires_grad_()
    loss = detector.differentiable_distance(a, b)
    torch.testing.assert_close(loss.detach(), distance.clone(), rtol=1e-6, atol=0)
    loss.sum().backward()
    assert float(b.grad.abs().sum()) > 0


def test_its_gradient_is_that_of_finite_differences() -> None:
    """Along one direction, float32: half of the central difference's digits are left."""
    a, b = pair()
    loss = get_detector("stlpips_alex").differentiable_distance
    direction = torch.randn(b.shape, generator=torch.Generator().manual_seed(1))
    b.requires_grad_()
    (grad,) = torch.autograd.grad(loss(a, b).sum(), b)
    step = 1e-2
    with torch.no_grad():
        change = (loss(a, b + step * direction) - loss(a, b - step * direction)).sum() / (2 * step)
    assert float(change) == pytest.approx(float((grad * direction).sum()), rel=0.03)
