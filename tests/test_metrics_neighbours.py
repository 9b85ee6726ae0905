"""The neighbour engine against brute force in float64, where rounding decides, and in how much memory."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from metric_toys import cloud, squared_distances

from fact_metrics.engines import neighbours
from fact_metrics.engines.neighbours import Pairs, count_hits, find_neighbours, find_radii


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that do not divide the sets, so that every seam between blocks is crossed."""
    monkeypatch.setattr(neighbours, "BLOCK", 37)


def brute_radii(features, *, ks):
    distances = squared_distances(features, features).fill_diagonal_(torch.inf)
    return torch.stack([distances.kthvalue(k, dim=1).values for k in ks], dim=1)


def lattice(n, *, seed, side=5, width=3):
    """Points with many equal and many zero distances."""
    return torch.randint(0, side, (n, width), generator=torch.Generator().manual_seed(seed)).float()


CLOUDS = {
    "plain": lambda seed: cloud(150, 16, seed=seed),
    "wide": lambda seed: cloud(60, 1500, seed=seed),
    "one number": lambda seed: cloud(150, 1, seed=seed),
    "lattice": lambda seed: lattice(150, seed=seed),
    "all one point": lambda seed: torch.ones(80, 4),
    "far from the origin": lambda seed: cloud(150, 8, seed=seed, scale=1e-3) + 1000.0,
    "one far outlier": lambda seed: torch.cat([cloud(150, 8, seed=seed), torch.full((1, 8), 1e6)]),
    "tight clusters": lambda seed: (
        cloud(10, 8, seed=seed).repeat(15, 1) * 100 + cloud(150, 8, seed=seed + 50, scale=1e-4)
    ),
    "huge": lambda seed: cloud(150, 16, seed=seed) * 1e30,
    "tiny": lambda seed: cloud(150, 16, seed=seed) * 1e-30,
    "huge float64": lambda seed: cloud(150, 16, seed=seed).double() * 1e140,
    "tiny float64": lambda seed: cloud(150, 16, seed=seed).double() * 1e-140,
    "tiny beside huge": lambda seed: torch.cat([cloud(80, 8, seed=seed) * 1e-25, cloud(20, 8, seed=seed)]),
}
every_cloud = pytest.mark.parametrize("make", CLOUDS.values(), ids=CLOUDS.keys())


@every_cloud
def test_radii_are_those_of_brute_force_bit_by_bit(make, small_blocks):
    features = make(0)
    assert torch.equal(find_radii(features, ks=(1, 3, 5)), brute_radii(features, ks=(1, 3, 5)))


@every_cloud
def test_hits_of_both_sides_and_conventions_are_those_of_brute_force(make, small_blocks):
    points, centres = make(0), torch.cat([make(1), make(0)[:20]])  # some points are centres: exact ties
    point_radii, centre_radii = (find_radii(features, ks=(3, 5)) for features in (points, centres))
    of_centres, of_points = count_hits(
        points, centres, centre_radii=centre_radii, point_radii=point_radii, closed=(True, False)
    )
    distances = squared_distances(points, centres)
    for kind, inside in enumerate((torch.le, torch.lt)):
        expected = inside(distances, centre_radii[:, kind])
        assert torch.equal(of_centres.per_point[:, kind], expected.sum(dim=1))
        assert torch.equal(of_centres.per_ball[:, kind], expected.sum(dim=0))
        expected = inside(distances, point_radii[:, kind, None])
        assert torch.equal(of_points.per_point[:, kind], expected.sum(dim=0))
        assert torch.equal(of_points.per_ball[:, kind], expected.sum(dim=1))


@every_cloud
def test_nearest_centres_are_those_of_brute_force(make, small_blocks):
    queries, centres = make(0), make(1)
    distances, indices = find_neighbours(queries, centres, ranks=(1, 4))
    expected = squared_distances(queries, centres)
    for place, rank in enumerate((1, 4)):
        values = expected.kthvalue(rank, dim=1).values
        assert torch.equal(distances[:, place], values)
        first = (expected == values[:, None]).int().argmax(dim=1)
        apart = values > 0
        assert torch.equal(indices[apart, place], first[apart])
        assert torch.equal(expected.gather(1, indices)[:, place], values)


@every_cloud
def test_float32_bounds_hold_the_exact_distance_between_them(make):
    pairs = Pairs(make(0), make(1))
    ((_, _, lower),) = pairs.blocks()
    rows, columns = torch.cartesian_prod(*pairs.positions).unbind(dim=1)
    exact = pairs.exact(rows, columns)
    assert (lower.flatten() <= exact).all()
    assert (pairs.upper(rows, columns, lower.flatten(), lower.dtype) >= exact).all()


def test_the_block_size_changes_no_bit(monkeypatch):
    gen, real = lattice(90, seed=2), torch.cat([lattice(80, seed=3), cloud(40, 3, seed=4)])
    found = []
    for block in (9, 64, 4096):
        monkeypatch.setattr(neighbours, "BLOCK", block)
        radii = find_radii(real, ks=(3, 5))
        hits, _ = count_hits(gen, real, centre_radii=radii, closed=(True, False))
        found.append((radii, hits.per_point, hits.per_ball, *find_neighbours(gen, real)))
    for a, b in pairwise(found):
        apart = a[3][:, 0] > 0  # of several centres at distance 0 any is named
        assert all(torch.equal(x, y) for x, y in zip(a[:4], b[:4], strict=True))
        assert torch.equal(a[4][apart], b[4][apart])


def test_the_order_of_rows_changes_no_bit(small_blocks):
    features = torch.cat([lattice(90, seed=5), cloud(60, 3, seed=6)])
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    assert torch.equal(find_radii(features[order], ks=(3, 5)), find_radii(features, ks=(3, 5))[order])


def test_a_power_of_two_scales_radii_exactly(small_blocks):
    features = cloud(100, 16, seed=7)
    assert torch.equal(find_radii(features * 2.0**20, ks=(3,)), find_radii(features, ks=(3,)) * 2.0**40)


@pytest.mark.parametrize("change", [("MAX_OPEN", 0), ("SPARE", 0), ("EXACT_VALUES", {"cpu": 16, "cuda": 16})])
def test_what_only_saves_time_changes_no_bit(change, monkeypatch, small_blocks):
    def measure():
        gen, real = lattice(100, seed=8), torch.cat([cloud(100, 3, seed=9), lattice(50, seed=10)])
        radii = find_radii(real, ks=(3, 5))
        return radii, count_hits(gen, real, centre_radii=radii, closed=(True, False))[0].per_point

    expected = measure()
    monkeypatch.setattr(neighbours, *change)
    assert all(torch.equal(a, b) for a, b in zip(measure(), expected, strict=True))


def test_products_of_any_library_give_the_same_bits(monkeypatch, small_blocks):
    features = torch.cat([lattice(90, seed=11), cloud(60, 3, seed=12)])
    expected = find_radii(features, ks=(3, 5))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert torch.equal(find_radii(features, ks=(3, 5)), expected)


def test_float64_products_settle_what_float32_leaves_open(monkeypatch, small_blocks):
    """Near copies of a few distant points: no row has to be compared with all others one by one."""
    features = CLOUDS["tight clusters"](13)
    expected = brute_radii(features, ks=(3, 5))
    refined = []
    refine = neighbours._Search.refine
    monkeypatch.setattr(
        neighbours._Search, "refine", lambda self, rows: refined.append(len(rows)) or refine(self, rows)
    )
    monkeypatch.delattr(neighbours._Search, "exhaust")
    assert torch.equal(find_radii(features, ks=(3, 5)), expected)
    assert sum(refined) == len(features)


def test_nothing_is_measured_twice_where_float32_decides(monkeypatch):
    monkeypatch.delattr(neighbours._Search, "refine")
    features = cloud(150, 16, seed=21)
    assert torch.equal(find_radii(features, ks=(3, 5)), brute_radii(features, ks=(3, 5)))


def test_many_open_pairs_of_a_block_are_bounded_in_float64_first(monkeypatch):
    monkeypatch.setattr(neighbours, "MAX_OPEN", 100)
    settled = []
    exact = Pairs.exact
    monkeypatch.setattr(
        Pairs, "exact", lambda self, rows, columns: settled.append(len(rows)) or exact(self, rows, columns)
    )
    gen, real = CLOUDS["tight clusters"](14), CLOUDS["tight clusters"](14) + 1e-4
    radii = brute_radii(real, ks=(3,))
    hits, _ = count_hits(gen, real, centre_radii=radii, closed=(True,))
    assert torch.equal(hits.per_point[:, 0], (squared_distances(gen, real) <= radii[:, 0]).sum(dim=1))
    assert sum(settled) <= 100


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_the_float32_it_stands_for(dtype, small_blocks):
    features = cloud(100, 16, seed=15).to(dtype)
    assert torch.equal(find_radii(features, ks=(3,)), find_radii(features.float(), ks=(3,)))


def test_float64_features_keep_differences_that_float32_cannot_hold():
    features = torch.arange(8, dtype=torch.float64)[:, None] * 1e-12 + 1
    assert find_radii(features, ks=(1,)).sqrt().flatten().tolist() == pytest.approx([1e-12] * 8, rel=1e-3)


def test_lower_precision_of_products_is_switched_off_and_back():
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "linear" in str(function) or "mm" in str(function):
                seen.append(torch.get_float32_matmul_precision())
            return function(*args, **(kwargs or {}))

    torch.set_float32_matmul_precision("medium")
    try:
        with Watch():
            find_radii(cloud(20, 4, seed=16), ks=(3,))
        assert set(seen) == {"highest"}
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_autocast_changes_no_bit():
    gen, real = cloud(60, 16, seed=17), cloud(70, 16, seed=18)
    expected = find_neighbours(gen, real, ranks=(3,))[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(find_neighbours(gen, real, ranks=(3,))[0], expected)


@pytest.mark.parametrize("width", [3, 100, 2**14, 2**16])
def test_a_distance_has_the_same_bits_alone_and_among_others(width):
    pairs = Pairs(cloud(5, width, seed=19), cloud(9, width, seed=20))
    rows, columns = torch.cartesian_prod(*pairs.positions).unbind(dim=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # with more than one, a lone long row is summed in parts
    try:
        together = pairs.exact(rows, columns)
        alone = torch.cat([pairs.exact(rows[i : i + 1], columns[i : i + 1]) for i in range(0, len(rows), 7)])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone, together[::7])


@pytest.mark.parametrize("scale", [1e145, 1e160, 1e300, 1e-150, 1e-200, 1e-320])
def test_scales_whose_squares_float64_does_not_hold_are_refused(scale):
    """Precision and recall were 0 or 1 there, without a word."""
    near, far = cloud(40, 8, seed=0).double() * scale, cloud(40, 8, seed=1).double() * scale
    for call in (lambda: find_radii(near, ks=(3,)), lambda: find_neighbours(near, far)):
        with pytest.raises(ValueError, match=r"leave float64's range; scale them to sizes under 3e.144"):
            call()


def test_equal_rows_are_at_distance_zero_at_any_scale():
    rows = torch.full((6, 3), 1e-300, dtype=torch.float64)
    assert torch.equal(find_radii(rows, ks=(3,)), torch.zeros(6, 1, dtype=torch.float64))


def test_too_few_rows_other_widths_and_values_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="5 nearest neighbours need more than 5 images, got 5"):
        find_radii(torch.rand(5, 4), ks=(3, 5))
    with pytest.raises(ValueError, match="2 nearest neighbours need at least 2 images, got 1"):
        find_neighbours(torch.rand(5, 4), torch.rand(1, 4), ranks=(2,))
    with pytest.raises(ValueError, match=r"width: \[5, 4\], \[5, 3\]"):
        find_neighbours(torch.rand(5, 4), torch.rand(5, 3))
    with pytest.raises(ValueError, match="counted from 1"):
        find_radii(torch.rand(9, 4), ks=(0, 3))
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="not finite"):
            find_radii(torch.rand(9, 4).index_fill(0, torch.tensor(4), value), ks=(3,))
    with pytest.raises(ValueError, match="int64"):
        find_radii(torch.ones(9, 4, dtype=torch.int64), ks=(3,))
    with pytest.raises(ValueError, match="9"):
        find_radii(torch.rand(9), ks=(3,))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@every_cloud
def test_a_gpu_gives_the_same_hits(make):
    gen, real = make(0), make(1)
    found = []
    for device in ("cpu", "cuda"):
        a, b = gen.to(device), real.to(device)
        radii = find_radii(b, ks=(3, 5))
        found.append(count_hits(a, b, centre_radii=radii, closed=(True, False))[0].per_point.cpu())
    assert torch.equal(*found)


MEMORY = """
import resource, torch
torch.set_num_threads(1)
from fact_metrics.engines.density_coverage import compute_prdc

def peak(n):
    rows = torch.randn(2, n, 64, generator=torch.Generator().manual_seed(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    compute_prdc(*rows)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

print(peak(2000), peak(8000))
"""


def test_memory_beyond_the_features_does_not_grow_with_the_square():
    # All pairs of 8,000 in float32 are 256 MB, of 2,000 16 MB. What the larger run adds is a few numbers per
    # row (under 2 MB); 30 MB leaves room for what the allocator keeps.
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    first, added = (int(kilobytes) / 1e3 for kilobytes in done.stdout.split())
    assert first < 150 and added < 30
