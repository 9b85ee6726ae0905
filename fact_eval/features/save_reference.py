"""Saves the statistics of a dataset's images; other machines can score against them without the images."""

from pathlib import Path

import torch

from fact_eval.features.chunks import FeatureRequest
from fact_eval.features.extract import FeatureExtractor
from fact_eval.features.reference_stats import ReferenceStatistics, save_statistics
from fact_eval.images.datasets import open_reference_images
from fact_eval.images.sources import PicturesSource
from fact_metrics.base.devices import resolve_device
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.progress import Progress
from fact_metrics.engines.frechet import compute_statistics
from fact_metrics.features import get_detector
from fact_train.datasets import dataset_entry


def save_reference(
    data: str, out: Path, *, detector: str | None, split: str, device: str, batch: int, threads: int | None
) -> ReferenceStatistics:
    """Write mean and covariance of a detector's features of all images of a split to `out`; returns them.

    Without a detector: the one recommended for the dataset. Raises UsageError on an unknown detector or file
    ending, and the errors of `open_dataset` and of the detector's weights.
    """
    if Path(out).suffix != ".safetensors":
        raise UsageError(f"--save {out}: statistics are saved as .safetensors; give that ending")
    device = str(resolve_device(device))
    if threads is not None:
        torch.set_num_threads(threads)
    if detector is not None:
        get_detector(detector, device)  # reject an unknown name before reading the data
    progress = Progress()
    dataset = open_reference_images(data, split=split, progress=progress)
    if len(dataset) < 2:
        raise UserError(f"{data} has {len(dataset)} {split} image; a covariance needs at least 2")
    detector = detector or dataset_entry(dataset.name).detector
    fingerprint = get_detector(detector, device).describe()
    title = f"{dataset.name} {split}, real images"
    request = FeatureRequest(PicturesSource(dataset), {detector: len(dataset)}, title)
    features = FeatureExtractor(device=device, batch=batch, progress=progress).extract(request)
    rows = features.get(detector, len(dataset))
    return save_statistics(out, compute_statistics(rows), detector=fingerprint, dataset=dataset.describe())
