"""Augmentation in training: what D sees, ADA's p and its state, contradictory settings."""

import copy
import dataclasses
import subprocess
import sys

import pytest
import torch

from fact_metrics.base.errors import UsageError
from fact_train.augment import AUGMENTATIONS, POLICIES, SETS
from fact_train.augment.adaptive import AdaptiveP
from fact_train.data import open_dataset
from fact_train.settings.config import TrainConfig
from fact_train.training.run_log import tick_line
from fact_train.training.trainer import Trainer

CPU = torch.device("cpu")
MODES = {
    "ada": dict(augment="ada", augment_p=0.5, augment_set="bgcfnc", ada_kimg=0.2, ada_interval=2),
    "fixed": dict(augment="fixed", augment_p=0.7),
    "diffaugment": dict(augment="diffaugment"),
}


def trainer_of(cfg: TrainConfig, *, threads: int = 1, **changes) -> Trainer:
    cfg = dataclasses.replace(cfg, **changes)
    return Trainer(cfg, open_dataset(cfg.data, max_images=cfg.max_images), CPU, threads=threads)


def flat(state, prefix: str = "") -> dict[str, torch.Tensor]:
    """Every tensor and number of a nested state under its path."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {k: v for key, x in items for k, v in flat(x, f"{prefix}/{key}").items()}
    return {prefix: state if torch.is_tensor(state) else torch.tensor(0 if state is None else state)}


def assert_same_state(a: Trainer, b: Trainer) -> None:
    one, other = flat(a.state_dict()), flat(b.state_dict())
    assert one.keys() == other.keys()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []


def controller(**changes) -> AdaptiveP:
    settings = dict(target=0.6, interval=4, kimg=1.0, batch=25, ceiling=None, device=CPU)
    return AdaptiveP(changes.pop("start", 0.0), **{**settings, **changes})


def feed(ada: AdaptiveP, sign: float, steps: int) -> list[float]:
    curve = []
    for step in range(1, steps + 1):
        ada.observe(torch.full([25], sign))
        ada.update(step)
        curve.append(float(ada.p))
    return curve


# The controller


def test_p_rises_above_the_target_and_falls_below_it_but_not_below_zero() -> None:
    """25 images x 4 steps of 1,000: 0.1 a change."""
    ada = controller()
    assert feed(ada, 1.0, 8) == pytest.approx([0, 0, 0, 0.1, 0.1, 0.1, 0.1, 0.2])
    assert feed(ada, -1.0, 8)[-1] == 0.0
    assert feed(ada, -1.0, 8)[-1] == 0.0
    assert feed(ada, 1.0, 60)[-1] == pytest.approx(1.5)  # no bound above
    capped = controller(ceiling=0.25)
    assert feed(capped, 1.0, 40)[-1] == 0.25


def test_r_t_is_the_mean_sign_of_all_micro_batches_since_the_last_change() -> None:
    ada = controller(interval=2)
    for step, signs in enumerate(([1.0, 1.0, 1.0], [1.0, -1.0], [-1.0, 0.0], [-1.0]), start=1):
        ada.observe(torch.tensor(signs))
        r_t = ada.update(step)
        expected = {2: 3 / 5, 4: -2 / 3}.get(step)
        assert r_t is None if expected is None else float(r_t) == pytest.approx(expected)


def test_p_goes_from_zero_to_one_in_ada_kimg() -> None:
    ada = controller(kimg=0.5, batch=10, interval=5)
    assert feed(ada, 1.0, 50)[-1] == pytest.approx(1.0)


def test_two_processes_share_one_p() -> None:
    """One sees signs +1, the other -1 twice as often: r_t is -1/3 for both, not 1 and -1."""
    code = """
import torch, torch.distributed as dist
from fact_train import distributed
from fact_train.augment.adaptive import AdaptiveP
distributed.init(torch.device("cpu"))
ada = AdaptiveP(0.5, target=-0.4, interval=1, kimg=1.0, batch=100, ceiling=None, device=torch.device("cpu"))
ada.observe(torch.ones(10) if distributed.rank() == 0 else -torch.ones(20))
r_t = ada.update(1)
assert abs(float(r_t) + 1 / 3) < 1e-12 and abs(float(ada.p) - 0.6) < 1e-12, (r_t, ada.p)
distributed.shutdown()
"""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, "--no-python", sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# In a step


def test_tables_and_flags_name_the_same_values() -> None:
    import typing

    types = {f.name: f.type for f in dataclasses.fields(TrainConfig)}
    assert set(typing.get_args(types["augment"])) == set(AUGMENTATIONS)
    assert set(typing.get_args(types["augment_set"])) == set(SETS)
    assert TrainConfig().diffaugment_policy == ",".join(POLICIES)


@pytest.mark.parametrize("mode", MODES)
def test_d_sees_augmented_images_real_and_generated_in_every_phase(
    tiny_config: TrainConfig, mode: str
) -> None:
    t = trainer_of(tiny_config, **MODES[mode])
    gan = t.model.gan
    given, seen, D = [], [], gan.D.forward
    augment = gan.augment.__call__
    gan.augment = type("Spy", (), {"__call__": lambda self, x, gen: given.append(x) or augment(x, gen)})()
    gan.augment.observe, gan.augment.update = (lambda signs: None), (lambda steps: {})
    gan.augment.follow_schedule = lambda nimg: None
    gan.D.forward = lambda x, *args, **kw: seen.append(x) or D(x, *args, **kw)
    t.step(regularise=True)
    assert [len(x) for x in seen] == [len(x) for x in given] == [8, 16, 8]  # G, D, R1
    for before, after in zip(given, seen, strict=True):
        changed = (before != after).flatten(1).any(dim=1)
        assert int(changed.sum()) > len(changed) // 2
    assert given[2].requires_grad and given[2].is_leaf  # R1 differentiates by the image before augmentation


def test_samples_of_one_pass_are_augmented_independently(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config, augment="fixed", augment_p=1.0)
    same = t.inputs().real[:1].expand(8, -1, -1, -1)
    halves = t.model.gan.augment(torch.cat([same, same]), torch.Generator().manual_seed(0)).chunk(2)
    assert not torch.equal(*halves)


@pytest.mark.parametrize("mode", MODES)
def test_augmentation_trains_on_and_resumes_bitwise(tiny_config: TrainConfig, mode: str) -> None:
    """Five steps, so that ADA's sums are saved between two changes of p."""
    straight = trainer_of(tiny_config, **MODES[mode])
    for _ in range(5):
        straight.step()
    saved = copy.deepcopy(straight.state_dict())
    for _ in range(4):
        straight.step()
    resumed = trainer_of(tiny_config, **MODES[mode])
    resumed.load_state_dict(saved)
    for _ in range(4):
        resumed.step()
    assert_same_state(straight, resumed)
    if mode == "ada":
        assert float(saved["augment"]["seen"][1]) == 8 and float(straight.model.gan.augment.p) != 0.5
    if mode == "fixed":
        assert float(straight.model.gan.augment.p) == 0.7


@pytest.mark.parametrize("mode", MODES)
def test_augmentation_gives_the_same_bits_on_any_number_of_threads(
    tiny_config: TrainConfig, mode: str
) -> None:
    cfg = dataclasses.replace(tiny_config, batch_gpu=2, mbstd_group_size=2, **MODES[mode])
    serial, parallel = trainer_of(cfg, threads=1), trainer_of(cfg, threads=3)
    for _ in range(5):
        serial.step()
        parallel.step()
    assert parallel.pool.workers == 3
    assert_same_state(serial, parallel)


def test_without_augmentation_training_is_what_it_was(tiny_config: TrainConfig) -> None:
    """ADA at p = 0, never raised, draws from its streams last and leaves every image alone."""
    plain, idle = trainer_of(tiny_config), trainer_of(tiny_config, augment="ada", ada_kimg=1e12)
    for _ in range(3):
        plain.step()
        idle.step()
    assert 0 <= float(idle.model.gan.augment.p) < 1e-9
    for name in ("G", "D", "G_ema", "G_opt", "D_opt"):
        a, b = flat(plain.state_dict()[name]), flat(idle.state_dict()[name])
        assert [k for k in a if not torch.equal(a[k], b[k])] == []


def test_adas_p_rises_where_d_overfits_a_small_dataset(tiny_config: TrainConfig) -> None:
    """Four images: D soon tells them from everything else, and p follows; r_t and p are reported."""
    t = trainer_of(
        tiny_config,
        max_images=4,
        augment="ada",
        ada_kimg=0.5,
        ada_target=0.3,
        d_lr=0.02,
        pl_weight=0.0,
        r1_gamma=0.0,
    )
    for _ in range(40):
        t.step()
    stats = t.stats.collect()
    assert float(t.model.gan.augment.p) > 0.2
    assert stats["Augment/p"]["num"] == 40 and stats["Augment/r_t"]["num"] == 10
    assert stats["Augment/r_t"]["mean"] == pytest.approx(stats["Signs/real"]["mean"])


def test_the_tick_line_shows_p_and_r_t_where_there_are_any() -> None:
    timing = dict.fromkeys(("Timing/sec_per_kimg", "Timing/img_per_sec", "Resources/peak_mem_gb"), 1.0)
    stats = {name: {"mean": value} for name, value in (("Augment/p", 0.125), ("Augment/r_t", 0.5))}
    assert "p   0.125 r_t   0.500" in tick_line(1, 1000, stats, timing)
    assert "r_t" not in tick_line(1, 1000, {}, timing)


# Settings


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (dict(augment="mirror"), "--augment mirror"),
        (dict(augment="fixed", augment_p=1.5), "--augment-p 1.5"),
        (dict(augment="fixed"), "--augment-p 0: --augment fixed needs a probability above 0"),
        (dict(augment_p=0.5), "--augment-p 0.5: it needs --augment ada or fixed; --augment is none"),
        (dict(augment="diffaugment", augment_set="bg"), "--augment-set bg: it needs --augment ada or fixed"),
        (
            dict(augment="fixed", augment_p=0.5, ada_target=0.5),
            "--ada-target 0.5: it needs --augment ada; --augment is fixed",
        ),
        (
            dict(augment="ada", diffaugment_policy="color"),
            "--diffaugment-policy color: it needs --augment diffaugment",
        ),
        (dict(augment="ada", ada_target=1.0), "--ada-target 1: it must lie between -1 and 1"),
        (dict(augment="ada", ada_interval=0), "--ada-interval 0"),
        (dict(augment="ada", ada_kimg=0.0), "--ada-kimg 0: it must be positive"),
        (
            dict(augment="ada", augment_p=0.5, ada_ceiling=0.4),
            "--ada-ceiling 0.4: it must be at least --augment-p 0.5",
        ),
        (dict(augment="ada", ada_ceiling=1.5), "--ada-ceiling 1.5: it must lie in (0, 1]"),
        (dict(augment="diffaugment", diffaugment_policy="colour"), "--diffaugment-policy colour"),
        (dict(augment="diffaugment", diffaugment_policy="color,color"), "in this order"),
    ],
)
def test_contradictory_settings_are_refused_with_the_reason(changes: dict, named: str) -> None:
    with pytest.raises(UsageError) as error:
        TrainConfig(**changes)
    assert named in str(error.value)


def test_a_policy_is_recorded_in_one_order() -> None:
    with pytest.raises(UsageError, match="in this order"):
        TrainConfig(augment="diffaugment", diffaugment_policy="cutout,color")
