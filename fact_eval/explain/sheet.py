"""Pictures of an explanation: attributes swept from minimum to maximum, counterfactual pairs, an animation.

Every tile has the probability of the target class below it, as a number and as a bar.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fact_eval.explain.frames import Filmed, Frames, Part
from fact_leaderboard.picture import INK, LINE, MUTED
from fact_metrics.base.atomic import write_atomically
from fact_metrics.base.plain_text import for_terminal

TILE = 96  # pixels; smaller images are enlarged by a whole factor, larger ones than WIDEST reduced to it
WIDEST = 160
GAP, BAR, LETTERS, NAMES = (
    6,
    5,
    11,
    168,
)  # pixels: between tiles, height of a bar, of letters, of names' column
TARGET, OTHER = "#c2570c", "#2f6fab"  # the classifier says the target class; it says another
BRIGHTER, DARKER = (200, 40, 40), (40, 80, 200)  # where a counterfactual is brighter or darker
FRAME_MS, LAST_MS = 120, 600  # of an animation; its two ends are shown longer


def draw_sweeps(frames: Frames, part: Part, path: Path) -> Path:
    """A PNG with one row for each attribute: one image from the smallest to the largest value.

    The image is the median of all by the change that all attributes make together, so that the picture
    flatters no method. A black frame marks the unedited image.
    """
    image = typical_image(part)
    size, steps = tile_size(part.together), part.sweeps[0].values.shape[1]
    row = size + BAR + LETTERS + 3 * GAP
    sheet = _Sheet(NAMES + steps * (size + GAP) + GAP, 4 * LETTERS + len(part.sweeps) * row)
    target = frames.classes[part.target]
    sheet.text(GAP, GAP, f"{part.method}, towards class {target}; {frames.run_id}", INK)
    sheet.text(
        GAP,
        GAP + 1.5 * LETTERS,
        f"below each tile: probability of {target}, change of its log-odds; black frame: unedited image",
        MUTED,
    )
    for i, sweep in enumerate(part.sweeps):
        top = 4 * LETTERS + i * row
        end = "max" if sweep.attribute.direction > 0 else "min"
        lines = (
            f"{i + 1}. {sweep.attribute.layer}",
            f"channel {sweep.attribute.index}",
            f"logit {sweep.attribute.effect:+.2f} at the {end}.",
            f"from {sweep.values[image, 0]:.2f} to {sweep.values[image, -1]:.2f}",
        )
        for k, line in enumerate(lines):
            sheet.text(GAP, top + 1.4 * k * LETTERS, line, MUTED if k else INK, NAMES - 2 * GAP)
        for t in range(steps):
            left = NAMES + t * (size + GAP)
            if t == sweep.own[image]:
                sheet.outline(left, top, size)
            sheet.tile(left, top, size, sweep.frames, (image, t), part.target)
            gained = sweep.frames.log_odds[image, t] - sweep.frames.log_odds[image, sweep.own[image]]
            sheet.text(left + 3.2 * LETTERS, top + size + BAR + GAP, _signed(gained, 2), MUTED)
    return sheet.save(path)


def draw_counterfactuals(frames: Frames, part: Part, path: Path) -> Path:
    """A PNG with three tiles for each image: unedited, the counterfactual, and what changed.

    Red is brighter in the counterfactual, blue is darker; the strength is relative to the largest change of
    the picture.
    """
    size, n = tile_size(part.together), len(part.together.images)
    last = part.together.images.shape[1] - 1
    columns = min(2, n)
    width, row = 3 * (size + GAP) + 3 * GAP, size + BAR + LETTERS + 3 * GAP
    sheet = _Sheet(columns * width, 5 * LETTERS + math.ceil(n / columns) * row)
    target = frames.classes[part.target]
    sheet.text(GAP, GAP, f"{part.method}: {last} attributes together, towards class {target}", INK)
    changes = part.together.images[:, last].float() - part.together.images[:, 0].float()
    largest = changes.mean(dim=1).abs().max().clamp(min=1)
    for i in range(n):
        left, top = GAP + (i % columns) * width, 5 * LETTERS + (i // columns) * row
        if i < columns:
            for k, name in enumerate(("unedited", "counterfactual", "change")):
                sheet.text(left + k * (size + GAP), 3 * LETTERS, name, MUTED)
        for k, step in enumerate((0, last)):
            sheet.tile(left + k * (size + GAP), top, size, part.together, (i, step), part.target)
            said = frames.classes[part.together.top[i, step]]
            number = top + size + BAR + GAP
            sheet.text(
                left + k * (size + GAP) + 3.2 * LETTERS, number, f"class {said}", MUTED, size - 3.2 * LETTERS
            )
        picture = highlight(part.together.images[i, 0], changes[i].mean(dim=0) / largest)
        sheet.paste(picture, left + 2 * (size + GAP), top, size)
        gained = part.together.log_odds[i, last] - part.together.log_odds[i, 0]
        sheet.text(left + 2 * (size + GAP), top + size + BAR + GAP, f"log-odds {_signed(gained, 1)}", MUTED)
    return sheet.save(path)


def animate(frames: Frames, part: Part, path: Path) -> Path:
    """An animated WebP: a row an attribute, a column an image, from minimum to maximum and back."""
    size = tile_size(part.together)
    n, steps = part.sweeps[0].frames.probability.shape
    row = size + BAR + 2 * GAP
    pictures = []
    for t in range(steps):
        sheet = _Sheet(n * (size + GAP) + GAP, 2 * LETTERS + len(part.sweeps) * row)
        sheet.text(GAP, GAP / 2, f"{part.method}, towards class {frames.classes[part.target]}", INK)
        for k, sweep in enumerate(part.sweeps):
            for i in range(n):
                place = (GAP + i * (size + GAP), 2 * LETTERS + k * row)
                sheet.tile(*place, size, sweep.frames, (i, t), part.target, number=False)
        pictures.append(sheet.picture)
    return write_animation(pictures, path)


def write_animation(pictures: Sequence[Image.Image], path: Path) -> Path:
    """Write pictures, forth and back without end, as a lossless WebP; the first and the last are held."""
    order = [*pictures, *pictures[-2:0:-1]]
    held = {0, len(pictures) - 1}
    durations = [LAST_MS if t in held else FRAME_MS for t in range(len(order))]

    def write(partial: Path) -> None:
        order[0].save(
            partial,
            format="WEBP",
            save_all=True,
            append_images=order[1:],
            duration=durations,
            loop=0,
            lossless=True,
        )

    write_atomically(path, write)
    return path


def _signed(value: float, digits: int) -> str:
    """A number with its sign; what rounds to 0 is +0."""
    return f"{round(float(value), digits) + 0.0:+.{digits}f}"


def typical_image(part: Part) -> int:
    """The image with the median change of log-odds by all attributes together (the lower of two)."""
    change = part.together.log_odds[:, -1] - part.together.log_odds[:, 0]
    return int(change.argsort(stable=True)[(len(change) - 1) // 2])


def highlight(image: Tensor, change: Tensor) -> Image.Image:
    """A faded image [C, H, W], uint8, with its change [H, W] in -1 to 1 laid over it in two colours."""
    gray = image.float().mean(dim=0).numpy()
    faded = np.repeat((255 - (255 - gray) * 0.35)[..., None], 3, axis=2)
    strength = change.abs().clamp(max=1).numpy()[..., None]
    colour = np.where(change.numpy()[..., None] > 0, BRIGHTER, DARKER)
    return Image.fromarray((faded * (1 - strength) + colour * strength).round().astype(np.uint8))


def to_picture(image: Tensor) -> Image.Image:
    """An image [C, H, W], uint8, C 1 or 3, as RGB."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array)


def tile_size(filmed: Filmed) -> int:
    """Side of the square that an image takes in a picture."""
    size = max(filmed.images.shape[-2:])
    return size * math.ceil(TILE / size) if size < WIDEST else WIDEST


def fit(picture: Image.Image, size: int) -> Image.Image:
    """A picture whose longer side is `size`: enlarged in whole pixels, or reduced by averaging."""
    longer = max(picture.size)
    filter = Image.Resampling.NEAREST if size > longer else Image.Resampling.BOX
    return picture.resize(tuple(max(side * size // longer, 1) for side in picture.size), filter)


class _Sheet:
    """A white picture that tiles and texts are put on."""

    def __init__(self, width: float, height: float) -> None:
        self.picture = Image.new("RGB", (math.ceil(width), math.ceil(height)), "white")
        self._draw = ImageDraw.Draw(self.picture)

    def text(self, left: float, top: float, text: str, color: str, width: float | None = None) -> None:
        """One line, on a white ground; with `width`, cut to that width."""
        line = for_terminal(text)
        if width is not None:
            while len(line) > 1 and self._draw.textlength(line, font=_font()) > width:
                line = line[:-2] + "…"
        self._draw.text((left, top), line, fill=color, font=_font())

    def paste(self, picture: Image.Image, left: float, top: float, size: int) -> None:
        """Put a picture into the middle of the square tile at a place."""
        fitted = fit(picture, size)
        margin = ((size - fitted.width) // 2, (size - fitted.height) // 2)
        self.picture.paste(fitted, (int(left) + margin[0], int(top) + margin[1]))

    def outline(self, left: float, top: float, size: int) -> None:
        """A frame around the tile at a place."""
        self._draw.rectangle((left - 3, top - 3, left + size + 2, top + size + 2), fill=INK)

    def tile(
        self,
        left: float,
        top: float,
        size: int,
        filmed: Filmed,
        place: tuple[int, int],
        target: int,
        *,
        number: bool = True,
    ) -> None:
        """One frame, and a bar of its probability below it: orange if the target is most probable."""
        self.paste(to_picture(filmed.images[place]), left, top, size)
        p = float(filmed.probability[place])
        color = TARGET if int(filmed.top[place]) == target else OTHER
        y = top + size + GAP - 1
        self._draw.rectangle((left, y, left + size - 1, y + BAR - 1), fill=LINE)
        if round(p * size):
            self._draw.rectangle((left, y, left + round(p * size) - 1, y + BAR - 1), fill=color)
        if number:
            self.text(left, y + BAR + 1, f"{p:.2f}", color)

    def save(self, path: Path) -> Path:
        write_atomically(path, lambda partial: self.picture.save(partial, format="PNG", optimize=True))
        return path


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: it has the letters of most alphabets."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", LETTERS)
