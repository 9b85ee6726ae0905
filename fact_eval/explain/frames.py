"""Frames of an explanation: images and class probabilities while attributes of StyleSpace change.

An attribute is one coordinate of StyleSpace. A sweep moves one attribute of an image from the smallest to the
largest value in the search. A counterfactual moves the first k attributes of a list together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fact_eval.explain.document import AttributeShape
from fact_eval.explain.subject import Images, Subject
from fact_metrics.base.errors import UserError
from fact_metrics.base.pixels import to_uint8
from fact_metrics.base.progress import Progress

ATTRIBUTES = 5  # of a list that are swept
IMAGES = 6  # that every attribute is shown on
STEPS = 9  # of a sweep from minimum to maximum, beside the image's own value
LARGEST = 256  # pixels a side; larger images are classified first and then reduced


@dataclass(frozen=True)
class Filmed:
    """Frames [N, T, C, H, W], uint8, of N images in T steps, with what the classifier says of each.

    `probability` [N, T] is that of the target class, `log_odds` [N, T] of it against all other classes: they
    still move where probabilities are near 0 or 1. `top` [N, T] is the most probable class.
    """

    images: Tensor
    probability: Tensor
    log_odds: Tensor
    top: Tensor


@dataclass(frozen=True)
class Sweep:
    """An attribute moved through `values` [N, T] of N images; step `own` [N] is an image's own value.

    The other steps are evenly spaced between the extremes of the search, and equal for all images. An image
    whose own value is beyond an extreme has it at that end.
    """

    attribute: AttributeShape
    values: Tensor
    own: Tensor
    frames: Filmed


@dataclass(frozen=True)
class Part:
    """What one method finds for one target class, shown on N images that have another class.

    Step k of `together` has the first k attributes edited; step 0 is the unedited image.
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
    subject: Subject,
    search: Images,
    judged: Images,
    attributes: Mapping[tuple[str, int], Sequence[AttributeShape]],
    *,
    shift: float = 1.0,
    most: int = ATTRIBUTES,
    progress: Progress | None = None,
) -> tuple[Part, ...]:
    """The parts of an explanation: sweeps of the first `most` attributes of each (method, target class).

    All attributes count in `together`. The images of the search give the range of every coordinate; images
    that it has not seen are shown. An edit moves a style by `shift` times its distance to the target.
    """
    low, high = search.styles.min(dim=0).values, search.styles.max(dim=0).values
    parts = []
    with (progress or Progress(quiet=True)).stage("frames", len(attributes), unit="lists") as stage:
        for (method, target), found in attributes.items():
            shown = _Shown(subject, judged, choose_images(judged.predicted.cpu(), target), target)
            sweeps = tuple(_sweep(shown, attribute, low, high) for attribute in found[:most])
            parts.append(Part(method, target, sweeps, shown.film(_together(shown, found, shift))))
            stage.update(len(parts))
    return tuple(parts)


class _Shown:
    """The images that show a target class, [N, S] styles; renders and classifies edits of them."""

    def __init__(self, subject: Subject, images: Images, chosen: Tensor, target: int) -> None:
        self.subject, self.target = subject, target
        self.styles = images.styles[chosen.to(images.styles.device)]
        self.indices = [images.indices[i] for i in chosen.tolist()]

    def coordinate(self, attribute: AttributeShape) -> int:
        return self.subject.space.coordinate(attribute.layer, attribute.index)

    def film(self, edited: Tensor) -> Filmed:
        """The frames of styles [N, T, S]."""
        n, steps = edited.shape[:2]
        images, logits = [], []
        rows, batch = edited.flatten(0, 1), self.subject.batch
        indices = [index for index in self.indices for _ in range(steps)]
        for start in range(0, len(rows), batch):
            part = slice(start, start + batch)
            rendered = self.subject.render(rows[part], indices[part])
            logits.append(self.subject.classifier.logits(rendered).cpu())
            images.append(_reduced(to_uint8(rendered)).cpu())
        every = torch.cat(logits).double().unflatten(0, (n, steps))
        others = [k for k in range(every.shape[2]) if k != self.target]
        return Filmed(
            images=torch.cat(images).unflatten(0, (n, steps)),
            probability=every.softmax(dim=2)[..., self.target],
            log_odds=every[..., self.target] - every[..., others].logsumexp(dim=2),
            top=every.argmax(dim=2),
        )


def _sweep(shown: _Shown, attribute: AttributeShape, low: Tensor, high: Tensor) -> Sweep:
    """One coordinate from the lowest to the highest value, all others as they are."""
    j = shown.coordinate(attribute)
    even = torch.stack([low[j].lerp(high[j], t / (STEPS - 1)) for t in range(STEPS)])
    unsorted = torch.cat([even.expand(len(shown.styles), -1), shown.styles[:, j, None]], dim=1)
    values, order = unsorted.sort(dim=1, stable=True)
    own = (order == STEPS).int().argmax(dim=1)
    edited = shown.styles[:, None].repeat(1, STEPS + 1, 1)
    edited[:, :, j] = values
    return Sweep(attribute, values.cpu(), own.cpu(), shown.film(edited))


def _together(shown: _Shown, attributes: Sequence[AttributeShape], shift: float) -> Tensor:
    """Styles [N, k + 1, S]: at step k the first k attributes are edited."""
    steps = [shown.styles]
    for attribute in attributes:
        j, edited = shown.coordinate(attribute), steps[-1].clone()
        edited[:, j] += shift * (attribute.target - edited[:, j])
        steps.append(edited)
    return torch.stack(steps, dim=1)


def _reduced(images: Tensor) -> Tensor:
    """uint8 images of at most LARGEST pixels a side."""
    longer = max(images.shape[2:])
    if longer <= LARGEST:
        return images
    size = tuple(max(side * LARGEST // longer, 1) for side in images.shape[2:])
    small = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)
