"""Losses and penalties of D and G that can be chosen: closed forms, gradients, their place in a step."""

import dataclasses
import math
import typing
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from stylex_toys import EVERYTHING, moved, trainer_of, work_of

from fact_metrics.base.errors import UsageError
from fact_train.settings.config import TrainConfig, fields_of
from fact_train.training import losses
from fact_train.training.models.gan import GAN
from fact_train.training.step import Phase

SCORES = [[-1.3], [0.4], [2.0], [0.9]], [[0.3], [-0.7], [1.1], [-2.0]]


def scores() -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of four real and four generated images, away from the corners of the hinge."""
    return tuple(torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in SCORES)


def test_the_names_of_the_configuration_are_those_of_the_tables() -> None:
    types = {f.name: f.type for f in fields_of()}
    assert typing.get_args(types["loss"]) == tuple(losses.LOSSES)
    assert typing.get_args(types["gp"]) == tuple(losses.GRADIENT_PENALTIES)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_gradients_of_every_loss_are_those_of_finite_differences(name: str) -> None:
    loss, (real, generated) = losses.LOSSES[name], scores()
    assert torch.autograd.gradcheck(loss.discriminator, (real, generated))
    assert torch.autograd.gradcheck(lambda g: loss.generator(g, real.detach()), (generated,))
    d_real, d_generated = torch.autograd.grad(loss.discriminator(real, generated).mean(), [real, generated])
    assert (d_real <= 0).all() and (d_generated >= 0).all()  # D raises real scores and lowers the others
    (g,) = torch.autograd.grad(loss.generator(generated, real).mean(), [generated])
    assert (g < 0).all()  # G raises the scores of all its images


def test_hinge_stops_at_the_margin() -> None:
    real, generated = (x.detach() for x in scores())
    hinge = losses.LOSSES["hinge"]
    ones = torch.ones_like(real)
    torch_s = dict(target=-ones, margin=1.0, reduction="none")  # max(0, margin - x)
    expected = F.hinge_embedding_loss(real, **torch_s) + F.hinge_embedding_loss(-generated, **torch_s)
    torch.testing.assert_close(hinge.discriminator(real, generated), expected)
    assert hinge.discriminator(ones, -ones).max() == 0
    torch.testing.assert_close(hinge.generator(generated, None), -generated)


def test_relativistic_compares_each_generated_image_with_its_real_one() -> None:
    real, generated = (x.detach() for x in scores())
    loss = losses.LOSSES["relativistic"]
    torch.testing.assert_close(loss.discriminator(real, generated), -(real - generated).sigmoid().log())
    torch.testing.assert_close(loss.generator(generated, real), -(generated - real).sigmoid().log())


def test_dual_contrastive_is_the_cross_entropy_of_one_among_the_others() -> None:
    """Yu et al. 2021: a real score among generated ones, and a generated one among real ones, negated."""
    real, generated = (x.detach() for x in scores())
    expected = []
    for i in range(4):
        among_generated = torch.cat([real[i], generated[:, 0]])
        among_real = torch.cat([-generated[i], -real[:, 0]])
        expected.append(sum(F.cross_entropy(x, torch.tensor(0)) for x in (among_generated, among_real)))
    found = losses.LOSSES["dual-contrastive"].discriminator(real, generated)
    torch.testing.assert_close(found[:, 0], torch.stack(expected), rtol=1e-12, atol=0)
    swapped = losses.LOSSES["dual-contrastive"].generator(real, generated)
    torch.testing.assert_close(swapped, found, rtol=1e-12, atol=0)


def linear_scores(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A small D whose gradient depends on the image."""
    return (weight * x).sum(dim=[1, 2, 3]) + (weight * x.square()).sum(dim=[1, 2, 3])


@pytest.mark.parametrize("centre", losses.GRADIENT_PENALTIES)
def test_gradient_penalties_and_their_gradients(centre: str) -> None:
    gen = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 2, 3, 3, generator=gen, dtype=torch.float64, requires_grad=True)
    x = torch.randn(5, 2, 3, 3, generator=gen, dtype=torch.float64, requires_grad=True)

    def penalty(weight):
        return losses.GRADIENT_PENALTIES[centre](linear_scores(weight, x), x)

    norms = (weight * (1 + 2 * x)).flatten(1).norm(dim=1)
    expected = {"zero": norms.square(), "one": (norms - 1).square()}[centre]
    torch.testing.assert_close(penalty(weight), expected, rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(penalty, (weight,))


def test_the_one_centred_penalty_of_a_flat_discriminator_has_a_gradient() -> None:
    weight = torch.zeros(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    x = torch.ones(3, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    value = losses.GRADIENT_PENALTIES["one"](linear_scores(weight, x), x)
    (grad,) = torch.autograd.grad(value.mean(), [weight])
    assert torch.equal(value, torch.ones(3).double()) and torch.isfinite(grad).all()


def test_the_best_scores_are_a_share_rounded_up() -> None:
    values = torch.tensor([[0.1], [3.0], [-2.0], [1.0], [0.5]])
    assert losses.best_scores(values, share=0.4).tolist() == [1, 3]
    assert losses.best_scores(values, share=0.41).tolist() == [1, 3, 4]
    assert losses.best_scores(values, share=0.01).tolist() == [1]
    assert len(losses.best_scores(torch.zeros(10, 1), share=0.3)) == 3  # 0.3 * 10 > 3 in floating point


class _Float64(torch.overrides.TorchFunctionMode):
    """`x.float()` leaves float64 tensors alone, as in fact_train/bake.py."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def float64(gan: GAN):
    """Networks, latents and feature maps in float64."""
    gan.G.double()
    gan.D.double()
    gan.feature_maps = {"dtype": torch.float64}
    torch.set_default_dtype(torch.float64)
    try:
        with _Float64():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_relativistic_loss_with_r1_and_r2_is_the_plain_formula(tiny_config: TrainConfig) -> None:
    """Huang et al. 2025, in one step of D: losses and all gradients, written out; float64 to 1e-10."""
    t = trainer_of(
        tiny_config,
        loss="relativistic",
        **dict(r1_gamma=2.0, r2_gamma=3.0, r1_phase="d", r1_interval=1),
        **dict(style_mixing_prob=0.0, noise="off", mbstd_group_size=1, pl_weight=0.0),
    )
    gan = t.model.gan
    inputs = dataclasses.replace(t.inputs(), real=t.inputs().real.double())
    with float64(gan):
        d_params, g_params = list(gan.D.parameters()), list(gan.G.parameters())
        found_d = gan.penalised_discriminator_loss(work_of(t, "D", inputs=inputs))
        found_d_grads = torch.autograd.grad(found_d, d_params)
        found_g = gan.generator_loss(work_of(t, "G", inputs=inputs))
        found_g_grads = torch.autograd.grad(found_g, g_params)

        def drawn(work) -> torch.Tensor:
            return gan.G(torch.randn(8, 8, generator=work.gen), noise_mode="off")

        def softplus(x):
            return (1 + x.exp()).log()

        def squared_norms(x) -> torch.Tensor:
            x = x.detach().requires_grad_(True)
            return torch.autograd.grad(gan.D(x).sum(), x, create_graph=True)[0].flatten(1).pow(2).sum(1)

        work = work_of(t, "D", inputs=inputs)
        first, second = drawn(work).detach(), drawn(work).detach()
        expected_d = softplus(gan.D(first) - gan.D(inputs.real)).mean()
        expected_d = expected_d + 2 / 2 * squared_norms(inputs.real).mean()
        expected_d = expected_d + 3 / 2 * squared_norms(second).mean()
        generated = drawn(work_of(t, "G", inputs=inputs))
        expected_g = softplus(gan.D(inputs.real).detach() - gan.D(generated)).mean()
        exact = dict(rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found_d, expected_d, **exact)
        torch.testing.assert_close(found_g, expected_g, **exact)
        expected_d_grads = torch.autograd.grad(expected_d, d_params)
        torch.testing.assert_close(found_d_grads, expected_d_grads, **exact)
        torch.testing.assert_close(found_g_grads, torch.autograd.grad(expected_g, g_params), **exact)
    assert max(float(g.abs().max()) for g in expected_d_grads) > 1e-3  # not a comparison of zeros


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("model", ["stylegan2", "stylex"])
def test_every_loss_trains_every_network(tiny_config, stylex_config, model: str, loss: str) -> None:
    if model == "stylex":
        t = trainer_of(stylex_config, loss=loss, r2_gamma=1.0, top_k=0.5, d_cond="projection")
        assert moved(t, 2) == EVERYTHING
    else:
        t = trainer_of(tiny_config, loss=loss, r2_gamma=1.0, top_k=0.5, cond=True, batch_gpu=4)
        before = [p.clone() for net in t.model.networks.values() for p in net.parameters()]
        t.step()
        t.step()
        after = [p for net in t.model.networks.values() for p in net.parameters()]
        assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    seen = t.stats.collect()
    assert {"Loss/G", "Loss/D", "Loss/r1_penalty", "Loss/r2_penalty"} <= seen.keys()
    assert t.weights_finite() and all(math.isfinite(value["mean"]) for value in seen.values())


def test_top_k_drops_the_gradient_of_all_other_images(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config, top_k=0.25)
    gan = t.model.gan
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    for module in gan.D.modules():  # the statistic of a group would carry gradients between images
        if hasattr(module, "mbstd_group_size"):
            module.mbstd_group_size = 1
    with torch.no_grad():
        best = gan.D(images).flatten().topk(2).indices
    (grads,) = torch.autograd.grad(gan.adversarial_loss(images, None, work_of(t)), [images])
    learnt = grads.flatten(1).abs().amax(dim=1) > 0
    assert set(learnt.nonzero().flatten().tolist()) == set(best.tolist())


def test_penalties_take_a_step_of_their_own_or_join_that_of_d(tiny_config: TrainConfig) -> None:
    own, joined = (trainer_of(tiny_config, r1_phase=phase, r2_gamma=1.0) for phase in ("own", "d"))
    names = {
        t: [[phase.name for group in t.model.phases(t.inputs()) for phase in group]] for t in (own, joined)
    }
    assert names[own] == [["G", "PL", "D", "R1"]] and names[joined] == [["G", "PL", "D with R1"]]
    assert own.model.gan.D_opt.param_groups[0]["lr"] == pytest.approx(0.002 * 4 / 5)
    assert joined.model.gan.D_opt.param_groups[0]["lr"] == 0.002  # no further step to correct for
    for t in (own, joined):
        seen = []
        for _ in range(5):
            t.step()
            seen.append("Loss/r2_penalty" in t.stats.collect())
        assert seen == [True, False, False, False, True]
        assert t.model.gan.lazy_intervals == [2, 4]


def test_r2_alone_is_a_lazy_regulariser_too(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config, r1_gamma=0.0, r2_gamma=1.0)
    t.step()
    seen = t.stats.collect()
    assert "Loss/r2_penalty" in seen and "Loss/r1_penalty" not in seen
    assert t.model.gan.D_opt.param_groups[0]["lr"] == pytest.approx(0.002 * 4 / 5)


def test_r2_sees_generated_and_r1_real_images(tiny_config: TrainConfig) -> None:
    t = trainer_of(tiny_config, r2_gamma=1.0)
    seen, gan = [], t.model.gan
    gan.D.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    inputs = t.inputs()
    t.take(inputs, Phase("R1", gan.D_opt, gan.penalty_loss))
    assert torch.equal(seen[0], inputs.real) and len(seen) == 2
    assert not any(torch.equal(seen[1][i], x) for i in range(8) for x in inputs.real)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_loss_scale": 2.0, "r1_gamma": 0.0}, "--d-loss-scale 2: without a penalty Adam cancels it"),
        ({"gp": "one", "r1_gamma": 0.0}, "--gp one: --r1-gamma 0 switches R1 off"),
        ({"r1_phase": "d", "r1_gamma": 0.0}, "--r1-phase d: --r1-gamma and --r2-gamma are 0"),
        ({"r1_gamma_final": 1.0, "r1_gamma": 0.0}, "--r1-gamma-final 1: --r1-gamma 0 switches R1 off"),
        ({"r2_gamma": -1.0}, "--r2-gamma -1: it must not be negative"),
        ({"top_k": 0.0}, r"--top-k 0: it must lie in \(0, 1\]"),
        ({"loss": "wasserstein"}, "--loss wasserstein: it must be one of logistic, hinge"),
    ],
    ids=str,
)
def test_losses_without_effect_or_meaning_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**changes)


def test_a_scale_of_d_s_loss_stands_with_either_penalty() -> None:
    assert TrainConfig(d_loss_scale=2.0, r1_gamma=0.0, r2_gamma=1.0).d_loss_scale == 2.0
