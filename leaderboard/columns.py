"""The columns of the board, in order, one line each; the first one ranks. The direction comes with the records.

`fact-eval all` computes exactly these. MNIST has its own digit metrics and a test split to compare with; on
any other dataset the reference is all training images, as in StyleGAN's fid50k_full.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A registered metric, what its column is called, how a number of it is written, and on which boards it stands."""

    metric: str
    header: str
    format: str = ".3f"
    on: Literal["all", "mnist", "other"] = "all"


COLUMNS = (
    Column("fid10k_full_digits", "FID digits", ".2f", on="mnist"),
    Column("fid10k_test_efficientnet_lite0", "FID EffNet", ".2f", on="mnist"),
    Column("fid10k_full_efficientnet_lite0", "FID EffNet", ".2f", on="other"),
    Column("precision10k3_test_stlpips_alex", "precision", on="mnist"),
    Column("precision10k3_full_stlpips_alex", "precision", on="other"),
    Column("recall10k3_test_stlpips_alex", "recall", on="mnist"),
    Column("recall10k3_full_stlpips_alex", "recall", on="other"),
    Column("precision10k3_test_pixels", "precision MSE", on="mnist"),
    Column("precision10k3_full_pixels_rgb", "precision MSE", on="other"),
    Column("recall10k3_test_pixels", "recall MSE", on="mnist"),
    Column("recall10k3_full_pixels_rgb", "recall MSE", on="other"),
    Column("legible10k", "legible", on="mnist"),
    Column("covered10k", "digits covered", ".1f", on="mnist"),
    Column("sharpness10k_test", "sharpness gap", on="mnist"),
    Column("sharpness10k_full", "sharpness gap", on="other"),
    Column("ppl2k_wend_stlpips_vgg", "PPL", ".1f"),
    Column("fused1k_maxabs", "fused max abs", ".1e"),
    Column("fused1k_psnr", "fused dB", ".1f"),
    Column("fused1k_lpips_stlpips_alex", "fused LPIPS", ".1e"),
)


def columns_for(dataset: str) -> list[Column]:
    """Columns of the board of a dataset, by its name."""
    board = "mnist" if dataset == "mnist" else "other"
    return [column for column in COLUMNS if column.on in ("all", board)]


def metrics_for(dataset: str) -> list[str]:
    """Metrics of the columns of a dataset's board."""
    return [column.metric for column in columns_for(dataset)]
