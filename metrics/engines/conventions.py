"""Conventions that both the arithmetic and the protocols state. Imports no torch, so specs can read them."""

from dataclasses import dataclass
from typing import Literal

LEGIBLE = 0.9  # class probability from which a digit is legible
LEGIBLE_RUN = 0.8  # share of legible digits from which a run is legible
COVERED = 0.02  # share of the legible images from which a class is covered
COLLAPSED = 0.1  # style diversity under which a style has collapsed
SMALLEST_SHARE = 1e-6  # of spectral power: blank images have none
STEP = 1e-4  # of a path between latents: PPL's epsilon
INFINITY_SIZES, INFINITY_SMALLEST = 15, 5000  # subsets of FID-infinity
MIND_DIRECTIONS, MIND_SEED = 1000, 2020
RENDERING_DETECTOR = "stlpips_alex"  # of fused against unfused renderings
SCORE_SPLITS = 10  # of the inception score
MODES = 1000  # of three stacked digits
BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Balls:
    """A ball around every row of a set, out to its k-th nearest other row; is that distance still inside?"""

    k: int
    closed: bool

    def settings(self) -> dict:
        """The convention as it stands in a protocol."""
        inside = "<= radius" if self.closed else "< radius"
        return {"k": self.k, "inside": inside, "distances": "exact in float64"}


# Two are in use and give different numbers: that of Kynkäänniemi et al. 2019, arXiv:1904.06991 (the StyleGAN
# papers, torch-fidelity), and that of Naeem et al. 2020, arXiv:2002.09797 (prdc, dgm-eval).
IMPROVED = Balls(k=3, closed=True)
PRDC = Balls(k=5, closed=False)


@dataclass(frozen=True)
class LatentPath:
    """Where a path runs (z: spherical, w: linear), where on it a step starts, and what of the image counts.

    `full`: t uniform in (0, 1); `end`: t = 0. `crop`: rows 3/8 to 7/8 and columns 2/8 to 6/8, the face in
    FFHQ.
    """

    space: Literal["z", "w"]
    sampling: Literal["full", "end"]
    crop: bool

    def settings(self) -> dict:
        """The path as JSON, for a protocol."""
        return {
            "space": {"z": "z, spherical", "w": "w, linear"}[self.space],
            "sampling": {"full": "full: t uniform in (0, 1)", "end": "end"}[self.sampling],
            "crop": "rows 3/8 to 7/8, columns 2/8 to 6/8" if self.crop else False,
        }


# The published protocols.
PATHS = {
    "ppl_zfull": LatentPath("z", "full", crop=True),
    "ppl_zend": LatentPath("z", "end", crop=True),
    "ppl_wfull": LatentPath("w", "full", crop=True),
    "ppl_wend": LatentPath("w", "end", crop=True),
    "ppl2_wend": LatentPath("w", "end", crop=False),
}
# All there are, as the grammar names them.
VARIANTS = {
    f"{space}{sampling}{'_crop' if crop else ''}": LatentPath(space, sampling, crop)
    for space in ("w", "z")
    for sampling in ("end", "full")
    for crop in (False, True)
}
