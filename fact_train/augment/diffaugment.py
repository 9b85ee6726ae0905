"""DiffAugment: colour, translation and cutout on every image (Zhao et al. 2020, "Differentiable Augmentation
for Data-Efficient GAN Training", arXiv:2006.10738).
"""

import torch
from torch import Tensor

TRANSLATION = 1 / 8  # of width and height: the largest shift, either way
CUTOUT = 1 / 2  # of width and height: the sides of the box


class DiffAugment:
    """The transformations of a policy such as "color,translation,cutout", in that order, always applied.

    A pure function like AugmentPipe; it needs no p.
    """

    def __init__(self, policy: str) -> None:
        self.names = policy.split(",")
        self._transforms = [POLICIES[name] for name in self.names]

    def __call__(self, images: Tensor, *, generator: torch.Generator | None) -> Tensor:
        """Augment [N, C, H, W] of a floating dtype. The arithmetic is in that dtype, at least float32."""
        x = images if images.dtype == torch.float64 else images.float()
        for transform in self._transforms:
            x = transform(x, generator)
        return x.to(images.dtype)


def change_color(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Brightness + U(-1/2, 1/2), then saturation * U(0, 2), then contrast * U(1/2, 3/2).

    Saturation scales about the mean of a pixel's channels, contrast about the mean of the image.
    """
    u = torch.rand(3, len(x), 1, 1, 1, generator=generator, device=x.device, dtype=x.dtype)
    x = x + (u[0] - 0.5)
    gray = x.mean(dim=1, keepdim=True)
    x = gray + (x - gray) * (u[1] * 2)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (x - mean) * (u[2] + 0.5)


def translate(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Shift by whole pixels, uniform in +-1/8 of each side; fill with zeros."""
    n, c, h, w = x.shape
    u = torch.rand(2, n, 1, 1, 1, generator=generator, device=x.device)
    for dim, size, draw in ((2, h, u[0]), (3, w, u[1])):
        most = round(size * TRANSLATION)
        shift = ((draw * (2 * most + 1)).long() - most).movedim(3, dim)
        at = torch.arange(size, device=x.device).reshape([-1 if d == dim else 1 for d in range(4)]) - shift
        inside = (at >= 0) & (at < size)
        source = at.clamp(0, size - 1).expand(n, c, h, w)
        x = torch.where(inside, x.gather(dim, source), 0.0)
    return x


def cut_out(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Set a box of half of each side to 0. The centre is uniform, far edge included; the border clips it."""
    n, _, h, w = x.shape
    u = torch.rand(2, n, 1, generator=generator, device=x.device)
    inside = []
    for size, draw in ((h, u[0]), (w, u[1])):
        side = round(size * CUTOUT)
        first = (draw * (size + 1 - side % 2)).long() - side // 2
        at = torch.arange(size, device=x.device)
        inside.append((at >= first) & (at < first + side))
    box = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(box, 0.0, x)


POLICIES = {"color": change_color, "translation": translate, "cutout": cut_out}
