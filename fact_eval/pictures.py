"""Jobs over folders of pictures, whatever made them, and over nothing but real images and noise."""

import hashlib
from pathlib import Path

from fact_eval.catalog import Card
from fact_eval.plan import Job, Reference, Request
from fact_eval.records import RESULTS, canonical_json
from fact_train.data import open_dataset
from metrics.errors import UserError


def open_reference(data: str) -> Reference:
    """A dataset by name or path as a reference. UsageError and UserError as `open_dataset` raises them."""
    return Reference(data, open_dataset(data, split="train").describe())


def plan_pictures(folder: Path, reference: Reference, out: Path, request: Request) -> tuple[Job, list[str]]:
    """The job that scores a folder or zip of pictures, and a line for every metric it does not allow.

    Pictures must be of the reference's size; channels follow the reference. UserError where no metric is
    left, or where a metric that the user named needs more pictures than there are.
    """
    train = reference.train
    try:
        pictures = open_dataset(folder, channels=train["channels"])
    except UserError as error:
        what, _, way_out = str(error).partition("; ")
        if "--" not in way_out:
            raise
        # training mends this with a flag; pictures are scored as they are
        size = f"{train['resolution']}x{train['resolution']}"
        raise type(error)(f"{what}; save the pictures at {size}, the reference's size") from error
    if pictures.resolution != train["resolution"]:
        raise UserError(
            f"{folder} holds {pictures.resolution}x{pictures.resolution} pictures, {train['name']} is "
            f"{train['resolution']}x{train['resolution']}; save the pictures at the reference's size"
        )
    content = canonical_json({"pictures": pictures.sha256, "reference": train["sha256"]})
    fitting, left_out = [], []
    for card in request.cards_for(train["name"]):
        why = _obstacle(card, len(pictures))
        if why is None:
            fitting.append(card)
        elif request.named:
            raise UserError(f"{folder}: {card.name} {why}")
        else:
            left_out.append(f"{card.name} {why}")
    if not fitting:
        raise UserError(f"{folder} holds {len(pictures):,} pictures; no metric takes so few: {left_out[0]}")
    job = Job(
        source="images",
        run_id=f"images-{pictures.name}-{pictures.sha256[:8]}-vs-{reference.name}",
        label=pictures.name,
        results=out / f"images-{pictures.name}" / RESULTS,
        reference=reference,
        content_sha256=hashlib.sha256(content.encode()).hexdigest(),
        pictures=pictures,
    )
    return request.fill(job, cards=fitting), left_out


def _obstacle(card: Card, available: int) -> str | None:
    if card.needs_generator:
        return "needs a generator, not pictures"
    if card.needs_encoder:
        return "needs an encoder, not pictures"
    if card.n_generated and card.n_generated > available:
        return f"needs {card.n_generated:,} pictures, there are {available:,}"
    return None
