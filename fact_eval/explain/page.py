"""The HTML page of an explanation: a slider for every attribute, over frames that were rendered before."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from fact_eval.explain.frames import Filmed, Frames, Part, Sweep
from fact_eval.explain.html import data_uri, write_page
from fact_eval.explain.sheet import animate, draw_counterfactuals, draw_sweeps, to_picture
from fact_metrics.base.plain_text import for_terminal

# method -> how pages name it; another method keeps its name
METHODS = {
    "attfind-greedy": "AttFind",
    "class-mean": "class means (Wu et al. 2021)",
    "gradient": "gradient of the logit",
    "random": "random coordinates",
}
PAGE, PICTURES = "explanation.html", "pictures"


def write_pictures(folder: Path, frames: Frames) -> list[Path]:
    """Write the page and, in `pictures/`, three pictures for every method and class. Returns all paths."""
    pictures = folder / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    written = [write_viewer(folder / PAGE, frames)]
    for part in frames.parts:
        stem = f"{part.method}-class{part.target}"
        written += [
            draw_sweeps(frames, part, pictures / f"{stem}-sweeps.png"),
            draw_counterfactuals(frames, part, pictures / f"{stem}-counterfactuals.png"),
            animate(frames, part, pictures / f"{stem}.webp"),
        ]
    return written


def write_viewer(path: Path, frames: Frames) -> Path:
    """Write the page, one self-contained file."""
    texts = {
        "title": f"Why {frames.classifier} decides: {frames.run_id}",
        "run": frames.run_id,
        "snapshot": frames.snapshot,
        "sha256": frames.snapshot_sha256,
        "classifier": frames.classifier,
        "pictures": PICTURES,
    }
    return write_page(path, "page", texts, viewer_data(frames))


def viewer_data(frames: Frames) -> dict[str, Any]:
    """What the page's script reads: texts as terminals show them, sprites as addresses, numbers rounded."""
    return {
        "classes": [for_terminal(name) for name in frames.classes],
        "methods": {method: METHODS.get(method, for_terminal(method)) for method in frames.methods},
        "targets": frames.targets,
        **frame_size(frames),
        "parts": [_part_data(part) for part in frames.parts],
    }


def frame_size(frames: Frames) -> dict[str, int]:
    """Height and width of every frame of a sprite."""
    height, width = frames.parts[0].together.images.shape[-2:]
    return {"height": height, "width": width}


def sprite(images: Tensor) -> Image.Image:
    """Frames [N, T, C, H, W] as one picture: a row an image, a column a step."""
    rows = [np.concatenate([np.asarray(to_picture(x)) for x in row], axis=1) for row in images]
    return Image.fromarray(np.concatenate(rows, axis=0))


def _part_data(part: Part) -> dict[str, Any]:
    return {
        "method": part.method,
        "target": part.target,
        "together": _filmed_data(part.together),
        "attributes": [_sweep_data(sweep) for sweep in part.sweeps],
    }


def _sweep_data(sweep: Sweep) -> dict[str, Any]:
    attribute = sweep.attribute
    return {
        "name": for_terminal(f"{attribute.layer} channel {attribute.index}"),
        "effect": round(attribute.effect, 3),
        "direction": attribute.direction,
        "values": [[round(v, 3) for v in row] for row in sweep.values.tolist()],
        "own": sweep.own.tolist(),
        **_filmed_data(sweep.frames),
    }


def _filmed_data(filmed: Filmed) -> dict[str, Any]:
    return {
        "sprite": data_uri(sprite(filmed.images)),
        "p": [[float(f"{p:.3g}") for p in row] for row in filmed.probability.tolist()],
        "logOdds": [[round(value, 2) for value in row] for row in filmed.log_odds.tolist()],
        "top": filmed.top.tolist(),
    }
