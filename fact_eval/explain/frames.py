"""Frames of an explanation: images and class probabilities while attributes of StyleSpace change.

An attribute is one coordinate of StyleSpace. A sweep moves one attribute of an image from the smallest to the
largest value of the explained images. A counterfactual moves the first k attributes of a list together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fact_eval.explain.document import AttributeShape
from fact_metrics.base.errors import UserError
from fact_metrics.base.pixels import to_uint8
from fact_metrics.base.progress import Progress

ATTRIBUTES = 5  # shown of a list
IMAGES = 6  # that every attribute is shown on
STEPS = 9  # of a sweep from minimum to maximum, beside the image's own value
LARGEST = 256  # pixels a side; larger images are classified first and then reduced


class Space(Protocol):
    """A StyleSpace: images [B, C, R, R] in about [-1, 1] of styles [B, S], and the number of a coordinate."""

    def render(self, styles: Tensor) -> Tensor: ...

    def coordinate(self, layer: str, index: int) -> int: ...


@dataclass(frozen=True)
class Filmed:
    """Frames [N, T, C, H, W], uint8, of N images in T steps, with what the classifier says of each.

    `probability` [N, T] is that of the target class, `top` [N, T] the most probable class.
    """

    images: Tensor
    probability: Tensor
    top: Tensor


@dataclass(frozen=True)
class Sweep:
    """An attribute moved through `values` [N, T] of N images; step `own` [N] is an image's own value.

    The other steps are evenly spaced from the minimum to the maximum, and equal for all images.
    """

    attribute: AttributeShape
    values: Tensor
    own: Tensor
    frames: Filmed


@dataclass(frozen=True)
class Part:
    """What one method finds for one target class, shown on N images that have another class.

    Step k of `together` has the first k attributes edited; step 0 is the reconstruction.
    """

    method: str
    target: int
    sweeps: tuple[Sweep, ...]
    together: Filmed


@dataclass(frozen=True)
class Frames:
    """All frames of a snapshot, with the names that pages and pictures show."""

    run_id: str
    snapshot: str
    snapshot_sha256: str
    classifier: str
    classes: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.method for part in self.parts))

    @property
    def targets(self) -> tuple[int, ...]:
        return tuple(sorted({part.target for part in self.parts}))


def choose_images(predicted: Tensor, target: int, count: int = IMAGES) -> Tensor:
    """Indices of images [N] that are not of the target class: the classes in turn, each in its order.

    UserError if all images have the target class.
    """
    others = [(predicted == k).nonzero()[:, 0] for k in predicted.unique().tolist() if k != target]
    rounds = [(turn, k, int(index)) for k, found in enumerate(others) for turn, index in enumerate(found)]
    if not rounds:
        raise UserError(
            f"the classifier assigns all {len(predicted)} images to class {target}; explain more images"
        )
    return torch.tensor([index for _, _, index in sorted(rounds)[:count]])


@torch.inference_mode()
def film(
    space: Space,
    classify: Callable[[Tensor], Tensor],
    styles: Tensor,
    attributes: Mapping[tuple[str, int], Sequence[AttributeShape]],
    *,
    shift: float = 1.0,
    batch: int = 64,
    progress: Progress | None = None,
) -> tuple[Part, ...]:
    """The parts of an explanation, one for each (method, target class) of `attributes`.

    `styles` [N, S] are those of all explained images: they give the range of every coordinate. `classify`
    maps uint8 images to logits [B, K]. Probabilities are those of the images as they are shown. An edit moves
    a style by `shift` times its distance to the attribute's target.
    """
    low, high = styles.min(dim=0).values, styles.max(dim=0).values
    predicted = torch.cat([classify(to_uint8(space.render(s))).argmax(dim=1) for s in styles.split(batch)])
    parts = []
    with (progress or Progress(quiet=True)).stage("frames", len(attributes), unit="lists") as stage:
        for (method, target), found in attributes.items():
            chosen = choose_images(predicted.cpu(), target)
            shown = _Show(space, classify, styles[chosen.to(styles.device)], target, batch)
            listed = found[:ATTRIBUTES]
            sweeps = tuple(_sweep(shown, attribute, low, high) for attribute in listed)
            parts.append(Part(method, target, sweeps, shown.film(_together(shown, listed, shift))))
            stage.update(len(parts))
    return tuple(parts)


@dataclass(frozen=True)
class _Show:
    """Renders and classifies edits of the shown images' styles [N, S] for one target class."""

    space: Space
    classify: Callable[[Tensor], Tensor]
    styles: Tensor
    target: int
    batch: int

    def film(self, edited: Tensor) -> Filmed:
        """The frames of styles [N, T, S]."""
        n, steps = edited.shape[:2]
        images, probabilities = [], []
        for styles in edited.flatten(0, 1).split(self.batch):
            rendered = to_uint8(self.space.render(styles))
            probabilities.append(self.classify(rendered).softmax(dim=1).cpu())
            images.append(_reduced(rendered).cpu())
        every = torch.cat(probabilities).unflatten(0, (n, steps))
        return Filmed(
            images=torch.cat(images).unflatten(0, (n, steps)),
            probability=every[..., self.target],
            top=every.argmax(dim=2),
        )


def _sweep(shown: _Show, attribute: AttributeShape, low: Tensor, high: Tensor) -> Sweep:
    """One coordinate from the lowest to the highest value, all others as they are."""
    j = shown.space.coordinate(attribute.layer, attribute.index)
    even = torch.stack([low[j].lerp(high[j], t / (STEPS - 1)) for t in range(STEPS)])
    unsorted = torch.cat([even.expand(len(shown.styles), -1), shown.styles[:, j, None]], dim=1)
    values, order = unsorted.sort(dim=1, stable=True)
    own = (order == STEPS).int().argmax(dim=1)
    edited = shown.styles[:, None].repeat(1, STEPS + 1, 1)
    edited[:, :, j] = values
    return Sweep(attribute, values.cpu(), own.cpu(), shown.film(edited))


def _together(shown: _Show, attributes: Sequence[AttributeShape], shift: float) -> Tensor:
    """Styles [N, k + 1, S]: at step k the first k attributes are edited."""
    steps = [shown.styles]
    for attribute in attributes:
        j, edited = shown.space.coordinate(attribute.layer, attribute.index), steps[-1].clone()
        edited[:, j] += shift * (attribute.target - edited[:, j])
        steps.append(edited)
    return torch.stack(steps, dim=1)


def _reduced(images: Tensor) -> Tensor:
    """uint8 images of at most LARGEST pixels a side."""
    if images.shape[-1] <= LARGEST:
        return images
    small = F.interpolate(images.float(), size=(LARGEST, LARGEST), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)
