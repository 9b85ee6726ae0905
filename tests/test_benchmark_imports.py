"""benchmarks.imports: the detector it gives to NVIDIA's metric code, and what it calls a fault."""

import torch

from benchmarks.imports import metrics
from benchmarks.imports.scripted_vgg16 import ScriptedVGG16
from benchmarks.parity.detectors import torchvision_file
from benchmarks.parity.reference_files import installed
from fact_metrics.features import get_detector
from fact_metrics.features.detector import package_file
from fact_metrics.features.resize import resize


def test_the_scripted_vgg16_has_the_distances_and_the_resize_of_our_detectors() -> None:
    """Float32 sums in another order: 1e-5 of the distance; of the coordinates, 0.005 of 255 grey levels."""
    state = torch.load(torchvision_file("vgg16_torchvision", "vgg16"), weights_only=True)
    lins = torch.load(package_file("lpips", "weights/v0.1/vgg.pth"), "cpu", weights_only=True)
    net = ScriptedVGG16(state, [lins[f"lin{i}.model.1.weight"] for i in range(5)])
    rng = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1, 3, 32, 32, generator=rng) * 2 - 1
    with torch.no_grad(), installed("vgg16_torchvision"):
        rows = net((torch.cat([a, b]) + 1) * (255 / 2), resize_images=False, return_lpips=True)
        found = (rows[:1] - rows[1:]).square().sum(1)
        expected = get_detector("lpips_vgg", "cpu").distance(a, b)
        resized = net.resized((a + 1) * 127.5)
    assert expected.min() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(resized, resize((a + 1) * 127.5, mode="tf1", size=224), rtol=0, atol=5e-3)


def test_a_difference_beyond_its_tolerance_is_a_fault_unless_it_is_on_purpose() -> None:
    row = dict(program="p", network="n", count=8, ours=1.0, theirs=2.0, why="rounding")
    rows = [
        row | dict(metric="equal", difference=1e-5, tolerance=1e-4),
        row | dict(metric="other", difference=1e-3, tolerance=1e-4),
        row | dict(metric="undefined", difference=float("nan"), tolerance=1e-4),
        row | dict(metric="on purpose", difference=1.0, tolerance=None, why="float16"),
    ]
    assert metrics.faults(rows) == ["p, n: other", "p, n: undefined"]
    lines = metrics.table(rows).splitlines()
    assert lines[2] == "| p | n | equal | 8 | 1 | 2 | 1.0e-05 | 0.0001 (1) |"
    assert lines[5].endswith("| none (2) |") and lines[-2:] == ["1. rounding.", "2. float16."]
