"""The real images of one dataset: splits opened once, checked to be the images of the training run."""

from dataclasses import dataclass

from fact_eval.images.datasets import open_images
from fact_eval.images.sources import PicturesSource
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.progress import Progress
from fact_train.data import Dataset
from fact_train.datasets import find_data

# Entries of a dataset's description -> options of `open_dataset`: the same options give the same images.
PROCESSING = {name: name for name in ("resolution", "resize", "crop", "channels", "alpha", "image_key")} | {
    "labels_from": "labels"
}


@dataclass(frozen=True)
class RealSplit:
    """One split: its description, and its images in the order of permutation 0 (None: not available)."""

    description: dict
    source: PicturesSource | None


class RealImages:
    """The splits of `data`; `train` is the description of the train split that the run was trained on.

    `opened` is the train split if a command has opened it already.
    """

    def __init__(
        self, data: str, *, train: dict, opened: Dataset | None = None, progress: Progress | None = None
    ):
        self._data, self._train, self._progress = data, train, progress
        self._splits: dict[str, Dataset] = {} if opened is None else {"train": opened}

    def dataset(self, split: str) -> Dataset:
        """One split. MissingSplit if the dataset lacks it; UserError if train is not the run's."""
        if split not in self._splits:
            self._splits[split] = self._open(split)
        return self._splits[split]

    def split(self, name: str) -> RealSplit:
        """One split with its images. Raises the errors of `dataset`."""
        dataset = self.dataset(name)
        return RealSplit(dataset.describe(), PicturesSource(dataset))

    def _open(self, split: str) -> Dataset:
        options = {option: self._train[entry] for entry, option in PROCESSING.items() if entry in self._train}
        try:
            find_data(self._data)
        except UsageError as error:
            raise UserError(
                f"the real images are not there: {error}; give their place with --data"
            ) from error
        dataset = open_images(self._data, split=split, progress=self._progress, **options)
        whole = self._train.get("max_images") is None
        if split == "train" and whole and dataset.sha256 != self._train["sha256"]:
            raise UserError(
                f"{self._data} is not the data of the run: sha256 {dataset.sha256[:12]} here, "
                f"{self._train['sha256'][:12]} there; give the right one with --data"
            )
        return dataset


class DescribedImages:
    """The real images behind a file of statistics: a description, no images."""

    def __init__(self, train: dict):
        self._train = train

    def split(self, name: str) -> RealSplit:
        """The description, whatever the split."""
        return RealSplit(self._train, None)
