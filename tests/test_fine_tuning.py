"""--init, --init-partial, --freeze-d, --freeze-mapping: what starts where, never moves, is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from foreign_checkpoints import stylegan2_ada, toy_networks, write_pickle
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from fact_eval.jobs.plan import describe_training
from fact_eval.jobs.runs import read_run
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.file_hashes import file_sha256
from fact_train import run_folder
from fact_train.cli import app
from fact_train.data import open_dataset
from fact_train.networks.discriminator import D_ARCHITECTURES, Discriminator
from fact_train.settings.config import TrainConfig
from fact_train.snapshot import save_without_discriminator
from fact_train.training.checkpoint import list_checkpoints, read_checkpoint
from fact_train.training.initial import read_initial
from fact_train.training.loop import train
from fact_train.training.trainer import Trainer

CPU = torch.device("cpu")


def run(cfg: TrainConfig, outdir: Path, **changes):
    return train(dataclasses.replace(cfg, **changes), outdir, preset="tiny", label="tiny")


def started(cfg: TrainConfig, **changes):
    """A model that has started from --init, and what it read."""
    cfg = dataclasses.replace(cfg, **changes)
    dataset = open_dataset(cfg.data, resolution=cfg.resolution, channels=cfg.channels)
    trainer = Trainer(cfg, dataset, CPU)
    fresh = {name: clone(net) for name, net in nets_of(trainer).items()}
    initial = read_initial(cfg, trainer.model)
    initial.load_into(trainer.model)
    return trainer, initial, fresh


def nets_of(trainer: Trainer) -> dict[str, torch.nn.Module]:
    return {**trainer.model.networks, **trainer.model.snapshot_networks}


def clone(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def equal_tensors(a, b) -> set[str]:
    return {key for key in a if key in b and torch.equal(a[key], b[key])}


def network(tensors, name: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}


@pytest.fixture(scope="module")
def source(tiny_images, tmp_path_factory) -> Path:
    """Snapshot and training state of a short run."""
    cfg = TrainConfig(
        data=str(tiny_images), z_dim=8, w_dim=8, map_depth=2, channel_base=64, channel_max=8, batch=8,
        ema_kimg=0.05, kimg=0.08, device="cpu", threads=1,
    )  # fmt: skip
    return run(cfg, tmp_path_factory.mktemp("source") / "r").snapshot


def test_a_run_starts_where_the_snapshot_ends(tiny_config: TrainConfig, source: Path, tmp_path: Path) -> None:
    begun = run(tiny_config, tmp_path / "r", init=str(source), seed=5, kimg=0)
    saved, made = load_file(source), load_file(begun.snapshot)
    assert equal_tensors(saved, made) == set(saved) == set(made)
    trainer, _, fresh = started(tiny_config, init=str(source), seed=5)
    for name in ("G", "G_ema"):
        assert equal_tensors(clone(nets_of(trainer)[name]), network(saved, "G_ema")) == set(fresh[name])
    assert "mapping.fc0.weight" not in equal_tensors(fresh["G"], network(saved, "G_ema"))
    options = run_folder.read_options(begun.outdir)
    identity = {"file": source.name, "sha256": file_sha256(source), "format": "fact-stylegan"}
    assert options["init"] == {**identity, "random": [], "unused": []}
    assert describe_training(read_run(begun.outdir), kimg=0)["init"] == options["init"]
    assert f"networks start from {source}" in (begun.outdir / "log.txt").read_text()


def test_a_training_state_also_gives_g_itself(tiny_config: TrainConfig, source: Path) -> None:
    path = list_checkpoints(source.parent)[-1]
    state = read_checkpoint(path)
    assert equal_tensors(state["G"], state["G_ema"]) != set(state["G"])
    trainer, _, _ = started(tiny_config, init=str(path), seed=5)
    for name in ("G", "G_ema", "D"):
        assert equal_tensors(clone(nets_of(trainer)[name]), state[name]) == set(state[name])


def test_fine_tuning_trains_on_from_the_file_and_resumes_bitwise_without_it(
    tiny_config: TrainConfig, source: Path, tmp_path: Path
) -> None:
    file = tmp_path / "start.safetensors"
    shutil.copy(source, file)
    frozen = dict(init=str(file), seed=5, freeze_d=1)
    straight = run(tiny_config, tmp_path / "a", **frozen)
    run(tiny_config, tmp_path / "b", **frozen, kimg=0.1)
    file.unlink()
    resumed = run(tiny_config, tmp_path / "b", **frozen)
    assert resumed.snapshot.read_bytes() == straight.snapshot.read_bytes()
    random = run(tiny_config, tmp_path / "c", seed=5)
    assert equal_tensors(load_file(random.snapshot), load_file(straight.snapshot)) == set()


def test_a_run_from_an_imported_checkpoint_starts_there_and_resumes_bitwise(tiny_config, tmp_path) -> None:
    cfg, G, D = toy_networks(channels=1, resolution=8)
    path = write_pickle(tmp_path / "ada.pkl", stylegan2_ada(cfg, G, D), protocol=4)
    widths = {name: getattr(cfg, name) for name in SHAPE}
    here = dataclasses.replace(tiny_config, **widths, init=str(path), kimg=0.16)
    trainer, initial, _ = started(here)
    assert initial.describe()["format"] == "stylegan2-ada-pytorch"
    for name, net in {"G": G, "G_ema": G, "D": D}.items():
        tensors = net.state_dict()
        assert equal_tensors(tensors, clone(nets_of(trainer)[name])) == set(tensors)
    straight = run(here, tmp_path / "a")
    run(here, tmp_path / "b", kimg=0.08)
    resumed = run(here, tmp_path / "b")
    assert resumed.snapshot.read_bytes() == straight.snapshot.read_bytes()
    saved = load_file(straight.snapshot)
    trained = {k for k, _ in G.named_parameters()}
    assert equal_tensors(G.state_dict(), network(saved, "G_ema")).isdisjoint(trained)


SHAPE = ("z_dim", "w_dim", "map_depth", "mapping_lr_mult", "channel_base", "channel_max", "d_channel_mult")
SHAPE += ("d_channel_max", "g_arch", "d_arch", "conv_clamp", "mbstd_group_size")


def test_a_run_that_stopped_before_its_first_state_needs_the_same_file(
    tiny_config: TrainConfig, source: Path, tmp_path: Path
) -> None:
    file = tmp_path / "start.safetensors"
    shutil.copy(source, file)
    begun = run(tiny_config, tmp_path / "r", init=str(file), kimg=0)
    for path in [begun.snapshot, *list_checkpoints(begun.outdir)]:
        path.unlink()
    other = run(tiny_config, tmp_path / "other", kimg=0, seed=9)
    shutil.copy(other.snapshot, file)
    with pytest.raises(run_folder.ConfigConflict, match="holds a run from another checkpoint"):
        run(tiny_config, tmp_path / "r", init=str(file), kimg=0)
    shutil.copy(source, file)
    again = run(tiny_config, tmp_path / "r", init=str(file), kimg=0)
    assert equal_tensors(load_file(source), load_file(again.snapshot)) == set(load_file(source))


@pytest.fixture
def colour(tmp_path: Path) -> str:
    """16 colour images of 8 px, labelled with three classes."""
    folder = tmp_path / "colour"
    folder.mkdir()
    gen = torch.Generator().manual_seed(1)
    for i in range(16):
        x = torch.randint(0, 256, (8, 8, 3), generator=gen, dtype=torch.uint8)
        Image.fromarray(x.numpy()).save(folder / f"{i:02d}.png")
    labels = json.dumps({"labels": [[f"{i:02d}.png", i % 3] for i in range(16)]})
    (folder / "dataset.json").write_text(labels)
    return str(folder)


def test_gray_weights_on_colour_data_are_refused_or_reinitialised(
    tiny_config: TrainConfig, source: Path, colour: str, tmp_path: Path
) -> None:
    changes = dict(init=str(source), data=colour)
    with pytest.raises(UsageError, match=r"image channels 1 there and 3 here.*--init-partial"):
        run(tiny_config, tmp_path / "r", **changes)
    assert not (tmp_path / "r").exists()
    trainer, initial, fresh = started(tiny_config, **changes, init_partial=True)
    image_side = {"D.b8.fromrgb.weight"} | {
        f"G_ema.synthesis.b{res}.torgb.{name}" for res in (4, 8) for name in ("bias", "inject.weight")
    }
    assert set(initial.random) == set(initial.unused) == image_side
    check_partial(trainer, initial, fresh, source)


def check_partial(trainer, initial, fresh, source) -> None:
    """Reinitialised tensors are those of the fresh networks; all others are those of the file."""
    saved = load_file(source)
    for name, net in nets_of(trainer).items():
        stored = {"G": "G_ema"}.get(name, name)
        random = {k.removeprefix(f"{stored}.") for k in initial.random if k.startswith(f"{stored}.")}
        tensors = clone(net)
        assert equal_tensors(tensors, network(saved, stored)) == set(tensors) - random, name
        assert random <= equal_tensors(tensors, fresh[name]), name
    assert equal_tensors(clone(trainer.model.gan.G), clone(trainer.model.gan.G_ema)) == set(fresh["G"])


def test_another_resolution_keeps_the_blocks_that_both_have(tiny_config, source: Path, tmp_path) -> None:
    changes = dict(init=str(source), resolution=16)
    with pytest.raises(UsageError, match="resolution 8 there and 16 here"):
        started(tiny_config, **changes)
    trainer, initial, fresh = started(tiny_config, **changes, init_partial=True)
    assert {key.split(".")[2] for key in initial.random if key.startswith("G_ema.")} == {"b16"}
    assert {key.split(".")[1] for key in initial.random if key.startswith("D.")} == {"b16"}
    assert [key for key in initial.unused if key.startswith("D.")] == [
        "D.b8.fromrgb.weight",
        "D.b8.fromrgb.bias",
    ]
    check_partial(trainer, initial, fresh, source)
    done = run(tiny_config, tmp_path / "r", **changes, init_partial=True, kimg=0)
    assert "random: G_ema.synthesis.b16" in (done.outdir / "log.txt").read_text()


def test_other_classes_and_widths_are_named(tiny_config, source: Path, colour: str) -> None:
    with pytest.raises(UsageError, match="classes 0 there and 2 here"):
        started(tiny_config, init=str(source), cond=True)
    with pytest.raises(
        UsageError,
        match=r"--channel-max 8 there and 4 here; tensors that differ are G_ema\.synthesis.* and \d+ more",
    ):
        started(tiny_config, init=str(source), channel_max=4)
    trainer, initial, fresh = started(tiny_config, init=str(source), cond=True, init_partial=True)
    assert {k for k in initial.random if k.startswith("G_ema.")} == {
        *("G_ema.mapping.embed.weight", "G_ema.mapping.embed.bias", "G_ema.mapping.fc0.weight")
    }
    check_partial(trainer, initial, fresh, source)


def test_a_file_without_d_or_without_anything_is_refused(tiny_config, source: Path, tmp_path) -> None:
    published = tmp_path / "published.safetensors"
    save_without_discriminator(source, published)
    with pytest.raises(UsageError, match="it holds no D"):
        started(tiny_config, init=str(published))
    _, initial, _ = started(tiny_config, init=str(published), init_partial=True)
    assert {key.split(".")[0] for key in initial.random} == {"D"}
    with pytest.raises(UsageError, match=r"--init nowhere\.pt does not exist"):
        started(tiny_config, init="nowhere.pt")
    (tmp_path / "x.safetensors").write_bytes(b"no snapshot")
    with pytest.raises(UserError, match=r"^--init .*x\.safetensors: .* truncated or damaged"):
        started(tiny_config, init=str(tmp_path / "x.safetensors"))


def test_an_encoder_starts_from_the_moving_average_too(stylex_config: TrainConfig, tmp_path: Path) -> None:
    first = run(stylex_config, tmp_path / "a", kimg=0.04)
    saved = load_file(first.snapshot)
    trainer, initial, _ = started(stylex_config, init=str(first.snapshot), seed=7)
    assert initial.random == initial.unused == ()
    for name in ("E", "E_ema"):
        tensors = clone(nets_of(trainer)[name])
        assert equal_tensors(tensors, network(saved, "E_ema")) == set(tensors)


# Frozen


@pytest.mark.parametrize(("arch", "per_block"), [("resnet", 3), ("skip", 3), ("orig", 2)])
def test_layers_are_counted_from_the_image_as_in_stylegan2_ada(arch: str, per_block: int) -> None:
    """fromrgb counts in the first block, and in each of `skip`; so does the shortcut of `resnet`."""
    assert arch in D_ARCHITECTURES
    D = Discriminator(
        c_dim=0, img_resolution=16, img_channels=1, channel_base=64, channel_max=8, architecture=arch
    )
    names = {id(module): name for name, module in D.named_modules()}
    layers = [names[id(layer)] for layer in D.layers]
    first = 0 if arch == "skip" else 1
    assert len(layers) == 2 * per_block + first
    assert layers[:3] == ["b16.fromrgb", "b16.conv0", "b16.conv1"]
    assert [name for name in layers if name.startswith("b4")] == []
    assert D.parameters_after(0) == list(D.parameters())


@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_frozen_layers_of_d_never_move_and_all_others_do(tiny_config, source: Path, frozen: int) -> None:
    trainer, _, _ = started(tiny_config, init=str(source), freeze_d=frozen)
    D = trainer.model.gan.D
    before = {name: p.detach().clone() for name, p in D.named_parameters()}
    for _ in range(5):  # R1 takes part in the first and the fifth
        trainer.step()
    still = {name for name, p in D.named_parameters() if torch.equal(p, before[name])}
    held = {id(p) for layer in D.layers[:frozen] for p in layer.parameters()}
    assert still == {name for name, p in D.named_parameters() if id(p) in held}


def test_a_frozen_mapping_stays_as_in_the_file(tiny_config, source: Path) -> None:
    dry = CliRunner().invoke(app, ["--preset", "mnist-stylegan2", "--freeze-mapping", "--dry-run"])
    assert json.loads(dry.stdout)["config"]["train_mapping"] is False
    for train_mapping in (True, False):
        trainer, _, _ = started(tiny_config, init=str(source), train_mapping=train_mapping)
        for _ in range(3):
            trainer.step()
        saved, net = network(load_file(source), "G_ema"), clone(trainer.model.gan.G)
        same = {key for key in equal_tensors(net, saved) if not key.endswith(("noise_const", "w_avg"))}
        assert same == (set() if train_mapping else {k for k in net if k.startswith("mapping.fc")})


def test_too_many_layers_and_random_frozen_ones_are_refused(tiny_config, source: Path, colour: str) -> None:
    with pytest.raises(UsageError, match="--freeze-d 5: D has 4 layers before its 4x4 block"):
        started(tiny_config, init=str(source), freeze_d=5)
    partial = dict(init=str(source), data=colour, init_partial=True)
    with pytest.raises(UsageError, match=r"does not have D\.b8\.fromrgb\.weight, .* --freeze-d"):
        started(tiny_config, **partial, freeze_d=1)
    with pytest.raises(UsageError, match=r"does not have G_ema\.mapping\.embed\.weight"):
        started(tiny_config, init=str(source), cond=True, init_partial=True, train_mapping=False)


@pytest.mark.parametrize("changes", [{"init_partial": True}, {"freeze_d": 2}])
def test_options_of_init_need_it(changes: dict) -> None:
    with pytest.raises(UsageError, match="it needs --init"):
        TrainConfig(**changes)


def test_the_configuration_hash_counts_init_only_if_it_is_given() -> None:
    # The hash of the defaults before these settings existed: published runs keep theirs.
    assert TrainConfig().sha256() == PLAIN
    assert len({TrainConfig(**c).sha256() for c in ({}, {"init": "a"}, {"init": "a", "freeze_d": 1})}) == 3


PLAIN = "ac93d13afbb2481a27bc591b1c1dc02fa93530475d5fe3928e2e16be928ff623"
