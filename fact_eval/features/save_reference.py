"""Statistics of a dataset's images into a file that other machines can score against without the images."""

from pathlib import Path

import torch

from fact_eval.features.extract import extract_features
from fact_eval.features.reference_stats import ReferenceStatistics, save_statistics
from fact_eval.features.store import FeatureCache
from fact_eval.images.datasets import open_images
from fact_eval.images.sources import PicturesSource
from fact_eval.scoring.evaluation import choose_device
from fact_metrics.base.errors import UsageError
from fact_metrics.base.progress import Progress
from fact_metrics.base.tf32 import tf32
from fact_metrics.engines.frechet import compute_statistics
from fact_metrics.features import get_detector
from fact_metrics.recommended import recommended_detector


def save_reference(
    data: str, out: Path, *, detector: str | None, split: str, device: str, batch: int, threads: int | None
) -> ReferenceStatistics:
    """Mean and covariance of a detector's features of all images of a split, in `out`; returns them.

    Without a detector the one recommended for the dataset.
    UsageError on an unknown detector or ending; raises as `open_dataset` and as the detector's weights do.
    """
    if Path(out).suffix != ".safetensors":
        raise UsageError(f"--save {out}: statistics are saved as .safetensors; give that ending")
    device = choose_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    if detector is not None:
        get_detector(detector, device)  # an unknown name costs no reading of the data
    progress = Progress()
    dataset = open_images(data, split=split, progress=progress)
    detector = detector or recommended_detector(dataset.name)
    fingerprint = get_detector(detector, device).describe()
    with tf32(False):  # float32 means float32
        features = extract_features(
            PicturesSource(dataset),
            {detector: len(dataset)},
            title=f"{dataset.name} {split}, real images",
            cache=FeatureCache(report=progress.note),
            device=device,
            batch=batch,
            progress=progress,
        )
    rows = features.get(detector, len(dataset))
    return save_statistics(out, compute_statistics(rows), detector=fingerprint, dataset=dataset.describe())
