"""The augmentation pipe and DiffAugment: derivatives, identity, probabilities, closed forms of every
transformation, no host reads.
"""

import math

import pytest
import torch

from fact_train.augment import POLICIES, SETS, AugmentPipe, DiffAugment, color, corruption, diffaugment

F64 = torch.float64
EVERYTHING = "color,translation,cutout"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(n: int, channels: int, size: int, dtype: torch.dtype = F64) -> torch.Tensor:
    return (torch.rand(n, channels, size, size, generator=seeded(9), dtype=F64) * 2 - 1).to(dtype)


def number(p: float) -> torch.Tensor:
    return torch.tensor(p, dtype=F64)


def assert_share(hits: torch.Tensor, expected: float) -> None:
    """Within four binomial standard deviations."""
    error = math.sqrt(expected * (1 - expected) / hits.numel())
    assert abs(float(hits.double().mean()) - expected) < 4 * error


# The whole pipe


@pytest.mark.parametrize(
    ("channels", "p", "fixed_shapes"), [(1, 1.0, False), (3, 1.0, False), (1, 0.5, False), (1, 1.0, True)]
)
def test_whole_pipe_passes_gradcheck_and_gradgradcheck(channels: int, p: float, fixed_shapes: bool) -> None:
    """Squared, since the pipe is affine in the images and its own second derivative is nothing."""
    pipe = AugmentPipe("bgcfnc", fixed_shapes=fixed_shapes)
    x = random_images(2, channels, 4).requires_grad_()

    def squared(x: torch.Tensor) -> torch.Tensor:
        return pipe(x, number(p), generator=seeded(3)).square()

    assert torch.autograd.gradcheck(squared, [x])
    assert torch.autograd.gradgradcheck(squared, [x])


def test_diffaugment_passes_gradcheck_and_gradgradcheck() -> None:
    x = random_images(2, 3, 4).requires_grad_()

    def squared(x: torch.Tensor) -> torch.Tensor:
        return DiffAugment(EVERYTHING)(x, generator=seeded(3)).square()

    assert torch.autograd.gradcheck(squared, [x])
    assert torch.autograd.gradgradcheck(squared, [x])


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16])
def test_p_zero_is_the_identity_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    for channels in (1, 3):
        x = random_images(4, channels, 8, dtype)
        for fixed_shapes in (False, True):
            y = AugmentPipe(name, fixed_shapes=fixed_shapes)(x, number(0.0), generator=seeded())
            assert torch.equal(y, x) and y.dtype == dtype


@pytest.mark.parametrize("name", SETS)
def test_every_set_changes_the_image_and_every_sample_its_own_way(name: str) -> None:
    x = random_images(1, 3, 16).expand(8, -1, -1, -1)
    y = AugmentPipe(name)(x, number(1.0), generator=seeded())
    assert y.isfinite().all() and len({tuple(sample.flatten().tolist()) for sample in y}) >= 7


def test_sets_are_named_by_the_initials_of_their_parts() -> None:
    for name, parts in SETS.items():
        assert name in ("".join(part[0] for part in parts), *parts)


@pytest.mark.parametrize("p", [0.2, 0.8])
def test_fixed_shapes_give_the_same_images(p: float) -> None:
    """Products of another height: float64 rounding."""
    x = random_images(16, 3, 16)
    a, b = (
        AugmentPipe("bgcfnc", fixed_shapes=fixed)(x, number(p), generator=seeded()) for fixed in (False, True)
    )
    torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", SETS)
def test_with_fixed_shapes_no_value_is_ever_read(name: str) -> None:
    """Tensors of the meta device have none, and mix with no other device: so a GPU is never waited for."""
    x = torch.empty(4, 3, 16, 16, device="meta", requires_grad=True)
    pipe = AugmentPipe(name, fixed_shapes=True)
    y = pipe(x, torch.empty([], dtype=F64, device="meta"), generator=None)
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), x)
    assert y.shape == grad.shape == second.shape == x.shape
    assert DiffAugment(EVERYTHING)(x, generator=None).shape == x.shape


def test_results_follow_from_the_generator_alone() -> None:
    x = random_images(4, 1, 16, torch.float32)
    before = torch.get_rng_state()
    for augment in (
        lambda gen: AugmentPipe("bgcfnc")(x, number(0.7), generator=gen),
        lambda gen: DiffAugment(EVERYTHING)(x, generator=gen),
    ):
        assert torch.equal(augment(seeded(1)), augment(seeded(1)))
        assert not torch.equal(augment(seeded(1)), augment(seeded(2)))
    assert torch.equal(torch.get_rng_state(), before)


def test_other_shapes_are_refused() -> None:
    for shape in ((2, 2, 8, 8), (2, 3, 8, 15)):
        with pytest.raises(ValueError, match=r"1 or 3, H, W"):
            AugmentPipe("bgc")(torch.zeros(shape), number(0.5), generator=None)


def test_bfloat16_is_computed_in_float32() -> None:
    x = random_images(4, 3, 16, torch.bfloat16)
    y = AugmentPipe("bgcfnc")(x, number(0.7), generator=seeded())
    expected = AugmentPipe("bgcfnc")(x.float(), number(0.7), generator=seeded())
    assert torch.equal(y, expected.to(torch.bfloat16))


# Colour


def test_gray_part_and_rest_are_scaled_and_turned_on_their_own() -> None:
    """Luma, the mean of the channels, by `along`; the rest by `across`, its angle by `angle`."""
    x = random_images(1, 3, 4)
    along, across, angle, offset = (torch.tensor([v], dtype=F64) for v in (-1.5, 0.7, 0.4, 0.2))
    y = color.apply_colors(x, color.ColorMaps(along, across, angle, offset))
    luma, after = x.mean(dim=1), y.mean(dim=1)
    torch.testing.assert_close(after, -1.5 * luma + 0.2, rtol=0, atol=1e-14)
    before, rest = x - luma[:, None], y - after[:, None]
    torch.testing.assert_close(rest.norm(dim=1), 0.7 * before.norm(dim=1), rtol=0, atol=1e-14)
    cosine = torch.cosine_similarity(before, rest, dim=1)
    torch.testing.assert_close(cosine, torch.full_like(cosine, math.cos(0.4)), rtol=0, atol=1e-13)


def test_luma_flip_is_the_householder_reflection_and_hue_is_orthogonal() -> None:
    one, zero = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
    v = torch.full([3, 1], 3**-0.5, dtype=F64)
    eye = torch.eye(3, dtype=F64)
    flip = color.ColorMaps(-one, one, zero, zero).matrices()[0]
    torch.testing.assert_close(flip, eye - 2 * v @ v.t(), rtol=0, atol=1e-15)
    hue = color.ColorMaps(one, one, 1.1 * one, zero).matrices()[0]
    torch.testing.assert_close(hue @ hue.t(), eye, rtol=0, atol=1e-15)
    torch.testing.assert_close(hue @ v, v, rtol=0, atol=1e-15)
    assert float(torch.linalg.det(hue)) == pytest.approx(1.0)


def test_colors_are_drawn_with_their_probabilities_and_spreads() -> None:
    """20,000 samples: a standard deviation is known to 0.5 %."""
    n = 20_000
    maps, on = color.draw_colors(n, 3, number(0.3), generator=seeded(), dtype=F64)
    assert_share(on, 1 - 0.7**4 * (1 - 0.15))
    assert_share(maps.along < 0, 0.15)
    assert_share(maps.along.abs() != 1, 0.3)
    assert_share(maps.offset != 0, 0.3)
    assert_share(maps.angle != 0, 0.3)
    assert_share((maps.across / maps.along.abs() - 1).abs() > 1e-12, 0.3)

    maps, on = color.draw_colors(n, 3, number(1.0), generator=seeded(), dtype=F64)
    assert bool(on.all())
    assert float(maps.along.abs().log2().std()) == pytest.approx(0.5, rel=0.03)
    assert float((maps.offset / maps.along).std()) == pytest.approx(0.2, rel=0.03)
    assert float((maps.across / maps.along.abs()).log2().std()) == pytest.approx(1.0, rel=0.03)
    for low in (-1.0, -0.5, 0.0, 0.5):
        assert_share((maps.angle / math.pi >= low) & (maps.angle / math.pi < low + 0.5), 0.25)


def test_colors_are_applied_in_their_order() -> None:
    """Brightness comes first, so contrast and the luma flip act on it, and saturation does not."""
    maps, _ = color.draw_colors(50, 3, number(1.0), generator=seeded(2), dtype=F64)
    gray = torch.full((50, 3, 1, 1), 0.25, dtype=F64)
    bright = maps.offset / maps.along
    expected = ((0.25 + bright) * maps.along)[:, None, None, None].expand(-1, 3, 1, 1)
    torch.testing.assert_close(color.apply_colors(gray, maps), expected)


def test_one_channel_draws_no_hue_or_saturation_and_takes_the_mean_of_the_rows() -> None:
    x = random_images(3, 1, 4)
    maps, _ = color.draw_colors(3, 1, number(1.0), generator=seeded(4), dtype=F64)
    assert torch.equal(maps.across, maps.along.abs()) and int(maps.angle.count_nonzero()) == 0
    rows = torch.cat([maps.matrices(), maps.offset[:, None, None].expand(-1, 3, 1)], dim=2).mean(dim=1)
    expected = x * rows[:, :3].sum(dim=1).reshape(3, 1, 1, 1) + rows[:, 3].reshape(3, 1, 1, 1)
    torch.testing.assert_close(color.apply_colors(x, maps), expected)


# Filter, noise, cutout


def test_gain_one_is_the_identity_and_equal_gains_scale_twice() -> None:
    """Filters run over both axes, so a gain of 2 on every band is a factor of 4."""
    x = random_images(2, 3, 32)
    ones = torch.ones(2, 4, dtype=F64)
    torch.testing.assert_close(corruption.amplify(x, ones), x, rtol=0, atol=1e-11)
    torch.testing.assert_close(corruption.amplify(x, 2 * ones), 4 * x, rtol=0, atol=1e-10)


def test_amplifying_acts_on_its_own_band() -> None:
    """A constant lies in the lowest band, stripes a pixel wide in the highest: exact zeros of the filters."""
    constant = torch.ones(4, 1, 32, 32, dtype=F64)
    stripes = constant * torch.tensor([1.0, -1.0], dtype=F64).repeat(16)  # along rows; constant along columns
    doubled = 1 + torch.eye(4, dtype=F64)  # band i in sample i
    for image, factors in ((constant, (4, 1, 1, 1)), (stripes, (2, 1, 1, 2))):
        got = corruption.amplify(image, doubled)
        expected = image * torch.tensor(factors, dtype=F64).reshape(4, 1, 1, 1)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_gains_are_normalised_by_the_power_of_a_natural_image() -> None:
    """Where one band alone is amplified, the expected power of the image stays what it was."""
    gains, on = corruption.draw_gains(20_000, number(0.25), generator=seeded(), dtype=F64)
    assert_share(on, 1 - 0.75**4)
    power = torch.tensor(corruption.BAND_POWER, dtype=F64)
    factor = gains / gains[:, :1]
    for i in (1, 2, 3):
        rows = (factor[:, i] != 1) & ((factor != 1).sum(dim=1) == 1)
        norm = (power * gains[rows].square()).sum(dim=1)
        torch.testing.assert_close(norm, torch.ones_like(norm), rtol=0, atol=1e-12)
        assert float(factor[rows, i].log2().std()) == pytest.approx(1.0, rel=0.1)


def test_noise_is_half_normal_in_its_strength() -> None:
    x = torch.zeros(4000, 1, 16, 16, dtype=F64)
    noise = corruption.add_noise(x, number(0.5), generator=seeded())
    std = noise.square().mean(dim=(1, 2, 3)).sqrt()
    assert_share(std > 0, 0.5)
    strong = std[std > 0]  # |N(0, 0.1^2)|: mean 0.1 sqrt(2 / pi), mean square 0.1^2
    assert float(strong.mean()) == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.05)
    assert float(strong.square().mean().sqrt()) == pytest.approx(0.1, rel=0.05)


def test_cutout_zeroes_half_the_width_about_a_uniform_center() -> None:
    """Expected share of a side: the overlap of [c - 1/4, c + 1/4] with [0, 1], c uniform: 7/16."""
    x = torch.ones(4000, 1, 32, 32)
    y = corruption.cut_out(x, torch.tensor(0.5), generator=seeded())
    cut = (y == 0)[:, 0]
    assert_share(cut.flatten(1).any(dim=1), 0.5)
    hit = cut[cut.flatten(1).any(dim=1)]
    rows, columns = hit.any(dim=2).sum(dim=1), hit.any(dim=1).sum(dim=1)
    assert torch.equal(rows * columns, hit.sum(dim=(1, 2)))  # a rectangle
    assert int(rows.max()) == 16 and int(rows.min()) >= 8 and int(columns.max()) == 16
    assert float((rows * columns).double().mean()) / 32**2 == pytest.approx((7 / 16) ** 2, rel=0.03)
    assert set(y.unique().tolist()) == {0.0, 1.0}


# DiffAugment


def test_policies_are_those_of_the_paper() -> None:
    assert ",".join(POLICIES) == EVERYTHING


def test_diffaugment_color_keeps_what_it_should() -> None:
    """Brightness moves the mean by U(-1/2, 1/2); contrast keeps it; saturation keeps a pixel's gray."""
    x = random_images(2000, 3, 4)
    y = diffaugment.change_color(x, seeded())
    brightness = (y - x).mean(dim=(1, 2, 3))
    assert float(brightness.abs().max()) < 0.5 and float(brightness.std()) == pytest.approx(
        12**-0.5, rel=0.05
    )
    gray_x, gray_y = (t.mean(dim=1) - t.mean(dim=(1, 2, 3))[:, None, None] for t in (x, y))
    contrast = gray_y.flatten(1).norm(dim=1) / gray_x.flatten(1).norm(dim=1)
    assert float(contrast.min()) > 0.5 and float(contrast.max()) < 1.5
    assert float(contrast.mean()) == pytest.approx(1.0, abs=0.03)
    rest_x, rest_y = (t - t.mean(dim=1, keepdim=True) for t in (x, y))
    saturation = rest_y.flatten(1).norm(dim=1) / rest_x.flatten(1).norm(dim=1) / contrast
    assert float(saturation.max()) < 2 and float(saturation.mean()) == pytest.approx(1.0, abs=0.06)


def test_diffaugment_translation_moves_whole_pixels_and_lets_zeros_in() -> None:
    x = random_images(500, 3, 16)
    y = diffaugment.translate(x, seeded())
    padded = torch.nn.functional.pad(x, [2] * 4)
    shifts = {}
    for dy in range(5):
        for dx in range(5):
            same = (padded[:, :, dy : dy + 16, dx : dx + 16] == y).flatten(1).all(dim=1)
            shifts[dy, dx] = int(same.sum())
    assert sum(shifts.values()) == 500 and min(shifts.values()) > 0  # each of 25 with probability 1/25


def test_diffaugment_cutout_is_half_the_side() -> None:
    y = diffaugment.cut_out(torch.ones(2000, 1, 16, 16), seeded())
    cut = (y == 0)[:, 0]
    rows, columns = cut.any(dim=2).sum(dim=1), cut.any(dim=1).sum(dim=1)
    assert torch.equal(rows * columns, cut.sum(dim=(1, 2)))
    assert (int(rows.min()), int(rows.max())) == (4, 8) == (int(columns.min()), int(columns.max()))


def test_a_policy_applies_its_names_only() -> None:
    x = random_images(4, 3, 16)
    for name, transform in POLICIES.items():
        assert torch.equal(DiffAugment(name)(x, generator=seeded()), transform(x, seeded()))
