"""FID, split FID and latent divergence of edits: scipy's distance, brute force, repeated draws, cases."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from fact_metrics.engines.edited_images import (
    compute_edits_fid,
    compute_latent_divergence,
    compute_split_fid,
    one_per_image,
)
from fact_metrics.features import get_detector
from fact_metrics.inputs import Counterfactuals
from fact_metrics.registry import compute_metric, get_spec


def frechet_by_scipy(a, b):
    """Heusel et al. 2017, eq. 6, as pytorch-fid computes it."""
    a, b = (x.double().numpy() for x in (a, b))
    ca, cb = (np.cov(x, rowvar=False) for x in (a, b))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)


def halves_of(n, *, seed, splits):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(n, generator=generator).tensor_split(2) for _ in range(splits)]


def split_fid_by_scipy(edited, originals, halves, *, without=None):
    """Mean over splits and both ways; image `without` leaves whichever half it is in."""
    values = []
    for pair in halves:
        one, two = (half[half != without] if without is not None else half for half in pair)
        values += [
            frechet_by_scipy(edited[one], originals[two]),
            frechet_by_scipy(edited[two], originals[one]),
        ]
    return float(np.mean(values))


def edits(n=24, width=3, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    originals = torch.randn(n, width, generator=generator)
    return originals * 0.8 + 0.3 * torch.randn(n, width, generator=generator) + 0.5, originals


def test_split_fid_is_the_mean_of_scipy_s_distances_between_halves() -> None:
    edited, originals = edits()
    expected = split_fid_by_scipy(edited, originals, halves_of(24, seed=5, splits=4))
    assert compute_split_fid(edited, originals, seed=5, splits=4).value == pytest.approx(expected, rel=1e-9)
    assert compute_split_fid(edited, originals, seed=6, splits=4).value != pytest.approx(expected, rel=1e-3)


def test_the_error_of_split_fid_is_the_jackknife_of_images_by_brute_force() -> None:
    edited, originals = edits(n=21)
    halves = halves_of(21, seed=1, splits=3)
    left_out = [split_fid_by_scipy(edited, originals, halves, without=i) for i in range(21)]
    expected = math.sqrt(20 / 21 * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    assert compute_split_fid(edited, originals, seed=1, splits=3).stderr == pytest.approx(expected, rel=1e-6)
    assert compute_split_fid(edited[:19], originals[:19], seed=1).stderr is None


def test_the_error_of_split_fid_covers_new_draws_of_images() -> None:
    """Not too small, and at most the root of 2 too large, which counting the quadratic part twice can do.

    60 draws know a deviation to 9 %, three of which are allowed.
    """
    found = [compute_split_fid(*edits(n=60, seed=s), seed=0, splits=3) for s in range(60)]
    spread = float(np.std([one.value for one in found], ddof=1))
    claimed = float(np.mean([one.stderr for one in found]))
    assert 0.73 < claimed / spread < math.sqrt(2) * 1.27


def test_fid_of_edits_against_their_own_originals() -> None:
    edited, originals = edits()
    found = compute_edits_fid(edited, originals)
    assert found.value == pytest.approx(frechet_by_scipy(edited, originals), rel=1e-9)
    left_out = [
        frechet_by_scipy(edited[rows], originals[rows]) for rows in (torch.arange(24) != i for i in range(24))
    ]
    expected = math.sqrt(23 / 24 * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    assert found.stderr == pytest.approx(expected, rel=1e-6)
    same = compute_edits_fid(originals, originals)
    assert same.value == pytest.approx(0, abs=1e-9) and same.stderr == pytest.approx(0, abs=1e-6)


def test_split_fid_does_not_reward_edits_that_leave_the_image_as_it_is() -> None:
    """The bias that it was made for: copies have no distance to themselves, and one to other images."""
    _, originals = edits(n=40)
    assert compute_edits_fid(originals, originals).value < 1e-9
    assert compute_split_fid(originals, originals, seed=0).value > 0.1


def test_distances_hold_with_more_features_than_images() -> None:
    """3 features in a rotated space of 200: the images span 3 directions of it, before and after."""
    edited, originals = edits()
    turn = torch.linalg.qr(torch.randn(200, 3, generator=torch.Generator().manual_seed(1))).Q
    wide = edited @ turn.T + 5, originals @ turn.T + 5
    # float32 features of size 5 are known to 6e-7, and null directions have rounding in them
    for narrow, broad in (
        (compute_edits_fid(edited, originals), compute_edits_fid(*wide)),
        (compute_split_fid(edited, originals, seed=0), compute_split_fid(*wide, seed=0)),
    ):
        assert broad.value == pytest.approx(narrow.value, rel=1e-4)
        assert broad.stderr == pytest.approx(narrow.stderr, rel=1e-3)


@pytest.mark.parametrize("shape", [(5, 3), (24, 2)])
def test_split_fid_refuses_sets_that_do_not_fit(shape) -> None:
    _, originals = edits()
    with pytest.raises(ValueError, match="two sets"):
        compute_split_fid(torch.zeros(shape), originals[: shape[0]], seed=0)


def test_one_edit_of_every_image_by_turns() -> None:
    image = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    assert one_per_image(image).tolist() == [0, 3, 4, 6]


def divergence_of_the_paper(original, edited, own, target, others, classes):
    """log(0.8 exp P(S_cf <= div) + 0.2 exp P(S_f >= div)), image by image."""
    values = []
    for x, y, f, cf in zip(original, edited, own, target, strict=True):
        div = np.abs(y - x).mean()
        of_class = {k: np.abs(others[classes == k] - x).mean(1) for k in (f, cf)}
        near, far = (of_class[cf] <= div).mean(), (of_class[f] >= div).mean()
        values.append(np.log(0.8 * np.exp(near) + 0.2 * np.exp(far)))
    return values


def test_latent_divergence_is_the_formula_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    others, classes = rng.normal(size=(30, 5)), rng.integers(3, size=30)
    rows = rng.integers(30, size=12)
    original, own = others[rows], classes[rows]
    edited, target = original + rng.normal(size=(12, 5)), (own + 1) % 3
    expected = divergence_of_the_paper(original, edited, own, target, others, classes)
    tensors = map(torch.as_tensor, (original, edited, own, target, others, classes))
    assert compute_latent_divergence(*tensors).value.tolist() == pytest.approx(expected, rel=1e-12)


def test_latent_divergence_of_edits_on_a_line() -> None:
    """Class 0 at 0 to 3, class 1 at 10 to 13; the image at 0 moves by 4, by 20 and by nothing."""
    others = torch.tensor([[0.0], [1], [2], [3], [10], [11], [12], [13]])
    classes = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    original, edited = torch.zeros(3, 1), torch.tensor([[4.0], [20], [0]])
    own, target = torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.long)
    found = compute_latent_divergence(original, edited, own, target, others, classes)
    assert found.near.tolist() == [0, 1, 0] and found.far.tolist() == [0, 0, 1]
    assert found.value.tolist() == pytest.approx(
        [0, math.log(0.8 * math.e + 0.2), math.log(0.8 + 0.2 * math.e)]
    )
    with pytest.raises(ValueError, match="no unedited image has class 2"):
        compute_latent_divergence(original, edited, own, target + 1, others, classes)


def toy_edits(k=10):
    """12 pictures of two classes; each further attribute brightens one more column."""
    generator = torch.Generator().manual_seed(0)
    originals = torch.randint(0, 120, (12, 1, 4, 12), dtype=torch.uint8, generator=generator)
    unedited = originals + 3
    steps = [unedited.clone() for _ in range(k)]
    for number, pictures in enumerate(steps, start=1):
        pictures[..., :number] += 100
    own = torch.arange(12) % 2
    return Counterfactuals(
        image=torch.arange(12),
        target=1 - own,
        before=torch.nn.functional.one_hot(own, 2).float(),
        after=torch.zeros(12, k, 2),
        second_before=None,
        second_after=None,
        originals=originals,
        unedited=unedited,
        edits=torch.stack(steps, dim=1),
    )


class Inputs:
    seed, device = 3, torch.device("cpu")

    def __init__(self, found):
        self.explanation = SimpleNamespace(classes=["low", "high"], counterfactuals=lambda method: found)


def record_of(name, found):
    return compute_metric(get_spec(name), Inputs(found))


def test_the_records_have_both_distances_by_number_of_attributes() -> None:
    found = toy_edits()
    detector = get_detector("pixels")
    features = {k: detector(found.edits[:, k - 1] if k else found.unedited) for k in (0, 1, 10)}
    originals = detector(found.originals)
    value = record_of("cffid100_random_pixels", found)
    assert [point["k"] for point in value.extras["curve"]] == list(range(11))
    for k in features:
        expected = compute_edits_fid(features[k], originals)
        assert value.extras["curve"][k]["value"] == pytest.approx(expected.value)
        assert value.extras["curve"][k]["stderr"] == pytest.approx(expected.stderr)
    assert value.value == value.extras["curve"][10]["value"] and value.extras["singular_by_count"]
    assert value.ci["low"] <= value.value <= value.ci["high"] and value.n_generated == 12
    split = record_of("cfsplitfid100_random_pixels", found)
    expected = compute_split_fid(features[10], originals, seed=3)
    assert split.value == pytest.approx(expected.value) and split.stderr is None and split.ci is None


def test_the_record_of_minimality_is_the_mean_over_images() -> None:
    found = toy_edits()
    value = record_of("minimality100_attfind_subset_pixels", found)
    detector = get_detector("pixels")
    before, after = detector(found.unedited), detector(found.edited)
    own = found.before.argmax(dim=1)
    expected = compute_latent_divergence(before, after, own, found.target, before, own)
    assert value.value == pytest.approx(expected.value.mean().item())
    assert value.extras == {"near": expected.near.mean().item(), "far": expected.far.mean().item()}
    assert value.ci["n"] == 12
