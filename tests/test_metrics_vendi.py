"""The Vendi score against closed forms and its definition on the whole similarity matrix."""

import pytest
import torch

from fact_metrics.engines import vendi
from fact_metrics.engines.vendi import compute_vendi_score


def features(n, width, seed):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def test_equal_images_are_one_image_whatever_their_length():
    rows = torch.tensor([[3.0, 4.0, 0.0]]).repeat(40, 1) * torch.linspace(1, 5, 40)[:, None]
    assert compute_vendi_score(rows) == pytest.approx(1.0, abs=1e-6)  # float32 rows differ by 1e-7
    assert compute_vendi_score(rows[:2]) == pytest.approx(1.0, abs=1e-6)


def test_orthogonal_groups_count_by_the_entropy_of_their_sizes():
    rows = torch.eye(6)[[0] * 10 + [1] * 20 + [2] * 30]
    shares = torch.tensor([1 / 6, 1 / 3, 1 / 2], dtype=torch.float64)
    expected = (-(shares * shares.log()).sum()).exp().item()
    assert compute_vendi_score(rows) == pytest.approx(expected, rel=1e-12)
    assert compute_vendi_score(torch.eye(6)) == pytest.approx(6.0, rel=1e-12)


@pytest.mark.parametrize(("n", "width"), [(30, 8), (8, 30), (20, 20)])
def test_both_gram_matrices_give_the_score_of_the_similarity_matrix(n, width, monkeypatch):
    rows = features(n, width, seed=n)
    unit = rows / rows.norm(dim=1, keepdim=True)
    values = torch.linalg.eigvalsh(unit @ unit.T / n).clamp(min=1e-300)
    expected = (-(values * values.log()).sum()).exp().item()
    assert compute_vendi_score(rows) == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(vendi, "CHUNK", 7)
    assert compute_vendi_score(rows.flip(0)) == pytest.approx(expected, rel=1e-10)


def test_more_kinds_of_images_score_higher():
    centres = 4 * features(10, 16, seed=1)
    values = [
        compute_vendi_score(centres[torch.arange(200) % kinds] + features(200, 16, seed=2))
        for kinds in (1, 3, 10)
    ]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (torch.zeros(0, 3), r"\[0, 3\]"),
        (torch.rand(5), r"\[5\]"),
        (torch.full((5, 3), torch.nan), "not finite"),
        (torch.eye(3)[[0, 1, 2]] * torch.tensor([1.0, 1.0, 0.0]), "1 rows of features are 0"),
    ],
)
def test_empty_sets_non_finite_values_and_rows_without_direction_are_refused(rows, words):
    with pytest.raises(ValueError, match=words):
        compute_vendi_score(rows)
