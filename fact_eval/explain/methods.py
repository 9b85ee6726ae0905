"""The attributes that every method finds for a class, from one search: AttFind's selections and baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fact_eval.explain.effects import Effects
from fact_eval.explain.selection import (
    UNSTABLE_SIZE,
    Attribute,
    draw_random,
    first_order_effects,
    rank_class_mean,
    select_greedy,
    select_largest,
    select_subset,
    stable_images,
)
from fact_eval.explain.subject import Subject

ONE_BY_ONE = 60  # images that the methods which explain single images explain
CONTROL_IMAGES = 50  # searched for the randomised classifier
GLOBAL = ("attfind-greedy", "class-mean", "gradient", "random")
SINGLE = ("attfind-independent", "attfind-subset")


@dataclass(frozen=True)
class ClassEffects:
    """Effects on the logit of one class of the searched images of other classes: rows of the search."""

    target: int
    rows: Tensor  # [M] rows of the search, stable images of the other classes
    effects: Tensor  # [M, 2, J]
    enough: Tensor  # [M]: the margin that a flip has to make up for


class Methods:
    """Lists of attributes by method and class; `rejected` is the discriminator filter, if there is one."""

    def __init__(
        self,
        subject: Subject,
        effects: Effects,
        *,
        seed: int,
        rejected: Callable[[Attribute, Tensor, Tensor], bool] | None = None,
    ) -> None:
        self._subject, self._effects, self._search = subject, effects, effects.search
        self._seed, self._rejected = seed, rejected
        self._gradients: dict[int, Tensor] = {}
        images = self._search.images
        entries = effects.width
        spread = images.logits.std().item()
        self.stable = stable_images(effects.entries_above(UNSTABLE_SIZE * spread), entries)

    def of_class(self, target: int) -> ClassEffects:
        """What is known of a target class."""
        images = self._search.images
        rows = ((images.predicted != target) & self.stable).nonzero().flatten()
        if not len(rows):
            rows = (images.predicted != target).nonzero().flatten()
        own = images.logits[rows, images.predicted[rows]]
        enough = (own - images.logits[rows, target]).double()
        return ClassEffects(target, rows, self._effects.on_class(target)[rows], enough)

    def find(
        self, known: ClassEffects, method: str, *, within: Tensor | None = None, draw: int = 0
    ) -> list[Attribute]:
        """The list of a method with one list for all images.

        `within`: from these rows of the search alone. `draw` numbers such draws: random attributes of another
        draw are others.
        """
        kept = torch.ones(len(known.rows), dtype=torch.bool)
        if within is not None:
            kept = torch.isin(known.rows, within)
            kept = kept if kept.any() else ~kept  # no stable image of another class among them
        if method == "attfind-greedy":
            effects, rows = known.effects[kept], known.rows[kept]
            return select_greedy(
                effects,
                enough=known.enough[kept],
                rejected=lambda one: self._rejected is not None and self._rejected(one, rows, effects),
            )
        if method == "class-mean":
            everything = torch.arange(len(self._search.images)) if within is None else within
            return select_largest(self._class_mean(everything, known.target))
        if method == "gradient":
            return select_largest(self._first_order(known)[kept].mean(dim=0))
        return draw_random(len(self._search.coordinates), seed=self._random_seed(known.target, draw))

    def _random_seed(self, target: int, draw: int) -> int:
        return 2 * self._seed * 1000 + 2 * target + 1_000_003 * draw

    def find_single(
        self, known: ClassEffects, row: int, joint: Callable[[list[list[Attribute]]], Tensor]
    ) -> dict[str, list[Attribute]]:
        """The lists of the methods that explain the image of one row of the search by itself."""
        effects = self._effects_of(known, row)
        return {
            "attfind-independent": select_largest(effects),
            "attfind-subset": select_subset(effects, joint),
        }

    def _effects_of(self, known: ClassEffects, row: int) -> Tensor:
        (place,) = (known.rows == row).nonzero().flatten().tolist()
        return known.effects[place]

    def _class_mean(self, rows: Tensor, target: int) -> Tensor:
        images = self._search.images
        return rank_class_mean(
            images.styles[rows][:, self._search.coordinates],
            images.predicted[rows],
            images.logits[rows].softmax(dim=1)[:, target],
            target,
        )

    def _first_order(self, known: ClassEffects) -> Tensor:
        """First-order effects [M, 2, J] of the images, at least 0; those of the last class are kept."""
        if known.target not in self._gradients:
            self._gradients = {known.target: self._measure_first_order(known)}
        return self._gradients[known.target]

    def _measure_first_order(self, known: ClassEffects) -> Tensor:
        subject, search = self._subject, self._search
        parts = []
        for part in known.rows.split(subject.batch):
            indices = [search.images.indices[row] for row in part.tolist()]
            with torch.inference_mode(False), torch.enable_grad():
                styles = search.images.styles[part].clone().requires_grad_()
                noise = [one.clone() for one in subject.noise(indices)]
                scores = subject.classifier.scores(subject.space.render(styles, noise))
                (gradient,) = torch.autograd.grad(scores[:, known.target].sum(), styles)
            parts.append(gradient[:, search.coordinates])
        styles = search.images.styles[known.rows]
        return first_order_effects(
            torch.cat(parts), search.moved(styles) - styles[:, None, search.coordinates]
        )


def edited(styles: Tensor, moved: Tensor, coordinates: Tensor, attributes: Sequence[Attribute]) -> Tensor:
    """Styles [S] of one image with attributes at `moved` [2, J]."""
    result = styles.clone()
    for direction, place in attributes:
        result[coordinates[place]] = moved[direction, place]
    return result
