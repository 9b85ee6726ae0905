"""The augmentation pipe of Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data"
(arXiv:2006.06676, appendix B): geometry, colour, image-space filtering, corruption.
"""

import torch
from torch import Tensor

from fact_train.augment import color, corruption, geometry

SETS = {
    "blit": ("blit",),
    "geom": ("geom",),
    "color": ("color",),
    "filter": ("filter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": ("blit", "geom"),
    "bgc": ("blit", "geom", "color"),
    "bgcf": ("blit", "geom", "color", "filter"),
    "bgcfn": ("blit", "geom", "color", "filter", "noise"),
    "bgcfnc": ("blit", "geom", "color", "filter", "noise", "cutout"),
}


class AugmentPipe:
    """Random transformations of images, each applied to each sample with probability p.

    A pure function: it draws from its generator alone and may be differentiated any number of times with
    respect to the images. At p = 0 it is the identity, bit for bit.

    With `fixed_shapes`, no shape depends on the draws, which avoids GPU synchronisation. Without it,
    samples that drew no general geometry skip the resampling.
    """

    def __init__(self, name: str, *, fixed_shapes: bool = False) -> None:
        self.name, self.parts, self.fixed_shapes = name, SETS[name], fixed_shapes

    def __call__(self, images: Tensor, p: Tensor, *, generator: torch.Generator | None) -> Tensor:
        """Augment [N, C, H, W] of a floating dtype, about [-1, 1], C = 1 or 3. p is a scalar on that device.

        The arithmetic is in the images' dtype, at least float32. H and W are both even or both odd, so that
        quarter turns are exact. Raises ValueError for other shapes.
        """
        n, c, h, w = images.shape
        if c not in (1, 3) or (h - w) % 2:
            raise ValueError(
                f"images are [N, 1 or 3, H, W], H and W both even or both odd; got {list(images.shape)}"
            )
        x = images if images.dtype == torch.float64 else images.float()
        p = p.to(x.dtype)
        draw = dict(generator=generator, dtype=x.dtype)
        x = self._moved(x, p, generator)
        if "color" in self.parts:
            maps, on = color.draw_colors(n, c, p, **draw)
            x = _where(on, color.apply_colors(x, maps), x)
        if "filter" in self.parts:
            gains, on = corruption.draw_gains(n, p, **draw)
            x = _where(on, corruption.amplify(x, gains), x)
        if "noise" in self.parts:
            x = corruption.add_noise(x, p, generator=generator)
        if "cutout" in self.parts:
            x = corruption.cut_out(x, p, generator=generator)
        return x.to(images.dtype)

    def _moved(self, x: Tensor, p: Tensor, generator: torch.Generator | None) -> Tensor:
        """Apply blits and general geometry as one map; samples that drew only blits skip the resampling."""
        n, size = x.shape[0], x.shape[2:]
        blits = geometry.draw_blits(n, size, p, generator=generator) if "blit" in self.parts else None
        moved = x if blits is None else geometry.blit(x, blits)
        if "geom" not in self.parts:
            return moved
        matrix, on = geometry.draw_affine(n, size, p, generator=generator, dtype=x.dtype)
        if blits is not None:
            matrix = geometry.after_blits(matrix, blits)
        if self.fixed_shapes:
            return _where(on, geometry.resample(x, matrix), moved)
        rows = on.nonzero()[:, 0]
        if not len(rows):
            return moved
        return moved.index_copy(0, rows, geometry.resample(x.index_select(0, rows), matrix[rows]))


def _where(on: Tensor, changed: Tensor, kept: Tensor) -> Tensor:
    """Per sample: the changed image where `on` [N], otherwise the original."""
    return torch.where(on[:, None, None, None], changed, kept)
