"""The size of images: a square, or a rectangle that networks reach by doubling a small base shape.

Configurations, descriptions and records hold a size as `resolution`: the side of a square (256), or
HEIGHTxWIDTH ("256x128"). Squares double a base of 4x4. Rectangles double a base whose longer side is 4 to 7
pixels, such as 4x2, 4x3 or 3x5; so a size has one base and one number of doublings.
"""

import math
import re
from dataclasses import dataclass

Resolution = int | str

SMALLEST = 4  # side of the base of squares
MOST_DOUBLINGS = 12
_LENGTHS = range(1, 2 * SMALLEST)
BASES = [(h, w) for h in _LENGTHS for w in _LENGTHS if max(h, w) >= SMALLEST and (h != w or h == SMALLEST)]
FORM = "it must be a side such as 256, or HEIGHTxWIDTH such as 256x128"


@dataclass(frozen=True)
class ImageSize:
    """Height and width in pixels that networks can have; made by `of`."""

    height: int
    width: int

    @classmethod
    def of(cls, resolution: Resolution) -> "ImageSize":
        """The size that a resolution names. ValueError with the reason if networks cannot have it."""
        size = cls(*_sides(resolution))
        problem = size_problem(resolution)
        if problem is not None:
            raise ValueError(f"{resolution}: {problem[0]}")
        return size

    @property
    def resolution(self) -> Resolution:
        """The name of the size: the side of a square, otherwise HEIGHTxWIDTH."""
        return self.height if self.height == self.width else f"{self.height}x{self.width}"

    @property
    def levels(self) -> list[int]:
        """4, 8, 16 ... for the base and every doubling: the sides of the square network with as many blocks.

        Blocks are named by them, and have the feature maps of that square network.
        """
        return [SMALLEST << i for i in range(_doublings(self.height, self.width) + 1)]

    @property
    def base(self) -> tuple[int, int]:
        """Height and width of the smallest block."""
        return self.at(SMALLEST)

    @property
    def mean_side(self) -> int:
        """Side of the square with as many pixels, rounded down."""
        return math.isqrt(self.height * self.width)

    def distance(self, height: int, width: int) -> float:
        """Squared logarithms of the ratios of the sides."""
        return math.log(height / self.height) ** 2 + math.log(width / self.width) ** 2

    def at(self, level: int) -> tuple[int, int]:
        """Height and width at a level."""
        last = self.levels[-1]
        return self.height * level // last, self.width * level // last


def parse_resolution(text: str) -> Resolution:
    """The one spelling of a resolution: 256x256 is 256. ValueError if the text is not in the form."""
    sides = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text.strip().lower())
    if sides is None:
        raise ValueError(FORM)
    height = int(sides[1])
    return ImageSize(height, int(sides[2] or height)).resolution


def size_problem(resolution: Resolution, *, smallest: int = SMALLEST) -> tuple[str, Resolution] | None:
    """Why networks cannot have this resolution, and the closest one that they can have; None if they can.

    `smallest` is the first level that will do.
    """
    height, width = _sides(resolution)
    fewest = (smallest // SMALLEST).bit_length() - 1
    doublings = _doublings(height, width)
    base = height >> doublings, width >> doublings
    doubled = tuple(side << doublings for side in base) == (height, width)
    if doubled and base in BASES and fewest <= doublings <= MOST_DOUBLINGS:
        return None
    known = [
        ImageSize(h << i, w << i)
        for h, w in BASES
        for i in range(fewest, MOST_DOUBLINGS + 1)
        if height != width or h == w
    ]
    nearest = min(known, key=lambda size: size.distance(max(height, 1), max(width, 1))).resolution
    if height == width:
        return f"the networks need a power of two from {smallest} to {SMALLEST << MOST_DOUBLINGS}", nearest
    return "the networks double a base shape with a longer side of 4 to 7, such as 4x2 or 4x3", nearest


def shown_size(resolution: object) -> str:
    """A resolution as HEIGHTxWIDTH."""
    return resolution if isinstance(resolution, str) else f"{resolution}x{resolution}"


def _sides(resolution: Resolution) -> tuple[int, int]:
    if isinstance(resolution, int):
        return resolution, resolution
    if not isinstance(resolution, str) or parse_resolution(resolution) != resolution:
        raise ValueError(f"{resolution!r} is no resolution: {FORM}")
    height, width = map(int, resolution.split("x"))
    return height, width


def _doublings(height: int, width: int) -> int:
    """How often the base of a size doubles: its longer side ends at 4 to 7."""
    return max((max(height, width) // SMALLEST).bit_length() - 1, 0)
