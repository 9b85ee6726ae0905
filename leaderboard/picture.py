"""The board as one small picture for the README: sample grids above, the table below."""

from collections.abc import Sequence
from pathlib import Path

from leaderboard.build import Row, Section
from leaderboard.render import cell_text, header, row_name, section_title
from metrics.errors import UsageError

INK, MUTED, LINE, BEST = "#1b1f24", "#6a737d", "#d0d7de", "#0a5c36"


def draw_board(sections: Sequence[Section], out: Path, *, grids: Sequence[str] = ()) -> Path:
    """Write a PNG of the ranked and control rows of every section; `grids` are LABEL=FILE sample grids.

    Raises UsageError for a grid without a label or file.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    samples = [_read_grid(grid, plt) for grid in grids]
    heights = [1.0 + 0.34 * (len(s.ranked) + len(s.controls)) for s in sections] or [1.0]
    top = [3.2] if samples else []
    width = max([7.0, *(3.6 + 1.15 * len(s.columns) for s in sections)])
    figure = plt.figure(figsize=(width, sum(top + heights)), dpi=160, facecolor="white")
    rows = figure.subfigures(len(top + heights), 1, height_ratios=top + heights, squeeze=False)[:, 0]
    if samples:
        for axis, (label, image) in zip(
            rows[0].subplots(1, len(samples), squeeze=False)[0], samples, strict=True
        ):
            axis.imshow(image, cmap="gray", interpolation="nearest")
            axis.set_title(label, fontsize=9, color=INK)
            axis.axis("off")
    for place, section in zip(rows[len(top) :], sections, strict=False):
        _draw_section(place.subplots(), section)
    figure.savefig(out, metadata={"Software": None})
    plt.close(figure)
    return out


def _draw_section(axis, section: Section) -> None:
    """One table: headers in grey, best values in bold green, control rows in grey italics."""
    lines = [*section.ranked, *section.controls]
    columns = len(section.columns)
    axis.set_xlim(0, 3.2 + columns)
    axis.set_ylim(len(lines) + 0.6, -1.4)
    axis.axis("off")
    axis.text(0.05, -1.05, section_title(section), fontsize=10, color=INK, weight="bold", va="center")
    axis.text(2.75, -0.3, "seeds", fontsize=7.5, color=MUTED, ha="center", va="center")
    for i, column in enumerate(section.columns):
        axis.text(3.7 + i, -0.3, header(column, section), fontsize=7.5, color=MUTED, ha="center", va="center")
    axis.axhline(0.1, color=INK, linewidth=0.8)
    for y, row in enumerate(lines, start=1):
        control = y > len(section.ranked)
        _draw_row(axis, y - 0.4, row, section, control=control)
        axis.axhline(y + 0.1, color=LINE, linewidth=0.5)


def _draw_row(axis, y: float, row: Row, section: Section, *, control: bool) -> None:
    style = {"fontsize": 8, "va": "center", "color": MUTED if control else INK}
    axis.text(0.05, y, row_name(row), style="italic" if control else "normal", **style)
    axis.text(2.75, y, str(len(row.train_seeds) or ""), ha="center", **style)
    for i, column in enumerate(section.columns):
        cell = row.cells.get(column.metric)
        best = not control and cell is not None and cell.mean.mean == section.best(column.metric)
        look = {**style, "color": BEST, "weight": "bold"} if best else style
        axis.text(3.7 + i, y, cell_text(cell, column, seeds=len(row.train_seeds)), ha="center", **look)


def _read_grid(text: str, plt):
    label, equals, file = text.partition("=")
    if not equals or not Path(file).is_file():
        raise UsageError(f"--grid {text!r}: give LABEL=FILE with an existing picture")
    return label, plt.imread(file)
