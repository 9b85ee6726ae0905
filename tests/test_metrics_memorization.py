"""AuthPct and MiFID: by definition, on copies and on new images, and the traps of other implementations."""

import pytest
import torch
from metric_toys import ToyInputs, cloud, squared_distances

from fact_metrics.engines import neighbours
from fact_metrics.engines.fid_error import compute_fid_stderr
from fact_metrics.engines.frechet import compute_fid, compute_statistics
from fact_metrics.engines.memorization import (
    compute_authpct,
    compute_mifid,
    find_authentic,
    find_cosine_distances,
)
from fact_metrics.registry import compute_metric, get_spec


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 37)


def authentic_by_definition(gen, real):
    own = squared_distances(real, real).fill_diagonal_(torch.inf).amin(dim=1)
    nearest = squared_distances(gen, real).min(dim=1)
    return own[nearest.indices] < nearest.values


def cosine_distances_by_definition(a, b):
    a, b = ((x / x.norm(dim=1, keepdim=True)) for x in (a.double(), b.double()))
    return (1 - (a @ b.T).abs()).amin(dim=1)


@pytest.mark.parametrize("width", [2, 64])
def test_authentic_images_are_those_of_the_definition(width, small_blocks):
    gen, real = cloud(150, width, seed=0, scale=0.9), cloud(200, width, seed=1)
    assert torch.equal(find_authentic(gen, real), authentic_by_definition(gen, real))


def test_authpct_is_a_percentage_as_in_dgm_eval_and_not_less_fifty_as_in_fld():
    gen, real = cloud(200, 8, seed=2), cloud(200, 8, seed=3)
    assert compute_authpct(gen, real) == 100 * authentic_by_definition(gen, real).double().mean()
    assert compute_authpct(cloud(20, 8, seed=4, shift=50), real) == 100.0


def test_copies_and_near_copies_are_not_authentic():
    real = cloud(200, 8, seed=5)
    near = real + cloud(200, 8, seed=6, scale=1e-3)
    assert compute_authpct(real, real) == compute_authpct(near, real) == 0.0
    half = torch.cat([near[:100], cloud(100, 8, seed=7, shift=50)])
    assert compute_authpct(half, real) == 50.0


def test_an_image_as_near_as_another_real_is_a_copy():
    real = torch.tensor([[0.0], [1.0], [100.0]])
    assert find_authentic(torch.tensor([[-1.0], [-1.1], [-0.9]]), real).tolist() == [False, True, False]


def test_a_real_that_stands_twice_has_itself_as_nearest_other():
    real = torch.cat([cloud(50, 4, seed=8)] * 2)
    assert compute_authpct(real[:50], real) == 0.0
    assert compute_authpct(real[:50] + 1e-3, real) == 100.0


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_cosine_distances_are_those_of_the_definition(shift, small_blocks):
    gen, real = cloud(120, 16, seed=9, shift=shift), cloud(150, 16, seed=10, shift=shift)
    # Halved squared distances of unit vectors, against 1 - cos, which loses digits where it is small.
    torch.testing.assert_close(
        find_cosine_distances(gen, real), cosine_distances_by_definition(gen, real), rtol=1e-10, atol=1e-14
    )


def test_opposite_directions_are_as_near_as_equal_ones():
    """|cos|, as in the reference: with features of either sign a mirrored copy is a copy."""
    real = cloud(60, 8, seed=11)
    assert find_cosine_distances(-2 * real, real).max() < 1e-15
    assert find_cosine_distances(real.abs(), real.abs() * 3).max() < 1e-15


def test_rows_of_zeros_have_no_direction_and_are_left_out():
    gen, real = cloud(50, 8, seed=12), cloud(60, 8, seed=13)
    zeros = torch.zeros(5, 8)
    found = find_cosine_distances(torch.cat([gen, zeros]), torch.cat([zeros, real]))
    assert torch.equal(found, find_cosine_distances(gen, real))
    # The reference drops rows whose sum is 0, which also hits balanced rows that do have a direction.
    balanced = torch.cat([gen, torch.tensor([[1.0, -1.0] * 4])])
    assert len(find_cosine_distances(balanced, real)) == 51


def test_mifid_is_fid_over_the_distance_below_the_threshold_and_fid_above():
    real = cloud(300, 8, seed=14, shift=4.0)
    near, far = real + cloud(300, 8, seed=15, scale=0.2), cloud(300, 8, seed=16, shift=4.0)
    for gen in (near, far):
        distance = cosine_distances_by_definition(gen, real).mean().item()
        fid = compute_fid(gen, real)
        # 1 - cos of the definition keeps about 1e-16 / 1e-3 of a small distance.
        assert compute_mifid(gen, real, threshold=2 * distance) == pytest.approx(
            fid / (distance + 1e-14), rel=1e-11
        )
        assert compute_mifid(gen, real, threshold=distance / 2) == pytest.approx(fid, rel=1e-12)


def test_a_generator_that_copies_a_few_reals_is_caught():
    """torchmetrics averages over reals, to their nearest generated image, and sees nothing here."""
    real = cloud(400, 32, seed=17)
    gen = real[:5].repeat(80, 1) + cloud(400, 32, seed=18, scale=1e-3)
    assert find_cosine_distances(gen, real).mean() < 1e-5 < 0.1 < find_cosine_distances(real, gen).mean()
    assert compute_mifid(gen, real) > 1e5 * compute_fid(gen, real)


def test_mifid_of_equal_sets_is_zero_and_more_copies_are_worse():
    real = cloud(300, 8, seed=19)
    assert compute_mifid(real, real) == 0.0
    fresh = cloud(300, 8, seed=20)
    values = []
    for copies in (0, 100, 200):
        gen = torch.cat([fresh[copies:], real[:copies] + 1e-3])
        values.append(compute_mifid(gen, real, threshold=1.0) / compute_fid(gen, real))
    assert values == sorted(values) and values[0] < values[-1]


def registered(name, gen, real):
    inputs = ToyInputs(lambda need: gen if need.side == "generated" else real)
    return compute_metric(get_spec(f"{name}10k_full_efficientnet_lite0"), inputs)


@pytest.mark.parametrize("name", ["authpct", "mifid"])
def test_the_standard_error_is_the_spread_over_repeated_draws(name):
    real, rng = cloud(400, 16, seed=21, scale=0.1, shift=1.0), torch.Generator().manual_seed(22)
    shift = {"authpct": 1.0, "mifid": 1.3}[name]
    found = [registered(name, torch.randn(200, 16, generator=rng) * 0.1 + shift, real) for _ in range(100)]
    if name == "mifid":
        assert all(one.value > 30 * one.extras["fid"] for one in found)  # penalised
    else:
        assert all(40 < one.value < 90 for one in found)
    values, stated = (
        torch.tensor([getattr(one, name) for one in found], dtype=torch.float64)
        for name in ("value", "stderr")
    )
    # The spread of 100 draws is itself known to 1 / sqrt(200) = 7 %; four times that.
    assert stated.mean() == pytest.approx(values.std().item(), rel=0.28)


def test_without_penalty_mifid_and_its_standard_error_are_those_of_fid():
    gen, real = cloud(100, 16, seed=23, shift=0.2), cloud(150, 16, seed=24)
    found = registered("mifid", gen, real)
    assert found.value == pytest.approx(compute_fid(gen, real), rel=1e-12)
    assert found.stderr == compute_fid_stderr(gen, compute_statistics(real))


def test_too_few_images_and_other_widths_are_refused():
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        compute_authpct(torch.rand(10, 4), torch.rand(1, 4))
    for compute in (compute_authpct, compute_mifid):
        with pytest.raises(ValueError, match="wid"):
            compute(torch.rand(10, 4), torch.rand(10, 5))
        with pytest.raises(ValueError, match="not finite"):
            compute(torch.full((10, 4), torch.nan), torch.rand(10, 4))
    with pytest.raises(ValueError, match="all zeros"):
        find_cosine_distances(torch.zeros(10, 4), torch.rand(10, 4))
