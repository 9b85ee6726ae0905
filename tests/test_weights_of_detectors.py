"""Every published detector without its weights, with damaged ones, and with another network's."""

import pytest
import torch
from weight_toys import publish, save_state, use_empty_folders

from fact_eval import cli
from fact_eval.weights.files import add_weights
from fact_metrics.base.errors import UserError
from fact_metrics.features import DETECTORS
from fact_metrics.features.detectors.lpips import LPIPSSqueeze
from fact_metrics.features.weight_files import draw_weights
from fact_metrics.features.weight_store import WEIGHTS, MissingWeights, random_weights

PUBLISHED = sorted(name for name, detector in DETECTORS.items() if detector.weights)
IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    return use_empty_folders(monkeypatch, tmp_path)


@pytest.fixture
def detector(request):
    """A detector of this test's own, so that no other one meets its weights."""
    return DETECTORS[request.param]("cpu")


def test_there_are_the_published_detectors() -> None:
    assert set(PUBLISHED) >= {
        *("inception_pool3", "inception_logits", "inception_spatial", "clean_inception", "vgg16_fc2"),
        *("lpips_alex", "lpips_vgg", "lpips_squeeze", "clip_vit_b32", "clip_vit_l14_336"),
        *("dinov2_s", "dinov2_b", "dinov2_l"),
    }


@pytest.mark.parametrize("detector", PUBLISHED, indirect=True)
def test_offline_a_detector_says_which_file_it_lacks_and_where_to_put_it(detector, folder) -> None:
    """One line with file, size, hash, address, destination and command; nothing is fetched by itself."""
    assert detector.describe()["weights_sha256"] == WEIGHTS[detector.weights[0]].sha256
    with pytest.raises(MissingWeights) as error:
        detector(IMAGES)
    file, text = WEIGHTS[detector.weights[0]], str(error.value)
    for part in (file.filename, file.size, file.sha256, file.url, str(folder), f"weights fetch {file.name}"):
        assert part in text
    assert "\n" not in text and not folder.exists()


@pytest.mark.parametrize("detector", PUBLISHED, indirect=True)
def test_the_weights_of_another_network_are_refused_by_name(detector, tmp_path) -> None:
    other = save_state(tmp_path / "other.pth")
    name = detector.weights[0]
    add_weights(other, name, trust=True)
    with pytest.raises(UserError, match=f"weights of another network than {name}") as error:
        detector(IMAGES)
    assert f"{name}-trusted-" in str(error.value) and "\n" not in str(error.value)


@pytest.fixture
def squeezenet(monkeypatch, tmp_path):
    """The published file of SqueezeNet, drawn here."""
    net = draw_weights(torch.nn.ModuleList(LPIPSSqueeze.stages()), seed=3)
    state = {f"features.{key.split('.', 1)[1]}": value for key, value in net.state_dict().items()}
    path = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    torch.save(state, path)
    publish(monkeypatch, "squeezenet11_torchvision", path)
    return path


def distance(detector):
    a, b = IMAGES.float() / 127.5 - 1, IMAGES.flip(0).float() / 127.5 - 1
    return detector.distance(a, b)


def test_the_right_file_works_wherever_torchvision_left_it(squeezenet, tmp_path) -> None:
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    squeezenet.rename(checkpoints / squeezenet.name)
    found = distance(LPIPSSqueeze())
    assert torch.isfinite(found).all() and (found > 0).all()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "an error page"])
def test_a_damaged_file_never_reaches_the_network(squeezenet, folder, damage) -> None:
    content = bytearray(squeezenet.read_bytes())
    if damage == "flipped":
        content[-len(content) // 3] ^= 4
    folder.mkdir()
    damaged = {"truncated": content[:-1000], "flipped": content, "empty": b"", "an error page": b"<html>"}
    (folder / squeezenet.name).write_bytes(damaged[damage])
    with pytest.raises(MissingWeights, match="is not it: sha256"):
        distance(LPIPSSqueeze())
    add_weights(squeezenet)
    assert torch.isfinite(distance(LPIPSSqueeze())).all()


def test_a_file_that_changes_under_a_loaded_detector_is_loaded_again(squeezenet, tmp_path) -> None:
    add_weights(squeezenet)
    detector = LPIPSSqueeze()
    before = distance(detector)
    with random_weights():
        assert not torch.equal(distance(detector), before)
    assert torch.equal(distance(detector), before)


def test_reconstruct_offers_lpips_and_says_what_it_lacks_before_it_reads_a_picture(tmp_path, capfd) -> None:
    code = cli._run(["reconstruct", str(tmp_path / "a"), str(tmp_path / "b"), "--measures", "lpips_squeeze"])
    out, err = capfd.readouterr()
    assert code == 1 and out == "" and len(err.splitlines()) == 1
    assert "weights squeezenet11_torchvision are not installed" in err
