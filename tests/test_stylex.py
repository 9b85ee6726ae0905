"""StylEx: regression tests for the reference trainers' defects, the losses, and the state.

Every defect's test checks that it holds, then puts the defect back and sees the same check fail.
"""

import copy
import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from fact_metrics.base.errors import UsageError, UserError
from fact_train.data import open_dataset
from fact_train.networks.classifier import class_part
from fact_train.networks.encoder import Encoder, reconstruct
from fact_train.networks.mapping import ClassPartMapping
from fact_train.settings.config import TrainConfig
from fact_train.training import losses, stylex
from fact_train.training.grids import grid_indices, pairs_picture, to_uint8
from fact_train.training.probe import probe
from fact_train.training.step import Phase
from fact_train.training.stylex import StylexTrainer, encoder_turn, new_trainer

CPU = torch.device("cpu")


def trainer_of(cfg: TrainConfig, **changes) -> StylexTrainer:
    cfg = dataclasses.replace(cfg, **changes)
    return new_trainer(cfg, open_dataset(cfg.data, resolution=cfg.resolution), CPU)


def copies(t: StylexTrainer) -> dict[str, torch.Tensor]:
    """All trained weights; G's mapping and synthesis apart."""
    nets = {"mapping": t.G.mapping, "synthesis": t.G.synthesis, "D": t.D, "E": t.E}
    return {n: torch.cat([p.detach().flatten() for p in net.parameters()]) for n, net in nets.items()}


def moved(t: StylexTrainer, steps: int) -> set[str]:
    """Networks whose weights change over some steps."""
    before = copies(t)
    for _ in range(steps):
        t.step()
    return {name for name, after in copies(t).items() if not torch.equal(after, before[name])}


def flat(state, prefix="") -> dict[str, torch.Tensor]:
    if isinstance(state, dict):
        return {k: v for key, x in state.items() for k, v in flat(x, f"{prefix}/{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for i, x in enumerate(state) for k, v in flat(x, f"{prefix}/{i}").items()}
    return {prefix: state} if torch.is_tensor(state) else {prefix: torch.tensor(hash(state) % 2**31)}


def differing(a: dict, b: dict) -> list[str]:
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    return [k for k in a if not torch.equal(a[k], b[k])]


EVERYTHING = {"mapping", "synthesis", "D", "E"}


@pytest.mark.parametrize("batch_gpu", [8, 4, 2])
@pytest.mark.parametrize(
    "turns",
    [
        {"alternation": "step"},
        {"alternation": "microbatch"},
        {"alternation": "probability", "encoder_prob": 0.5},
        {"alternation": "off"},
    ],
    ids=lambda turns: turns["alternation"],
)
def test_defect_1_every_legal_setting_trains_every_network(stylex_config, turns, batch_gpu) -> None:
    steps = 6 if turns["alternation"] == "probability" else 2  # six draws of one micro-batch: seed 0 has both
    assert moved(trainer_of(stylex_config, batch_gpu=batch_gpu, **turns), steps) == EVERYTHING


def test_defect_1_put_back_leaves_the_encoder_untrained(stylex_config, monkeypatch) -> None:
    """The reference alternates inside a step from a flag that every phase resets."""
    monkeypatch.setattr(StylexTrainer, "_is_encoder_turn", lambda self, phase, part: part % 2 == 1)
    assert moved(trainer_of(stylex_config, alternation="microbatch"), 4) == EVERYTHING - {"E"}


@pytest.mark.parametrize(("rounds", "share"), [(1, 0.5), (2, 0.5), (3, 0.5), (8, 0.5)])
def test_micro_batches_give_both_branches_half_of_the_turns(stylex_config, rounds, share) -> None:
    cfg = dataclasses.replace(stylex_config, alternation="microbatch")
    turns = [encoder_turn(cfg, turn=t, part=i, parts=rounds) for t in range(8) for i in range(rounds)]
    assert sum(turns) / len(turns) == share and not turns[0]
    drawn = dataclasses.replace(cfg, alternation="probability", encoder_prob=0.25)
    found = sum(encoder_turn(drawn, turn=t, part=0, parts=1) for t in range(400)) / 400
    assert abs(found - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5  # four standard errors


def test_path_length_meets_both_branches_at_an_even_interval(stylex_config, monkeypatch) -> None:
    t = trainer_of(stylex_config, pl_interval=2)
    seen = []
    original = t._sample
    monkeypatch.setattr(
        t,
        "_sample",
        lambda work, n: seen.append((work.phase, t._is_encoder_turn("PL", 0))) or original(work, n),
    )
    for _ in range(4):
        t.step()
    assert [turn for phase, turn in seen if phase == "PL"] == [False, True]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"encoder_lr_mult": 0.0}, "--encoder-lr-mult 0.0"),
        ({"alternation": "probability"}, "--encoder-prob"),
        ({"alternation": "probability", "encoder_prob": 0.0}, "encoder would never be trained"),
        ({"alternation": "probability", "encoder_prob": 1.0}, "mapping would never be trained"),
        ({"encoder_prob": 0.5}, "only --alternation probability"),
        ({"branches": "encoder"}, "--alternation off"),
        ({"branches": "mapping", "alternation": "off", "encoder_init": "standardised"}, "phase alone"),
        ({"branches": "mapping", "alternation": "off", "e_channel_mult": 2.0}, "phase alone"),
        ({"compensation": True, "alternation": "off"}, "nothing is to be made up for"),
        ({"rec_in_g_phase": False}, "nothing would be reconstructed"),
        ({"rec_in_d_phase": True, "rec_scale": 0.0, "kl_scale": 0.0}, "nothing to learn from"),
        ({"w_w": 0.0, "w_l1": 0.0}, "its weights are all 0"),
        ({"lpips_batch_shrink": 2}, "perceptual distance is off"),
        ({"cond": True}, "classes from the classifier"),
        ({"d_loss_scale": 0.0}, "--d-loss-scale 0.0"),
        ({"model": "stylegan2"}, "it needs --model stylex"),
    ],
    ids=str,
)
def test_settings_that_train_nothing_or_do_nothing_are_refused(stylex_config, changes, named) -> None:
    with pytest.raises(UsageError, match=named.replace(".", r"\.")):
        dataclasses.replace(stylex_config, **changes)


def test_a_half_of_one_image_is_refused(stylex_config) -> None:
    with pytest.raises(UsageError, match="encoder, which would never be trained"):
        trainer_of(stylex_config, alternation="off", batch_gpu=1, mbstd_group_size=1)


def test_a_perceptual_net_that_cannot_see_so_small_images_is_refused(stylex_config) -> None:
    with pytest.raises(UsageError, match="--w-lpips 0"):
        trainer_of(stylex_config, w_lpips=0.1)
    with pytest.raises(UsageError, match="did you mean stlpips_alex"):
        trainer_of(stylex_config, w_lpips=0.1, perceptual="stlpips_alx")


def test_defect_2_reconstruction_after_d_moves_generator_and_encoder(stylex_config) -> None:
    """The reference zeroes those gradients before any step is taken with them."""

    def after_two_steps(*, stepping: bool, **changes) -> dict[str, torch.Tensor]:
        t = trainer_of(stylex_config, **changes)
        if not stepping:
            t.rec_opt.step = lambda: None
        t.step()
        t.step()
        return copies(t)

    without = after_two_steps(stepping=True)
    with_it = after_two_steps(stepping=True, rec_in_d_phase=True)
    lost = after_two_steps(stepping=False, rec_in_d_phase=True)
    assert {n for n in without if not torch.equal(with_it[n], without[n])} == {"synthesis", "E"}
    assert all(torch.equal(lost[n], without[n]) for n in without)  # the defect


def test_the_step_after_d_is_taken_on_encoder_turns_by_an_optimiser_of_its_own(stylex_config) -> None:
    t = trainer_of(stylex_config, rec_in_d_phase=True)
    seen = []
    for _ in range(4):
        t.step()
        seen.append("Loss/rec_in_d_phase" in t.stats.collect())
    assert seen == [False, True, False, True]
    assert t.rec_opt is not t.G_opt
    aside = trainer_of(stylex_config, rec_in_d_phase=True, branches="mapping", alternation="off")
    assert moved(aside, 1) == EVERYTHING  # D meets the mapping's images only, and E learns beside
    alone = trainer_of(stylex_config, rec_in_d_phase=True, rec_in_g_phase=False)
    alone.step()
    alone.step()
    assert alone.stats.collect()["Loss/rec"]["num"] == 1  # in that step, and in no other
    encoder = next(t.E.parameters())
    assert t.rec_opt.state[encoder]["exp_avg_sq"] is not t.G_opt.state[encoder]["exp_avg_sq"]


def test_defect_3_class_and_image_that_meet_d_belong_together(stylex_config, monkeypatch) -> None:
    def belong(t: StylexTrainer) -> bool:
        """Whether D's class vectors of real images are what C says of these images."""
        good = []
        forward = t.D.forward

        def spy(img, c=None, *, parts=1, dtype=None):
            if parts == 2:
                real, own = img.chunk(2)[1], c.chunk(2)[1]
                good.append(torch.allclose(own, t.C(real).softmax(dim=1), atol=1e-5))  # other batch sizes
            return forward(img, c, parts=parts, dtype=dtype)

        monkeypatch.setattr(t.D, "forward", spy)
        for _ in range(2):
            t.step()
        assert len(good) == 4
        return all(good)

    assert belong(trainer_of(stylex_config, d_cond="projection", batch_gpu=4))
    original = StylexTrainer._real_batch

    def other_batch(self, step):
        return original(self, step)[0], original(self, step + 1)[1]

    monkeypatch.setattr(StylexTrainer, "_real_batch", other_batch)
    assert not belong(trainer_of(stylex_config, d_cond="projection", batch_gpu=4))


def test_generated_images_carry_the_class_part_they_are_judged_by(stylex_config) -> None:
    t = trainer_of(stylex_config, style_mixing_prob=0.0)
    for step in (0, 1):
        t._real, t._logits = t._real_batch(step)
        t._forced, t.steps = False, step
        sample = t._sample(t._work("G", slice(0, 8)), 8)
        assert sample.encoded == 8 * step
        assert torch.equal(sample.ws[:, 0, -2:], sample.logits.softmax(dim=1))
        assert torch.equal(sample.ws[:, 0], sample.ws[:, -1])


def test_defect_4_encoder_settings_reach_the_encoder(stylex_config) -> None:
    narrow, wide = (trainer_of(stylex_config, e_channel_mult=m) for m in (0.5, 1.0))
    assert isinstance(narrow.E, Encoder) and isinstance(wide.E, Encoder)
    sizes = [sum(p.numel() for p in t.E.parameters()) for t in (narrow, wide)]
    assert sizes[0] < sizes[1]
    for t in (narrow, wide):
        learned = {id(p) for group in t.G_opt.param_groups for p in group["params"]}
        assert {id(p) for p in t.E.parameters()} <= learned


def test_defect_5_reconstructions_are_not_truncated(stylex_config, monkeypatch) -> None:
    t = trainer_of(stylex_config)
    t.step()
    t.step()
    t.G_ema.mapping.w_avg.fill_(3.0)
    grid = t.grid()

    def shown_are_reconstructions() -> bool:
        real = t.dataset.images(grid_indices(t.dataset, seed=0))
        with torch.no_grad():
            x = real.float() / 127.5 - 1
            w = torch.cat([t.E_ema(x), class_part(t.C(x), "softmax")], dim=1)
            ws = w.unsqueeze(1).expand(-1, t.G.num_ws, -1)
            images = torch.cat([t.G_ema.synthesis(p, noise_mode="const") for p in ws.split(50)])
        expected = pairs_picture(real, to_uint8(images), grid.columns)
        off = (t.pictures(grid)["reconstructions"].int() - expected.int()).abs()
        return int(off.max()) <= 1  # batches of other sizes round otherwise

    assert shown_are_reconstructions()

    def truncating(G, E, x, c):
        w = G.mapping.w_avg.lerp(E(x), 0.75)
        return reconstruct(G, lambda _: w, x, c)

    monkeypatch.setattr(stylex, "reconstruct", truncating)
    assert not shown_are_reconstructions()


def test_truncation_leaves_the_class_part_alone() -> None:
    mapping = ClassPartMapping(class_dim=3, z_dim=4, w_dim=5, num_ws=2, depth=1)
    mapping.w_avg.fill_(7.0)
    z, c = torch.randn(6, 4), torch.randn(6, 3)
    full, none = mapping(z, c), mapping(z, c, truncation_psi=0.0)
    assert torch.equal(none[..., 5:], full[..., 5:]) and torch.equal(full[:, 0, 5:], c)
    assert torch.equal(none[..., :5], torch.full((6, 2, 5), 7.0))


@pytest.mark.parametrize(
    ("branches", "still"), [("encoder", {"mapping"}), ("mapping", {"E"})], ids=["encoder", "mapping"]
)
def test_defect_6_one_branch_alone_trains(stylex_config, branches, still) -> None:
    """With every regulariser, conditional D, mixing; the reference concatenates None."""
    t = trainer_of(stylex_config, branches=branches, alternation="off", d_cond="weighted")
    assert moved(t, 4) == EVERYTHING - still
    assert t.weights_finite() and probe(t).seconds_per_step > 0
    assert t.pictures(t.grid()).keys() == {"fakes", "reconstructions"}
    seen = t.stats.collect()
    assert ("Loss/rec" in seen) == (branches == "encoder")


@pytest.mark.parametrize("d_cond", ["off", "projection", "weighted"])
def test_defect_7_a_batch_of_one_keeps_its_axis(stylex_config, d_cond) -> None:
    t = trainer_of(stylex_config, batch=1, mbstd_group_size=1, d_cond=d_cond)
    for _ in range(2):
        t.step()
    assert t.weights_finite() and t.stats.first_non_finite() is None
    x, logits = t._real_batch(0)
    assert t.E(x).shape == (1, 8) and logits.shape == (1, 2)
    assert t._discriminate(x, logits, t._work("D", slice(0, 1))).shape == (1, 1)


def test_defect_8_seeds_decide_and_a_resumed_run_goes_on_bitwise(stylex_config) -> None:
    cfg = dataclasses.replace(stylex_config, rec_in_d_phase=True, encoder_lr_mult=0.3)
    straight = trainer_of(cfg)
    for _ in range(5):
        straight.step()
    saved = copy.deepcopy(straight.state_dict())
    for _ in range(5):
        straight.step()
    resumed = trainer_of(cfg)
    resumed.load_state_dict(saved)
    assert float(resumed.pl_mean) > 0
    for _ in range(5):
        resumed.step()
    assert differing(straight.state_dict(), resumed.state_dict()) == []
    for lost in ("G_opt", "rec_opt", "pl_mean"):  # the defect: state that is not saved
        broken = trainer_of(cfg)
        broken.load_state_dict({**saved, lost: copy.deepcopy(trainer_of(cfg).state_dict()[lost])})
        for _ in range(5):
            broken.step()
        assert differing(straight.state_dict(), broken.state_dict()) != []


def test_defect_8_every_factor_is_recorded(stylex_config) -> None:
    cfg = dataclasses.replace(stylex_config, rec_scale=3.0, kl_scale=0.5, ttur_mult=1.5)
    recorded = json.loads(json.dumps(cfg.science()))
    assert TrainConfig.from_dict(recorded) == dataclasses.replace(
        TrainConfig.from_dict(recorded), rec_scale=3.0, kl_scale=0.5, ttur_mult=1.5
    )
    assert cfg.sha256() != stylex_config.sha256()


def test_defect_9_rates_of_all_networks_follow_the_generator_s(stylex_config) -> None:
    for g_lr in (0.01, 0.02):
        t = trainer_of(stylex_config, g_lr=g_lr, encoder_lr_mult=0.05, pl_weight=0.0, rec_in_d_phase=True)
        for opt in (t.G_opt, t.rec_opt):
            assert [group["lr"] for group in opt.param_groups] == [g_lr, pytest.approx(0.05 * g_lr)]
    t = trainer_of(stylex_config, d_lr=0.01, ttur_mult=1.5, r1_gamma=0.0)
    assert t.D_opt.param_groups[0]["lr"] == pytest.approx(0.015)


def test_a_standardised_encoder_starts_with_w_like_the_mapping_s(stylex_config) -> None:
    t = trainer_of(stylex_config, encoder_init="standardised")
    x = t.dataset.images(range(24)).float() / 127.5 - 1
    t.E.standardise_(x)
    with torch.no_grad():
        w = t.E(x)
    torch.testing.assert_close(w.mean(dim=0), torch.zeros(8), rtol=0, atol=1e-4)  # float32, std 1 of 0.05
    torch.testing.assert_close(w.std(dim=0), torch.ones(8), rtol=1e-3, atol=0)


def test_losses_are_the_formula_s(stylex_config, monkeypatch) -> None:
    weights = dict(rec_scale=3.0, w_w=0.2, w_l1=0.7, w_l2=0.4, kl_scale=0.5)
    t = trainer_of(stylex_config, **weights, compensation=True)
    t._real, t._logits = t._real_batch(0)
    work = t._work("REC", slice(0, 8))
    found = t._reconstruction(work)
    x, logits = t._real, t._logits
    with torch.no_grad():
        w = t.E(x)
        ws = torch.cat([w, logits.softmax(dim=1)], dim=1).unsqueeze(1).expand(-1, t.G.num_ws, -1)
        images = t._generate(ws, t._work("REC", slice(0, 8)))
        rec = 0.2 * (w - t.E(images)).abs().mean() + 0.7 * (x - images).abs().mean()
        rec = rec + 0.4 * F.mse_loss(images, x)
        kl = F.kl_div(
            t.C(images).log_softmax(dim=1), logits.log_softmax(dim=1), log_target=True, reduction="batchmean"
        )
    torch.testing.assert_close(found, 2 * (3 * rec + 0.5 * kl), rtol=1e-5, atol=1e-6)
    shown = {name for name, _ in work.reports}
    assert {"Loss/rec_w_in_d_phase", "Loss/rec_l1_in_d_phase", "Loss/kl_in_d_phase"} <= shown


def test_compensation_is_the_inverse_of_the_share_of_encoder_turns(stylex_config) -> None:
    factors = {
        2.0: dict(alternation="step"),
        4.0: dict(alternation="probability", encoder_prob=0.25),
    }
    for factor, turns in factors.items():
        assert trainer_of(stylex_config, compensation=True, **turns).compensation == factor
        assert trainer_of(stylex_config, **turns).compensation == 1.0


def test_d_loss_scale_multiplies_the_main_loss_and_not_r1(stylex_config) -> None:
    found = []
    for scale in (1.0, 3.0):
        t = trainer_of(stylex_config, d_loss_scale=scale)
        t._real, t._logits = t._real_batch(0)
        t._forced = False
        work = t._work("D", slice(0, 8))
        main = t._discriminator_main(work, t._real, t._logits)
        found.append((float(main), float(t._r1(t._work("R1", slice(0, 8)), t._real, t._logits))))
    assert found[1][0] == pytest.approx(3 * found[0][0], rel=1e-6)
    assert found[1][1] == found[0][1]


def test_kl_and_its_gradient_are_torch_s() -> None:
    gen = torch.Generator().manual_seed(0)
    p, q = (torch.randn(5, 4, generator=gen, dtype=torch.float64) for _ in range(2))
    q.requires_grad_()
    ours = losses.class_divergence(p, q).mean()
    theirs = F.kl_div(q.log_softmax(1), p.log_softmax(1), log_target=True, reduction="batchmean")
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(lambda q: losses.class_divergence(p, q), (q,))
    assert float(losses.class_divergence(p, p).abs().max()) < 1e-15


def test_a_spike_is_a_reconstruction_loss_above_twice_its_running_mean(stylex_config) -> None:
    t = trainer_of(stylex_config)
    spikes = []
    for rec in (1.0, 1.5, 2.5, 1.0):
        work = t._work("G", slice(0, 8))
        work.report("Loss/rec", torch.tensor(rec))
        t._take_in([work])
        spikes.append(t.stats.collect()["Rec/spikes"]["mean"])
    assert spikes == [0.0, 0.0, 1.0, 0.0]


def test_a_state_that_explains_another_classifier_is_refused(stylex_config) -> None:
    t = trainer_of(stylex_config)
    with pytest.raises(UserError, match="another one"):
        t.load_state_dict({**t.state_dict(), "classifier": "0" * 64})


def test_micro_batches_with_other_gradients_add_up(stylex_config) -> None:
    """E has none in the mapping's micro-batches, the mapping none in E's: the sum is of what there is."""
    t = trainer_of(stylex_config, alternation="microbatch", batch_gpu=4, pl_weight=0.0, r1_gamma=0.0)
    t._real, t._logits = t._real_batch(0)
    t._forced = False
    t.G_opt = torch.optim.SGD([*t.G.parameters(), *t.E.parameters()], lr=0.0)
    t._take(Phase("G", t.G_opt, t._generator_main))
    found = [p.grad.clone() for p in t.G_opt.param_groups[0]["params"] if p.grad is not None]
    for p in t.G_opt.param_groups[0]["params"]:
        p.grad = None
        p.requires_grad_(True)
    for i in (0, 4):
        (t._generator_main(t._work("G", slice(i, i + 4))) / 2).backward()
    expected = [p.grad for p in t.G_opt.param_groups[0]["params"] if p.grad is not None]
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
