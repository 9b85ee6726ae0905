"""CMMD against its definition, its error against repeated draws, and what it refuses."""

import pytest
import torch

from fact_metrics.engines.cmmd import compute_cmmd


def embeddings(n, seed, *, shift=0.0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, 12, generator=rng, dtype=torch.float64) + 0.4 + shift * torch.eye(12)[0]


def definition(x, y):
    x, y = (rows / rows.norm(dim=1, keepdim=True) for rows in (x, y))
    kernels = [(-(torch.cdist(a, b) ** 2) / 200).exp().mean() for a, b in ((x, x), (y, y), (x, y))]
    return 1000 * (kernels[0] + kernels[1] - 2 * kernels[2]).item()


def test_cmmd_is_its_definition_on_normalised_embeddings():
    x, y = embeddings(60, 1, shift=0.5), embeddings(45, 2)
    # The definition adds kernels near 1 that cancel to 1e-3: 1e-16 * 1000 / 1.
    assert compute_cmmd(x, y).value == pytest.approx(definition(x, y), rel=1e-9)
    assert compute_cmmd(7 * x, 0.1 * y).value == pytest.approx(compute_cmmd(x, y).value, rel=1e-9)


def test_equal_sets_are_zero_and_a_larger_shift_is_further():
    x = embeddings(60, 3)
    assert abs(compute_cmmd(x, x.flip(0)).value) < 1e-9
    values = [compute_cmmd(embeddings(200, 4, shift=shift), x).value for shift in (0.0, 0.5, 1.0)]
    assert values == sorted(values)


def test_float32_embeddings_keep_six_digits():
    x, y = embeddings(400, 5, shift=0.5), embeddings(400, 6)
    # exp would round every kernel to 6e-8, which is 6e-5 after the factor 1000; expm1 rounds what remains.
    assert compute_cmmd(x.float(), y.float()).value == pytest.approx(compute_cmmd(x, y).value, rel=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_stderr_matches_repeated_draws(shift):
    draws = [compute_cmmd(embeddings(80, 2 * i, shift=shift), embeddings(160, 2 * i + 1)) for i in range(200)]
    spread = torch.tensor([draw.value for draw in draws]).std().item()
    # The sd of 200 draws is known to 5 %: four of those.
    assert torch.tensor([d.stderr for d in draws]).mean().item() == pytest.approx(spread, rel=0.2)


def test_an_embedding_without_a_direction_is_refused():
    x = embeddings(20, 7)
    x[3] = 0
    with pytest.raises(ValueError, match="1 embeddings are 0"):
        compute_cmmd(x, embeddings(20, 8))
    with pytest.raises(ValueError, match="one detector"):
        compute_cmmd(embeddings(20, 8), torch.rand(20, 5))
