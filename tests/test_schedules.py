"""Settings that change in training: closed forms, where they act, refusals, resuming."""

import copy
import dataclasses
import math

import pytest
import torch
from stylex_toys import differing, trainer_of, work_of

from fact_metrics.base.errors import UsageError
from fact_train.settings.config import TrainConfig
from fact_train.settings.schedules import SCHEDULED, Schedule, parse_schedules, value_at

# Starts and ends of every setting, halfway on a cosine after 16 images.
ALL = {
    "g_lr": (0.002, 0.001),
    "d_lr": (0.002, 0.004),
    "beta2": (0.99, 0.9),
    "ema_kimg": (0.05, 0.01),
    "augment_p": (0.5, 0.1),
    "r1_gamma": (10.0, 2.0),
    "r2_gamma": (1.0, 3.0),
    "top_k": (1.0, 0.5),
}
NIMG, KIMG = 16, 0.032


def text_of(shape: str, names=tuple(ALL)) -> str:
    return ",".join(f"{name}={shape}:{ALL[name][1]:g}:{KIMG:g}" for name in names)


def test_a_geometric_schedule_moves_by_equal_factors_and_then_stays() -> None:
    schedule = Schedule("geometric", 0.5, 40)
    at = [schedule.at(8.0, nimg=n) for n in (0, 10_000, 20_000, 40_000, 90_000)]
    assert at == pytest.approx([8.0, 4.0, 2.0, 0.5, 0.5])


def test_a_cosine_schedule_is_level_at_both_ends() -> None:
    schedule = Schedule("cosine", 1.0, 60)
    at = [schedule.at(3.0, nimg=n) for n in (0, 20_000, 30_000, 60_000, 61_000)]
    assert at == pytest.approx([3.0, 1 + 2 * 0.75, 2.0, 1.0, 1.0])
    slopes = [(schedule.at(3.0, nimg=n + 10) - schedule.at(3.0, nimg=n)) / 10 for n in (0, 30_000, 59_990)]
    assert abs(slopes[0]) < 1e-3 * abs(slopes[1]) and abs(slopes[2]) < 1e-3 * abs(slopes[1])
    assert Schedule("cosine", 0.5, 1).at(0.0, nimg=1000) == 0.5  # one that starts at 0


def test_every_setting_that_can_be_scheduled_is_a_field_and_none_is_forgotten() -> None:
    assert tuple(ALL) == SCHEDULED
    cfg = TrainConfig(augment="fixed", augment_p=0.5, r2_gamma=1.0, schedule="top_k=cosine:0.5:1")
    assert value_at(cfg, "top_k", nimg=500) == pytest.approx(0.75)
    assert value_at(cfg, "r2_gamma", nimg=500) == 1.0


def test_the_final_gamma_is_a_geometric_schedule_bit_for_bit(tiny_config: TrainConfig) -> None:
    """Its formula as published runs had it, and the same training as the schedule spelled out."""
    for nimg in (0, 7_000, 50_000, 60_000):
        cfg = TrainConfig(r1_gamma=5.0, r1_gamma_final=0.5, r1_decay_kimg=50)
        assert value_at(cfg, "r1_gamma", nimg=nimg) == 5.0 * (0.5 / 5.0) ** min(nimg / (50 * 1000), 1.0)
    final = trainer_of(tiny_config, r1_gamma_final=1.0, r1_decay_kimg=0.03, r1_interval=1)
    spelled = trainer_of(tiny_config, schedule="r1_gamma=geometric:1:0.03", r1_interval=1)
    for t in (final, spelled):
        for _ in range(3):
            t.step()
    assert differing(final.state_dict(), spelled.state_dict()) == []


def test_auto_gamma_is_where_its_schedule_starts(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config, r1_gamma="auto", schedule="r1_gamma=cosine:1:1")
    assert float(t.model.follow_schedules(0)["Schedule/r1_gamma"]) == pytest.approx(0.0002 * 64 / 32)


def test_all_settings_are_halfway_where_they_act(tiny_config: TrainConfig) -> None:
    starts = dict(augment="fixed", augment_p=0.5, r2_gamma=1.0, r1_interval=1, pl_interval=1)
    t = trainer_of(tiny_config, schedule=text_of("cosine"), **starts)
    gan = t.model.gan
    halfway = {name: (start + end) / 2 for name, (start, end) in ALL.items()}
    t.step()
    t.step()
    seen = t.stats.collect()
    assert {name for name in seen if name.startswith("Schedule/")} == {f"Schedule/{n}" for n in ALL}
    before = torch.cat([p.detach().flatten() for p in gan.G_ema.parameters()])
    t.step()  # the third, after 16 images
    assert t.stats.collect()["Schedule/beta2"]["mean"] == pytest.approx(halfway["beta2"])
    g, d = gan.G_opt.param_groups[0], gan.D_opt.param_groups[0]
    assert g["lr"] == pytest.approx(halfway["g_lr"] / 2) and d["lr"] == pytest.approx(halfway["d_lr"] / 2)
    assert g["betas"][1] == d["betas"][1] == pytest.approx(halfway["beta2"] ** 0.5)
    assert float(gan.augment.p) == pytest.approx(halfway["augment_p"])
    decay = 0.5 ** (8 / (halfway["ema_kimg"] * 1000))
    network = torch.cat([p.detach().flatten() for p in gan.G.parameters()])
    average = torch.cat([p.detach().flatten() for p in gan.G_ema.parameters()])
    torch.testing.assert_close(average, before.lerp(network, 1 - decay), rtol=1e-4, atol=1e-6)

    t.steps = 2
    plain = trainer_of(tiny_config, **starts)
    plain.load_state_dict(copy.deepcopy(t.state_dict()))
    plain.model.follow_schedules(NIMG)
    gan.augment.p = plain.model.gan.augment.p  # the same images for both
    for loss, name in (("r1_loss", "r1_gamma"), ("r2_loss", "r2_gamma")):
        scheduled, constant = (
            getattr(x.model.gan, loss)(work_of(x, "R1", inputs=x.inputs())).item() for x in (t, plain)
        )
        assert scheduled / constant == pytest.approx(halfway[name] / ALL[name][0], rel=1e-5)


def test_top_k_shrinks_along_its_schedule(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config, schedule="top_k=geometric:0.25:0.016")
    counts = []
    for _ in range(4):  # shares 1, 1/2, 1/4, 1/4 of 8 images
        t.step()
        counts.append(t.stats.collect()["Loss/G"]["num"])
    assert counts == [8, 4, 2, 2]


def test_rates_of_the_encoder_and_of_its_own_step_follow_the_generator_s(stylex_config) -> None:
    t = trainer_of(
        stylex_config,
        encoder_lr_mult=0.1,
        rec_in_d_phase=True,
        pl_weight=0.0,
        schedule="g_lr=cosine:0.001:0.016",
    )
    for lr in (0.002, 0.0015, 0.001):
        t.step()
        for opt in (t.model.gan.G_opt, t.model.rec_opt):
            assert [group["lr"] for group in opt.param_groups] == pytest.approx([lr, 0.1 * lr])


def test_a_resumed_run_goes_on_bitwise_along_all_schedules(tiny_config: TrainConfig) -> None:
    cfg = dataclasses.replace(
        tiny_config, augment="fixed", augment_p=0.5, r2_gamma=1.0, schedule=text_of("geometric")
    )
    straight = trainer_of(cfg)
    for _ in range(2):
        straight.step()
    saved = copy.deepcopy(straight.state_dict())
    resumed = trainer_of(cfg)
    resumed.load_state_dict(saved)
    for t in (straight, resumed):
        for _ in range(3):
            t.step()
    assert differing(straight.state_dict(), resumed.state_dict()) == []


def test_one_meaning_has_one_spelling_and_one_hash() -> None:
    texts = ("g_lr=cosine:0.001:50,beta2=cosine:0.9:50", " beta2=cosine:.90:50.0 , g_lr=cosine:1e-3:5e1")
    first, second = (TrainConfig(schedule=text) for text in texts)
    assert first == second and first.schedule == texts[0] and first.sha256() == second.sha256()
    precise = TrainConfig(schedule="g_lr=cosine:0.00123456789:50").schedule
    assert parse_schedules(precise)["g_lr"].end == 0.00123456789
    assert math.isclose(value_at(TrainConfig(schedule=precise), "g_lr", nimg=50_000), 0.00123456789)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"schedule": "g_rl=cosine:1:2"},
            "--schedule g_rl=cosine:1:2: no setting 'g_rl' .* did you mean g_lr",
        ),
        ({"schedule": "batch=cosine:1:2"}, "no setting 'batch' to schedule"),
        ({"schedule": "g_lr=linear:1:2"}, "NAME=SHAPE:END:KIMG with SHAPE geometric or cosine"),
        ({"schedule": "g_lr=cosine:1"}, "NAME=SHAPE:END:KIMG"),
        ({"schedule": "g_lr=cosine:x:2"}, "END and KIMG of 'g_lr=cosine:x:2' must be numbers"),
        ({"schedule": "g_lr=cosine:1:0"}, "KIMG of .* must be positive"),
        ({"schedule": "g_lr=cosine:nan:1"}, "END finite"),
        ({"schedule": "g_lr=cosine:1:2,g_lr=cosine:1:3"}, "g_lr stands there twice"),
        ({"schedule": "g_lr=cosine:-1:2"}, "the END of g_lr: it must be positive"),
        ({"schedule": "top_k=cosine:2:2"}, r"the END of top_k: it must lie in \(0, 1\]"),
        ({"schedule": "g_lr=cosine:0.002:2"}, "g_lr starts at its END"),
        ({"schedule": "ema_kimg=geometric:1:2", "ema_kimg": 0.0}, "use ema_kimg=cosine"),
        ({"schedule": "r1_gamma=geometric:0:2"}, "use r1_gamma=cosine"),
        ({"schedule": "r2_gamma=cosine:1:2"}, "--r2-gamma 0 switches it off"),
        ({"schedule": "r1_gamma=cosine:1:2", "r1_gamma_final": 1.0}, "set one of them"),
        ({"schedule": "augment_p=cosine:1:2"}, "augment_p needs --augment fixed"),
    ],
    ids=str,
)
def test_schedules_that_cannot_be_followed_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**changes)
