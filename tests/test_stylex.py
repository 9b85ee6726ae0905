"""StylEx: regression tests for the reference trainers' defects, whose turn it is, settings, and the state.

Every defect's test checks that it holds, then puts the defect back and sees the same check fail.
"""

import copy
import dataclasses
import json

import pytest
import torch
from stylex_toys import EVERYTHING, copies, differing, moved, trainer_of, work_of

from fact_metrics.base.errors import UsageError
from fact_metrics.base.pixels import to_uint8
from fact_train.networks.classifier import class_part
from fact_train.networks.encoder import Encoder, reconstruct
from fact_train.networks.mapping import ClassPartMapping
from fact_train.settings.config import TrainConfig
from fact_train.training.grids import grid_indices, pairs_picture
from fact_train.training.models import stylex
from fact_train.training.models.stylex import StylEx
from fact_train.training.models.turns import Turns, draws_encoder
from fact_train.training.probe import probe
from fact_train.training.trainer import Trainer


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
    monkeypatch.setattr(Turns, "is_encoder_turn", lambda self, inputs, *, turn, part: part % 2 == 1)
    assert moved(trainer_of(stylex_config, alternation="microbatch"), 4) == EVERYTHING - {"E"}


@pytest.mark.parametrize(("rounds", "share"), [(1, 0.5), (2, 0.5), (3, 0.5), (8, 0.5)])
def test_micro_batches_give_both_branches_half_of_the_turns(stylex_config, rounds, share) -> None:
    cfg = dataclasses.replace(stylex_config, alternation="microbatch")
    turns = [draws_encoder(cfg, turn=t, part=i, parts=rounds) for t in range(8) for i in range(rounds)]
    assert sum(turns) / len(turns) == share and not turns[0]
    drawn = dataclasses.replace(cfg, alternation="probability", encoder_prob=0.25)
    found = sum(draws_encoder(drawn, turn=t, part=0, parts=1) for t in range(400)) / 400
    assert abs(found - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5  # four standard errors


def test_path_length_meets_both_branches_at_an_even_interval(stylex_config, monkeypatch) -> None:
    t = trainer_of(stylex_config, pl_interval=2)
    met = []
    original = t.model.gan.path_length_loss

    def spy(work):
        met.append(t.model.turns.encoded(work, work.size) > 0)
        return original(work)

    monkeypatch.setattr(t.model.gan, "path_length_loss", spy)
    for _ in range(4):
        t.step()
    assert met == [False, True]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"encoder_lr_mult": 0.0}, "--encoder-lr-mult 0: it must be positive"),
        ({"alternation": "probability"}, "--encoder-prob"),
        ({"alternation": "probability", "encoder_prob": 0.0}, "encoder would never be trained"),
        ({"alternation": "probability", "encoder_prob": 1.0}, "mapping would never be trained"),
        ({"encoder_prob": 0.5}, "--encoder-prob 0.5: it needs --alternation probability"),
        ({"branches": "encoder"}, "--alternation off"),
        (
            {"branches": "mapping", "alternation": "off", "encoder_init": "standardised"},
            "only with --rec-in-d-phase",
        ),
        ({"branches": "mapping", "alternation": "off", "e_channel_mult": 2.0}, "only with --rec-in-d-phase"),
        ({"compensation": True, "alternation": "off"}, "already reconstructs in every step"),
        ({"rec_in_g_phase": False}, "nothing would be reconstructed"),
        ({"rec_in_d_phase": True, "rec_scale": 0.0, "kl_scale": 0.0}, "leave it without a loss"),
        ({"w_w": 0.0, "w_l1": 0.0}, "its weights are all 0"),
        ({"lpips_batch_shrink": 2}, "perceptual distance is off"),
        ({"cond": True}, "classes from the classifier"),
        ({"d_loss_scale": 0.0}, "--d-loss-scale 0: it must be positive"),
        ({"model": "stylegan2"}, "it needs --model stylex"),
    ],
    ids=str,
)
def test_settings_that_train_nothing_or_do_nothing_are_refused(stylex_config, changes, named) -> None:
    with pytest.raises(UsageError, match=named.replace(".", r"\.")):
        dataclasses.replace(stylex_config, **changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"latent_space": "w_plus"}, "--latent-space w_plus"),
        ({"injection": "vectors", "style_vectors": 2}, "--style-vectors 2"),
    ],
)
def test_several_ws_of_an_image_are_refused(stylex_config, changes: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        trainer_of(stylex_config, style_mixing_prob=0.0, **changes)


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
            t.model.rec_opt.step = lambda: None
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
    assert t.model.rec_opt is not t.model.gan.G_opt
    aside = trainer_of(stylex_config, rec_in_d_phase=True, branches="mapping", alternation="off")
    assert moved(aside, 1) == EVERYTHING  # D meets the mapping's images only, and E learns beside
    alone = trainer_of(stylex_config, rec_in_d_phase=True, rec_in_g_phase=False)
    alone.step()
    alone.step()
    assert alone.stats.collect()["Loss/rec"]["num"] == 1  # in that step, and in no other
    encoder = next(t.model.E.parameters())
    assert t.model.rec_opt.state[encoder]["exp_avg_sq"] is not t.model.gan.G_opt.state[encoder]["exp_avg_sq"]


def test_defect_3_class_and_image_that_meet_d_belong_together(stylex_config, monkeypatch) -> None:
    def belong(t: Trainer) -> bool:
        """Whether D's class vectors of real images are what C says of these images."""
        good = []
        forward = t.model.gan.D.forward

        def spy(img, c=None, *, parts=1, dtype=None):
            if parts == 2:
                real, own = img.chunk(2)[1], c.chunk(2)[1]
                good.append(
                    torch.allclose(own, t.model.C(real).softmax(dim=1), atol=1e-5)
                )  # other batch sizes
            return forward(img, c, parts=parts, dtype=dtype)

        monkeypatch.setattr(t.model.gan.D, "forward", spy)
        for _ in range(2):
            t.step()
        assert len(good) == 4
        return all(good)

    assert belong(trainer_of(stylex_config, d_cond="projection", batch_gpu=4))
    original = StylEx.condition
    before = []

    def other_batch(self, images, index):
        before.append(images)
        return original(self, before[-2] if len(before) > 1 else images.flip(0), index)

    monkeypatch.setattr(StylEx, "condition", other_batch)
    assert not belong(trainer_of(stylex_config, d_cond="projection", batch_gpu=4))


def test_generated_images_carry_the_class_part_they_are_judged_by(stylex_config) -> None:
    t = trainer_of(stylex_config, style_mixing_prob=0.0)
    for step in (0, 1):
        t.steps = step
        sample = t.model._sample(work_of(t), 8)
        assert (0 if sample.encoded is None else len(sample.encoded.x)) == 8 * step
        assert torch.equal(sample.ws[:, 0, -2:], sample.logits.softmax(dim=1))
        assert torch.equal(sample.ws[:, 0], sample.ws[:, -1])


def test_defect_4_encoder_settings_reach_the_encoder(stylex_config) -> None:
    narrow, wide = (trainer_of(stylex_config, e_channel_mult=m) for m in (0.5, 1.0))
    assert isinstance(narrow.model.E, Encoder) and isinstance(wide.model.E, Encoder)
    sizes = [sum(p.numel() for p in t.model.E.parameters()) for t in (narrow, wide)]
    assert sizes[0] < sizes[1]
    for t in (narrow, wide):
        learned = {id(p) for group in t.model.gan.G_opt.param_groups for p in group["params"]}
        assert {id(p) for p in t.model.E.parameters()} <= learned


def test_defect_5_reconstructions_are_not_truncated(stylex_config, monkeypatch) -> None:
    t = trainer_of(stylex_config)
    t.step()
    t.step()
    t.model.gan.G_ema.mapping.w_avg.fill_(3.0)
    grid = t.model.grid()

    def shown_are_reconstructions() -> bool:
        real = t.dataset.images(grid_indices(t.dataset, seed=0))
        with torch.no_grad():
            x = real.float() / 127.5 - 1
            w = torch.cat([t.model.E_ema(x), class_part(t.model.C(x), "softmax", 1.0)], dim=1)
            ws = w.unsqueeze(1).expand(-1, t.model.gan.G.num_ws, -1)
            images = torch.cat([t.model.gan.G_ema.synthesis(p, noise_mode="const") for p in ws.split(50)])
        expected = pairs_picture(real, to_uint8(images), grid.columns)
        off = (t.model.pictures(grid)["reconstructions"].int() - expected.int()).abs()
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
    assert t.model.pictures(t.model.grid()).keys() == {"fakes", "reconstructions"}
    seen = t.stats.collect()
    assert ("Loss/rec" in seen) == (branches == "encoder")


@pytest.mark.parametrize("d_cond", ["off", "projection", "weighted"])
def test_defect_7_a_batch_of_one_keeps_its_axis(stylex_config, d_cond) -> None:
    t = trainer_of(stylex_config, batch=1, mbstd_group_size=1, d_cond=d_cond)
    for _ in range(2):
        t.step()
    assert t.weights_finite() and t.stats.first_non_finite() is None
    work = work_of(t, "D")
    x, logits = work.real, work.c
    assert t.model.E(x).shape == (1, 8) and logits.shape == (1, 2)
    assert t.model.gan.discriminate(x, logits, work).shape == (1, 1)


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
    assert float(resumed.model.gan.pl_mean) > 0
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
        for opt in (t.model.gan.G_opt, t.model.rec_opt):
            assert [group["lr"] for group in opt.param_groups] == [g_lr, pytest.approx(0.05 * g_lr)]
    t = trainer_of(stylex_config, d_lr=0.01, ttur_mult=1.5, r1_gamma=0.0)
    assert t.model.gan.D_opt.param_groups[0]["lr"] == pytest.approx(0.015)
