"""From effects to attributes: AttFind's filter and its three selections, and the baselines' rankings.

Lang et al. 2021, arXiv:2104.13369, algorithm 1. Attributes are pairs (direction number, place among the
searched coordinates). Both directions of a coordinate are never chosen together. Three deviations, each where
the published constants fit only the authors' models:

    filter    an image is unstable if more than 4 % of the entries of its effects exceed 2 standard deviations
              of the logits (the authors: 750 entries above 2, of about 18,000)
    enough    an image is explained once the effects chosen so far reach its own margin, the logit of its
              class less that of the target (the authors: 1 logit)
    rest      when every image is explained, all images count again, so that there are always `count`
"""

from collections.abc import Callable

import torch
from torch import Tensor

Attribute = tuple[int, int]

UNSTABLE_SHARE = 750 / 18048  # of entries: 2 directions, 4,512 coordinates at 256 px, 2 classes
UNSTABLE_SIZE = 2.0  # standard deviations of the logits
COUNT = 10
CANDIDATES = 20  # that the subset selection renders at every step
CONFIDENT = 0.9  # probability from which an image stands for its class (Bosch et al. 2022)


def stable_images(above: Tensor, entries: int) -> Tensor:
    """Which images [N] to keep: at most UNSTABLE_SHARE of their `entries` are large; `above` counts those.

    All of them if none would be left.
    """
    keep = above <= UNSTABLE_SHARE * entries
    return keep if keep.any() else torch.ones_like(keep)


def select_greedy(
    effects: Tensor,
    *,
    enough: Tensor,
    count: int = COUNT,
    rejected: Callable[[Attribute], bool] = lambda attribute: False,
) -> list[Attribute]:
    """The greedy selection from effects [N, 2, J] on the target's logit, of images of the other classes.

    At each step the attribute with the largest mean effect over images that are not yet explained: those
    whose summed effects are below `enough` [N]. An attribute that is `rejected` is passed over.
    """
    effects = effects.clamp(min=0).flatten(1).double()
    n, columns = effects.shape
    places = columns // 2
    summed = torch.zeros(n, dtype=torch.float64)
    free = torch.ones(columns, dtype=torch.bool)
    chosen: list[Attribute] = []
    while len(chosen) < count and free.any():
        open_images = summed < enough
        rows = effects[open_images] if open_images.any() else effects
        means = rows.mean(dim=0).where(free, torch.tensor(-1.0, dtype=torch.float64))
        best = int(means.argmax())
        attribute = (best // places, best % places)
        free[best] = False
        if rejected(attribute):
            continue
        free[attribute[1]] = free[attribute[1] + places] = False
        summed += effects[:, best]
        chosen.append(attribute)
    return chosen


def select_largest(scores: Tensor, *, count: int = COUNT) -> list[Attribute]:
    """The `count` best of scores [2, J], the better direction of every coordinate: the independent selection
    if the scores are the effects of one image.
    """
    best, directions = scores.max(dim=0)
    order = best.argsort(descending=True, stable=True)[:count]
    return [(int(directions[j]), int(j)) for j in order]


def select_subset(
    effects: Tensor, joint: Callable[[list[list[Attribute]]], Tensor], *, count: int = COUNT
) -> list[Attribute]:
    """The subset selection for one image with effects [2, J]: greedy by effects measured together.

    `joint` renders several sets and gives the target's logit of each. The CANDIDATES with the largest effects
    by themselves are tried at every step.
    """
    candidates = select_largest(effects, count=max(CANDIDATES, count))
    chosen: list[Attribute] = []
    while candidates and len(chosen) < count:
        logits = joint([[*chosen, candidate] for candidate in candidates])
        chosen.append(candidates.pop(int(logits.argmax())))
    return chosen


def rank_class_mean(styles: Tensor, predicted: Tensor, confidence: Tensor, target: int) -> Tensor:
    """Scores [2, S] of Wu et al. 2021, arXiv:2011.12799, sec. 4: how far exemplars of a class are from all.

    The mean over exemplars of (s - mean) / deviation, over its own deviation there. Exemplars are images
    [N] of the class with a confidence of 0.9 or more, or the more confident half of them if fewer than 2 are.
    """
    mean, std = styles.mean(dim=0), styles.std(dim=0).clamp(min=1e-8)
    own = predicted == target
    sure = own & (confidence >= CONFIDENT)
    if int(sure.sum()) < 2:
        sure = own & (confidence >= confidence[own].median())
    exemplars = (styles[sure] - mean) / std
    spread = exemplars.std(dim=0).clamp(min=1e-8) if len(exemplars) > 1 else torch.ones_like(mean)
    score = exemplars.mean(dim=0) / spread
    return torch.stack([-score, score])


def first_order_effects(gradients: Tensor, distances: Tensor) -> Tensor:
    """Gradient [N, J] times distance [N, 2, J], at least 0: what the gradient expects of an edit."""
    return (gradients[:, None] * distances).clamp(min=0)


def draw_random(places: int, *, seed: int, count: int = COUNT) -> list[Attribute]:
    """Random attributes of different coordinates: the level of chance."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(places, generator=generator)[:count].tolist()
    directions = torch.randint(2, (count,), generator=generator).tolist()
    return list(zip(directions, order, strict=False))
