"""The columns of the board, in order, one line each; the first one ranks. Directions come with the records.

`fact-eval all` computes exactly these, where they mean something on the dataset, of one protocol: `standard`,
the numbers of the field, which need downloaded weights, or `embedded`, which needs none. Embedded columns
compare with the test split of datasets that have a published one; on any other, and in the standard ones, the
reference is all training images, as in fid50k_full.
"""

from dataclasses import dataclass
from typing import Literal

from fact_train.datasets import dataset_entry

PROTOCOLS = ("standard", "embedded")  # a dataset has a board of each, in this order
EXPLANATIONS = (
    "explanations"  # and one of each explained classifier; `fact-eval explain` computes its numbers
)


@dataclass(frozen=True)
class Column:
    """A metric, its column's name, how its numbers are written, and where it stands.

    `on` test: datasets with a published test split (fact_train/datasets.py); full: all others; all:
    everywhere. `protocol` both: on the boards of both.
    """

    metric: str
    header: str
    format: str = ".3f"
    on: Literal["all", "test", "full"] = "all"
    protocol: Literal["standard", "embedded", "both", "explanations"] = "embedded"


COLUMNS = (
    Column("modekl26k", "mode KL", protocol="both"),
    Column("modes26k", "modes", ".0f", protocol="both"),
    Column("fid50k_full", "FID", ".2f", protocol="standard"),
    Column("fid50k_full_clean", "clean-FID", ".2f", protocol="standard"),
    Column("kid50k_full", "KID", ".5f", protocol="standard"),
    Column("is50k", "IS", ".2f", protocol="standard"),
    Column("precision50k3_full", "precision", protocol="standard"),
    Column("recall50k3_full", "recall", protocol="standard"),
    Column("density50k5_full", "density", protocol="standard"),
    Column("coverage50k5_full", "coverage", protocol="standard"),
    Column("ppl2_wend", "PPL", ".1f", protocol="standard"),
    Column("fid10k_test_efficientnet_lite0", "FID EffNet", ".2f", on="test"),
    Column("fid10k_full_efficientnet_lite0", "FID EffNet", ".2f", on="full"),
    Column("fid10k_full_digits", "FID digits", ".2f"),
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
    Column("reconsharpness10k_full", "recon sharpness gap"),
    Column("recon10k_lpips_stlpips_alex", "recon LPIPS"),
    Column("recon10k_mse", "recon MSE"),
    Column("recon10k_psnr", "recon dB", ".1f"),
    Column("recon10k_ssim", "recon SSIM"),
    Column("reconfid10k_full_efficientnet_lite0", "recon FID EffNet", ".2f"),
    Column("kl10k", "class KL"),
    Column("spikes1k", "spikes", ".1f"),
    Column("wgap10k_frechet", "W-gap", ".2f"),
    Column("sharpness10k_test", "sharpness gap", on="test"),
    Column("sharpness10k_full", "sharpness gap", on="full"),
    Column("ppl2k_wend_stlpips_vgg", "PPL", ".2f"),
    Column("fused1k_maxabs", "fused max abs", ".1e", protocol="both"),
    Column("fused1k_psnr", "fused dB", ".1f", protocol="both"),
    Column("fused1k_lpips_stlpips_alex", "fused LPIPS", ".1e", protocol="both"),
    Column("flips250_attfind_greedy", "flips", protocol=EXPLANATIONS),
    Column("effectiveness250_attfind_greedy", "flips of second", protocol=EXPLANATIONS),
    Column("flips250_attfind_subset", "flips, subset", protocol=EXPLANATIONS),
    Column("flips250_gradient", "flips, gradient", protocol=EXPLANATIONS),
    Column("flips250_class_mean", "flips, class mean", protocol=EXPLANATIONS),
    Column("flips250_random", "flips, random", protocol=EXPLANATIONS),
    Column("flips250_control", "flips, control", protocol=EXPLANATIONS),
    Column("sparsity250_attfind_greedy", "needed", ".1f", protocol=EXPLANATIONS),
    Column("cflpips250_attfind_greedy_stlpips_alex", "LPIPS", protocol=EXPLANATIONS),
    Column("cfmse250_attfind_greedy", "MSE", protocol=EXPLANATIONS),
    Column("cffid250_attfind_greedy_digits", "FID digits", ".2f", protocol=EXPLANATIONS),
    Column("cfsplitfid250_attfind_greedy_digits", "split FID digits", ".2f", protocol=EXPLANATIONS),
    Column("cffid250_attfind_greedy_efficientnet_lite0", "FID EffNet", ".2f", protocol=EXPLANATIONS),
    Column(
        "cfsplitfid250_attfind_greedy_efficientnet_lite0", "split FID EffNet", ".2f", protocol=EXPLANATIONS
    ),
    Column("minimality250_attfind_greedy_digits", "minimality", protocol=EXPLANATIONS),
    Column("cout250_attfind_greedy", "COUT", protocol=EXPLANATIONS),
    Column("attstability250_attfind_greedy", "stability", protocol=EXPLANATIONS),
    Column("ls10k_w", "separability W", ".2f", protocol=EXPLANATIONS),
    Column("ls10k_s", "separability S", ".2f", protocol=EXPLANATIONS),
    Column("composition250", "drift", protocol=EXPLANATIONS),
)


def columns_for(dataset: str, protocol: str = "embedded") -> list[Column]:
    """Columns of a board of a dataset, by its name."""
    reference = "test" if dataset_entry(dataset).has_test_split else "full"
    of_dataset = [column for column in COLUMNS if column.on in ("all", reference)]
    shown = (protocol, "both") if protocol in PROTOCOLS else (protocol,)
    return [column for column in of_dataset if column.protocol in shown]


def metrics_for(dataset: str, protocol: str = "embedded") -> list[str]:
    """Metrics of the columns of a dataset's board."""
    return [column.metric for column in columns_for(dataset, protocol)]
