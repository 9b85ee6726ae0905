"""Protocols under the names of the field give what their reference implementations give on equal features."""

import contextlib
import io

import pytest
import torch
from metric_toys import ToyInputs

from benchmarks.parity.gaussians import features, fid_clean_fid, fid_nvidia
from fact_metrics.registry import compute_metric, get_spec, list_metrics

N, M, WIDTH = 1_050, 1_100, 24


@pytest.fixture(scope="module")
def gen() -> torch.Tensor:
    return features(N, WIDTH, seed=0, shift=0.2)


@pytest.fixture(scope="module")
def real() -> torch.Tensor:
    return features(M, WIDTH, seed=1, scale=1.1)


def measure(name: str, gen: torch.Tensor, real: torch.Tensor | None = None):
    return compute_metric(get_spec(name), ToyInputs(lambda need: gen if need.side == "generated" else real))


@pytest.mark.parametrize("name", ["fid50k_full", "fid50k_full_inception_nvidia"])
def test_fid50k_full_divides_by_n_as_stylegan_does(name, gen, real) -> None:
    value = measure(name, gen, real).value
    assert value == pytest.approx(fid_nvidia(gen, real), rel=1e-9)  # scipy's root against eigenvalues
    assert value != pytest.approx(fid_clean_fid(gen, real), rel=1e-6)
    assert get_spec(name).settings["covariance"] == "N"


OVER_N_LESS_1 = [
    *("fid50k_full_clean", "fid50k_full_inception_pytorch_fid", "fid50k_full_clip_vit_b32", "sfid50k_full"),
    *(f"fd50k_full_dinov2_{size}" for size in "sbl"),
]


@pytest.mark.parametrize("name", OVER_N_LESS_1)
def test_other_frechet_distances_divide_by_n_less_1_as_their_authors_do(name, gen, real) -> None:
    value = measure(name, gen, real)
    assert value.value == pytest.approx(fid_clean_fid(gen, real), rel=1e-9)
    assert get_spec(name).settings["covariance"] == "N - 1"
    assert (value.n_generated, value.n_real) == (N, M) and value.stderr > 0


def test_every_frechet_distance_takes_statistics_and_nothing_else_does() -> None:
    taking = {name for name in list_metrics() if get_spec(name).from_statistics}
    assert taking == {name for name in list_metrics() if get_spec(name).family in ("fid", "sfid", "fd")}


def test_kid50k_full_keeps_the_published_mean_over_subsets_beside_the_estimate_of_all(gen, real) -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    value = measure("kid50k_full", gen, real)
    theirs = kid_features_to_metric(
        gen, real, kid_subsets=100, kid_subset_size=1000, kid_kernel="poly", verbose=False
    )
    assert value.extras["subset_mean"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert value.extras["subset_std"] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-7)
    assert value.value == pytest.approx(value.extras["subset_mean"], rel=0.02)  # subsets of nearly all
    assert measure("kid50k_full", gen[:500], real).extras == {}


def test_is50k_is_the_inception_score_of_logits_in_order(gen) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    with contextlib.redirect_stdout(io.StringIO()):
        theirs = isc_features_to_metric(4 * gen, splits=10, shuffle=False)
    value = measure("is50k", 4 * gen)
    assert value.value == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert value.extras["split_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-7)
    assert value.n_generated == N and value.n_real is None


def test_precision50k3_and_recall50k3_are_torch_fidelitys(gen, real) -> None:
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    gen, real = gen.float(), real.float()
    theirs = calculate_precision_recall_full(gen, real)
    ours = [measure(f"{name}50k3_full", gen, real).value for name in ("precision", "recall")]
    assert ours == pytest.approx([float(x) for x in theirs], abs=1e-6)  # their mean is float32
    assert 0.05 < min(ours) and max(ours) < 0.95


def test_density50k5_and_coverage50k5_are_their_definition(gen, real) -> None:
    within = torch.cdist(real, real).fill_diagonal_(torch.inf).kthvalue(5).values
    inside = torch.cdist(gen, real) < within
    density = inside.sum().item() / (5 * N)
    assert measure("density50k5_full", gen, real).value == pytest.approx(density, rel=1e-9)
    assert measure("coverage50k5_full", gen, real).value == inside.any(dim=0).double().mean().item()


def test_cmmd_is_its_definition(gen, real) -> None:
    x, y = (rows / rows.norm(dim=1, keepdim=True) for rows in (gen, real))

    def kernel(a, b):
        return torch.exp(-torch.cdist(a, b).square() / (2 * 10.0**2)).mean().item()

    expected = 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))
    value = measure("cmmd50k_full", gen, real)
    assert value.value == pytest.approx(expected, rel=1e-7) and value.stderr > 0
