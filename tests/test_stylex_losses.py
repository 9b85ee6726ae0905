"""StylEx: what its losses are, how they are weighted, and what training with them keeps."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from stylex_toys import differing, trainer_of, work_of

from fact_metrics.base.errors import UserError
from fact_train.training import losses
from fact_train.training.step import Phase, Work


def test_a_standardised_encoder_starts_with_w_like_the_mapping_s(stylex_config) -> None:
    t = trainer_of(stylex_config, encoder_init="standardised")
    x = t.dataset.images(range(24)).float() / 127.5 - 1
    t.model.E.standardise_(x)
    with torch.no_grad():
        w = t.model.E(x)
    torch.testing.assert_close(w.mean(dim=0), torch.zeros(8), rtol=0, atol=1e-4)  # float32, std 1 of 0.05
    torch.testing.assert_close(w.std(dim=0), torch.ones(8), rtol=1e-3, atol=0)


def test_losses_are_the_formula_s(stylex_config, monkeypatch) -> None:
    weights = dict(rec_scale=3.0, w_w=0.2, w_l1=0.7, w_l2=0.4, kl_scale=0.5)
    t = trainer_of(stylex_config, **weights, compensation=True)
    work = work_of(t, "REC")
    found = t.model.reconstruction_loss(work)
    x, logits = work.real, work.c
    with torch.no_grad():
        w = t.model.E(x)
        ws = torch.cat([w, logits.softmax(dim=1)], dim=1).unsqueeze(1).expand(-1, t.model.gan.G.num_ws, -1)
        images = t.model.gan.generate(ws, work_of(t, "REC"))
        rec = 0.2 * (w - t.model.E(images)).abs().mean() + 0.7 * (x - images).abs().mean()
        rec = rec + 0.4 * F.mse_loss(images, x)
        kl = F.kl_div(
            t.model.C(images).log_softmax(dim=1),
            logits.log_softmax(dim=1),
            log_target=True,
            reduction="batchmean",
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
        assert trainer_of(stylex_config, compensation=True, **turns).model.turns.compensation == factor
        assert trainer_of(stylex_config, **turns).model.turns.compensation == 1.0


def test_d_loss_scale_multiplies_the_main_loss_and_not_r1(stylex_config) -> None:
    found = []
    for scale in (1.0, 3.0):
        t = trainer_of(stylex_config, d_loss_scale=scale)
        main = t.model.gan.discriminator_loss(work_of(t, "D"))
        found.append((main.item(), t.model.gan.r1_loss(work_of(t, "R1")).item()))
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
        work = work_of(t)
        work.rec_loss = torch.tensor(rec)
        spikes.append(float(t.model.end_phase([work])["Rec/spikes"]))
    assert spikes == [0.0, 0.0, 1.0, 0.0]
    assert "Rec/spikes" not in t.model.end_phase([work_of(t)])  # nothing was reconstructed


def test_what_is_reported_decides_nothing(stylex_config, monkeypatch) -> None:
    """Names in stats.jsonl can change without a change in training."""
    cfg = dataclasses.replace(stylex_config, augment="ada", augment_p=0.5, ada_kimg=0.2, ada_interval=2)
    plain, silent = trainer_of(cfg), trainer_of(cfg)
    for _ in range(4):
        plain.step()
    monkeypatch.setattr(Work, "report", lambda self, name, values: None)
    for _ in range(4):
        silent.step()
    a, b = ({k: v for k, v in t.state_dict().items() if k != "stats"} for t in (plain, silent))
    assert differing(a, b) == []
    assert torch.isfinite(silent.model.rec_mean) and float(silent.model.gan.augment.p) != 0.5


def test_a_state_that_explains_another_classifier_is_refused(stylex_config) -> None:
    t = trainer_of(stylex_config)
    with pytest.raises(UserError, match="another one"):
        t.load_state_dict({**t.state_dict(), "classifier": "0" * 64})


def test_micro_batches_with_other_gradients_add_up(stylex_config) -> None:
    """E has none in the mapping's micro-batches, the mapping none in E's: the sum is of what there is."""
    t = trainer_of(stylex_config, alternation="microbatch", batch_gpu=4, pl_weight=0.0, r1_gamma=0.0)
    params = [*t.model.gan.G.parameters(), *t.model.E.parameters()]
    inputs = t.inputs()
    t.take(inputs, Phase("G", torch.optim.SGD(params, lr=0.0), t.model.generator_loss))
    found = [p.grad.clone() for p in params if p.grad is not None]
    for p in params:
        p.grad = None
        p.requires_grad_(True)
    for index in (0, 1):
        (t.model.generator_loss(work_of(t, index=index, inputs=inputs)) / 2).backward()
    expected = [p.grad for p in params if p.grad is not None]
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
