"""Augmentation of all images that D sees: AUGMENTATIONS, one class for each value of --augment.

Imports point up: wavelets < geometry, color, corruption < pipe; diffaugment, adaptive, pipe < axis.
"""

from fact_train.augment.axis import AUGMENTATIONS, Augmentation, build_augmentation
from fact_train.augment.diffaugment import POLICIES, DiffAugment
from fact_train.augment.pipe import SETS, AugmentPipe

__all__ = [
    "AUGMENTATIONS",
    "POLICIES",
    "SETS",
    "AugmentPipe",
    "Augmentation",
    "DiffAugment",
    "build_augmentation",
]
