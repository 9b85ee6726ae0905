"""Weight files: found only when they are right, read only in safe formats, one message where they are not."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from weight_toys import ToyNet, publish, save_state, sha256, toy_state, use_empty_folders

from fact_eval.cli import main
from fact_eval.weights.files import add_weights, check_weights
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.features import weight_store
from fact_metrics.features.weight_files import load_weights, read_weights
from fact_metrics.features.weight_store import (
    WEIGHTS,
    MissingWeights,
    file_sha256,
    find_weights,
    fingerprint_sha256,
    look_up,
    mentions_random_weights,
    random_weights,
    read_manifest,
    weights_sha256,
)


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    return use_empty_folders(monkeypatch, tmp_path)


@pytest.fixture
def toy(monkeypatch, folder, tmp_path) -> Path:
    """The published file of the weights `toy`, outside every folder that is looked in."""
    path = save_state(tmp_path / "downloads" / "toy-1.pth")
    publish(monkeypatch, "toy", path)
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    return done.value.code


def test_published_hashes_are_whole_and_begin_with_the_digits_in_the_file_names() -> None:
    for name, file in WEIGHTS.items():
        assert len(file.sha256) == 64 and set(file.sha256) <= set("0123456789abcdef"), name
        assert file.url.startswith("https://") and file.url.endswith(file.filename), name
        if file.sha256_prefix:
            assert file.sha256.startswith(file.sha256_prefix) and file.sha256_prefix in file.filename, name
    for name in ("clip_vit_b32", "clip_vit_l14_336"):  # OpenAI puts the whole hash into the address
        assert f"/{WEIGHTS[name].sha256}/" in WEIGHTS[name].url


def test_published_hashes_and_addresses_are_those_of_the_packages_that_download_them() -> None:
    from cleanfid.downloads_helper import inception_url
    from cleanfid.inception_pytorch import FID_WEIGHTS_URL
    from torch_fidelity import feature_extractor_clip as clip
    from torch_fidelity import feature_extractor_inceptionv3 as inception
    from torchvision.models import AlexNet_Weights, SqueezeNet1_1_Weights, VGG16_Weights

    assert WEIGHTS["inception_fidelity"].url == inception.URL_INCEPTION_V3
    assert WEIGHTS["inception_torchscript"].url == inception_url
    assert WEIGHTS["inception_pytorch_fid"].url == FID_WEIGHTS_URL
    assert WEIGHTS["vgg16_torchvision"].url == VGG16_Weights.IMAGENET1K_V1.url
    assert WEIGHTS["alexnet_torchvision"].url == AlexNet_Weights.IMAGENET1K_V1.url
    assert WEIGHTS["squeezenet11_torchvision"].url == SqueezeNet1_1_Weights.IMAGENET1K_V1.url
    assert WEIGHTS["clip_vit_b32"].url == clip.MODEL_URLS["clip-vit-b-32"]
    assert WEIGHTS["clip_vit_l14_336"].url == clip.MODEL_URLS["clip-vit-l-14-336px"]
    for name, weights in (
        ("vgg16_torchvision", VGG16_Weights),
        ("alexnet_torchvision", AlexNet_Weights),
        ("squeezenet11_torchvision", SqueezeNet1_1_Weights),
    ):
        stated = weights.IMAGENET1K_V1.meta["_file_size"]  # MiB, three decimals
        assert abs(WEIGHTS[name].bytes / 2**20 - stated) < 1e-3, name


def test_missing_weights_are_one_line_with_everything_needed_to_get_them(toy, folder) -> None:
    with pytest.raises(MissingWeights) as error:
        find_weights("toy")
    text, file = str(error.value), WEIGHTS["toy"]
    for part in (file.filename, file.size, file.sha256, file.url, str(folder), "fact-eval weights fetch toy"):
        assert part in text
    assert "\n" not in text
    assert weights_sha256("toy") is None
    assert fingerprint_sha256("toy") == file.sha256


def test_an_unknown_name_is_refused_with_the_closest_ones() -> None:
    with pytest.raises(UsageError, match="did you mean vgg16_torchvision"):
        find_weights("vgg16_torchvison")


@pytest.mark.parametrize("place", ["own", "shared", "torch"])
def test_the_right_file_is_found_in_every_folder(place, toy, folder, tmp_path, monkeypatch) -> None:
    shared = tmp_path / "second"
    monkeypatch.setenv(weight_store.SHARED, os.pathsep.join([str(tmp_path / "first"), str(shared)]))
    target = {"own": folder, "shared": shared, "torch": tmp_path / "torch" / "hub" / "checkpoints"}[place]
    target.mkdir(parents=True)
    shutil.copy(toy, target)
    assert find_weights("toy") == target / toy.name
    assert weights_sha256("toy") == WEIGHTS["toy"].sha256
    assert read_weights("toy").keys() == toy_state().keys()


def test_a_file_under_its_other_published_name_is_found(monkeypatch, toy, folder) -> None:
    publish(monkeypatch, "twin", toy, filename="another-name.pth")
    add_weights(toy, "toy")
    assert find_weights("twin") == folder / toy.name


def test_adding_copies_the_file_and_records_its_hash(toy, folder) -> None:
    installed = add_weights(toy)
    assert installed.path == folder / toy.name and not installed.trusted
    entry = read_manifest(folder)["toy"]
    assert entry["sha256"] == sha256(toy) and entry["trusted"] is False
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == [
        "manifest.json",
        toy.name,
    ]
    state = read_weights("toy")
    assert all(torch.equal(state[key], value) for key, value in toy_state().items())


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_file_is_never_used_wherever_it_lies(damage, toy, folder, tmp_path) -> None:
    content = bytearray(toy.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    else:
        del content[len(content) // 2 if damage == "truncated" else 0 :]
    for target in (folder, tmp_path / "torch" / "hub" / "checkpoints"):
        target.mkdir(parents=True)
        (target / toy.name).write_bytes(content)
    assert weights_sha256("toy") is None
    with pytest.raises(MissingWeights, match="is not it: sha256") as error:
        read_weights("toy")
    assert str(folder / toy.name) in str(error.value)
    damaged = folder / toy.name
    with pytest.raises(UserError, match=r"is not toy-1.pth: .* expected"):
        add_weights(damaged)
    add_weights(toy)  # the right one takes its place
    assert find_weights("toy") == damaged


def test_damage_after_adding_is_seen_even_where_size_and_time_are_kept(toy, folder) -> None:
    installed = add_weights(toy)
    stat, content = installed.path.stat(), bytearray(installed.path.read_bytes())
    content[-200] ^= 1
    installed.path.write_bytes(content)
    os.utime(installed.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(UserError, match="is damaged: sha256"):
        read_weights("toy")
    assert run("weights", "check") == 1


def test_damage_after_adding_that_changes_the_file_makes_it_missing(toy, folder) -> None:
    installed = add_weights(toy)
    installed.path.write_bytes(installed.path.read_bytes()[:-10])
    with pytest.raises(MissingWeights, match="is not it"):
        find_weights("toy")
    add_weights(toy)
    assert weights_sha256("toy") == sha256(toy)


def test_a_known_file_under_another_name_is_refused_and_called_what_it_is(monkeypatch, toy, tmp_path) -> None:
    other = save_state(tmp_path / "downloads" / "other-1.pth", seed=1)
    publish(monkeypatch, "other", other)
    with pytest.raises(UserError, match=r"is other \(other-1.pth\), not toy"):
        add_weights(other, "toy", trust=True)


def test_an_unknown_file_needs_a_name_and_trust(toy, tmp_path) -> None:
    unknown = save_state(tmp_path / "mine.pth", seed=2)
    with pytest.raises(UserError, match="is not a known weight file"):
        add_weights(unknown)
    with pytest.raises(UserError, match="--as toy --trust"):
        add_weights(unknown, "toy")
    with pytest.raises(UsageError, match="is not a file"):
        add_weights(tmp_path / "nowhere.pth")


def test_a_trusted_file_is_used_under_its_own_hash_and_recorded(toy, folder, tmp_path) -> None:
    add_weights(toy)
    mine = save_state(tmp_path / "mine.pth", seed=2)
    installed = add_weights(mine, "toy", trust=True)
    assert installed.trusted and installed.path.name == f"toy-trusted-{sha256(mine)[:8]}.pth"
    assert read_manifest(folder)["toy"]["trusted"] is True
    assert weights_sha256("toy") == sha256(mine) != WEIGHTS["toy"].sha256
    assert torch.equal(read_weights("toy")["head.weight"], toy_state(2)["head.weight"])
    add_weights(toy)  # back to the published one
    assert weights_sha256("toy") == WEIGHTS["toy"].sha256


def test_a_trusted_file_must_open_as_weights(toy, folder, tmp_path) -> None:
    text = tmp_path / "page.pth"
    text.write_text("<html>please log in</html>")
    with pytest.raises(UserError, match="not a state_dict weight file"):
        add_weights(text, "toy", trust=True)
    module = tmp_path / "module.pth"
    torch.save(ToyNet(), module)  # a pickled module: its code would run
    with pytest.raises(UserError, match="not a state_dict weight file"):
        add_weights(module, "toy", trust=True)
    assert read_manifest(folder) == {}


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_safetensors_and_torchscript_are_read_when_trusted(toy, tmp_path) -> None:
    tensors = tmp_path / "toy.safetensors"
    save_file(toy_state(3), tensors)
    add_weights(tensors, "toy", trust=True)
    assert torch.equal(read_weights("toy")["head.weight"], toy_state(3)["head.weight"])
    net = ToyNet().eval()
    net.load_state_dict(toy_state(4))
    script = tmp_path / "toy.pt"
    torch.jit.trace(net, torch.zeros(1, 3, 8, 8)).save(str(script))
    with pytest.raises(UserError, match="--trust"):
        add_weights(script, "toy")
    add_weights(script, "toy", trust=True)
    assert read_weights("toy").keys() == net.state_dict().keys()
    filled = load_weights(ToyNet(), "toy").eval()
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filled(x), net(x))


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_an_unknown_torchscript_is_not_opened_because_of_its_file_name(toy, folder, monkeypatch) -> None:
    net = torch.jit.trace(ToyNet().eval(), torch.zeros(1, 3, 8, 8))
    folder.mkdir()
    publish(monkeypatch, "script", toy, filename="script.pt", format="torchscript")
    net.save(str(folder / "script.pt"))
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("opened"))
    with pytest.raises(MissingWeights):
        read_weights("script")


def test_weights_of_another_network_are_named_as_such(toy, tmp_path) -> None:
    add_weights(save_state(tmp_path / "wide.pth", width=6), "toy", trust=True)
    with pytest.raises(UserError, match=r"weights of another network than toy .*size mismatch"):
        load_weights(ToyNet(), "toy")
    with pytest.raises(UserError, match="another network"):
        load_weights(ToyNet(6), "toy", convert=lambda state: {"x": state["no such key"]})


def test_loading_fills_the_network_through_its_conversion(toy) -> None:
    add_weights(toy)
    net = load_weights(ToyNet(), "toy", convert=lambda state: {k: v * 2 for k, v in state.items()})
    assert torch.equal(net.head.weight, toy_state()["head.weight"] * 2)


def test_random_weights_are_seeded_marked_and_end_with_the_mode(toy) -> None:
    add_weights(toy)
    with random_weights():
        first, again = load_weights(ToyNet(), "toy"), load_weights(ToyNet(), "toy")
        label = weights_sha256("toy")
        with random_weights(1):
            other = load_weights(ToyNet(), "toy")
            assert weights_sha256("toy") != label
    assert torch.equal(first.conv.weight, again.conv.weight)
    assert not torch.equal(first.conv.weight, other.conv.weight)
    assert not torch.equal(first.conv.weight, toy_state()["conv.weight"])
    assert first.conv.bias.eq(0).all() and first.norm.weight.eq(1).all()
    assert mentions_random_weights({"detectors": {"a": {"weights_sha256": [label]}}})
    assert not mentions_random_weights({"detectors": {"a": {"weights_sha256": weights_sha256("toy")}}})
    assert weights_sha256("toy") == WEIGHTS["toy"].sha256


def test_a_stray_smoke_mode_variable_is_named(toy, monkeypatch) -> None:
    monkeypatch.setenv(weight_store.RANDOM, "yes")
    with pytest.raises(UsageError, match="FACT_RANDOM_WEIGHTS='yes' is not a seed"):
        weights_sha256("toy")


def test_random_weights_need_no_file_and_no_initial_values(toy) -> None:
    with torch.device("meta"):
        net = ToyNet()
    with random_weights():
        net = load_weights(net.to_empty(device="cpu"), "toy").eval()
    assert torch.isfinite(net(torch.rand(2, 3, 8, 8))).all()
    assert net.norm.running_var.eq(1).all() and net.norm.running_mean.eq(0).all()


def test_a_damaged_manifest_is_named_with_the_way_out(toy, folder) -> None:
    add_weights(toy)
    entry = read_manifest(folder)["toy"]
    outside = {"schema": 1, "files": {"toy": {**entry, "filename": "../toy-1.pth"}}}
    partly = {"schema": 1, "files": {"toy": {"filename": "toy-1.pth"}}}
    broken = ['{"schema": 1, "files"', "[]", '{"schema": 1, "files": [1]}']
    for text in [*broken, json.dumps(outside), json.dumps(partly)]:
        (folder / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=r"manifest.json cannot be read .*weights check"):
            find_weights("toy")
    (folder / "manifest.json").unlink()
    assert find_weights("toy") == folder / toy.name
    assert [file.problem for file in check_weights()] == [None]
    assert read_manifest(folder)["toy"]["from"] == "found there"


def test_the_own_folder_comes_before_a_trusted_file_in_a_shared_one(
    toy, folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv(weight_store.FOLDER, str(tmp_path / "shared"))
    add_weights(save_state(tmp_path / "mine.pth", seed=2), "toy", trust=True)
    monkeypatch.setenv(weight_store.FOLDER, str(folder))
    monkeypatch.setenv(weight_store.SHARED, str(tmp_path / "shared"))
    assert look_up("toy")[0].trusted
    folder.mkdir()
    shutil.copy(toy, folder)
    assert find_weights("toy") == folder / toy.name


def test_a_shared_folder_is_read_and_never_written(toy, folder, tmp_path, monkeypatch) -> None:
    shared = tmp_path / "shared"
    monkeypatch.setenv(weight_store.FOLDER, str(shared))
    add_weights(toy)
    before = {path.name: path.stat().st_mtime_ns for path in shared.iterdir()}
    monkeypatch.setenv(weight_store.FOLDER, str(folder))
    monkeypatch.setenv(weight_store.SHARED, str(shared))
    assert find_weights("toy") == shared / toy.name
    assert [file.problem for file in check_weights()] == [None]
    assert {path.name: path.stat().st_mtime_ns for path in shared.iterdir()} == before
    assert not folder.exists()


def test_a_hash_is_taken_again_when_the_file_changes(tmp_path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = file_sha256(path)
    path.write_bytes(b"three")
    assert file_sha256(path) != first
    assert file_sha256(tmp_path / "none") is None


def test_commands_list_where_add_and_check(toy, folder, capsys) -> None:
    assert run("weights", "where", "toy") == 1
    assert "fact-eval weights fetch toy" in capsys.readouterr().err
    assert run("weights", "add", str(toy)) == 0
    capsys.readouterr()
    assert run("weights", "where", "toy") == 0
    assert capsys.readouterr().out.strip() == str(folder / toy.name)
    assert run("weights", "where") == 0
    assert capsys.readouterr().out.strip() == str(folder)
    assert run("weights", "list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["toy"]["installed"] == "yes" and rows["vgg16_torchvision"]["installed"] == "no"
    assert run("weights", "check") == 0
    assert "verified (toy)" in capsys.readouterr().out
    assert run("weights", "add", str(folder / toy.name)) == 0  # already in its place
    assert look_up("toy")[0].path == folder / toy.name


def test_an_unwritable_folder_is_named(toy, monkeypatch, tmp_path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv(weight_store.FOLDER, str(blocked / "weights"))
    with pytest.raises(UserError, match="cannot be written: Not a directory; set FACT_WEIGHTS"):
        add_weights(toy)
