"""The columns of the board, in order, one line each; the first one ranks. Directions come with the records.

`fact-eval all` computes exactly these, where they mean something on the dataset. Datasets with a published
test split are compared with it; on any other the reference is all training images, as in fid50k_full.
"""

from dataclasses import dataclass
from typing import Literal

WITH_TEST_SPLIT = ("mnist", "fashion-mnist", "kmnist")  # by dataset name


@dataclass(frozen=True)
class Column:
    """A registered metric, its column's name, how its numbers are written, and where it stands.

    `on` test: datasets of WITH_TEST_SPLIT; full: all others; all: everywhere.
    """

    metric: str
    header: str
    format: str = ".3f"
    on: Literal["all", "test", "full"] = "all"


COLUMNS = (
    Column("fid10k_full_digits", "FID digits", ".2f"),
    Column("fid10k_test_efficientnet_lite0", "FID EffNet", ".2f", on="test"),
    Column("fid10k_full_efficientnet_lite0", "FID EffNet", ".2f", on="full"),
    Column("precision10k3_test_stlpips_alex", "precision", on="test"),
    Column("precision10k3_full_stlpips_alex", "precision", on="full"),
    Column("recall10k3_test_stlpips_alex", "recall", on="test"),
    Column("recall10k3_full_stlpips_alex", "recall", on="full"),
    Column("precision10k3_test_pixels", "precision MSE", on="test"),
    Column("precision10k3_full_pixels_rgb", "precision MSE", on="full"),
    Column("recall10k3_test_pixels", "recall MSE", on="test"),
    Column("recall10k3_full_pixels_rgb", "recall MSE", on="full"),
    Column("legible10k", "legible"),
    Column("covered10k", "digits covered", ".1f"),
    Column("agreement10k", "agreement"),
    Column("reconlegible10k", "recon legible"),
    Column("recon10k_lpips_stlpips_alex", "recon LPIPS"),
    Column("recon10k_mse", "recon MSE"),
    Column("wgap10k_frechet", "W-gap", ".2f"),
    Column("sharpness10k_test", "sharpness gap", on="test"),
    Column("sharpness10k_full", "sharpness gap", on="full"),
    Column("ppl2k_wend_stlpips_vgg", "PPL", ".2f"),
    Column("fused1k_maxabs", "fused max abs", ".1e"),
    Column("fused1k_psnr", "fused dB", ".1f"),
    Column("fused1k_lpips_stlpips_alex", "fused LPIPS", ".1e"),
)


def columns_for(dataset: str) -> list[Column]:
    """Columns of the board of a dataset, by its name."""
    reference = "test" if dataset in WITH_TEST_SPLIT else "full"
    return [column for column in COLUMNS if column.on in ("all", reference)]


def metrics_for(dataset: str) -> list[str]:
    """Metrics of the columns of a dataset's board."""
    return [column.metric for column in columns_for(dataset)]
