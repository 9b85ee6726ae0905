"""A world of known explanations: images that four style coordinates draw, and a classifier that reads two."""

import torch
from torch import Tensor

from fact_eval.explain.document import AttributeShape
from fact_eval.explain.frames import Frames, film
from fact_eval.explain.subject import Images

SIZE = 32
CLASSES = ("disc", "ring", "<b>bar</b>")


class ToySubject:
    """S = 6: brightness, hole, height of a bar, contrast, and two coordinates that do nothing.

    It is its own StyleSpace and classifier. Each image has a noise pixel of its own in the corner.
    """

    batch = 64

    def __init__(self) -> None:
        self.space = self.classifier = self

    def render(self, styles: Tensor, indices: list[int]) -> Tensor:
        axis = torch.linspace(-1, 1, SIZE)
        y, x = axis[:, None].expand(SIZE, SIZE), axis[None].expand(SIZE, SIZE)
        radius = (x**2 + y**2).sqrt()
        bright, hole, bar, ground = (styles[:, k, None, None] for k in range(4))
        disc = torch.sigmoid((0.7 - radius) * 20) * torch.sigmoid((radius - 0.5 * hole) * 20)
        stroke = torch.sigmoid((bar - 1 - y) * 20) * (x.abs() < 0.15)
        image = torch.maximum(disc * (0.4 + 0.6 * bright), stroke) * (1 - 0.3 * ground) + 0.3 * ground
        image[:, 0, 0] = torch.tensor([index / 100 for index in indices])
        return (image * 2 - 1)[:, None]

    def coordinate(self, layer: str, index: int) -> int:
        return 2 * ("b4.conv1", "b8.conv1", "b16.conv1").index(layer) + index

    def logits(self, images: Tensor) -> Tensor:
        """[B, 3]: a dark middle is a ring, a bright line above the disc is a bar."""
        x = images.mean(dim=1) / 2 + 0.5
        middle = x[:, 13:19, 13:19].mean(dim=(1, 2))
        above = x[:, 0:4, 14:18].mean(dim=(1, 2))
        return torch.stack([10 * middle - 3, 3 - 10 * middle, 9 * above - 4], dim=1)


def toy_styles(n: int = 24) -> Tensor:
    """Styles in [0, 1]: two thirds are discs, one third rings."""
    gen = torch.Generator().manual_seed(0)
    styles = torch.rand(n, 6, generator=gen)
    styles[:, 1] = (torch.arange(n) % 3 == 0) * 0.6 + 0.4 * styles[:, 1]
    styles[:, 2] *= 0.3
    styles[:4, 2] = 0.6
    return styles


def toy_attribute(coordinate: int, direction: int, effect: float, layer: str | None = None) -> AttributeShape:
    styles = toy_styles()[:, coordinate]
    return AttributeShape(
        layer=f"b{4 * 2 ** (coordinate // 2)}.conv1" if layer is None else layer,
        index=coordinate % 2,
        direction=direction,
        size=0.5,
        effect=effect,
        by="shapes",
        target=float(styles.max() if direction > 0 else styles.min()),
    )


def toy_images(first: int = 0, n: int = 24) -> Images:
    styles, subject = toy_styles(n), ToySubject()
    indices = list(range(first, first + n))
    return Images(indices, styles, subject.logits(subject.render(styles, indices)))


def toy_frames() -> Frames:
    """Two methods, three classes: one method finds what matters, the other the idle coordinates first."""
    found = {
        ("attfind-greedy", 0): [(1, -1, 2.5), (0, 1, 1.0), (2, 1, 0.2)],
        ("attfind-greedy", 1): [(1, 1, 2.4), (0, -1, 1.1), (3, -1, 0.1)],
        ("attfind-greedy", 2): [(2, 1, 3.0), (3, 1, 0.3), (0, 1, 0.1)],
        **{("random", target): [(4, 1, 0.0), (5, -1, 0.0), (3, 1, 0.1)] for target in range(3)},
    }
    lists = {key: [toy_attribute(*each) for each in attributes] for key, attributes in found.items()}
    return Frames(
        run_id="toy-seed0",
        snapshot="network-snapshot-000096",
        snapshot_sha256="0" * 64,
        classifier="shapes",
        classes=CLASSES,
        parts=film(ToySubject(), toy_images(), toy_images(), lists),
    )
