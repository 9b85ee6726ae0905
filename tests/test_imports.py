"""Foreign checkpoints become our snapshots: equal networks, their origin, refusals that name what differs.

The files are written by tests/foreign_checkpoints.py. Agreement with the reference programs is measured by
`python -m benchmarks imports`; tests/golden has outputs of both references.
"""

import hashlib
import json
import zlib
from pathlib import Path

import pytest
import torch
from foreign_checkpoints import rosinality, stylegan2_ada, toy_networks, write_pickle

from fact_metrics.base.errors import UsageError, UserError
from fact_train.imports import load_checkpoint, read_foreign
from fact_train.imports.export import to_stylegan2_ada
from fact_train.imports.imported import Unrepresentable, width_fields
from fact_train.imports.state_dicts import find_state
from fact_train.imports.stylegan2_ada import reference_names
from fact_train.snapshot import load_snapshot, write_snapshot

GOLDEN = Path(__file__).parent / "golden"
CASES = {
    "skip": dict(),
    "resnet, fp16": dict(g_arch="resnet", fp16_layers=2, conv_clamp=256.0),
    "orig, labels": dict(g_arch="orig", d_arch="orig", classes=3),
    "no noise, gray": dict(noise="off", channels=1, d_arch="skip"),
    "deep mapping": dict(map_depth=8, mapping_lr_mult=0.1),
    "wide D": dict(d_channel_mult=2.0, d_channel_max=16),
}


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("case", CASES)
def test_a_pickle_of_stylegan2_ada_becomes_the_same_networks(tmp_path, case, protocol) -> None:
    cfg, G, D = toy_networks(**CASES[case])
    loaded = load_checkpoint(write_pickle(tmp_path / "x.bin", stylegan2_ada(cfg, G, D), protocol=protocol))
    for ours, theirs in ((loaded.G, G), (loaded.D, D)):
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        assert all(torch.equal(v, ours.state_dict()[k]) for k, v in theirs.state_dict().items())
    c = torch.eye(3)[:2] if G.c_dim else None
    images = [net(torch.ones(2, 8), c, 0.7, noise_mode="const") for net in (loaded.G, G)]
    assert torch.equal(*images) and torch.equal(loaded.D(images[0], c), D(images[0], c))
    differing = {k for k, v in loaded.config.items() if v != getattr(cfg, k)}
    assert differing <= {"data", "batch"}
    assert loaded.config["fp16_layers"] == cfg.fp16_layers and loaded.origin["notes"] == []


VECTORS = dict(injection="vectors", style_vectors=8, fused_modconv="always", latent_norm="joint")
FORK = {
    "vectors": dict(VECTORS, affine_lr_mult=0.01),
    "plain z and ToRGB": dict(VECTORS, latent_norm="none", latent_div_sqrt=True, torgb_style="none"),
    "one vector": dict(latent_norm="none", torgb_style="none", g_arch="resnet"),
}


@pytest.mark.parametrize("case", FORK)
def test_a_pickle_of_the_style_vector_fork_becomes_the_same_network(tmp_path, case) -> None:
    cfg, G, D = toy_networks(**FORK[case])
    loaded = load_checkpoint(write_pickle(tmp_path / "x.pkl", stylegan2_ada(cfg, G, D, fork=True)))
    assert {k: v for k, v in loaded.config.items() if v != getattr(cfg, k)}.keys() <= {"data", "batch"}
    assert loaded.origin["notes"] == ["it is of yohan-pg's style-vector fork"]
    assert loaded.G.state_dict().keys() == G.state_dict().keys() and loaded.D is not None
    z = torch.randn(2, *G.z_shape, generator=torch.Generator().manual_seed(0))
    images = [net(z, None, 0.7, noise_mode="const") for net in (loaded.G, G)]
    assert torch.equal(*images)
    longer = G(2 * z, None, 0.7, noise_mode="const")
    assert torch.allclose(longer, images[1], atol=1e-5) == (cfg.latent_norm == "joint")
    with pytest.raises(UserError, match="StyleGAN2-ADA has no"):
        to_stylegan2_ada(loaded)


OF_FORK = {
    "early": ({"normalize_latent": None}, "of another day: its mapping has no normalize_latent"),
    "a style per layer": ({"sample_w_plus": True}, "sample_w_plus: its mapping repeats the latents"),
    "mixed": ({"use_adaconv": False}, "use_adaconv differs between layers"),
    "no count": ({"num_adaconv_vectors": "8"}, "without num_adaconv_vectors"),
    "labels": ({"c_dim": 3}, "labels beside style vectors"),
}


@pytest.mark.parametrize("case", OF_FORK)
def test_a_fork_without_counterpart_is_refused_by_name(tmp_path, case) -> None:
    changes, message = OF_FORK[case]
    cfg, G, _ = toy_networks(**VECTORS)
    content = stylegan2_ada(cfg, G, None, fork=True, mapping=changes)
    mapping = content["G_ema"].state["_modules"]["mapping"].state
    for name in [name for name, value in changes.items() if value is None]:
        del mapping[name]
    with pytest.raises(UserError, match=message):
        load_checkpoint(write_pickle(tmp_path / "x.pkl", content))


def test_a_checkpoint_of_rosinality_becomes_the_same_networks(tmp_path) -> None:
    _, G, D = toy_networks(map_depth=3)
    content = rosinality(G, D) | {"latent_avg": G.mapping.w_avg.clone()}
    for zipped in (True, False):
        path = tmp_path / "x.pt"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        loaded = load_checkpoint(path)
        for ours, theirs in ((loaded.G, G), (loaded.D, D)):
            assert ours.state_dict().keys() == theirs.state_dict().keys()
            assert all(torch.equal(v, ours.state_dict()[k]) for k, v in theirs.state_dict().items())
    assert loaded.config["map_depth"] == 3 and loaded.kimg == 0


def wave(*shape: int, step: float, shift: float) -> torch.Tensor:
    """Values of unit variance in closed form, as in tests/test_networks.py."""
    at = torch.arange(torch.Size(shape).numel(), dtype=torch.float64) * step + shift
    return (torch.sin(at) * 2**0.5).reshape(shape).float()


def test_outputs_equal_those_of_rosinality_on_the_same_weights(tmp_path) -> None:
    """Golden images and scores of its own code; float32 sums in another order: 1e-4 of the largest."""
    golden = json.loads((GOLDEN / "rosinality.json").read_text())
    state = {}
    for name, shape in golden["shapes"].items():
        net, _, key = name.partition(".")
        value = wave(*shape, step=1.7, shift=zlib.crc32(name.encode()) % 1000)
        value = value * (100.0 if key.startswith("style") and key.endswith("weight") else 1.0)
        value = value * (0.3 if key.endswith(("bias", "noise.weight")) else 1.0) + ("modulation.bias" in key)
        state.setdefault(net, {})[key] = value
    torch.save(state, tmp_path / "x.pt")
    loaded = load_checkpoint(tmp_path / "x.pt")
    z = wave(4, golden["latent"], step=0.9, shift=1.0)
    with torch.no_grad():
        images = loaded.G(z, noise_mode="const")
        found = {"images": images[:, :, ::7, ::7].flatten(), "scores": loaded.D(images).flatten()}
    for name, value in found.items():
        expected = torch.tensor(golden[name])
        assert expected.std() > 0.01
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_what_a_state_dict_does_not_say_is_noted(tmp_path) -> None:
    _, G, D = toy_networks()
    state = {f"module.{k}": v for k, v in rosinality(G, D)["g_ema"].items() if "noises" not in k}
    torch.save({"state_dict": {"g_ema": state}}, tmp_path / "x.pt")
    loaded = load_checkpoint(tmp_path / "x.pt")
    notes = " ".join(loaded.origin["notes"])
    for part in (
        "lr_mlp",
        "w_avg is the mean",
        "noise constants are drawn",
        "D is left out: the file has none",
    ):
        assert part in notes
    assert loaded.D is None
    again = load_checkpoint(tmp_path / "x.pt")
    assert torch.equal(loaded.G.synthesis.b8.conv0.noise_const, again.G.synthesis.b8.conv0.noise_const)
    z = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(1))
    mean, spread = G.mapping(z)[:, 0].mean(0), G.mapping(z)[:, 0].std(0)
    assert ((loaded.G.mapping.w_avg - mean).abs() < 5 * spread / 4096**0.5).all()  # 5 standard errors


def test_the_origin_holds_the_hashes_of_the_file_and_of_every_tensor(tmp_path) -> None:
    cfg, G, D = toy_networks()
    path = write_pickle(tmp_path / "faces.pkl", stylegan2_ada(cfg, G, D))
    meta, tensors = read_foreign(path)
    write_snapshot(tmp_path / "x.safetensors", meta, tensors)
    loaded = load_snapshot(tmp_path / "x.safetensors")
    origin = loaded.origin
    assert origin["file"] == "faces.pkl" and origin["format"] == "stylegan2-ada-pytorch"
    assert origin["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    names = {f"G_ema.{k}" for k in G.state_dict()} | {f"D.{k}" for k in D.state_dict()}
    assert origin["tensors"].keys() == names
    for name, value in G.state_dict().items():
        digest = hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
        assert origin["tensors"][f"G_ema.{name}"] == digest
    assert torch.equal(
        loaded.G(torch.ones(1, 8), noise_mode="const"), G(torch.ones(1, 8), noise_mode="const")
    )


REFUSED = {
    "activation": (
        {"synthesis.b8.conv0": {"activation": "relu"}},
        "conv0 .*activation 'relu'; here it is lrelu",
    ),
    "class": ({"synthesis.b8": {"class_name": "Attention"}}, "b8 is a Attention, which has no counterpart"),
    "alias-free": ({"synthesis": {"class_name": "SynthesisInput"}}, "an alias-free layer of StyleGAN3"),
    "filter": (
        {"synthesis.b8.conv0": {"_buffers": {"resample_filter": torch.ones(12, 12)}}},
        "another resampling filter",
    ),
    "clamps": ({"synthesis.b8.conv0": {"conv_clamp": 3.0}}, "conv_clamp differs between layers"),
    "no clamp": ({"synthesis.b8.conv0": {"conv_clamp": "x"}}, "conv_clamp differs between layers"),
    "depth": ({"mapping": {"num_layers": 3}}, "no module mapping.fc2"),
    "a text for a number": ({"mapping": {"z_dim": "8"}}, "without z_dim"),
    "other latents": ({"mapping": {"z_dim": 9}}, "has shape"),
    "size": ({"synthesis": {"img_resolution": 12}}, "12 px"),
    "huge": ({"synthesis": {"img_resolution": 2**40}}, "px; here a side is a power of two"),
    "labels": ({"mapping": {"c_dim": 4}}, "differ in G_ema.mapping.embed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_without_counterpart_is_refused_by_name(tmp_path, case) -> None:
    changes, message = REFUSED[case]
    cfg, G, D = toy_networks()
    path = write_pickle(tmp_path / "x.pkl", stylegan2_ada(cfg, G, D, **changes))
    with pytest.raises(UserError, match=message) as error:
        load_checkpoint(path)
    assert str(error.value).count("x.pkl") == 1 and "\n" not in str(error.value)


LEFT_OUT = {
    "labels": (dict(classes=3), {"mapping": {"num_layers": 4}}, "another mapping of labels"),
    "std": (dict(), {"b4.mbstd": {"num_channels": 2}}, "minibatch standard deviation"),
    "batch": (dict(), {"b4.mbstd": {"group_size": None}}, "over the whole batch"),
    "clamps": (dict(), {"b16.conv0": {"conv_clamp": 5}}, "conv_clamp differs"),
    "clamp": (
        dict(),
        {
            name: {"conv_clamp": 5}
            for name in ("b16.fromrgb", "b16.conv0", "b16.conv1", "b8.conv0", "b8.conv1", "b4.conv")
        },
        "conv_clamp 5, that of G is None",
    ),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_a_discriminator_without_counterpart_is_left_out_with_a_note(tmp_path, case) -> None:
    fields, changes, message = LEFT_OUT[case]
    cfg, G, D = toy_networks(**fields)
    content = stylegan2_ada(cfg, G, None) | {"D": stylegan2_ada(cfg, G, D, **changes)["D"]}
    loaded = load_checkpoint(write_pickle(tmp_path / "x.pkl", content))
    assert loaded.D is None and message in loaded.origin["notes"][0]


def test_a_state_dict_of_another_network_is_refused_by_name(tmp_path) -> None:
    _, G, D = toy_networks()
    content = rosinality(G, D)
    content["g_ema"]["to_rgbs.0.iwt.ll"] = torch.ones(2, 2)
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"to_rgbs\.0\.iwt\.ll has no counterpart"):
        load_checkpoint(tmp_path / "x.pt")
    torch.save(
        {"GAN": {"GE.blocks.0.conv1.weight": torch.ones(2), "SE.net.0.weight": torch.ones(2)}},
        tmp_path / "y.pt",
    )
    with pytest.raises(UserError, match="interpolates bilinearly"):
        load_checkpoint(tmp_path / "y.pt")
    torch.save({"weight": torch.ones(2)}, tmp_path / "z.pt")
    with pytest.raises(UserError, match="is of no known format"):
        load_checkpoint(tmp_path / "z.pt")
    with pytest.raises(UsageError, match="does not exist"):
        load_checkpoint(tmp_path / "none.pt")


def test_the_average_is_found_under_its_names_and_wrappers() -> None:
    state = {"key": torch.ones(1), "epoch": 3}
    for name in ("g_ema", "params_ema"):
        assert find_state({name: state}, ("g_ema", "params_ema"), has="key").keys() == {"key"}
        assert find_state({"model": {name: state}}, ("g_ema", "params_ema"), has="key").keys() == {"key"}
    assert find_state({"module.key": torch.ones(1)}, (), has="key").keys() == {"key"}
    assert (
        find_state({"g_ema": state, "key": torch.zeros(1)}, ("g_ema",), has="key")["key"] == 1
    )  # the average first
    assert find_state({"g": state}, ("g_ema",), has="key") is None
    assert find_state([state], ("g_ema",), has="key") is None


def test_widths_that_halve_are_two_settings() -> None:
    assert width_fields({4: 8, 8: 8, 16: 8}) == (128, 8)
    assert width_fields({4: 8, 8: 8, 16: 4, 32: 2}) == (64, 8)
    with pytest.raises(Unrepresentable, match="3 feature maps at 8 px"):
        width_fields({4: 8, 8: 3, 16: 4})


@pytest.mark.parametrize("case", CASES)
def test_an_export_has_every_tensor_under_the_names_of_the_reference(tmp_path, case) -> None:
    """That the reference loads it strictly is checked by `python -m benchmarks imports`."""
    cfg, G, D = toy_networks(**CASES[case])
    loaded = load_checkpoint(write_pickle(tmp_path / "x.pkl", stylegan2_ada(cfg, G, D)))
    tensors, metadata = to_stylegan2_ada(loaded)
    for name, net in (("G_ema", G), ("D", D)):
        for key, value in reference_names(net.state_dict()).items():
            assert torch.equal(tensors[f"{name}.{key}"], value)
    arguments = json.loads(metadata["stylegan2-ada"])
    assert arguments["G_ema"]["synthesis_kwargs"]["num_fp16_res"] == cfg.fp16_layers
    assert arguments["G_ema"]["c_dim"] == arguments["D"]["c_dim"] == CASES[case].get("classes", 0)


def test_what_stylegan2_ada_cannot_represent_is_not_exported(tmp_path) -> None:
    _, G, D = toy_networks()
    torch.save(rosinality(G, D), tmp_path / "x.pt")
    loaded = load_checkpoint(tmp_path / "x.pt")
    loaded.config["torgb_style"] = "none"
    with pytest.raises(UserError, match="StyleGAN2-ADA has no --torgb-style none"):
        to_stylegan2_ada(loaded)
