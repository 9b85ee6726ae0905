"""One step: every phase does its work, every option has its effect, the state is complete."""

import copy
import dataclasses
import math

import pytest
import torch

from fact_train.config import TrainConfig
from fact_train.data import open_dataset
from fact_train.probe import probe
from fact_train.trainer import Trainer, share_of_batch
from metrics.errors import UsageError

CPU = torch.device("cpu")


def trainer_of(cfg: TrainConfig, **changes) -> Trainer:
    cfg = dataclasses.replace(cfg, **changes)
    return Trainer(cfg, open_dataset(cfg.data), CPU)


def flat_state(value, prefix="") -> dict[str, torch.Tensor]:
    """Every tensor and number of a nested state under its path."""
    if isinstance(value, dict):
        return {k: v for key, x in value.items() for k, v in flat_state(x, f"{prefix}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, x in enumerate(value) for k, v in flat_state(x, f"{prefix}/{i}").items()}
    return {prefix: value if torch.is_tensor(value) else torch.tensor(0 if value is None else value)}


def assert_same_state(a: dict, b: dict) -> None:
    a, b = flat_state(a), flat_state(b)
    assert a.keys() == b.keys()
    assert [k for k in a if not torch.equal(a[k], b[k])] == []


def weights(net: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_a_step_moves_every_weight_of_both_networks(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config)
    before = {k: v.clone() for net in (t.G, t.D) for k, v in net.named_parameters()}
    for _ in range(2):
        t.step()
    still = [k for net in (t.G, t.D) for k, v in net.named_parameters() if torch.equal(v, before[k])]
    assert still == []
    assert t.nimg == 16


def test_same_seed_same_training_and_another_seed_another(tiny_config: TrainConfig) -> None:
    runs = [trainer_of(tiny_config, seed=s) for s in (1, 1, 2)]
    for t in runs:
        for _ in range(3):
            t.step()
    assert_same_state(runs[0].state_dict(), runs[1].state_dict())
    assert not torch.equal(weights(runs[0].G), weights(runs[2].G))


def test_training_does_not_touch_the_global_random_state(tiny_config: TrainConfig) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    trainer_of(tiny_config).step()
    assert torch.equal(torch.get_rng_state(), before)


def test_state_put_into_a_new_trainer_goes_on_bitwise(tiny_config: TrainConfig) -> None:
    straight = trainer_of(tiny_config)
    for _ in range(5):
        straight.step()
    saved = copy.deepcopy(straight.state_dict())
    for _ in range(5):
        straight.step()
    resumed = trainer_of(tiny_config)
    resumed.load_state_dict(saved)
    for _ in range(5):
        resumed.step()
    assert_same_state(straight.state_dict(), resumed.state_dict())


def test_probe_restores_the_state_bitwise(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config)
    t.step()
    before = copy.deepcopy(t.state_dict())
    assert probe(t).seconds_per_step > 0
    assert_same_state(t.state_dict(), before)


def test_lazy_regularisers_run_at_their_intervals(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config)
    seen = []
    for _ in range(8):
        t.step()
        names = t.stats.collect()
        seen.append(("Loss/path_length_penalty" in names, "Loss/r1_penalty" in names))
    assert [pl for pl, _ in seen] == [True, False] * 4
    assert [r1 for _, r1 in seen] == [True, False, False, False] * 2
    off = trainer_of(tiny_config, pl_weight=0.0, r1_gamma=0.0)
    off.step()
    assert not {"Loss/path_length_penalty", "Loss/r1_penalty"} & set(off.stats.collect())


def test_adam_is_corrected_for_lazy_regularisation(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config, pl_interval=4, r1_interval=16, g_lr=0.01, d_lr=0.02, beta1=0.5)
    g, d = t.G_opt.param_groups[0], t.D_opt.param_groups[0]
    assert g["lr"] == pytest.approx(0.01 * 4 / 5) and d["lr"] == pytest.approx(0.02 * 16 / 17)
    assert g["betas"] == pytest.approx((0.5**0.8, 0.99**0.8)) and d["betas"][1] == pytest.approx(
        0.99 ** (16 / 17)
    )
    plain = trainer_of(tiny_config, pl_weight=0.0, g_lr=0.01).G_opt.param_groups[0]
    assert (plain["lr"], plain["betas"]) == (0.01, (0.0, 0.99))


def test_gradient_accumulation_equals_the_whole_batch(tiny_config: TrainConfig) -> None:
    """R1 sees the same images either way; without minibatch groups, which a split would cut differently."""
    grads = []
    for batch_gpu in (8, 4):
        t = trainer_of(tiny_config, batch_gpu=batch_gpu, mbstd_group_size=1)
        assert t.share.rounds == 8 // batch_gpu
        real, _ = t._real_batch(0)
        t._phase(
            "R1", t.D, torch.optim.SGD(t.D.parameters(), lr=0.0), lambda s, g, t=t, r=real: t._r1(s, r, None)
        )
        grads.append({k: p.grad for k, p in t.D.named_parameters() if p.grad is not None})
    for name in grads[0]:  # float32 sums of 8 terms in another order
        torch.testing.assert_close(grads[0][name], grads[1][name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        ({"batch": 8}, 3, "--batch 8"),
        ({"batch": 8, "batch_gpu": 3}, 1, "--batch-gpu 3"),
        ({"batch": 8, "batch_gpu": 2, "mbstd_group_size": 4}, 1, None),
    ],
)
def test_batches_that_do_not_divide_are_refused(
    tiny_config: TrainConfig, changes: dict, world: int, message: str | None
) -> None:
    cfg = dataclasses.replace(tiny_config, **changes)
    if message is None:
        assert share_of_batch(cfg, rank=0, world_size=world).rounds == 4
    else:
        with pytest.raises(UsageError, match=message):
            share_of_batch(cfg, rank=0, world_size=world)


def test_ema_follows_its_half_life_and_ramp(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config, ema_kimg=0.016)  # 16 images: two steps of 8
    start = weights(t.G_ema)
    t.step()
    expected = start.lerp(weights(t.G), 1 - 0.5 ** (8 / 16))
    torch.testing.assert_close(weights(t.G_ema), expected, rtol=1e-5, atol=1e-6)
    ramped = trainer_of(tiny_config, ema_kimg=10.0, ema_rampup=0.05)
    ramped.step()  # no images yet: the average is the network itself
    torch.testing.assert_close(weights(ramped.G_ema), weights(ramped.G))


def test_w_avg_tracks_the_mean_of_w(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config)
    assert float(t.G.mapping.w_avg.abs().max()) == 0
    t.step()
    assert float(t.G.mapping.w_avg.abs().max()) > 0
    assert torch.equal(t.G_ema.mapping.w_avg, t.G.mapping.w_avg)


AXES = {
    "z_dim": 16,
    "w_dim": 16,
    "map_depth": 1,
    "mapping_lr_mult": 0.5,
    "g_arch": "resnet",
    "noise": "off",
    "d_arch": "skip",
    "mbstd_group_size": 2,
    "channel_base": 32,
    "channel_max": 4,
    "d_channel_mult": 0.5,
    "conv_clamp": 0.1,
    "r1_gamma": 100.0,
    "r1_interval": 2,
    "pl_weight": 20.0,
    "pl_interval": 1,
    "pl_batch_shrink": 1,
    "pl_decay": 0.5,
    "style_mixing_prob": 0.0,
    "batch": 4,
    "batch_gpu": 4,
    "g_lr": 0.02,
    "d_lr": 0.02,
    "beta1": 0.5,
    "beta2": 0.9,
    "ema_kimg": 1.0,
    "ema_rampup": 0.05,
    "seed": 3,
    "cond": True,
    "mirror": True,
    "resolution": 16,
    "channels": 3,
    "max_images": 12,
}
# Covered elsewhere: the dataset's own options (tests/test_data_*), the only injection there is, and the order
# of evaluation, which must NOT change the mathematics.
NO_EFFECT_ON_WEIGHTS = {"data", "resize", "crop", "alpha", "injection", "fused_modconv"}


def test_every_science_field_is_in_the_table_of_axes() -> None:
    from fact_train.config import fields_of

    assert {f.name for f in fields_of("science")} == set(AXES) | NO_EFFECT_ON_WEIGHTS


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_has_an_effect(tiny_config: TrainConfig, axis: str) -> None:
    def fingerprint(cfg: TrainConfig) -> tuple:
        t = Trainer(cfg, open_dataset(cfg.data, **_data_options(cfg)), CPU)
        for _ in range(4):
            t.step()
        total = weights(t.G_ema).double().sum() + weights(t.D).double().square().sum()
        assert math.isfinite(float(total))
        return (float(total), tuple(weights(n).numel() for n in (t.G, t.D)))

    assert fingerprint(tiny_config) != fingerprint(dataclasses.replace(tiny_config, **{axis: AXES[axis]}))


def test_fused_modconv_changes_nothing_but_rounding(tiny_config: TrainConfig) -> None:
    results = []
    for setting in ("never", "always"):
        t = trainer_of(tiny_config, fused_modconv=setting, pl_weight=2.0)
        t.step()
        results.append(weights(t.G_ema))
    # Adam divides by the gradient's own size: rounding of near-zero gradients shows as a step of the rate
    assert float((results[0] - results[1]).abs().max()) < 2 * tiny_config.g_lr
    assert float((results[0] - results[1]).abs().mean()) < 1e-5


def test_labels_belong_to_the_images_of_the_same_batch(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config, cond=True)
    x, c = t._real_batch(0)
    left, top = x[:, 0, 6:, :2].mean(dim=(1, 2)), x[:, 0, :2, 6:].mean(dim=(1, 2))
    assert torch.equal(c.argmax(dim=1), (top > left).long())


def test_conditional_training_without_labels_is_refused(tiny_config: TrainConfig, tmp_path) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny_config.data, bare)
    (bare / "dataset.json").unlink()
    with pytest.raises(UsageError, match="--cond"):
        trainer_of(tiny_config, data=str(bare), cond=True)


def _data_options(cfg: TrainConfig) -> dict:
    return dict(
        resolution=cfg.resolution, channels=cfg.channels, max_images=cfg.max_images, resize=cfg.resize
    )
