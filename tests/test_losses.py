"""Losses against closed forms on networks whose gradients are known."""

import math

import pytest
import torch

from fact_train.training import losses


def test_adversarial_losses_are_minus_log_likelihoods() -> None:
    scores = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    logistic = losses.LOSSES["logistic"]
    torch.testing.assert_close(logistic.generator(scores, None), -scores.sigmoid().log())
    other = torch.tensor([0.5, 0.0, -3.0], dtype=torch.float64)
    expected = -scores.sigmoid().log() - (1 - other.sigmoid()).log()
    torch.testing.assert_close(logistic.discriminator(scores, other), expected)


def test_r1_of_a_linear_discriminator_is_its_squared_weight() -> None:
    w = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    penalty = losses.GRADIENT_PENALTIES["zero"]((w * x).sum(dim=[1, 2, 3]), x)
    torch.testing.assert_close(penalty, w.square().sum().expand(5))
    (grad,) = torch.autograd.grad(penalty.mean(), [w])
    torch.testing.assert_close(grad, 2 * w)


def test_path_length_of_a_linear_generator_is_the_norm_of_its_jacobian_product() -> None:
    """G(ws) = mean over layers of A w: J^T y = A^T y / L per layer, so the length is ||A^T y|| / L."""
    torch.manual_seed(0)
    layers, size, width = 3, 4, 6
    A = torch.randn(size * size, width, dtype=torch.float64)
    ws = torch.randn(2, layers, width, dtype=torch.float64, requires_grad=True)
    images = (ws.mean(dim=1) @ A.T).reshape(2, 1, size, size)
    lengths = losses.path_lengths(images, ws, generator=torch.Generator().manual_seed(3))
    y = torch.randn(images.shape, generator=torch.Generator().manual_seed(3)).double() / size
    expected = (y.reshape(2, -1) @ A).norm(dim=1) / layers
    torch.testing.assert_close(lengths, expected, rtol=1e-12, atol=0)


def test_path_length_penalty_moves_the_average_and_carries_its_gradient() -> None:
    lengths = torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)
    penalty, average = losses.path_length_penalty(lengths, torch.tensor(1.0).double(), decay=0.01)
    assert float(average) == pytest.approx(1.01)
    assert not average.requires_grad
    torch.testing.assert_close(penalty, (lengths - 1.01).square())
    (grad,) = torch.autograd.grad(penalty.sum(), [lengths])
    # d/dl_i of sum_j (l_j - a)^2 with a moving by 0.005 per l_i
    residual = lengths.detach() - 1.01
    torch.testing.assert_close(grad, 2 * residual - 2 * residual.sum() * 0.005)


class CountingMapping(torch.nn.Module):
    """w = -1 everywhere, so that mixed layers can be told from the original ones."""

    z_shape, vectors = (4,), 1

    def forward(self, z: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        return torch.full((len(z), 10 * self.vectors, 4), -1.0)


def test_style_mixing_replaces_a_tail_of_layers_at_its_rate() -> None:
    ws = torch.ones(2, 10, 4)
    gen = torch.Generator().manual_seed(0)
    mixed, cuts = 0, set()
    for _ in range(2000):
        out = losses.style_mixing(CountingMapping(), ws, None, prob=0.3, generator=gen, host_generator=gen)
        replaced = (out < 0).all(dim=2).all(dim=0)
        assert torch.equal(replaced, replaced.sort().values)  # a tail
        assert not replaced[0]  # the first layer always stays
        mixed += bool(replaced.any())
        cuts.add(int(replaced.sum()))
    assert abs(mixed / 2000 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)  # four standard errors
    assert cuts == set(range(0, 10))
    assert losses.style_mixing(CountingMapping(), ws, None, prob=0.0, generator=gen, host_generator=gen) is ws


def test_style_mixing_never_cuts_through_the_vectors_of_a_layer() -> None:
    mapping, k = CountingMapping(), 3
    mapping.vectors, mapping.z_shape = k, (k, 4)
    gen, cuts = torch.Generator().manual_seed(0), set()
    for _ in range(300):
        out = losses.style_mixing(
            mapping, torch.ones(2, 10 * k, 4), None, prob=0.9, generator=gen, host_generator=gen
        )
        cuts.add(int((out > 0).all(dim=2).all(dim=0).sum()))
    assert cuts == {k * layer for layer in range(1, 11)}


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_the_level_of_path_length_over_the_number_of_vectors(power: float) -> None:
    """A linear generator of rows that share the work: level / sqrt(K) without, the same with power 0.5."""
    levels = []
    for k in (1, 4, 16, 64):
        gen = torch.Generator().manual_seed(0)
        A = torch.randn(16 * 16, 32, generator=gen, dtype=torch.float64)
        ws = torch.randn(64, 2 * k, 32, generator=gen, dtype=torch.float64, requires_grad=True)
        # K rows of weight 1 / sqrt(K): the image has the same variance for every K
        images = ((ws.sum(dim=1) / k**0.5) @ A.T).reshape(64, 1, 16, 16)
        lengths = losses.path_lengths(images, ws, generator=gen) * k**power
        levels.append(lengths.mean().item())
    relative = [level / levels[0] for level in levels]
    expected = [k ** (power - 0.5) for k in (1, 4, 16, 64)]
    assert relative == pytest.approx(expected, rel=0.05)  # means of 64 lengths


def test_the_r1_heuristic_follows_resolution_and_batch_and_warns_on_small_images() -> None:
    def at(resolution: int, batch: int) -> tuple[float, tuple[str, ...]]:
        gamma = losses.resolve_r1_gamma("auto", resolution=resolution, batch=batch)
        return gamma, losses.r1_notes("auto", gamma, resolution=resolution, batch=batch)

    # StyleGAN2-ADA's cfg=auto on one GPU, from the notes
    for resolution, batch, gamma in ((32, 32, 0.0064), (64, 32, 0.0256), (256, 16, 0.82), (1024, 4, 52.4)):
        assert at(resolution, batch)[0] == pytest.approx(gamma, rel=0.01)
    assert at(32, 64)[0] == pytest.approx(0.0032)
    assert all("warning" in at(r, 8)[1][0] and "--r1-gamma" in at(r, 8)[1][0] for r in (16, 32, 64))
    assert "warning" not in at(128, 8)[1][0] and "--r1-auto-batch 8" in at(128, 8)[1][0]
    assert losses.resolve_r1_gamma(10.0, resolution=32, batch=8) == 10.0
    assert losses.r1_notes(10.0, 10.0, resolution=32, batch=8) == ()
