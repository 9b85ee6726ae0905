"""The discriminator filter of AttFind: attributes that make images unlikely are passed over. Off by default.

Lang et al. 2021, in the released notebook: an attribute is rejected if the discriminator's score of any of up
to 10 images that it affects (effect above 0.2) changes by more than a threshold (0.2) at twice the shift.
"""

import torch
from torch import Tensor

from fact_eval.explain.effects import Search
from fact_eval.explain.selection import Attribute
from fact_eval.explain.subject import Subject
from fact_metrics.base.errors import UsageError

AFFECTED = 0.2
MOST_IMAGES = 10
FILTER_SHIFT = 2.0


class DiscriminatorFilter:
    """Called with an attribute, rows [M] of the search and their effects [M, 2, J]: whether to reject it."""

    def __init__(self, subject: Subject, search: Search, *, most: float) -> None:
        self._subject, self._search, self._most = subject, search, most
        self._changes: dict[tuple[Attribute, int], float] = {}  # halves of the images ask for them again
        self._D = subject.generator.snapshot.D
        if self._D is None:
            raise UsageError(
                f"--discriminator-filter {most}: {subject.generator.snapshot.path} was published without its "
                "discriminator; leave the option out"
            )

    @torch.inference_mode()
    def __call__(self, attribute: Attribute, rows: Tensor, effects: Tensor) -> bool:
        direction, place = attribute
        affected = rows[effects[:, direction, place] > AFFECTED][:MOST_IMAGES]
        return any(self._change(attribute, row) > self._most for row in affected.tolist())

    def _change(self, attribute: Attribute, row: int) -> float:
        if (attribute, row) not in self._changes:
            self._changes[attribute, row] = self._measure_change(attribute, row)
        return self._changes[attribute, row]

    def _measure_change(self, attribute: Attribute, row: int) -> float:
        """Change of the score of one image; alone, as scores depend on the images beside it."""
        direction, place = attribute
        images, search = self._search.images, self._search
        coordinate = int(search.coordinates[place])
        styles = images.styles[row].repeat(2, 1)
        own = styles[1, coordinate]
        styles[1, coordinate] = own + FILTER_SHIFT * search.shift * (search.targets[direction, place] - own)
        pictures = self._subject.render(styles, images.indices[row : row + 1] * 2)
        c = self._subject.conditions(images.indices[row : row + 1])
        before, after = (float(self._D(picture[None], c)) for picture in pictures)
        return abs(before - after)
