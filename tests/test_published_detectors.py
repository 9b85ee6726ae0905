"""Detectors with downloadable weights: properties, the shared pass, and every way a weight file can be wrong.

That each equals its reference package on the same file is shown by the parity matrix (test_parity.py).
"""

import json
from unittest import mock

import pytest
import torch

from benchmarks.parity import detectors as parity
from benchmarks.parity.reference_files import (
    folder,
    installed,
    pictures,
    random_tensors,
    read_pictures,
    save,
    save_script,
    script_of,
)
from fact_metrics.base.errors import UserError
from fact_metrics.features import DETECTORS, get_detector, list_detectors, weight_store
from fact_metrics.features.detectors.inception import REMEMBERED_PARTS, InceptionPool3
from fact_metrics.features.networks.inception import Inception, from_fidelity
from fact_metrics.features.published import expect_keys
from fact_metrics.features.weight_store import MissingWeights

PUBLISHED = [name for name in list_detectors() if DETECTORS[name].weights]
FILES = {
    "inception_pool3": parity.fidelity_file,
    "inception_spatial": parity.fidelity_file,
    "vgg16_fc2": parity.vgg_file,
    "lpips_alex": lambda: parity.torchvision_file("alexnet_torchvision", "alexnet"),
    "lpips_vgg": parity.vgg_file,
    "lpips_squeeze": lambda: parity.torchvision_file("squeezenet11_torchvision", "squeezenet1_1"),
    "clip_vit_b32": parity.clip_file,
}


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    """No weights but those a test puts there."""
    monkeypatch.setenv(weight_store.FOLDER, str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(weight_store.SHARED, raising=False)


@pytest.fixture(scope="module", params=FILES)
def detector(request):
    """One of each kind of network on random weights (CLIP in small)."""
    FILES[request.param]()
    made = parity.small_clip() if request.param == "clip_vit_b32" else get_detector(request.param)
    with installed(*made.weights):
        made(images())  # the file is read here, before `empty_store` hides it
        yield made


def images():
    return read_pictures(pictures()[1])[:2]


def test_features_are_finite_rows_for_gray_and_colour_and_gray_is_three_equal_channels(detector):
    gray = images()[:, :1]
    found, colour = detector(gray), detector(gray.repeat(1, 3, 1, 1))
    assert found.shape == (2, detector.width) and found.dtype == torch.float32
    assert torch.isfinite(found).all() and found.std() > 0
    torch.testing.assert_close(colour, found, rtol=1e-4, atol=1e-5 * found.abs().max().item())


def test_features_do_not_depend_on_the_batch_and_differ_between_images(detector):
    together = detector(images())
    alone = torch.cat([detector(image[None]) for image in images()])
    # One image alone goes through other kernels: the same sums in another order.
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-5 * together.abs().max().item())
    assert (together[0] - together[1]).abs().max() > 1e-3 * together.abs().max()
    assert detector(images()[:0]).shape == (0, detector.width)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_is_there_without_weights_and_quotes_the_published_hash(name):
    spec = DETECTORS[name]().describe()
    assert json.loads(json.dumps(spec)) == spec
    assert spec["weights_sha256"] == weight_store.WEIGHTS[DETECTORS[name].weights[0]].sha256


def test_cards_of_all_published_detectors_differ():
    specs = [{**DETECTORS[name]().describe(), "detector": None} for name in PUBLISHED]
    assert all(a != b for i, a in enumerate(specs) for b in specs[:i])


@pytest.mark.parametrize("name", PUBLISHED)
def test_without_weights_the_file_its_size_hash_address_and_remedy_are_named(name):
    wanted = weight_store.WEIGHTS[DETECTORS[name].weights[0]]
    with pytest.raises(MissingWeights) as error:
        DETECTORS[name]()(images())
    told = str(error.value)
    assert "\n" not in told and f"fact-eval weights fetch {wanted.name}" in told
    assert all(part in told for part in (wanted.filename, wanted.size, wanted.sha256, wanted.url))


@pytest.mark.parametrize("name", ["inception_pool3", "clean_inception", "lpips_squeeze", "clip_vit_b32"])
def test_a_truncated_file_is_not_taken_for_the_published_one(name, tmp_path):
    wanted = weight_store.WEIGHTS[DETECTORS[name].weights[0]]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / wanted.filename).write_bytes(b"PK\x03\x04 half a download")
    with pytest.raises(MissingWeights, match=rf"{wanted.filename} is not it: sha256 \w{{12}}, 0.0 MB"):
        DETECTORS[name]()(images())


def put(name, content):
    """The published weights of that name are now these bytes: their hash is the right one."""
    (folder() / weight_store.WEIGHTS[name].filename).write_bytes(content)
    return installed(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("inception_pool3", "is not a state_dict weight file"),
        ("clean_inception", "is not a torchscript weight file"),
    ],
)
def test_a_corrupt_file_is_named_with_its_format(name, reason, saved_files):
    with put(DETECTORS[name].weights[0], b"not what it should be"):
        with pytest.raises(UserError, match=reason) as error:
            DETECTORS[name]()(images())
    assert "\n" not in str(error.value)


@pytest.fixture
def saved_files():
    """Puts back what the parity rows wrote once and read again."""
    before = {path: path.read_bytes() for path in folder().iterdir() if path.is_file()}
    yield
    for path in folder().iterdir():
        if path.is_file():
            path.unlink()
    for path, content in before.items():
        path.write_bytes(content)


def wrong(name):
    """A state dict of another network for that detector, and what is missing or too much of it."""
    if name == "lpips_vgg":
        return {"features.0.weight": torch.zeros(64, 3, 11, 11)}, "it has no features.0.bias"
    if name == "inception_pool3":
        state = dict(parity.inception_tensors())
        return {**state, "AuxLogits.fc.bias": torch.zeros(8)}, "it also has AuxLogits.fc.bias"
    if name == "vgg16_fc2":
        return {"Conv2d_1a_3x3.conv.weight": torch.zeros(1)}, "it has no features.0.weight"
    if name == "dinov2_s":
        return {"visual.proj": torch.zeros(2, 2)}, "it has no cls_token"
    return {"features.0.weight": torch.zeros(3)}, "it has no features.0.bias"


@pytest.mark.parametrize("name", ["inception_pool3", "vgg16_fc2", "lpips_alex", "lpips_vgg", "dinov2_s"])
def test_another_networks_weights_are_refused_naming_the_first_key_and_the_network(name, saved_files):
    state, told = wrong(name)
    weights = DETECTORS[name].weights[0]
    save(weights, state)
    with installed(weights), pytest.raises(UserError, match="weights of another network") as error:
        DETECTORS[name]()(images())
    text = str(error.value)
    assert told in text and "\n" not in text and weight_store.WEIGHTS[weights].filename in text
    assert "expected" in text


def test_another_clip_is_refused(saved_files):
    save_script("clip_vit_b32", script_of({"visual.layer1.0.conv1.weight": torch.zeros(2, 2)}))
    with installed("clip_vit_b32"), pytest.raises(UserError, match=r"it has no visual\.class_embedding"):
        DETECTORS["clip_vit_b32"]()(images())
    parity.clip_file.cache_clear()
    parity.clip_file()  # two blocks of 128 channels
    with installed("clip_vit_b32"), pytest.raises(UserError, match=r"it has no visual.*resblocks\.2\."):
        DETECTORS["clip_vit_b32"]()(images())


def test_a_tensor_of_another_shape_is_named(saved_files):
    state = {**parity.inception_tensors(), "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    save("inception_fidelity", state)
    with installed("inception_fidelity"), pytest.raises(UserError, match=r"size mismatch for fc\.weight"):
        DETECTORS["inception_pool3"]()(images())


def test_expected_keys_allow_what_is_not_read():
    expect_keys({"a", "text.b", "c"}, {"a"}, "net", unused=("text.", "c"))
    with pytest.raises(ValueError, match=r"it also has text\.b; expected is net"):
        expect_keys({"a", "text.b"}, {"a"}, "net", unused=("text",))


def test_fid_inception_score_and_sfid_of_a_batch_run_the_network_once():
    parity.fidelity_file()
    names = ("inception_pool3", "inception_logits", "inception_spatial")
    with installed("inception_fidelity"), mock.patch.object(Inception, "forward", count(Inception.forward)):
        get_detector("inception_pool3").forget()
        first = [get_detector(name)(images()) for name in names]
        assert Inception.forward.calls == 1
        again = [get_detector(name)(images().flip(0)) for name in names]
        assert Inception.forward.calls == 2
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a.flip(0), b, rtol=1e-4, atol=1e-5)


def count(method):
    """The method, with the number of its calls in `calls`."""

    def counted(*args):
        counted.calls += 1
        return method(*args)

    counted.calls = 0
    return counted


def test_a_buffer_that_is_filled_again_is_not_taken_for_what_was_in_it():
    calls = []

    class Sums(torch.nn.Module):
        def forward(self, x):
            calls.append(len(x))
            return x.sum(dim=(1, 2, 3))[:, None], x[:, 0, 0, :3]

    class Toy(InceptionPool3):
        net = Sums()

        def prepare(self, images):
            return images.float()

    toy, buffer = Toy(), images()
    before = toy.outputs(buffer)[0].clone()
    assert torch.equal(toy.outputs(buffer.clone())[0], before) and calls == [2]
    buffer[0] += 1
    assert not torch.equal(toy.outputs(buffer)[0], before) and calls == [2, 2]
    for i in range(REMEMBERED_PARTS + 5):
        toy.outputs(torch.full((1, 1, 2, 2), i, dtype=torch.uint8))
    assert len(toy._recent) == REMEMBERED_PARTS


def test_a_detector_reads_its_file_again_when_another_is_put_in_its_place(saved_files):
    detector = DETECTORS["lpips_squeeze"]()
    x = images()
    FILES["lpips_squeeze"]()
    with installed("squeezenet11_torchvision"):
        first = detector(x)
        assert detector.net is detector.net
    shapes = {name: tuple(t.shape) for name, t in squeezenet_tensors().items()}
    save("squeezenet11_torchvision", random_tensors(shapes, seed=5))
    with installed("squeezenet11_torchvision"):
        assert not torch.allclose(detector(x), first)


def squeezenet_tensors():
    return torch.load(FILES["lpips_squeeze"](), weights_only=True)


def test_smoke_mode_draws_weights_and_says_so_in_the_card():
    detector = DETECTORS["lpips_squeeze"]()
    with weight_store.random_weights(3):
        features = detector(images())
        assert "random" in detector.describe()["weights_sha256"]
    assert torch.isfinite(features).all() and features.std() > 0
    with pytest.raises(MissingWeights):
        detector(images())


@pytest.mark.parametrize("name", ["lpips_alex", "lpips_vgg", "lpips_squeeze"])
def test_lpips_is_symmetric_zero_for_equal_images_and_bounded_below_by_the_features(name):
    weights = DETECTORS[name].weights[0]
    FILES[name]()
    a, b = (read_pictures(files)[:2] for files in pictures())
    with installed(weights):
        detector = get_detector(name)
        floats = [x.float() / 127.5 - 1 for x in (a, b)]
        lpips = detector.distance(*floats)
        squared = (detector(a) - detector(b)).square().sum(dim=1)
        assert detector.distance(floats[0], floats[0]).tolist() == [0, 0]
        torch.testing.assert_close(detector.distance(*floats[::-1]), lpips)
    assert (squared > 0).all() and (squared <= lpips * (1 + 1e-5)).all()


def test_lpips_can_be_a_loss():
    FILES["lpips_squeeze"]()
    a, b = (read_pictures(files)[:1].float() / 127.5 - 1 for files in pictures())
    with installed("squeezenet11_torchvision"):
        detector = DETECTORS["lpips_squeeze"]()
        detector.distance(a, b)  # loads under inference_mode
        detector.differentiable_distance(a.requires_grad_(), b).sum().backward()
    assert torch.isfinite(a.grad).all() and a.grad.abs().max() > 0


def test_folded_batch_norms_change_nothing_but_rounding():
    """One convolution of the file, by torch's own convolution and batch norm in float64."""
    state = {name: tensor.double() for name, tensor in parity.inception_tensors().items()}
    own = from_fidelity(parity.inception_tensors())
    x = torch.randn(1, 192, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prefix = "Mixed_5b.branch5x5_1"
    stats = [state[f"{prefix}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    y = torch.nn.functional.conv2d(x, state[f"{prefix}.conv.weight"])
    expected = torch.nn.functional.batch_norm(y, *stats, eps=1e-3)
    found = torch.nn.functional.conv2d(x.float(), own[f"{prefix}.weight"], own[f"{prefix}.bias"])
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
