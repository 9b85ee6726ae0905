"""From the document in a run folder to frames: the networks are opened again, nothing is searched."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fact_eval.explain.document import (
    AttributeShape,
    ExplanationShape,
    Method,
    read_explanation,
)
from fact_eval.explain.frames import ATTRIBUTES, Frames, film
from fact_eval.explain.session import ExplainOptions, open_subject
from fact_eval.explain.subject import Images, Subject
from fact_eval.jobs.plan import Job
from fact_metrics.base.errors import UserError, unknown_name
from fact_metrics.base.progress import Progress

CANDIDATES = 120  # judged images of which some are shown


@dataclass(frozen=True)
class Explained:
    """A snapshot whose explanation was read: networks, document, searched and first judged images."""

    job: Job
    subject: Subject
    document: ExplanationShape
    search: Images
    judged: Images

    def lists(self, methods: Sequence[str] = ()) -> dict[tuple[Method, int], list[AttributeShape]]:
        """By method and class the lists for all images; `methods` empty: of all methods."""
        common = [one for one in self.document.found if one.image is None and one.attributes]
        known = dict.fromkeys(one.method for one in common)
        for method in methods:
            if method not in known:
                raise unknown_name("method", method, known)
        return {
            (one.method, one.class_index): one.attributes
            for one in common
            if one.method in (methods or known)
        }


def open_explained(
    job: Job,
    path: Path,
    *,
    classifier: str | None = None,
    device: str = "cpu",
    batch: int = 64,
    progress: Progress | None = None,
) -> Explained:
    """The explanation of a snapshot in the document at `path`, with its networks.

    `classifier` names the one that was explained; None: that of the StylEx run. UserError if there is no
    explanation, or if snapshot or classifier are not those that it explains.
    """
    document = read_explanation(path)
    if document.snapshot_sha256 != job.content_sha256:
        raise UserError(f"{path} explains another version of {job.snapshot}; run `fact-eval explain` again.")
    options = ExplainOptions(classifier=classifier)
    progress = progress or Progress(quiet=True)
    subject = open_subject(
        job, options, seed=document.images.seed, device=device, batch=batch, progress=progress
    )
    if subject.classifier.sha256 != document.classifier.sha256:
        raise UserError(
            f"{path} explains the classifier {document.classifier.name} with weights "
            f"{document.classifier.sha256[:12]}, not {subject.classifier.name} with "
            f"{subject.classifier.sha256[:12]}; name the first one with --classifier"
        )
    if len(subject.classifier.classes) != len(document.classifier.classes):
        raise UserError(
            f"{path} names {len(document.classifier.classes)} classes, and the classifier has "
            f"{len(subject.classifier.classes)}; run `fact-eval explain` again."
        )
    for one in document.found:
        _check_layers(subject, one.attributes, path)
    return Explained(job, subject, document, *_images(subject, document, path))


def film_explanation(
    job: Job,
    path: Path,
    *,
    classifier: str | None = None,
    methods: Sequence[str] = (),
    most: int = ATTRIBUTES,
    device: str = "cpu",
    batch: int = 64,
    progress: Progress | None = None,
) -> Frames:
    """The frames of the explanation in the document at `path`; `methods` empty: all with common lists.

    UserError as `open_explained`, and for a method that the explanation does not have.
    """
    progress = progress or Progress(quiet=True)
    options = dict(device=device, batch=batch, progress=progress)
    explained = open_explained(job, path, classifier=classifier, **options)
    document, lists = explained.document, explained.lists(methods)
    if not lists:
        raise UserError(f"{path} has no attribute to show; explain more images, or train on")
    parts = film(
        explained.subject,
        explained.search,
        explained.judged,
        lists,
        shift=document.shift,
        most=most,
        progress=progress,
    )
    return Frames(
        run_id=job.run_id,
        snapshot=job.snapshot.stem,
        snapshot_sha256=job.content_sha256,
        classifier=document.classifier.name,
        classes=tuple(document.classifier.classes),
        parts=parts,
    )


def _check_layers(subject: Subject, attributes: Sequence, path) -> None:
    """UserError for an attribute of a layer that the generator does not have."""
    for one in attributes:
        try:
            subject.space.coordinate(one.layer, one.index)
        except KeyError as error:
            raise UserError(
                f"{path}: the generator has no style {one.layer}.{one.index}; run `fact-eval explain` again."
            ) from error


def _images(subject: Subject, document: ExplanationShape, path) -> tuple[Images, Images]:
    """The searched images, and the first of the judged ones."""
    images = document.images
    size = 2**31 if subject.pictures is None else subject.pictures.size
    if not all(0 <= index < size for index in (*images.indices, *images.judged)) or not images.judged:
        raise UserError(f"{path} names no images that can be shown; run `fact-eval explain` again.")
    return _load(subject, images.indices), _load(subject, images.judged[:CANDIDATES])


@torch.inference_mode()
def _load(subject: Subject, indices: Sequence[int]) -> Images:
    """Images by index with their styles and logits."""
    parts = [list(indices[i : i + subject.batch]) for i in range(0, len(indices), subject.batch)]
    styles = [subject.styles(part) for part in parts]
    logits = [
        subject.classifier.logits(subject.render(s, part)) for s, part in zip(styles, parts, strict=True)
    ]
    return Images(list(indices), torch.cat(styles), torch.cat(logits))
