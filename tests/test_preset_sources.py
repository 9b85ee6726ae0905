"""Presets that carry a source's name have its values: every field, but for the differences they name."""

import dataclasses
import re

import pytest
from test_docs import generate

from fact_train.networks.build import build_encoder, build_networks
from fact_train.settings.auto import auto_fields
from fact_train.settings.config import TrainConfig
from fact_train.settings.presets import PRESETS

FREE = ("seed", "kimg_per_tick", "snapshot_ticks", "image_ticks", "device", "threads", "cuda_graphs")
GIVEN = ("data", "classifier")  # by the user, where the preset needs them


OF_PRESET = {name: source["values"] for source in generate.preset_sources() for name in source["presets"]}
SOURCED = r"auto|stylegan2|paper\d+|cifar|afhqcat32-.*|overparam256|stylex-reference-.*"


def test_every_preset_with_a_sources_name_has_a_table() -> None:
    assert set(OF_PRESET) == {name for name in PRESETS if re.fullmatch(SOURCED, name)}


@pytest.mark.parametrize("name", OF_PRESET)
def test_a_preset_has_the_values_of_its_source_but_for_the_differences_it_names(name: str) -> None:
    preset, theirs = PRESETS[name], OF_PRESET[name]
    fields = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name not in FREE}
    assert set(theirs) <= set(fields)
    ignored = set(GIVEN) & set(preset.needs)
    different = {
        field
        for field, default in fields.items()
        if field not in ignored and getattr(preset.config, field) != theirs.get(field, default)
    }
    assert different == set(preset.differs) & set(fields)


def test_auto_follows_the_table_of_resolutions_and_gpus() -> None:
    """train.py of NVlabs/stylegan2-ada-pytorch @d72cc7d, computed by hand: batch, gamma, EMA, width, rate."""
    for resolution, gpus, batch, ema, base, rate in (
        (32, 1, 32, 10.0, 16384, 0.0025),
        (32, 2, 64, 20.0, 16384, 0.0025),
        (256, 1, 16, 5.0, 16384, 0.0025),
        (512, 1, 8, 2.5, 32768, 0.0025),
        (1024, 1, 4, 1.25, 32768, 0.002),
        (1024, 8, 32, 10.0, 32768, 0.002),
    ):
        found = auto_fields(resolution, gpus=gpus)
        assert (found["batch"], found["ema_kimg"], found["channel_base"]) == (batch, ema, base)
        assert found["g_lr"] == found["d_lr"] == rate and found["mbstd_group_size"] == 4


def test_the_parts_of_the_reproductions_networks_have_its_widths_and_the_counts_that_we_state() -> None:
    """Widths of stylex_train.py at 64 px. The counts differ from theirs, as `differs` says."""
    dataset = {"resolution": 64, "channels": 3, "classes": 2}
    preset = PRESETS["stylex-reference-old-plants64"]
    G, D = build_networks(preset.config, dataset, class_dim=2)
    E = build_encoder(preset.config, dataset)
    count = lambda net: round(sum(p.numel() for p in net.parameters()) / 1e6, 1)  # noqa: E731
    for net in (D, E):
        assert [getattr(net, f"b{r}").conv0.weight.shape[0] for r in net.resolutions] == [64, 128, 256, 512]
        assert net.b4.conv.weight.shape[0] == 512
    widths = [getattr(G.synthesis, f"b{r}").conv1.bias.numel() for r in G.synthesis.resolutions]
    assert widths == [512, 256, 128, 64, 32]
    assert count(G.mapping) == 2.1  # theirs too
    said = preset.differs["generator"] + preset.differs["discriminator, encoder"]
    assert (count(G.synthesis), count(D), count(E)) == (6.2, 14.0, 14.3)
    assert all(text in said for text in ("ours 6.2", "ours 14.0 and 14.3", "11.2", "22.7 and 23.7"))
