"""Fused against unfused modulated convolution: the same latents and noise rendered by both, compared.

Both are one formula (Karras et al. 2020, arXiv:1912.04958, eq. 1-3), so what differs is rounding, or a
defect. Which of the two a network really ran is read off the convolutions it called, never off a flag: a
network that ignores the flag would compare one path with itself and look perfect.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fact_metrics.base.errors import UserError
from fact_metrics.base.pixels import to_uint8
from fact_metrics.engines.conventions import RENDERING_DETECTOR
from fact_metrics.engines.pair_distances import mean_squared_difference, psnr_from_mse
from fact_metrics.features import get_detector
from fact_metrics.inputs import GeneratorInputs

BATCH = 50
PSNR_CEILING = 200.0
ONE_PATH = "one for both"
NOT_SEEN = "not seen"


class ConvolutionRecorder(TorchDispatchMode):
    """Counts, while active, the convolutions over a batch by whose weights they use.

    `per_sample`: one group, and so one set of weights, for every sample: what `fused` means. `shared`: one
    set of weights for the batch. Filters that keep channels apart are neither. `products`: batched matrix
    products, the way a 1x1 kernel to a few channels takes in either order. `dtypes`: of what is counted. A
    batch of one tells nothing apart, so nothing is counted there.
    """

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch, self.per_sample, self.shared, self.products = batch, 0, 0, 0
        self.dtypes: set[torch.dtype] = set()

    @property
    def path(self) -> str:
        """`fused`, `unfused`, `one for both` or `not seen`: which path ran while this was active."""
        if self.per_sample or self.shared:
            return "fused" if self.per_sample else "unfused"
        return ONE_PATH if self.products else NOT_SEEN

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        names = [argument.name for argument in func._schema.arguments]
        if "groups" in names and self.batch > 1:
            place = names.index("groups")
            groups = args[place] if place < len(args) else (kwargs or {}).get("groups", 1)
            self._count(args[0], args[1], groups)
        elif func is torch.ops.aten.baddbmm.default and len(args[1]) == self.batch:
            self.products += 1
            self.dtypes.add(args[1].dtype)
        return func(*args, **(kwargs or {}))

    def _count(self, x: torch.Tensor, weight: torch.Tensor, groups: int) -> None:
        if weight.shape[:2] == (groups, 1):  # one channel to one channel: a filter
            return
        per_sample = (len(x), groups) == (1, self.batch)
        shared = (len(x), groups) == (self.batch, 1)
        self.per_sample += per_sample
        self.shared += shared
        if per_sample or shared:
            self.dtypes.add(x.dtype)


@dataclass(frozen=True)
class RenderingPairs:
    """What is kept of N image pairs rendered by both paths: one value per pair [N], features [N, D].

    `paths`: what ran where fused, and where unfused, was asked for.
    """

    max_abs: torch.Tensor
    mean_abs: torch.Tensor
    mse: torch.Tensor
    changed: torch.Tensor
    lpips: torch.Tensor
    features_fused: torch.Tensor
    features_unfused: torch.Tensor
    paths: tuple[str, str]


def measure_pairs(
    generator: GeneratorInputs,
    *,
    pairs: int,
    detector: str = RENDERING_DETECTOR,
    device: torch.device | str = "cpu",
) -> RenderingPairs:
    """Render `pairs` images with fused and with unfused modulated convolution and compare them.

    Differences are of float images, neither clamped nor quantised; `changed` is the share of values that
    differ as uint8, which is also what the detector's features see. Raises UserError where the network calls
    convolutions, but not those of the path it was asked for.
    """
    network = get_detector(detector, device)
    rows, recorders = [], []
    for (fused, unfused), recorded in _render(generator, pairs):
        difference = (fused - unfused).abs().flatten(1)
        fused_uint8, unfused_uint8 = to_uint8(fused), to_uint8(unfused)
        recorders.append(recorded)
        rows.append(
            (
                difference.amax(dim=1),
                difference.mean(dim=1),
                mean_squared_difference(fused, unfused),
                (fused_uint8 != unfused_uint8).double().flatten(1).mean(dim=1),
                network.distance(fused, unfused),
                network(fused_uint8),
                network(unfused_uint8),
            )
        )
    values = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
    return RenderingPairs(*values, paths=_paths(recorders))


def compute_consistency_psnr(mse: torch.Tensor) -> float:
    """PSNR in dB of mean squared errors [N] of pairs in [-1, 1]. Higher is better; at most 200 (equal)."""
    return min(psnr_from_mse(mse.double().mean()).item(), PSNR_CEILING)


def _render(
    generator: GeneratorInputs, pairs: int
) -> Iterator[tuple[list[torch.Tensor], list[ConvolutionRecorder]]]:
    for start in range(0, pairs, BATCH):
        indices = range(start, min(start + BATCH, pairs))
        ws = generator.mapping(generator.latents(indices), generator.labels(indices))
        noise = generator.noise(indices)
        images, recorded = [], [ConvolutionRecorder(len(indices)) for _ in range(2)]
        for fused, recorder in zip((True, False), recorded, strict=True):
            with recorder:
                images.append(generator.synthesis(ws, noise, fused_modconv=fused))
        yield images, recorded
        generator.progress(indices[-1] + 1, pairs)


def _paths(recorders: list[list[ConvolutionRecorder]]) -> tuple[str, str]:
    seen = [
        {recorder.path for recorder in of_path if recorder.batch > 1} or {NOT_SEEN}
        for of_path in zip(*recorders, strict=True)
    ]
    fused, unfused = (" and ".join(sorted(paths)) for paths in seen)
    if (fused, unfused) not in (("fused", "unfused"), (NOT_SEEN, NOT_SEEN)):
        raise UserError(
            f"fused_modconv=True ran the {fused} convolutions and False the {unfused} ones: "
            "there are no two paths to compare"
        )
    return fused, unfused
