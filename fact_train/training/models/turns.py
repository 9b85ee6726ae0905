"""Whose images meet D in a micro-batch of StylEx: the encoder's, the mapping's, or half of each."""

import torch

from fact_train.seeds import generator_for
from fact_train.settings.config import TrainConfig
from fact_train.training.step import StepInputs, Work


def draws_encoder(cfg: TrainConfig, *, turn: int, part: int, parts: int) -> bool:
    """Whether micro-batch `part` of `parts` in a turn belongs to the encoder; the mapping begins.

    Micro-batches alternate over the whole run, so that a step of one micro-batch reaches both branches.
    """
    if cfg.branches != "both":
        return cfg.branches == "encoder"
    if cfg.alternation == "step":
        return turn % 2 == 1
    if cfg.alternation == "microbatch":
        return (turn * parts + part) % 2 == 1
    draw = torch.rand([], generator=generator_for("cpu", "turn", cfg.seed, turn, part)).item()
    return draw < cfg.encoder_prob


class Turns:
    """How the branches of a configuration share the micro-batches.

    `mixes`: every micro-batch has half of each. `period`: steps after which both branches have had a turn.
    `compensation`: factor of the encoder's losses that makes up for turns it does not have.
    """

    def __init__(self, cfg: TrainConfig) -> None:
        self.cfg = cfg
        self.mixes = cfg.branches == "both" and cfg.alternation == "off"
        self.period = 2 if cfg.branches == "both" and not self.mixes else 1
        encoder_share = cfg.encoder_prob if cfg.alternation == "probability" else 0.5
        self.compensation = 1 / encoder_share if cfg.compensation and self.period == 2 else 1.0

    def encoded(self, work: Work, n: int) -> int:
        """How many of n images of a micro-batch are the encoder's: the first ones."""
        if self.mixes:
            return n // 2
        return n if self.is_encoder_turn(work.inputs, turn=work.turn, part=work.index) else 0

    def reconstructs_after_d(self, inputs: StepInputs) -> bool:
        """Whether the step has an encoder turn that reconstructs, and so a phase after D's."""
        if self.reconstruction(inputs, turn=inputs.step) is None:
            return False
        if self.mixes or self.cfg.branches == "mapping":
            return True
        parts = range(inputs.share.rounds)
        return any(self.is_encoder_turn(inputs, turn=inputs.step, part=part) for part in parts)

    def reconstruction(self, inputs: StepInputs, *, turn: int) -> int | None:
        """The number of an encoder turn's reconstruction, from 0; None where --rec-interval skips it."""
        turn = 0 if inputs.forced else turn // self.period
        return None if turn % self.cfg.rec_interval else turn // self.cfg.rec_interval

    def is_encoder_turn(self, inputs: StepInputs, *, turn: int, part: int) -> bool:
        """`turn` counts how often a phase was due: path length at an even interval meets both branches."""
        if inputs.forced and self.period == 2:
            return inputs.step % 2 == 1  # probing and timing see both kinds, whatever chance would say
        return draws_encoder(self.cfg, turn=turn, part=part, parts=inputs.share.rounds)
