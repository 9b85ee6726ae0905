"""One step: every phase does its work, every option has its effect, the state is complete."""

import copy
import dataclasses
import json
import shutil

import pytest
import torch

from fact_metrics.base.errors import UsageError
from fact_train.data import open_dataset
from fact_train.settings.config import TrainConfig
from fact_train.training.models.gan import GAN
from fact_train.training.probe import probe
from fact_train.training.real_images import real_images
from fact_train.training.step import Phase, share_of_batch
from fact_train.training.thread_pool import MicroBatchPool
from fact_train.training.trainer import Trainer

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
    networks = t.model.networks.values()
    before = {k: v.clone() for net in networks for k, v in net.named_parameters()}
    for _ in range(2):
        t.step()
    still = [k for net in networks for k, v in net.named_parameters() if torch.equal(v, before[k])]
    assert still == []
    assert t.nimg == 16


def test_same_seed_same_training_and_another_seed_another(tiny_config: TrainConfig) -> None:
    runs = [trainer_of(tiny_config, seed=s) for s in (1, 1, 2)]
    for t in runs:
        for _ in range(3):
            t.step()
    assert_same_state(runs[0].state_dict(), runs[1].state_dict())
    assert not torch.equal(weights(runs[0].model.gan.G), weights(runs[2].model.gan.G))


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
    g, d = t.model.gan.G_opt.param_groups[0], t.model.gan.D_opt.param_groups[0]
    assert g["lr"] == pytest.approx(0.01 * 4 / 5) and d["lr"] == pytest.approx(0.02 * 16 / 17)
    assert g["betas"] == pytest.approx((0.5**0.8, 0.99**0.8)) and d["betas"][1] == pytest.approx(
        0.99 ** (16 / 17)
    )
    plain = trainer_of(tiny_config, pl_weight=0.0, g_lr=0.01).model.gan.G_opt.param_groups[0]
    assert (plain["lr"], plain["betas"]) == (0.01, (0.0, 0.99))


def test_gradient_accumulation_equals_the_whole_batch(tiny_config: TrainConfig) -> None:
    """R1 sees the same images either way; without minibatch groups, which a split would cut differently."""
    grads = []
    for batch_gpu in (8, 4):
        t = trainer_of(tiny_config, batch_gpu=batch_gpu, mbstd_group_size=1)
        assert t.share.rounds == 8 // batch_gpu
        D = t.model.gan.D
        t.take(t.inputs(), Phase("R1", torch.optim.SGD(D.parameters(), lr=0.0), t.model.gan.r1_loss))
        grads.append({k: p.grad for k, p in D.named_parameters() if p.grad is not None})
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
    start = weights(t.model.gan.G_ema)
    t.step()
    expected = start.lerp(weights(t.model.gan.G), 1 - 0.5 ** (8 / 16))
    torch.testing.assert_close(weights(t.model.gan.G_ema), expected, rtol=1e-5, atol=1e-6)
    ramped = trainer_of(tiny_config, ema_kimg=10.0, ema_rampup=0.05)
    ramped.step()  # no images yet: the average is the network itself
    torch.testing.assert_close(weights(ramped.model.gan.G_ema), weights(ramped.model.gan.G))
    late = trainer_of(tiny_config, ema_kimg=0.016, ema_rampup=100.0)
    late.step()
    start = weights(late.model.gan.G_ema)
    late.step()  # the ramp would allow 800 images: ema_kimg is the limit
    expected = start.lerp(weights(late.model.gan.G), 1 - 0.5 ** (8 / 16))
    torch.testing.assert_close(weights(late.model.gan.G_ema), expected, rtol=1e-5, atol=1e-6)


def test_generated_images_have_the_labels_of_the_dataset_in_its_shares(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config, cond=True, style_mixing_prob=0.0)
    drawn = []
    t.model.gan.G.mapping.register_forward_hook(lambda module, inputs, ws: drawn.append(inputs[1]))
    for _ in range(8):
        t.step(regularise=False)
    labels = torch.cat(drawn)
    assert labels.shape == (128, 2) and torch.equal(labels.sum(dim=1), torch.ones(128))
    # Half of the 24 images are of each class; four standard deviations of 128 draws.
    assert abs(float(labels[:, 1].mean()) - 0.5) < 4 * 0.5 / 128**0.5


def test_mirror_flips_half_of_the_real_images(tiny_config: TrainConfig) -> None:
    shown = {}
    for mirror in (False, True):
        t, seen = trainer_of(tiny_config, mirror=mirror), []
        t.model.gan.D.register_forward_pre_hook(
            lambda module, inputs, seen=seen: seen.append(inputs[0].detach())
        )
        shown[mirror] = []
        for _ in range(6):
            t.step(regularise=True)
            shown[mirror].append(seen[-1])  # R1, the last phase, sees real images alone
    plain, mirrored = (torch.cat(shown[mirror]) for mirror in (False, True))
    same, flipped = ((mirrored == x).flatten(1).all(dim=1) for x in (plain, plain.flip(3)))
    assert len(plain) == 48 and torch.equal(same, ~flipped)
    assert abs(float(flipped.double().mean()) - 0.5) < 4 * 0.5 / 48**0.5  # four standard deviations


def test_w_avg_is_the_running_mean_of_the_ws_drawn_in_training(tiny_config: TrainConfig) -> None:
    """After every batch of latents 0.995 of itself and 0.005 of the batch's mean, as StyleGAN2's."""
    t = trainer_of(tiny_config, style_mixing_prob=0.0)  # mixing maps further latents
    drawn, G = [], t.model.gan.G
    G.mapping.register_forward_hook(lambda module, inputs, ws: drawn.append(ws[:, 0].detach().mean(dim=0)))
    for _ in range(2):
        t.step()
    expected = torch.zeros_like(drawn[0])
    for mean in drawn:
        expected = 0.995 * expected + 0.005 * mean
    assert len(drawn) == 5  # G and D in both steps, path length in the first
    torch.testing.assert_close(G.mapping.w_avg, expected)
    assert torch.equal(t.model.gan.G_ema.mapping.w_avg, G.mapping.w_avg)


def test_a_phase_is_backward_and_the_optimiser_of_torch(tiny_config: TrainConfig) -> None:
    """Also where autograd hands a gradient over transposed: fused Adam would take it as it lies."""
    trainer, plain_trainer = trainer_of(tiny_config), trainer_of(tiny_config)
    ours, plain = trainer.model.gan, plain_trainer.model.gan
    phase = Phase("G", ours.G_opt, ours.generator_loss)
    trainer.take(trainer.inputs(), phase)
    plain.D.requires_grad_(False)
    group = plain.G_opt.param_groups[0]
    opt = torch.optim.Adam(plain.G.parameters(), group["lr"], group["betas"], group["eps"], foreach=False)
    plain.generator_loss(plain_trainer.work(plain_trainer.inputs(), phase, 0)).backward()
    opt.step()
    for (name, a), b in zip(ours.G.named_parameters(), plain.G.parameters(), strict=True):
        assert a.grad is None or a.grad.stride() == a.stride(), name
        # two implementations of Adam: float32 rounding of a step of the learning rate
        torch.testing.assert_close(
            a, b, rtol=1e-4, atol=1e-4 * group["lr"], msg=lambda m, n=name: f"{n}: {m}"
        )


def test_results_do_not_depend_on_how_many_micro_batches_run_in_parallel(tiny_config: TrainConfig) -> None:
    cfg = dataclasses.replace(tiny_config, batch_gpu=2, mbstd_group_size=2)
    serial, parallel = (Trainer(cfg, open_dataset(cfg.data), CPU, threads=n) for n in (1, 3))
    assert (serial.pool.workers, parallel.pool.workers) == (1, 3)
    for _ in range(5):  # both regularisers included
        serial.step()
        parallel.step()
    assert_same_state(serial.state_dict(), parallel.state_dict())


def test_simultaneous_updates_start_from_one_state(tiny_config: TrainConfig) -> None:
    """G moves as it does alone; D moves as it would have against the G of before."""
    quiet = dict(pl_weight=0.0, r1_gamma=0.0)
    both = trainer_of(tiny_config, updates="simultaneous", **quiet)
    in_turn, alone = trainer_of(tiny_config, **quiet), trainer_of(tiny_config, **quiet)
    both.step()
    in_turn.step()
    gan = alone.model.gan
    alone.take(alone.inputs(), Phase("D", gan.D_opt, gan.discriminator_loss))
    assert torch.equal(weights(both.model.gan.G), weights(in_turn.model.gan.G))
    assert torch.equal(weights(both.model.gan.D), weights(gan.D))
    assert not torch.equal(weights(both.model.gan.D), weights(in_turn.model.gan.D))
    parallel = Trainer(both.cfg, both.dataset, CPU, threads=2)
    parallel.step()
    assert parallel.pool.workers == 2
    assert_same_state(parallel.state_dict(), both.state_dict())


def test_an_error_in_a_micro_batch_reaches_the_caller(tiny_config, monkeypatch) -> None:
    def fail(self, work):
        raise MemoryError(f"no room for micro-batch {work.index}")

    monkeypatch.setattr(GAN, "generator_loss", fail)
    cfg = dataclasses.replace(tiny_config, batch_gpu=4)
    with pytest.raises(MemoryError, match="micro-batch 0"):
        Trainer(cfg, open_dataset(cfg.data), CPU, threads=2).step()


def test_threads_are_shared_among_the_micro_batches() -> None:
    assert MicroBatchPool(2, threads=4).describe() == "2 micro-batches at a time on 2 threads each"
    assert MicroBatchPool(1, threads=1).describe() == "1 micro-batch at a time on 1 thread each"
    pool = MicroBatchPool(2, threads=2)
    assert pool.map(lambda i: (i, torch.get_num_threads()), [1, 2]) == [(1, 1), (2, 1)]


def test_bf16_gradients_point_where_float32_ones_do(tiny_config: TrainConfig) -> None:
    """bfloat16 keeps 8 bits: over a dozen layers a network's gradient turns by a few degrees at most."""
    grads = {}
    for precision in ("fp32", "bf16"):
        t = trainer_of(tiny_config, precision=precision)
        gan = t.model.gan
        phases = {
            "G": (gan.G, gan.generator_loss),
            "PL": (gan.G, gan.path_length_loss),
            "D": (gan.D, gan.discriminator_loss),
            "R1": (gan.D, gan.r1_loss),
        }
        for name, (net, loss) in phases.items():
            t.take(t.inputs(), Phase(name, torch.optim.SGD(net.parameters(), lr=0.0), loss))
            own = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
            grads[precision, name] = torch.cat(own)
    for name in ("G", "PL", "D", "R1"):
        a, b = grads["fp32", name], grads["bf16", name]
        assert not torch.equal(a, b)
        assert torch.cosine_similarity(a, b, dim=0) > 0.98, name


def test_tf32_is_refused_without_a_gpu(tiny_config: TrainConfig) -> None:
    with pytest.raises(UsageError, match="--precision tf32"):
        trainer_of(tiny_config, precision="tf32")


def test_fused_modconv_changes_nothing_but_rounding(tiny_config: TrainConfig) -> None:
    """Gradients, not weights: Adam divides a near-zero gradient by its own size, and rounding with it."""
    grads = []
    for setting in ("never", "always"):
        t = trainer_of(tiny_config, fused_modconv=setting)
        gan = t.model.gan
        optimiser = torch.optim.SGD(gan.G.parameters(), lr=0.0)
        both = []
        for name, loss in (("G", gan.generator_loss), ("PL", gan.path_length_loss)):
            t.take(t.inputs(), Phase(name, optimiser, loss))
            both += [p.grad for p in gan.G.parameters() if p.grad is not None]
        grads.append(both)
    assert len(grads[0]) == len(grads[1]) > 20
    for a, b in zip(*grads, strict=True):  # float32 sums of up to 1,000 terms in another order
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


def test_labels_belong_to_the_images_of_the_same_batch(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config, cond=True)
    x, c = t.inputs().real, t.inputs().c
    left, top = x[:, 0, 6:, :2].mean(dim=(1, 2)), x[:, 0, :2, 6:].mean(dim=(1, 2))
    assert torch.equal(c.argmax(dim=1), (top > left).long())


def test_conditional_training_without_labels_is_refused(tiny_config: TrainConfig, tmp_path) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny_config.data, bare)
    (bare / "dataset.json").unlink()
    with pytest.raises(UsageError, match="--cond"):
        trainer_of(tiny_config, data=str(bare), cond=True)


@pytest.mark.parametrize("cond", [False, True])
def test_balance_shows_real_images_and_labels_of_all_classes_equally_often(
    tiny_config: TrainConfig, tiny_images, tmp_path, cond: bool
) -> None:
    """One image in eight is of class 1; with --balance D sees four of each, and G draws labels by halves."""
    folder = tmp_path / "rare"
    shutil.copytree(tiny_images, folder)
    labels = [[f"img{i:03d}.png", int(i % 8 == 1)] for i in range(24)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    shares = {}
    for balance in (False, True):
        t = trainer_of(tiny_config, data=str(folder), balance=balance, cond=cond, style_mixing_prob=0.0)
        real, drawn = [], []
        t.model.gan.G.mapping.register_forward_hook(lambda module, given, ws, d=drawn: d.append(given[1]))
        for _ in range(9):
            index = real_images(
                cfg=t.cfg, dataset=t.dataset, share=t.share, device=CPU, step=t.steps, pools=t.model.pools
            )[1]
            real.append(t.dataset.labels(index).double().mean())
            t.step(regularise=False)
        shares[balance] = real
        if cond:
            mean = float(torch.cat(drawn)[:, 1].mean())  # of 144 labels; four standard errors
            expected = 0.5 if balance else 1 / 8
            assert abs(mean - expected) < 4 * (expected * (1 - expected) / 144) ** 0.5
    assert all(share == 0.5 for share in shares[True])
    assert float(torch.stack(shares[False]).mean()) == pytest.approx(1 / 8)


def test_balance_without_classes_is_refused(tiny_config: TrainConfig, tiny_images, tmp_path) -> None:
    folder = tmp_path / "one"
    shutil.copytree(tiny_images, folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(UsageError, match="--balance: dataset one has no class labels"):
        trainer_of(tiny_config, data=str(folder), balance=True)
    labels = [[f"img{i:03d}.png", 0] for i in range(24)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(UsageError, match="--balance: dataset one has one class"):
        trainer_of(tiny_config, data=str(folder), balance=True)
