"""Losses, each a pure function of networks and tensors. Higher discriminator scores mean "more real".

adversarial  LOSSES: what D and G lose by their scores, one entry for each value of --loss
penalties    GRADIENT_PENALTIES of D, one for each value of --gp; path length of G
distances    of a reconstruction and its image
mixing       style mixing
"""

from fact_train.training.losses.adversarial import LOSSES, AdversarialLoss, best_scores
from fact_train.training.losses.distances import class_divergence, mean_absolute, stretched
from fact_train.training.losses.mixing import style_mixing
from fact_train.training.losses.penalties import (
    GRADIENT_PENALTIES,
    path_length_penalty,
    path_lengths,
    r1_notes,
    resolve_r1_gamma,
)

__all__ = [
    "GRADIENT_PENALTIES",
    "LOSSES",
    "AdversarialLoss",
    "best_scores",
    "class_divergence",
    "mean_absolute",
    "path_length_penalty",
    "path_lengths",
    "r1_notes",
    "resolve_r1_gamma",
    "stretched",
    "style_mixing",
]
