"""Options of StylEx's class part, of the encoder's w, and of when a reconstruction is learnt."""

import dataclasses

import pytest
import torch
from stylex_toys import EVERYTHING, moved, trainer_of, work_of

from benchmarks import losses as benchmark
from fact_metrics.base.errors import UsageError
from fact_train.networks.mapping import ClassFreeMapping
from fact_train.snapshot import load_snapshot, save_snapshot
from fact_train.training import losses

MAPPING, ENCODER = 0, 1  # whose turn a step of --alternation step is


def sample_at(t, step: int, **options):
    t.steps = step
    with torch.no_grad():
        return t.model._sample(work_of(t, **options), 8)


def snapshot_of(t, folder):
    """What is loaded from a snapshot of the trainer's networks."""
    path = folder / "network.safetensors"
    save_snapshot(
        path,
        t.model.snapshot_networks,
        cfg=t.cfg,
        dataset=t.dataset.describe(),
        nimg=t.nimg,
        run_id="a",
        classifier=t.model.classifier_card,
    )
    return load_snapshot(path)


def test_a_mapping_can_predict_the_class_part_itself(stylex_config, tmp_path) -> None:
    """As the older script of the reproduction, where no class enters the noise branch."""
    cfg = dataclasses.replace(stylex_config, mapping_class="predicted", class_repr="logits")
    t = trainer_of(cfg)
    assert moved(t, 4) == EVERYTHING
    mapping = t.model.gan.G.mapping
    z, c = torch.randn(5, 8), torch.randn(5, 2)
    with torch.no_grad():
        ws = mapping(z, c)
        assert ws.shape[2] == 8 + 2 and torch.equal(ws, mapping(z, torch.zeros(5, 2)))
        assert float(ws[:, 0, 8:].std(dim=0).min()) > 0  # it varies with z
        assert torch.equal(mapping(z, c, truncation_psi=0.0), mapping.w_avg.expand(5, ws.shape[1], -1))
        sample = sample_at(t, MAPPING)
        assert not torch.equal(sample.ws[:, 0, 8:], sample.logits)
        assert torch.equal(sample_at(t, ENCODER).ws[:, 0, 8:], t.inputs().c)
    assert mapping.w_avg.shape == (10,) and float(mapping.w_avg[8:].abs().max()) > 0
    G = snapshot_of(t, tmp_path).G
    assert isinstance(G.mapping, ClassFreeMapping) and G.w_dim == 8
    torch.testing.assert_close(G.mapping(z, c), t.model.gan.G_ema.mapping(z, c))
    assert t.model.pictures(t.model.grid()).keys() == {"fakes", "reconstructions"}


@pytest.mark.parametrize("step", [MAPPING, ENCODER])
def test_class_parts_are_dropped_at_their_rate_in_both_branches(stylex_config, step: int) -> None:
    t = trainer_of(stylex_config, class_dropout=0.25, style_mixing_prob=0.0)
    dropped = []
    for name in map(str, range(50)):  # so many random streams
        parts = sample_at(t, step, name=name).ws[:, :, 8:]
        whole = t.inputs().c.softmax(dim=1).unsqueeze(1).expand_as(parts)
        gone = (parts == 0).all(dim=2).all(dim=1)
        assert torch.equal(parts[~gone], whole[~gone])
        dropped.append(gone)
    share = torch.cat(dropped).double().mean()
    assert abs(float(share) - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5  # four standard errors
    always = trainer_of(stylex_config, class_dropout=1.0)
    assert float(sample_at(always, step).ws[:, :, 8:].abs().max()) == 0


@pytest.mark.parametrize("step", [MAPPING, ENCODER])
def test_the_class_part_is_scaled_alike_in_training_and_from_a_snapshot(
    stylex_config, tmp_path, step: int
) -> None:
    t = trainer_of(stylex_config, class_scale=0.25, style_mixing_prob=0.0)
    parts = sample_at(t, step).ws[:, 0, 8:]
    assert torch.equal(parts, t.inputs().c.softmax(dim=1) / 4)
    images = t.dataset.images(torch.arange(4))
    snapshot = snapshot_of(t, tmp_path)
    expected = snapshot.class_logits(images).softmax(dim=1) / 4
    assert torch.equal(snapshot.class_parts(images), expected)
    assert torch.equal(snapshot.reconstruction_ws(images)[:, 0, 8:], expected)


@pytest.mark.parametrize("step", [MAPPING, ENCODER])
def test_noise_on_the_class_part_has_its_deviation_in_both_branches(stylex_config, step: int) -> None:
    t = trainer_of(stylex_config, class_noise=0.3, style_mixing_prob=0.0)
    added = torch.cat(
        [sample_at(t, step, name=str(i)).ws[:, 0, 8:] - t.inputs().c.softmax(dim=1) for i in range(50)]
    )
    assert added.numel() == 800 and abs(float(added.mean())) < 4 * 0.3 / 800**0.5  # four standard errors
    assert float(added.std()) == pytest.approx(0.3, rel=4 / (2 * 800) ** 0.5)
    assert torch.equal(t.model.grid().c.sum(dim=1).round(decimals=4), torch.ones(len(t.model.grid().c)))


def test_noise_on_w_is_the_encoder_s_alone_and_no_target_of_the_w_loss(stylex_config) -> None:
    noisy, plain = (trainer_of(stylex_config, w_noise=std, style_mixing_prob=0.0) for std in (0.3, 0.0))
    a, b = sample_at(noisy, ENCODER), sample_at(plain, ENCODER)
    added = (a.ws - b.ws)[:, 0]
    assert torch.equal(a.encoded.w, b.encoded.w) and torch.equal(added[:, 8:], torch.zeros(8, 2))
    assert float(added[:, :8].std()) == pytest.approx(0.3, rel=4 / (2 * 64) ** 0.5)  # four standard errors
    assert torch.equal(sample_at(noisy, MAPPING).ws, sample_at(plain, MAPPING).ws)


def gradients_of(t, loss) -> dict[str, torch.Tensor]:
    """Of G's loss in an encoder turn, or of its explanation alone; 0 where a network has none."""
    t.steps = ENCODER
    nets = {"synthesis": t.model.gan.G.synthesis, "mapping": t.model.gan.G.mapping, "E": t.model.E}
    value = loss(t, work_of(t))
    found = {}
    for name, net in nets.items():
        params = list(net.parameters())
        grads = torch.autograd.grad(value, params, retain_graph=True, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(params, grads, strict=True)]
        found[name] = torch.cat([g.flatten() for g in parts])
    return found


def loss_of_g(t, work):
    return t.model.generator_loss(work)


def explanation_alone(t, work):
    ws, encoded = t.model._encoded_ws(work.real, work.c, work)
    return t.model._explanation_loss(encoded, t.model.gan.generate(ws, work), work)


@pytest.mark.parametrize("rec_in_g_phase", [True, False])
def test_the_encoder_learns_nothing_from_d_on_demand(stylex_config, rec_in_g_phase: bool) -> None:
    options = dict(rec_in_g_phase=rec_in_g_phase, rec_in_d_phase=True, noise="off")
    with_d, without = (trainer_of(stylex_config, encoder_adversarial=on, **options) for on in (True, False))
    a, b = gradients_of(with_d, loss_of_g), gradients_of(without, loss_of_g)
    torch.testing.assert_close(a["synthesis"], b["synthesis"])  # two graphs round apart
    assert float(a["E"].abs().max()) > 0
    alone = gradients_of(without, explanation_alone)["E"] if rec_in_g_phase else torch.zeros_like(b["E"])
    torch.testing.assert_close(b["E"], alone)
    assert not torch.allclose(a["E"], b["E"])


def test_the_mapping_learns_from_d_where_the_encoder_does_not(stylex_config) -> None:
    """Half of every micro-batch is the mapping's."""
    t = trainer_of(stylex_config, alternation="off", encoder_adversarial=False, style_mixing_prob=0.0)
    assert float(gradients_of(t, loss_of_g)["mapping"].abs().max()) > 0


def test_latents_of_the_mapping_are_recovered(stylex_config) -> None:
    """The value and E's gradient in closed form. Without the loss, E learns nothing in the mapping's turn."""
    found = {}
    for weight in (0.0, 0.7):
        t = trainer_of(stylex_config, w_latent=weight, style_mixing_prob=0.9)
        t.steps = MAPPING
        work = work_of(t)
        value = t.model.generator_loss(work)
        params = list(t.model.E.parameters())
        found[weight] = value.item(), torch.autograd.grad(value, params, allow_unused=True)
    with torch.no_grad():
        work = work_of(t)
        ws = t.model._sample(work, 8).ws
        images = t.model.gan.generate(ws, work)
    expected = (ws[:, :, :8].mean(dim=1) - t.model.E(images)).abs().mean()
    assert found[0.7][0] - found[0.0][0] == pytest.approx(0.7 * expected.item(), rel=1e-4)
    assert all(grad is None for grad in found[0.0][1])
    for mine, closed in zip(found[0.7][1], torch.autograd.grad(0.7 * expected, params), strict=True):
        torch.testing.assert_close(mine, closed, rtol=1e-4, atol=1e-6)  # rounding of another graph


def reconstructions(t, steps: int, name: str = "Loss/rec_l1") -> list[bool]:
    seen = []
    for _ in range(steps):
        t.step()
        seen.append(name in t.stats.collect())
    return seen


def test_graphs_and_benchmarks_know_which_turns_are_left_out(stylex32_config) -> None:
    """One graph for each kind of turn; a cycle has every kind as often as a run has it."""
    t = trainer_of(stylex32_config, rec_interval=2, lpips_interval=2, r1_interval=4)
    keys = []
    for step in range(10):
        t.steps = step
        keys.append(t.model.graph_key(work_of(t)))
    encoder = [key[1] for key in keys if key[0]]  # whether a turn reconstructs, and with LPIPS
    assert encoder == [True, None, False, None, True] and {key[0] for key in keys[::2]} == {0}
    assert benchmark.cycle(t) == 8
    assert benchmark.cycle(trainer_of(stylex32_config, r1_interval=3, pl_weight=0.0)) == 6


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ({}, "Loss/rec_l1"),
        ({"rec_in_g_phase": False, "rec_in_d_phase": True}, "Loss/rec_l1"),
        ({"rec_in_d_phase": True}, "Loss/rec_l1_in_d_phase"),
    ],
    ids=["in G's step", "in its own", "in both"],
)
def test_reconstruction_every_other_encoder_turn(stylex_config, where: dict, name: str) -> None:
    t = trainer_of(stylex_config, rec_interval=2, **where)
    assert reconstructions(t, 8, name) == [False, True, False, False, False, True, False, False]
    every = trainer_of(stylex_config, rec_interval=2, branches="encoder", alternation="off", **where)
    assert reconstructions(every, 4, name) == [True, False, True, False]
    split = trainer_of(stylex_config, rec_interval=2, alternation="microbatch", batch_gpu=8, **where)
    assert any(reconstructions(split, 4, name))  # one micro-batch a step: encoder turns are odd steps


def test_a_reconstruction_counts_as_often_as_it_is_left_out(stylex_config) -> None:
    """The gradient of an interval, and with it the learning signal over time, is that of every turn."""
    found = []
    for interval in (1, 3):
        t = trainer_of(stylex_config, rec_interval=interval, compensation=True)
        found.append(t.model.reconstruction_loss(work_of(t, "REC")).item())
    assert found[1] == pytest.approx(3 * found[0], rel=1e-6)


def test_the_perceptual_distance_every_other_reconstruction(stylex32_config) -> None:
    t = trainer_of(stylex32_config, lpips_interval=2, branches="encoder", alternation="off")
    assert reconstructions(t, 3, "Loss/rec_lpips") == [True, False, True]
    values = []
    for interval in (1, 2):
        t = trainer_of(stylex32_config, lpips_interval=interval, kl_scale=0.0, w_l1=0.0, w_w=0.0, w_l2=1.0)
        work = work_of(t, "REC")
        values.append(t.model.reconstruction_loss(work).item())
        seen = {name: v.mean().item() for name, v in work.reports}
    assert values[1] - values[0] == pytest.approx(0.1 * seen["Loss/rec_lpips_in_d_phase"], rel=1e-4)


def test_spikes_are_counted_among_terms_of_every_turn(stylex32_config) -> None:
    """A distance that comes every other turn would be a spike of its own."""
    for interval, weight in ((1, 0.1), (2, 0.0)):
        t = trainer_of(stylex32_config, lpips_interval=interval, branches="encoder", alternation="off")
        work = work_of(t)
        t.model.generator_loss(work)
        seen = {name.removeprefix("Loss/rec_"): v.mean().item() for name, v in work.reports}
        expected = 0.1 * seen["w"] + seen["l1"] + weight * seen["lpips"]
        assert work.rec_loss.item() == pytest.approx(expected, rel=1e-5)


def test_stretching_takes_contrast_and_brightness_away() -> None:
    gen = torch.Generator().manual_seed(0)
    x = torch.rand(3, 2, 4, 4, generator=gen, dtype=torch.float64) * 2 - 1
    y = losses.stretched(x)
    for image, out in zip(x, y, strict=True):
        expected = (image - image.min()) / (image.max() - image.min()) * 2 - 1
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(losses.stretched(0.2 * x - 0.5), y, rtol=1e-12, atol=1e-12)
    flat = torch.full((1, 1, 4, 4), 0.3, requires_grad=True)
    out = losses.stretched(flat)
    (grad,) = torch.autograd.grad(out.sum(), [flat])
    assert torch.equal(out, torch.full_like(flat, -1.0)) and torch.isfinite(grad).all()
    assert torch.autograd.gradcheck(losses.stretched, (x.requires_grad_(True),))


def test_a_stretched_perceptual_distance_does_not_see_contrast(stylex32_config) -> None:
    found = {}
    for stretch in (False, True):
        t = trainer_of(stylex32_config, lpips_stretch=stretch)
        encoded = sample_at(t, ENCODER).encoded
        paler = 0.5 * encoded.x - 0.2
        found[stretch] = float(
            t.model.explanation.distances(encoded, paler, number=0)["lpips"][1].abs().max()
        )
    assert found[True] < 1e-5 < found[False]  # float32 rounding against a difference that is seen


def test_balance_goes_by_what_the_classifier_says(stylex_config) -> None:
    """Classes that the labels do not have: C is made to call three images of 24 its second class."""
    t = trainer_of(stylex_config)
    rare = {bytes(image.numpy()) for image in t.dataset.images([1, 2, 5])}

    def calls_three_rare(module, inputs, logits):
        pixels = ((inputs[0] + 1) * 127.5).round().to(torch.uint8)
        is_rare = torch.tensor([bytes(image.numpy()) in rare for image in pixels])
        return torch.stack([~is_rare, is_rare], dim=1).float()

    t.model.C.register_forward_hook(calls_three_rare)
    assert sorted(len(pool) for pool in t.model.class_pools()) == [3, 21]
    t.cfg, t.model.pools = dataclasses.replace(t.cfg, balance=True), t.model.class_pools()
    assert all(t.inputs().c[:, 1].sum() == 4 for t.steps in range(6))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"mapping_class": "predicted", "branches": "encoder", "alternation": "off"},
            "--mapping-class predicted",
        ),
        ({"mapping_class": "predicted", "d_cond": "projection"}, "no class that D could see"),
        ({"mapping_class": "predicted", "kl_branches": "both"}, "no class to be held to"),
        ({"branches": "mapping", "alternation": "off", "w_noise": 0.1}, "--w-noise 0.1: .* --rec-in-d-phase"),
        ({"rec_interval": 2, "rec_scale": 0.0, "kl_scale": 0.0}, "--rec-interval 2: .* nothing to train"),
        ({"lpips_interval": 2}, "--lpips-interval 2: the perceptual distance is off"),
        ({"lpips_stretch": True}, "--lpips-stretch: the perceptual distance is off"),
        (
            {"encoder_adversarial": False, "branches": "mapping", "alternation": "off"},
            "--no-encoder-adversarial: --branches mapping shows D no image",
        ),
        (
            {"encoder_adversarial": False, "rec_scale": 0.0, "kl_scale": 0.0},
            "the encoder would never be trained",
        ),
        ({"w_latent": 1.0, "branches": "encoder", "alternation": "off"}, "--w-latent 1: .* no images"),
        ({"class_dropout": 1.5}, "--class-dropout 1.5: it must lie in"),
        (
            {"model": "stylegan2", "classifier": None, "w_lpips": 0.1, "w_noise": 0.1},
            "it needs --model stylex",
        ),
    ],
    ids=str,
)
def test_options_without_effect_are_refused(stylex_config, changes: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        dataclasses.replace(stylex_config, **changes)
